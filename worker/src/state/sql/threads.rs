//! The threads of connections that are guests' own: one for each while it is there, or all of them
//! from the beginning, where none may be started later.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Builder;

const STACK_BYTES: usize = 1 << 20;
const NAME: &str = "transaction";

/// What one does, until its connection is let go.
pub type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub struct Threads {
    /// Where those that are kept find their work.
    kept: OnceLock<Sender<Work>>,
}

impl Threads {
    /// Starts as many as there may be at once. They are kept.
    pub fn keep(&self, count: usize) -> io::Result<()> {
        let (work, wanted) = mpsc::channel::<Work>();
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..count {
            let wanted = Arc::clone(&wanted);
            let next = move || wanted.lock().unwrap_or_else(PoisonError::into_inner).recv();
            start(Box::new(move || {
                while let Ok(work) = next() {
                    work();
                }
            }))?;
        }
        // Where they were kept already, those of before go on.
        let _ = self.kept.set(work);
        Ok(())
    }

    /// Of those that there may be, one is free.
    pub fn run(&self, work: Work) -> io::Result<()> {
        match self.kept.get() {
            Some(kept) => kept.send(work).map_err(|_| io::ErrorKind::BrokenPipe.into()),
            None => start(work),
        }
    }
}

fn start(work: Work) -> io::Result<()> {
    Builder::new().name(NAME.to_owned()).stack_size(STACK_BYTES).spawn(work).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_kept_do_one_work_after_another() {
        let threads = Threads::default();
        let (said, heard) = mpsc::channel();
        for kept in [false, true] {
            if kept {
                threads.keep(2).unwrap();
            }
            let mut ids = std::collections::HashSet::new();
            for _ in 0..6 {
                let said = said.clone();
                let say = move || said.send(std::thread::current().id()).unwrap();
                threads.run(Box::new(say)).unwrap();
                ids.insert(heard.recv().unwrap());
            }
            assert_eq!(ids.len() <= 2, kept);
        }
    }
}
