//! How many calls there may be: those that run, those that wait for their turn, and those that come
//! in a second; and how fast connections may come on which nobody calls.
//!
//! Owns the permits with their rate, the pace of newcomers, and the counts of running calls. How
//! long a guest may have the processor is [`crate::ticker`]'s; what a refusal is answered with is
//! decided in [`crate::serve`]; what an instance may have of memory, in `hearth_host`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hearth_wire::{Limits, limits};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Why a call gets no turn.
#[derive(Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// All turns are taken and too many calls wait already.
    Crowded,
    /// The tenant's rate is used up; it allows a call again after this.
    TooFast(Duration),
}

/// The turns of one tenant's calls.
pub struct Permits {
    running: Arc<Semaphore>,
    most_running: usize,
    waiting: AtomicUsize,
    most_waiting: usize,
    thinned: Notify,
    rate: Option<Mutex<Rate>>,
}

pub struct Permit {
    _turn: OwnedSemaphorePermit,
}

impl Permits {
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let most = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let most_running = most(limits.calls_running);
        let per_second = u32::try_from(limits.rate_per_second).unwrap_or(u32::MAX);
        let burst = u32::try_from(limits.rate_burst).unwrap_or(u32::MAX);
        Self {
            running: Arc::new(Semaphore::new(most_running)),
            most_running,
            waiting: AtomicUsize::new(0),
            most_waiting: most(limits.calls_waiting),
            thinned: Notify::new(),
            rate: (per_second > 0).then(|| Mutex::new(Rate::new(per_second, burst, now))),
        }
    }

    /// With so many waiting, no connection is taken that speaks already: it waits where it is,
    /// so that a crowd which comes at once is served in turn and not refused.
    fn crowd(&self) -> usize {
        (self.most_waiting / 2).max(1)
    }

    pub fn are_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.crowd()
    }

    /// Calls that run now, and that wait.
    pub fn in_use(&self) -> (usize, usize) {
        let running = self.most_running.saturating_sub(self.running.available_permits());
        (running, self.waiting.load(Ordering::Relaxed))
    }

    /// Resolves when they are crowded no more. Cancel-safe.
    pub async fn thinned(&self) {
        self.thinned.notified().await;
    }

    /// Counts a call that comes, unless the rate does not allow it or it could not even wait: so
    /// nobody sends a body for nothing.
    pub fn come(&self, now: Instant) -> Result<(), NoTurn> {
        if let Some(rate) = &self.rate {
            let mut rate = rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.take(now).map_err(NoTurn::TooFast)?;
        }
        let is_full = self.waiting.load(Ordering::Relaxed) >= self.most_waiting
            && self.running.available_permits() == 0;
        if is_full { Err(NoTurn::Crowded) } else { Ok(()) }
    }

    /// Waits for a turn, unless too many do.
    pub async fn turn(&self) -> Result<Permit, NoTurn> {
        if let Ok(turn) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Permit { _turn: turn });
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NoTurn::Crowded);
        }
        // Also counts down when the caller goes away and this future with it.
        let _waiting = Waiting(self);
        let turn = Arc::clone(&self.running).acquire_owned().await;
        Ok(Permit { _turn: turn.expect("the semaphore is never closed") })
    }
}

/// So many calls a second in the long run, and after a pause so many at once. Pure.
struct Rate {
    /// From one call to the next, where they come evenly.
    apart: Duration,
    burst: u32,
    /// When all that may be saved up is. Each call puts it off by one step.
    full_at: Instant,
}

impl Rate {
    fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        Self { apart: Duration::from_secs(1) / per_second, burst, full_at: now }
    }

    /// Counts a call, or says how long until there may be one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let after = self.full_at.max(now) + self.apart;
        let most = self.apart.saturating_mul(self.burst);
        match after.saturating_duration_since(now).checked_sub(most) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = after;
                Ok(())
            }
        }
    }

    /// Takes one back that was counted.
    fn give_back(&mut self) {
        self.full_at -= self.apart;
    }
}

