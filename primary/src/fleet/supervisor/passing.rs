//! What a supervisor does with connections that change hands: from a worker that is done with them to
//! those that are parked, and from there to the worker that serves, or to the news that there is none.

use std::os::fd::OwnedFd;
use std::time::Instant;

use hearth_wire::{Passing, ToWorker};

use super::Supervisor;
use crate::fleet::lifecycle::{Event, Phase, Reception, WorkerId};
use crate::fleet::parking::{Connection, Entries};
use crate::fleet::talk::count_nonsense;

impl Supervisor {
    /// Takes connections that a worker is done with. It may be hostile: what it passes on is
    /// checked.
    pub(super) fn passed_on(&mut self, worker: WorkerId, passed: Vec<(OwnedFd, Passing)>) {
        if !self.workers.has(worker) {
            return;
        }
        let port = (self.shared.tenant_bind, self.tenant.port).into();
        let entries = Entries { port, front: self.shared.front };
        let goes_on = self.life.reception() == Reception::Worker;
        for (socket, passing) in passed {
            match Connection::inspect(socket, passing, entries, &self.shared.parking_room) {
                Ok(Some(connection)) => self.parking.take(connection, goes_on),
                Ok(None) => {}
                Err(nonsense) => {
                    count_nonsense(&self.tenant);
                    self.workers.kill(worker, nonsense.to_string());
                    return;
                }
            }
        }
        self.workers.tell(worker, ToWorker::Passed, vec![]);
    }

    /// Brings those that speak to a worker, or to the news that there is none.
    pub(super) fn settle_parking(&mut self) {
        self.parking.expire(Instant::now());
        if self.life.current == Phase::Stopped {
            self.parking.close_silent();
        }
        if !self.parking.has_awake() {
            return;
        }
        if self.life.current == Phase::Asleep {
            self.callers.notice();
            self.step(Event::Wanted);
        }
        match (&self.life.current, self.life.reception()) {
            (&Phase::Ready { worker, .. }, _) => {
                let batch = self.parking.pass_to(worker).unwrap_or_default();
                let passing = batch.iter().map(Connection::passing).collect::<Vec<_>>();
                let sockets = batch.iter().map(|connection| connection.socket.clone()).collect();
                if !passing.is_empty() {
                    self.workers.tell(worker, ToWorker::Pass(passing), sockets);
                }
            }
            (_, Reception::Refused(_)) => {
                for connection in self.parking.turn_away() {
                    if let Some((socket, unread)) = connection.into_socket() {
                        let reception = self.life.reception();
                        let cause = self.cause();
                        self.turning.turn(&self.tenant, (socket.into(), unread), reception, cause);
                    }
                }
            }
            (_, Reception::Worker | Reception::Watched | Reception::Held) => {}
        }
    }
}
