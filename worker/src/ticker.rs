//! The processor's time in slices: a thread that makes guests give way, each so often, and when the
//! time of one is up.
//!
//! ```text
//!  beats     |         |         |         |        one each 10 ms, while calls run
//!  aims             ×                  ×            the deadlines of calls that did not end at once
//!  ticks     |      |  |         |     |   |
//! ```
//!
//! A tick counts the epoch of every engine on, and a guest that runs looks at that. Whose time is up
//! is decided by [`crate::call`], once its guest has given way.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::Engine;

/// A guest gives way this often.
const BEAT: Duration = Duration::from_millis(10);
/// The ticker goes on this long without a call, so that steady calls do not wake it each time.
const BEATS_LINGERING: u32 = 50;
/// How late the runtime's own clocks may ring. Whoever waits for one of them is to be heard when a
/// guest gives way for it.
const GRAIN: Duration = Duration::from_millis(1);

/// Ticks while calls run. Started with the first call at the latest, long after the fork.
pub struct Ticker {
    /// `None` where nothing is to be stopped.
    engines: Option<Vec<Engine>>,
    beat: Arc<Beat>,
    /// `None` where it could not be started: calls then still end at their deadline, unless they
    /// never wait.
    thread: OnceLock<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Beat {
    running: AtomicUsize,
    /// Set by the ticker, under the lock, before it looks at `running` for the last time.
    parked: AtomicBool,
    plan: Mutex<Plan>,
    wanted: Condvar,
}

/// When to tick. Pure.
#[derive(Default)]
struct Plan {
    stop: bool,
    /// By their moment; the number tells those of the same apart.
    aims: BTreeSet<(Instant, u64)>,
    aimed: u64,
    /// When the ticker wakes by itself, while it does.
    wakes_at: Option<Instant>,
}

impl Plan {
    /// One aim more. Whether the ticker would sleep through it.
    fn aim(&mut self, at: Instant) -> ((Instant, u64), bool) {
        self.aimed += 1;
        let aim = (at, self.aimed);
        self.aims.insert(aim);
        (aim, self.wakes_at.is_some_and(|wakes_at| at < wakes_at))
    }

    fn next(&self, beat: Instant) -> Instant {
        self.aims.first().map_or(beat, |(at, _)| beat.min(*at))
    }

    /// What was aimed at until then has its tick.
    fn ticked(&mut self, now: Instant) {
        while self.aims.first().is_some_and(|(at, _)| *at <= now) {
            self.aims.pop_first();
        }
    }
}

/// Ticks until it is dropped.
pub struct Running {
    beat: Arc<Beat>,
}

/// A moment at which guests give way, unless it is dropped before.
pub struct Aim {
    beat: Arc<Beat>,
    aim: (Instant, u64),
}

impl Ticker {
    /// For guests of these.
    pub fn new(engines: Vec<Engine>) -> Self {
        Self { engines: Some(engines), beat: Arc::default(), thread: OnceLock::new() }
    }

    /// One that has no thread, and never ticks.
    pub fn none() -> Self {
        Self { engines: None, beat: Arc::default(), thread: OnceLock::new() }
    }

    /// Has its thread started, and tells whether there is one.
    pub fn start(&self) -> bool {
        let thread = self.thread.get_or_init(|| {
            let (engines, beat) = (self.engines.clone()?, Arc::clone(&self.beat));
            let tick = move || engines.iter().for_each(Engine::increment_epoch);
            std::thread::Builder::new()
                .name("ticker".to_owned())
                .stack_size(64 << 10)
                .spawn(move || beat.keep_ticking(BEAT, tick))
                .ok()
        });
        thread.is_some()
    }

    pub fn run(&self) -> Running {
        self.start();
        // Either the ticker sees that something runs, or this sees that it is parked.
        self.beat.running.fetch_add(1, Ordering::SeqCst);
        if self.beat.parked.load(Ordering::SeqCst) {
            let _plan = self.beat.lock();
            self.beat.parked.store(false, Ordering::SeqCst);
            self.beat.wanted.notify_one();
        }
        Running { beat: Arc::clone(&self.beat) }
    }

    /// Has guests give way when this moment has come for whoever waits for it. Takes a lock: for
    /// calls that have not ended at once, and for what is rare.
    pub fn aim(&self, at: Instant) -> Aim {
        let (aim, is_sooner) = self.beat.lock().aim(at + GRAIN);
        if is_sooner {
            self.beat.wanted.notify_one();
        }
        Aim { beat: Arc::clone(&self.beat), aim }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.beat.lock().stop = true;
        self.beat.wanted.notify_one();
        if let Some(Some(thread)) = self.thread.take() {
            thread.join().expect("the ticker only ticks");
        }
    }
}

impl Beat {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_ticking(&self, every: Duration, tick: impl Fn()) {
        let mut quiet = 0;
        let mut beat = Instant::now() + every;
        let mut plan = self.lock();
        while !plan.stop {
            let now = Instant::now();
            let next = plan.next(beat);
            if now < next {
                plan.wakes_at = Some(next);
                let waited = self.wanted.wait_timeout(plan, next - now);
                (plan, _) = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            plan.ticked(now);
            tick();
            if now < beat {
                continue;
            }
            let runs = self.running.load(Ordering::SeqCst) > 0;
            quiet = if runs { 0 } else { quiet + 1 };
            if quiet > BEATS_LINGERING {
                quiet = 0;
                plan = self.park(plan);
            }
            beat = Instant::now() + every;
        }
    }

