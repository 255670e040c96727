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
const HANDED_OVER: &str = r#"hearth_front_connections_total{way="handed_over"}"#;

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    host.place(cores, Placed::Together)?;
    let pids = vec![host.primary()?, host.worker()?];
    let (own, front) = (host.own.to_string(), host.front.to_string());
    let subjects = [
        (host.own, host.hello(&own, "")),
        (host.front, host.hello(&host.name(), "")),
        (host.front, host.hello(&front, &host.path())),
    ]
    .map(|(to, request)| Subject { to, request, answer: HELLO_ANSWER, pids: pids.clone() });
    let [own, by_name, by_path] = by_turns(cores, setup.rounds, BUSY, &subjects)?;
    let each = |of: fn(&Measured) -> f64| [&own, &by_name, &by_path].map(of);
    let [own_rate, name_rate, path_rate] = each(|it| it.rate.median());
    let [own_cost, name_cost, path_cost] = each(|it| it.cost.median());
    let rates = format!("{own_rate:.0}, {name_rate:.0}, {path_rate:.0}");
    let costs = format!("{own_cost:.1}, {name_cost:.1}, {path_cost:.1}");
    let opened = setup.rounds as usize * BUSY;
    let handed_over = host.metric(HANDED_OVER)?.unwrap_or(0.0);
    Ok(vec![
        Row::ratio("by host name, of the tenant's own port", &by_name.rate_ratio, BY_NAME),
        Row::ratio("by path, of the tenant's own port", &by_path.rate_ratio, BY_PATH),
        Row::stated("answers a second: port, name, path", rates),
        Row::stated("the whole host's time an answer, us", costs),
        Row::stated("handed over by name", format!("{handed_over} of {opened} connections")),
    ])
}
