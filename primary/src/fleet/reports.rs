//! What a tenant's workers have to tell of their calls, before somebody reads its logs: asked once at
//! a time, however many wait for it.

use std::mem;

use hearth_wire::ToWorker;

use super::inbox::Answer;
use super::workers::Workers;

#[derive(Default)]
pub struct Reports {
    /// Of the newest question.
    serial: u64,
    /// Who waits for the answers to it.
    asked: Vec<Answer<()>>,
    /// Who came later, and waits for the next one.
    next: Vec<Answer<()>>,
}

impl Reports {
    pub fn ask(&mut self, answer: Answer<()>) {
        self.next.push(answer);
    }

    /// What a worker that is ready only now has nothing to report of.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Answers whom all have answered, and asks for those who came since.
    pub fn settle(&mut self, workers: &mut Workers) {
        loop {
            let oldest = workers.ready().map(|(_, worker)| worker.reported).min();
            if oldest.is_some_and(|oldest| oldest < self.serial) {
                return;
            }
            for asked in self.asked.drain(..) {
                let _ = asked.send(());
            }
            // Whoever has stopped waiting is not asked for.
            self.next.retain(|answer| !answer.is_closed());
            if self.next.is_empty() {
                return;
            }
            self.serial += 1;
            self.asked = mem::take(&mut self.next);
            let serial = self.serial;
            let ready: Vec<_> = workers.ready().map(|(worker, _)| worker).collect();
            for worker in ready {
                workers.tell(worker, ToWorker::Report { serial }, vec![]);
            }
        }
    }
}
