//! What calls may take of the worker: a turn, memory, and the processor's time in slices.
//!
//! Owns the permits, the count of running calls, one instance's memory bound, and the ticker
//! that makes a guest without end give way. What a refusal is answered with is decided in
//! [`crate::serve`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hearth_wire::limits::{CALLS_RUNNING_MAX, CALLS_WAITING_MAX};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use wasmtime::{Engine, ResourceLimiter};

/// A guest gives way this often.
const TICK: Duration = Duration::from_millis(10);
/// The ticker goes on this long without a call, so that steady calls do not wake it each time.
const TICKS_LINGERING: u32 = 50;

/// All permits are taken and too many calls wait already.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// With this many waiting, no connection is taken that speaks already: it waits where it is, so
/// that a crowd which comes at once is served in turn and not refused.
const CROWD: usize = CALLS_WAITING_MAX / 2;

/// The turns of one tenant's calls.
pub struct Permits {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    thinned: Notify,
}

pub struct Permit {
    _turn: OwnedSemaphorePermit,
}

impl Permits {
    pub fn new() -> Self {
        Self {
            running: Arc::new(Semaphore::new(CALLS_RUNNING_MAX)),
            waiting: AtomicUsize::new(0),
            thinned: Notify::new(),
        }
    }

    pub fn are_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= CROWD
    }

    /// Resolves when they are crowded no more. Cancel-safe.
    pub async fn thinned(&self) {
        self.thinned.notified().await;
    }

    /// Waits for a turn, unless too many do.
    pub async fn turn(&self) -> Result<Permit, Busy> {
        if let Ok(turn) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(Permit { _turn: turn });
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= CALLS_WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        // Also counts down when the caller goes away and this future with it.
        let _waiting = Waiting(self);
        let turn = Arc::clone(&self.running).acquire_owned().await;
        Ok(Permit { _turn: turn.expect("the semaphore is never closed") })
    }
}

struct Waiting<'a>(&'a Permits);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == CROWD {
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

/// Counts calls. Whoever watches is told when the last one ended.
#[derive(Clone)]
pub struct ActivityCount {
    count: Arc<watch::Sender<Activity>>,
}

/// One call, from being let in until nothing of it is left.
pub struct Counted {
    count: ActivityCount,
}

impl ActivityCount {
    pub fn new() -> Self {
        let none = Activity { calls: 0, quiet_since: Instant::now() };
        Self { count: Arc::new(watch::Sender::new(none)) }
    }

    pub fn watch(&self) -> watch::Receiver<Activity> {
        self.count.subscribe()
    }

    pub fn begin(&self) -> Counted {
        self.count.send_if_modified(|activity| {
            activity.calls += 1;
            false
        });
        Counted { count: self.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.count.send_if_modified(|activity| {
            activity.calls -= 1;
            activity.quiet_since = Instant::now();
            activity.calls == 0
        });
    }
}

/// All memories of one instance together.
pub struct MemoryLimit {
    most: usize,
    held: usize,
    refused: bool,
}

impl MemoryLimit {
    pub fn new(most: usize) -> Self {
        Self { most, held: 0, refused: false }
    }

    /// Whether the guest asked for more than it may have: a trap after that is for want of it.
    pub fn was_reached(&self) -> bool {
        self.refused
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let held = self.held.saturating_add(desired.saturating_sub(current));
        if held > self.most {
            self.refused = true;
            return Ok(false);
        }
        // Above its own maximum the engine refuses by itself, and nothing is held.
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.held = held;
        }
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Bounded by the pool.
        Ok(true)
    }
}

/// A thread that counts the engine's epoch on while calls run. Started with the first call, long
/// after the fork.
pub struct Ticker {
    engine: Engine,
    beat: Arc<Beat>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Beat {
    state: Mutex<BeatState>,
    wanted: Condvar,
}

#[derive(Default)]
struct BeatState {
    running: usize,
    parked: bool,
    stop: bool,
}

pub struct Running {
    beat: Arc<Beat>,
}

impl Ticker {
    pub fn new(engine: Engine) -> Self {
        Self { engine, beat: Arc::default(), thread: Mutex::new(None) }
    }

    /// Ticks until the answer is dropped.
    pub fn run(&self) -> Running {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (engine, beat) = (self.engine.clone(), Arc::clone(&self.beat));
            let started = std::thread::Builder::new()
                .name("ticker".to_owned())
                .stack_size(64 << 10)
                .spawn(move || beat.keep_ticking(&engine));
            // Without it calls still end at their deadline, unless they never wait.
            *thread = started.ok();
        }
        let mut state = self.beat.lock();
        state.running += 1;
        if std::mem::take(&mut state.parked) {
            self.beat.wanted.notify_one();
        }
        Running { beat: Arc::clone(&self.beat) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.beat.lock().stop = true;
        self.beat.wanted.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.join().expect("the ticker only ticks");
        }
    }
}

impl Beat {
    fn lock(&self) -> std::sync::MutexGuard<'_, BeatState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_ticking(&self, engine: &Engine) {
        let mut quiet = 0;
        let mut state = self.lock();
        while !state.stop {
            quiet = if state.running > 0 { 0 } else { quiet + 1 };
            if quiet > TICKS_LINGERING {
                state.parked = true;
                state = self
                    .wanted
                    .wait_while(state, |state| state.parked && !state.stop)
                    .unwrap_or_else(PoisonError::into_inner);
                quiet = 0;
            } else {
                (state, _) = self
                    .wanted
                    .wait_timeout_while(state, TICK, |state| !state.stop)
                    .unwrap_or_else(PoisonError::into_inner);
                engine.increment_epoch();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.beat.lock().running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn sixty_four_run_and_the_next_ones_wait_up_to_a_bound() {
        runtime().block_on(async {
            let permits = Arc::new(Permits::new());
            let mut running = Vec::new();
            for _ in 0..CALLS_RUNNING_MAX {
                running.push(permits.turn().await.map_err(|_| ()).unwrap());
            }
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..CALLS_WAITING_MAX {
                let permits = Arc::clone(&permits);
                waiting.spawn(async move { permits.turn().await.is_ok() });
            }
            while permits.waiting.load(Ordering::Relaxed) < CALLS_WAITING_MAX {
                tokio::task::yield_now().await;
            }
            assert!(permits.turn().await.is_err() && permits.are_crowded());
            drop(running.pop());
            assert!(waiting.join_next().await.unwrap().unwrap());
            waiting.abort_all();
            while waiting.join_next().await.is_some() {}
            permits.thinned().await;
            assert!(!permits.are_crowded());
            assert_eq!(permits.waiting.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn activity_tells_of_the_last_one_only() {
        let count = ActivityCount::new();
        let mut seen = count.watch();
        let (first, second) = (count.begin(), count.begin());
        drop(first);
        assert!(!seen.has_changed().unwrap());
        drop(second);
        assert!(seen.has_changed().unwrap());
        assert_eq!(seen.borrow_and_update().calls, 0);
    }

    #[test]
    fn memories_are_counted_together() {
        let mut limit = MemoryLimit::new(100);
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.memory_growing(0, 40, Some(40)).unwrap());
        assert!(!limit.was_reached());
        assert!(!limit.memory_growing(60, 61, None).unwrap());
        assert!(limit.was_reached());
    }

    #[test]
    fn the_ticker_ticks_while_it_is_wanted_and_ends() {
        let engine = hearth_engine::engine(hearth_engine::Purpose::Run).unwrap();
        let ticker = Ticker::new(engine);
        let running = ticker.run();
        drop(running);
        let _again = ticker.run();
        drop(ticker);
    }
}
