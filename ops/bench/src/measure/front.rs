//! What a caller loses by coming through the front door: by host name, where the connection
//! itself goes to the worker, and by path, where each call is proxied, beside the tenant's own
//! port of the same host.

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, Placed};
use crate::rounds::{Measured, Subject, by_turns};
use crate::table::{Goal, Row};

use super::BUSY;

const BY_NAME: Goal = Goal::at_least(0.97);
const BY_PATH: Goal = Goal::at_least(0.75);
/// On one core the proxy takes from the worker, and the ratio is that of their whole cost; on two
/// it works beside it, and what a caller loses is waiting.
const PLACES: [(Placed, &str); 2] =
    [(Placed::Together, "host on one core"), (Placed::WorkerAlone, "on two")];
const HANDED_OVER: &str = r#"hearth_front_connections_total{way="handed_over"}"#;

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let (home, front) = (&host.home, host.front);
    let pids = [host.primary()?, host.worker(home)?];
    let ways = [
        (home.own, home.hello()),
        (front, home.hello_by_name(front)),
        (front, home.hello_by_path(front)),
    ];
    let mut rows = Vec::new();
    for (placed, text) in PLACES {
        host.place(cores, placed)?;
        let mut three: [Measured; 3] = Default::default();
        let mut subjects = Vec::new();
        for ((to, request), measured) in ways.iter().zip(&mut three) {
            let (to, request, pids) = (*to, request.clone(), pids.to_vec());
            subjects.push((Subject { to, request, answer: HELLO_ANSWER, pids }, measured));
        }
        by_turns(cores, setup.rounds, BUSY, &mut subjects)?;
        let [own, by_name, by_path] = &three;
        rows.push(Row::ratio(
            format!("{text}: by name, of own port"),
            &by_name.rate.of(&own.rate),
            BY_NAME,
        ));
        rows.push(Row::ratio(
            format!("{text}: by path, of own port"),
            &by_path.rate.of(&own.rate),
            BY_PATH,
        ));
        let rates = three.each_ref().map(|it| format!("{:.0}", it.rate.median())).join(", ");
        let costs = three.each_ref().map(|it| format!("{:.1}", it.cost.median())).join(", ");
        rows.push(Row::aside("answers a second: port, name, path", rates));
        rows.push(Row::aside("the host's time an answer, us", costs));
    }
    let opened = PLACES.len() * setup.rounds as usize * BUSY;
    let handed_over = host.metric(HANDED_OVER)?.unwrap_or(0.0);
    rows.push(Row::aside("handed over by name", format!("{handed_over} of {opened} connections")));
    Ok(rows)
}
