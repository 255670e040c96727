//! The order of one round of the event loop: of what a look at the sockets found ready.
//!
//! ```text
//!  look ──► every request is read, and what it asks for is done ──► every answer ──► look
//! ```
//!
//! A runtime of one thread has a queue that is first in, first out, and whoever wakes itself goes to
//! its end. So connections that were ready together keep their order, and their answers leave one
//! right after another: their callers are woken once for all of them, where each answer by itself
//! would wake a core that has just fallen idle.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

/// When an answer that is made is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    AtOnce,
    /// Behind all that was ready with it.
    InRound,
}

/// Whether a connection's answer is made, and waits for its place in the round.
#[derive(Default)]
pub struct Due(AtomicBool);

impl Due {
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Until all that is ready by now had its turn.
    pub async fn behind_the_others(&self) {
        poll_fn(|cx| match self.0.fetch_not(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => {
                // Not tokio's own yield, which ends the round: it looks at the sockets first.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn those_that_are_ready_keep_their_order_and_all_are_passed() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let connections: Vec<_> = (0..100)
                .map(|number| {
                    let told = Arc::clone(&told);
                    tokio::spawn(async move {
                        let due = Due::default();
                        for step in ["runs", "answers"] {
                            told.lock().unwrap().push((step, number));
                            due.behind_the_others().await;
                            assert!(!due.is());
                        }
                    })
                })
                .collect();
            for connection in connections {
                connection.await.unwrap();
            }
        });
        let ran = (0..100).map(|number| ("runs", number));
        let answered = (0..100).map(|number| ("answers", number));
        assert_eq!(*told.lock().unwrap(), ran.chain(answered).collect::<Vec<_>>());
    }
}