    /// Until something runs.
    fn park<'a>(&self, mut plan: MutexGuard<'a, Plan>) -> MutexGuard<'a, Plan> {
        self.parked.store(true, Ordering::SeqCst);
        plan.wakes_at = None;
        if self.running.load(Ordering::SeqCst) == 0 {
            plan = self
                .wanted
                .wait_while(plan, |plan| !plan.stop && self.parked.load(Ordering::SeqCst))
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.parked.store(false, Ordering::SeqCst);
        plan
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.beat.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Aim {
    fn drop(&mut self) {
        self.beat.lock().aims.remove(&self.aim);
    }
}

/// What a guest does at a tick: the runtime looks at its sockets and clocks before it goes on, in
/// whichever task that is by then.
pub async fn give_way() {
    let mut given_by: Option<Waker> = None;
    poll_fn(|cx| {
        if given_by.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Ready(());
        }
        given_by = Some(cx.waker().clone());
        // Tokio's own yield, since only that ends the round.
        pin!(tokio::task::yield_now()).poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Wake};

    use hearth_engine::{EngineKind, Purpose};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_ticks_with_each_beat_and_at_each_aim_once() {
        let begun = Instant::now();
        let mut plan = Plan::default();
        assert_eq!(plan.next(begun + ms(10)), begun + ms(10));
        let (late, _) = plan.aim(begun + ms(25));
        let (soon, _) = plan.aim(begun + ms(7));
        let (same, _) = plan.aim(begun + ms(7));
        assert_ne!(soon, same);
        assert_eq!(plan.next(begun + ms(10)), begun + ms(7));
        plan.ticked(begun + ms(7));
        assert_eq!(plan.next(begun + ms(10)), begun + ms(10));
        plan.ticked(begun + ms(10));
        assert_eq!(plan.next(begun + ms(30)), begun + ms(25));
        plan.aims.remove(&late);
        assert_eq!(plan.next(begun + ms(30)), begun + ms(30));
    }

    #[test]
    fn only_an_aim_that_comes_before_its_next_tick_wakes_it() {
        let begun = Instant::now();
        let mut plan = Plan::default();
        assert!(!plan.aim(begun).1, "it is parked");
        plan.wakes_at = Some(begun + ms(10));
        let sooner = [0, 9, 10, 11].map(|at| plan.aim(begun + ms(at)).1);
        assert_eq!(sooner, [true, true, false, false]);
    }

    #[test]
    fn it_ticks_while_it_is_wanted_and_ends() {
        let engines = EngineKind::ALL.map(|kind| hearth_engine::engine(kind, Purpose::Run));
        let ticker = Ticker::new(engines.map(Result::unwrap).to_vec());
        let running = ticker.run();
        drop(running);
        let _again = ticker.run();
        drop(ticker);
    }

    /// Where a beat is far away, each tick is an aim's.
    #[test]
    fn it_is_there_when_it_was_aimed_at() {
        let (ticks, ticked) = mpsc::channel();
        let ticker = Ticker::new(vec![]);
        let beat = Arc::clone(&ticker.beat);
        let far = Duration::from_secs(3_600);
        let tick = move || ticks.send(Instant::now()).expect("somebody counts");
        let ticking = std::thread::spawn(move || beat.keep_ticking(far, tick));
        assert!(ticker.thread.set(Some(ticking)).is_ok());
        let _running = ticker.run();
        for wait in [3, 17, 0, 30] {
            let at = Instant::now() + ms(wait);
            let _gone = ticker.aim(at + ms(500));
            let aim = ticker.aim(at);
            assert!(ticked.recv().unwrap() >= at + GRAIN);
            drop(aim);
        }
        assert!(ticked.try_recv().is_err(), "nobody aimed at this");
    }

    /// One that began in its connection's task, and goes on in another.
    #[tokio::test]
    async fn whoever_goes_on_elsewhere_gives_way_there_as_well() {
        let mut giving = pin!(give_way());
        let mut poll = |waker: &Waker| giving.as_mut().poll(&mut Context::from_waker(waker));
        let (here, there) = (Waker::noop(), Waker::from(Arc::new(Elsewhere)));
        assert!(poll(here).is_pending());
        assert!(poll(&there).is_pending());
        assert!(poll(&there).is_ready());
    }

    struct Elsewhere;

    impl Wake for Elsewhere {
        fn wake(self: Arc<Self>) {}
    }
}
