//! What it costs that a worker can give its connections away: the worker beside the same one
//! that leaves them to hyper alone, under the same load at the tenant's own port.

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, Placed};
use crate::rounds::{Measured, Subject, by_turns};
use crate::table::{Goal, Row};

use super::BUSY;

const OF_PLAIN_HYPER: Goal = Goal::at_least(0.95);

/// Where a process happens to lie in memory can cost as much as what is looked for.
const STARTS: u32 = 5;

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let [mut plain, mut worker]: [Measured; 2] = Default::default();
    for _ in 0..STARTS {
        let hosts = [Host::start(&setup.measuring, &[])?, Host::start(&setup.programs, &[])?];
        let mut subjects =
            [(subject(&hosts[0], cores)?, &mut plain), (subject(&hosts[1], cores)?, &mut worker)];
        by_turns(cores, setup.rounds.div_ceil(STARTS), BUSY, &mut subjects)?;
    }
    let both = |of: fn(&Measured) -> f64| (of(&plain), of(&worker));
    let (plain_rate, rate) = both(|it| it.rate.median());
    let (plain_cost, cost) = both(|it| it.cost.median());
    let (plain_p99, p99) = both(|it| it.p99.median());
    Ok(vec![
        Row::ratio("worker, of one on plain hyper", &worker.rate.of(&plain.rate), OF_PLAIN_HYPER),
        Row::aside("its time an answer, of that one's", worker.cost.of(&plain.cost).with_spread()),
        Row::aside("answers a second: plain, worker", format!("{plain_rate:.0}, {rate:.0}")),
        Row::aside("time an answer, us", format!("{plain_cost:.1}, {cost:.1}")),
        Row::aside("99 of 100 answers within, ms", format!("{plain_p99:.1}, {p99:.1}")),
    ])
}

fn subject(host: &Host, cores: Cores) -> anyhow::Result<Subject<'static>> {
    host.place(cores, Placed::WorkerAlone)?;
    Ok(Subject {
        to: host.home.own,
        request: host.home.hello(),
        answer: HELLO_ANSWER,
        pids: vec![host.worker(&host.home)?],
    })
}
