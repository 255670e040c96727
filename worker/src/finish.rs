//! That a worker's time comes to its end, as calls and connections hear of it. When that is the
//! primary says, and [`crate::control`] tells it here.

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Time {
    Left,
    /// Calls are given up, and answered where that can still be.
    Up,
    /// What is left of calls is cut, whoever still reads from it.
    Over,
}

pub struct Finish {
    time: watch::Sender<Time>,
}

impl Finish {
    pub fn new() -> Self {
        Self { time: watch::Sender::new(Time::Left) }
    }

    pub fn is(&self, time: Time) {
        self.time.send_replace(time);
    }

    /// Cancel-safe. Costs nothing before it is polled.
    pub async fn comes(&self, time: Time) {
        let mut seen = self.time.subscribe();
        // Its sender is here.
        let _ = seen.wait_for(|now| *now >= time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_late_hears_it_as_well() {
        let finish = Finish::new();
        let comes = async |time| {
            tokio::select! {
                biased;
                () = finish.comes(time) => true,
                () = std::future::ready(()) => false,
            }
        };
        assert_eq!([comes(Time::Up).await, comes(Time::Over).await], [false, false]);
        finish.is(Time::Up);
        assert_eq!([comes(Time::Up).await, comes(Time::Over).await], [true, false]);
        finish.is(Time::Over);
        assert_eq!([comes(Time::Up).await, comes(Time::Over).await], [true, true]);
    }
}
