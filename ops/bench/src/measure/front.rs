//! What a caller loses by coming through the front door: by host name, where the connection
//! itself goes to the worker, and by path, where each call is proxied, beside the tenant's own
//! port of the same host.

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, Placed};
use crate::rounds::{Measured, Subject, by_turns};
use crate::table::{Goal, Row};

use super::BUSY;

const BY_NAME: Goal = Goal::AtLeast(0.97);
const BY_PATH: Goal = Goal::AtLeast(0.75);
/// On one core the proxy takes from the worker, and the ratio is that of their whole cost; on two
/// it works beside it, and what a caller loses is waiting.
const PLACES: [(Placed, &str); 2] =
    [(Placed::Together, "host on one core"), (Placed::WorkerAlone, "on two")];
const HANDED_OVER: &str = r#"hearth_front_connections_total{way="handed_over"}"#;

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let pids = [host.primary()?, host.worker()?];
    let subjects = [
        (host.own, host.hello(&host.own.to_string(), "")),
        (host.front, host.hello(&host.name(), "")),
        (host.front, host.hello(&host.front.to_string(), &host.path())),
    ]
    .map(|(to, request)| Subject { to, request, answer: HELLO_ANSWER, pids: pids.to_vec() });
    let mut rows = Vec::new();
    for (placed, text) in PLACES {
        host.place(cores, placed)?;
        let mut three: [Measured; 3] = Default::default();
        by_turns(cores, setup.rounds, BUSY, &subjects, &mut three)?;
        let [_, by_name, by_path] = &three;
        rows.push(Row::ratio(
            format!("{text}: by name, of own port"),
            &by_name.rate_ratio,
            BY_NAME,
        ));
        rows.push(Row::ratio(
            format!("{text}: by path, of own port"),
            &by_path.rate_ratio,
            BY_PATH,
        ));
        let rates = three.each_ref().map(|it| format!("{:.0}", it.rate.median())).join(", ");
        let costs = three.each_ref().map(|it| format!("{:.1}", it.cost.median())).join(", ");
        rows.push(Row::stated("  answers a second: port, name, path", rates));
        rows.push(Row::stated("  the host's time an answer, us", costs));
    }
    let opened = PLACES.len() * setup.rounds as usize * BUSY;
    let handed_over = host.metric(HANDED_OVER)?.unwrap_or(0.0);
    rows.push(Row::stated("handed over by name", format!("{handed_over} of {opened} connections")));
    Ok(rows)
}
