//! Connections outlive the process that serves them: from one generation to the next, over sleep,
//! over the death of a worker, and from the front door to a worker. Their clients see none of it.

mod crash;
mod front;
mod load;
mod sleep;
mod swap;

use crate::host::{Address, Host, Tenant};
use crate::http::{Answer, Connection, Request};
use crate::processes::{eventually, far_end};
use crate::traffic::{History, Step};

/// A tenant whose `/one` repeats what it is told and says in which version.
struct Stage {
    host: Host,
    tenant: Tenant,
    history: History,
}

impl Stage {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        let host = Host::with(options);
        let tenant = host.tenant("demo");
        let history = History::begin(&tenant);
        Self { host, tenant, history }
    }

    /// The two addresses at which a client's connection ends up at the worker itself.
    fn addresses(&self) -> [Address; 2] {
        let [port, name, _] = self.tenant.addresses();
        [port, name]
    }

    /// A connection that has had an answer.
    #[track_caller]
    fn kept(&self, address: &Address) -> Connection {
        let mut connection = Connection::open(address.to).unwrap();
        self.goes_on(address, &mut connection);
        connection
    }

    /// Another version serves when this returns. Returns the one that did.
    #[track_caller]
    fn swap(&self) -> Step {
        let before = self.history.current();
        self.history.upload();
        before
    }

    /// The connection is kept, and the version that is live serves it.
    #[track_caller]
    fn goes_on(&self, address: &Address, connection: &mut Connection) {
        let answer = connection.call(&ask(address, "again"));
        answered(&self.history.current(), "again", &answer);
    }

    /// No older worker is left behind.
    #[track_caller]
    fn settles(&self) {
        eventually("the end of older workers", || {
            (self.tenant.ask("/worker")["draining"] == 0).then_some(())
        });
    }
}

fn ask(address: &Address, body: &str) -> Request {
    address.request("POST", "/one").body(body)
}

#[track_caller]
fn answered(step: &Step, body: &str, answer: &Answer) {
    let said = (answer.status, answer.text(), &answer.headers);
    assert!(step.gave(answer, body), "{step:?} was asked {body:?}, and this was said: {said:?}");
}

/// Waits until everything that was sent has been read at the other end.
#[track_caller]
fn is_read(connection: &Connection) {
    eventually("a reader", || {
        far_end(connection.ends()).filter(|end| end.accepted && end.unread == 0).map(drop)
    });
}
