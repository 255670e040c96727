//! All of a worker's threads at once, for one that may start none later: where neither cgroups nor
//! a user of its own bound them, the kernel counts them with everybody's of the host's user, and a
//! worker could take all of those. What the threads do is [`Ticker`]'s and [`check`]'s.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use crate::check;
use crate::ticker::Ticker;

/// Until a thread that was started runs, on the busiest machine.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// Threads that cannot be started again are kept.
pub const KEPT: Duration = Duration::from_secs(u32::MAX as u64);

/// Within the runtime, whose threads have to be kept for [`KEPT`].
pub fn start_all(ticker: &Ticker) -> io::Result<()> {
    let none = || io::Error::new(io::ErrorKind::WouldBlock, "its threads cannot be started");
    if !ticker.start() {
        return Err(none());
    }
    let (started, all) = mpsc::channel();
    // Held by each until all are there, so that none does the work of two.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..check::THREADS {
        let (started, gate) = (started.clone(), Arc::clone(&gate));
        tokio::task::spawn_blocking(move || {
            let _ = started.send(());
            drop(gate.lock());
        });
    }
    for _ in 0..check::THREADS {
        all.recv_timeout(START_DEADLINE).map_err(|_| none())?;
    }
    drop(closed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|it| std::fs::read_to_string(it.path().join("comm")).ok());
        names.filter(|it| it.trim() == name).count()
    }

    #[test]
    fn each_has_a_thread_of_its_own_and_they_stay() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(check::THREADS)
            .thread_keep_alive(KEPT)
            .thread_name("all-at-once")
            .build()
            .unwrap();
        let ticker = Ticker::new(Vec::new());
        runtime.block_on(async {
            start_all(&ticker).unwrap();
            assert!(ticker.start());
            assert_eq!(named("all-at-once"), check::THREADS);
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            assert_eq!(named("all-at-once"), check::THREADS);
        });
    }
}
