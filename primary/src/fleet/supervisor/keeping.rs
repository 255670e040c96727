//! What a supervisor does for who asks for a tenant's state while no worker serves its functions: the
//! [`Keeper`](crate::fleet::keeper::Keeper) decides, and this performs it.

use std::sync::Arc;
use std::time::Instant;

use hearth_wire::{Respite, Serves, ToWorker};

use super::Supervisor;
use crate::fleet::callers::Told;
use crate::fleet::error::Unavailable;
use crate::fleet::inbox::Answer;
use crate::fleet::keeper::End;
use crate::fleet::lifecycle::{DRAIN_DEADLINE, Event, Phase, Reception};
use crate::fleet::links::Links;
use crate::fleet::sockets;
use crate::fleet::start::{Known, fork};
use crate::fleet::unbound::Unbound;

impl Supervisor {
    /// Somebody was told that no worker serves.
    pub(super) fn keep(&mut self, answer: Answer<Result<Arc<Links>, Unavailable>>) {
        if !self.for_state.wait(answer) {
            return;
        }
        let is_refused = matches!(self.life.reception(), Reception::Refused(_));
        if !is_refused || self.life.current == Phase::Stopped {
            return;
        }
        let life = &mut self.life;
        let Some(worker) = self.keeper.asked(|| life.next_worker(), Instant::now()) else { return };
        self.workers.fork(worker);
        let start = self.start_of(worker, self.life.generation, Serves::State);
        // No function is told anything, and so secrets that cannot be opened are not in the way.
        let known = Known { settings: Some(Vec::new()), told: self.told.forks(worker) };
        self.tasks.spawn(fork(
            start,
            worker,
            known,
            self.tenant.clone(),
            // The tenant's listener is none of its business.
            sockets::unbound().map(Arc::new).map_err(|_| Unbound::Failed(self.tenant.port)),
            self.to_self.clone(),
            self.shared.clone(),
        ));
    }

    /// Ends what is to be ended, and answers who waits where there is something to say.
    pub(super) fn settle_keeper(&mut self) {
        let ends = self.keeper.overdue(Instant::now());
        self.end_keepers(ends);
        if self.for_state.is_empty() {
            return;
        }
        if self.life.current == Phase::Asleep {
            self.step(Event::Wanted);
        }
        let is_served = matches!(self.life.current, Phase::Ready { .. });
        let told = match self.keeper.worker().filter(|_| !is_served) {
            Some(keeper) => Told::Worker(keeper),
            None if self.keeper.is_coming() => Told::Wait,
            None => Told::of(&self.life, self.cause(), Instant::now()),
        };
        let answer = match told {
            Told::Wait => return,
            Told::Worker(worker) => match self.workers.get(worker) {
                Some(live) => Ok(live.links.clone()),
                // It has died and its end is in the inbox.
                None => return,
            },
            Told::Unavailable(unavailable) => Err(unavailable),
        };
        self.for_state.answer(&answer);
    }

    pub(super) fn dismiss_keeper(&mut self) {
        let ends = self.keeper.dismiss(Instant::now());
        self.end_keepers(ends);
    }

    pub(super) fn hurry_keeper(&mut self) {
        let ends = self.keeper.hurry();
        self.end_keepers(ends);
    }

    fn end_keepers(&mut self, ends: Vec<End>) {
        for end in ends {
            match end {
                End::Kill(worker, reason) => self.workers.kill(worker, reason.to_owned()),
                End::Close(worker) => {
                    let finish = ToWorker::Finish(Respite::now(DRAIN_DEADLINE));
                    self.workers.tell(worker, finish, vec![]);
                    self.workers.close_links(worker);
                    self.workers.tell(worker, ToWorker::Close, vec![]);
                }
            }
        }
    }
}