/// How fast connections may come on which nobody asks anything. To serve one to its end is work that
/// whoever connects in a loop has done for nothing, and that would take a whole core from the
/// neighbours; beyond this pace they wait in the kernel's queue, where most of them go by
/// themselves. One that asks is not counted any more.
pub struct Newcomers {
    rate: Mutex<Rate>,
}

impl Newcomers {
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let burst = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        Self { rate: Mutex::new(Rate::new(limits::SILENT_PER_SECOND, burst, now)) }
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one that was taken. `Err` says for how long no other should be, and that this one
    /// was not counted.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        self.rate().take(now)
    }

    /// One that was counted has asked something.
    pub fn give_back(&self) {
        self.rate().give_back();
    }
}

/// Connections from outside that a worker serves at once: as many as its tenant may have, and no more
/// than half of its descriptors, since artifacts, links and what is on its way need some, too.
pub fn connections(limits: &Limits, descriptors: u64) -> u64 {
    limits.connections.min(descriptors / 2).max(1)
}

struct Waiting<'a>(&'a Permits);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == self.0.crowd() {
            self.0.thinned.notify_one();
        }
    }
}

/// How many calls there are, and since when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    pub calls: usize,
    pub quiet_since: Instant,
}

impl Activity {
    pub fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            quiet_since: self.quiet_since.max(other.quiet_since),
        }
    }
}

/// Counts calls. Costs nobody a wake-up but who waits for the last one's end.
#[derive(Clone)]
pub struct ActivityCount {
    counted: Arc<Counts>,
}

struct Counts {
    calls: AtomicUsize,
    quiet_since: Mutex<Instant>,
    quiet: Notify,
}

/// One call, from being let in until nothing of it is left.
pub struct Counted {
    count: ActivityCount,
}

impl ActivityCount {
    pub fn new() -> Self {
        let quiet_since = Mutex::new(Instant::now());
        let calls = AtomicUsize::new(0);
        Self { counted: Arc::new(Counts { calls, quiet_since, quiet: Notify::new() }) }
    }

    pub fn now(&self) -> Activity {
        Activity {
            calls: self.counted.calls.load(Ordering::Relaxed),
            quiet_since: *self.quiet_since(),
        }
    }

    /// Resolves when the last call has ended. Cancel-safe.
    pub async fn quiet(&self) {
        loop {
            let quiet = self.counted.quiet.notified();
            if self.counted.calls.load(Ordering::Relaxed) == 0 {
                return;
            }
            quiet.await;
        }
    }

    pub fn begin(&self) -> Counted {
        self.counted.calls.fetch_add(1, Ordering::Relaxed);
        Counted { count: self.clone() }
    }

    fn quiet_since(&self) -> MutexGuard<'_, Instant> {
        self.counted.quiet_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.count.counted.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.count.quiet_since() = Instant::now();
            self.count.counted.quiet.notify_waiters();
        }
    }
}

/// The guests' tasks. They outlive their connections where a guest works on after its answer.
#[derive(Default)]
pub struct Calls {
    running: AtomicUsize,
    ended: Notify,
}

impl Calls {
    /// One more, which [`Calls::end`] ends.
    pub fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        if self.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.ended.notify_waiters();
        }
    }

    /// Waits for those that are left; no new one comes any more.
    pub async fn finish(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        let of = |limit, descriptors| {
            connections(&Limits { connections: limit, ..Limits::default() }, descriptors)
        };
        assert_eq!([of(1_000, 4_096), of(1_000, 512), of(10, 512), of(1, 1)], [1_000, 256, 10, 1]);
    }

    #[test]
    fn so_many_run_and_the_next_ones_wait_up_to_a_bound() {
        runtime().block_on(async {
            let now = Instant::now();
            let limits = Limits::default();
            let permits = Arc::new(Permits::new(&limits, now));
            let mut running = Vec::new();
            for _ in 0..limits.calls_running {
                assert_eq!(permits.come(now), Ok(()));
                running.push(permits.turn().await.map_err(|_| ()).unwrap());
            }
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..limits.calls_waiting {
                let permits = Arc::clone(&permits);
                waiting.spawn(
                    async move { permits.come(now).is_ok() && permits.turn().await.is_ok() },
                );
            }
            while permits.in_use() != (64, 256) {
                tokio::task::yield_now().await;
            }
            assert_eq!(permits.come(now), Err(NoTurn::Crowded));
            assert_eq!(permits.turn().await.err(), Some(NoTurn::Crowded));
            assert!(permits.are_crowded());
            drop(running.pop());
            assert!(waiting.join_next().await.unwrap().unwrap());
            waiting.abort_all();
            while waiting.join_next().await.is_some() {}
            permits.thinned().await;
            assert!(!permits.are_crowded());
            drop(running);
            assert_eq!(permits.in_use(), (0, 0));
        });
    }

    #[test]
    fn a_rate_allows_its_burst_and_then_its_steps() {
        let began = Instant::now();
        let mut rate = Rate::new(100, 3, began);
        let mut at = |ms| rate.take(began + Duration::from_millis(ms)).err().map(|w| w.as_millis());
        assert_eq!([at(0), at(0), at(0)], [None, None, None]);
        assert_eq!(at(0), Some(10));
        assert_eq!(at(4), Some(6));
        assert_eq!([at(10), at(10)], [None, Some(10)]);
        // A refused call costs nothing, and a long pause saves up no more than the burst.
        assert_eq!([at(5_000), at(5_000), at(5_000), at(5_000)], [None, None, None, Some(10)]);
    }

    #[test]
    fn who_asks_is_no_newcomer() {
        let (began, limits) = (Instant::now(), Limits::default());
        let newcomers = Newcomers::new(&limits, began);
        for _ in 0..100_000 {
            assert_eq!(newcomers.take(began), Ok(()));
            newcomers.give_back();
        }
        for _ in 0..limits.connections {
            assert_eq!(newcomers.take(began), Ok(()));
        }
        let wait = newcomers.take(began).unwrap_err();
        assert!(wait <= Duration::from_secs(1) / limits::SILENT_PER_SECOND, "{wait:?}");
        let second = began + Duration::from_secs(1);
        let taken = (0..).take_while(|_| newcomers.take(second).is_ok()).count();
        assert_eq!(taken as u64, limits.connections.min(limits::SILENT_PER_SECOND.into()));
    }

    #[test]
    fn a_tenant_without_a_rate_has_none() {
        let now = Instant::now();
        let limits = Limits { rate_burst: 1, ..Limits::default() };
        let permits = Permits::new(&limits, now);
        for _ in 0..10 {
            assert_eq!(permits.come(now), Ok(()));
        }
        let limits = Limits { rate_per_second: 1, ..limits };
        let permits = Permits::new(&limits, now);
        assert_eq!(permits.come(now), Ok(()));
        assert_eq!(permits.come(now), Err(NoTurn::TooFast(Duration::from_secs(1))));
    }

    #[test]
    fn activity_tells_of_the_last_ones_end() {
        runtime().block_on(async {
            let count = ActivityCount::new();
            let began = count.now().quiet_since;
            count.quiet().await;
            let (first, second) = (count.begin(), count.begin());
            let mut quiet = std::pin::pin!(count.quiet());
            let mut is_quiet = async || {
                std::future::poll_fn(|cx| Poll::Ready(quiet.as_mut().poll(cx).is_ready())).await
            };
            assert!(!is_quiet().await);
            drop(first);
            assert!(!is_quiet().await && count.now().calls == 1);
            drop(second);
            assert!(is_quiet().await && count.now().calls == 0);
            assert!(count.now().quiet_since > began);
        });
    }
}
