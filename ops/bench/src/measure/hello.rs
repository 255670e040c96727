//! One small function, JSON in and JSON out, in a fresh instance a call: beside the same answer
//! from others, each alone on the server's core. And the same function where its instances may
//! be used again.

use anyhow::{bail, ensure};

use crate::Setup;
use crate::cores::Cores;
use crate::host::{Host, Placed, Tenant};
use crate::http::{Client, Timed};
use crate::others::{ANSWER, BODY, Cluster, FUNCTION, NO_FASTIFY, NO_WASMTIME, Other};
use crate::rounds::{Measured, Subject, by_turns, warm};
use crate::table::{Goal, Row};

const CONNECTIONS: usize = 64;
/// As `gate` has them, and for the same reason.
const STARTS: u32 = 3;
/// Rounds that do not count: JavaScript becomes machine code only when it has run for a while.
const WARMING: u32 = 3;

const OF_WASMTIME: Goal = Goal::at_least(5.5).better(7.0);
const OF_AXUM: Goal = Goal::at_least(0.40).better(0.50);
const OF_FASTIFY: Goal = Goal::at_least(2.0);
const P99_OF_FASTIFY: Goal = Goal::at_most(0.2);
const REUSED_OF_AXUM: Goal = Goal::at_least(0.65).better(0.75);

const REUSED: &str = "reused";
const REUSE: &str = r#"{"reuse":128}"#;
const NO_REUSE: &str = "this host has no option `reuse`";

#[derive(Default)]
struct All {
    fresh: Measured,
    reused: Measured,
    axum: Measured,
    wasmtime: Measured,
    fastify: Measured,
}

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let mut all = All::default();
    for _ in 0..STARTS {
        start(setup, cores, &mut all)?;
    }
    Ok(rows(&all))
}

/// Starts everyone once, and measures a part of the rounds.
fn start(setup: &Setup, cores: Cores, all: &mut All) -> anyhow::Result<()> {
    let host = Host::start(&setup.programs, &[])?;
    let home = &host.home;
    let module = setup.guest(FUNCTION)?;
    Client::new(home.own).call(&home.upload(&[(FUNCTION, &module)], None))?;
    let has_reuse = upload_reused(home, &module)?;
    host.place(cores, Placed::WorkerAlone)?;
    let worker = host.worker(home)?;
    let of_hearth = |function| Subject {
        to: home.own,
        request: home.call(function, BODY),
        answer: ANSWER,
        pids: vec![worker],
    };

    let axum = Other::axum(cores)?;
    let wasmtime = Other::wasmtime(&setup.wasmtime, &setup.guest_file(FUNCTION), cores)?;
    let mut cluster = Cluster::start(&setup.fastify)?;
    let mut subjects = vec![(of_hearth(FUNCTION), &mut all.fresh), (axum.subject(), &mut all.axum)];
    if has_reuse {
        subjects.push((of_hearth(REUSED), &mut all.reused));
    }
    if let Some(wasmtime) = &wasmtime {
        subjects.push((wasmtime.subject(), &mut all.wasmtime));
    }
    if let Some(cluster) = &mut cluster {
        let worker = cluster.fork()?;
        cluster.place(worker, cores)?;
        subjects.push((worker.subject(), &mut all.fastify));
    }
    warm(cores, WARMING, CONNECTIONS, &subjects)?;
    by_turns(cores, setup.rounds.div_ceil(STARTS), CONNECTIONS, &mut subjects)
}

/// Whether the host knows of instances that are used again.
fn upload_reused(home: &Tenant, module: &[u8]) -> anyhow::Result<bool> {
    let upload = home.upload(&[(REUSED, module)], Some(REUSE));
    let Timed { status, body, .. } = Client::new(home.own).time(&upload)?;
    let said = String::from_utf8_lossy(&body);
    match status {
        200 => Ok(true),
        400 => {
            ensure!(said.contains("`reuse`"), "an upload was refused: {said}");
            Ok(false)
        }
        _ => bail!("an upload was answered {status}: {said}"),
    }
}

fn rows(all: &All) -> Vec<Row> {
    let All { fresh, reused, axum, wasmtime, fastify } = all;
    let mut rows = Vec::new();
    let mut row = |what: &str, ratios, goal, missing| {
        rows.push(match missing {
            None => Row::ratio(what, &ratios, goal),
            Some(why) => Row::unmeasured(what, why),
        });
    };
    let unless = |measured: &Measured, why| measured.rate.is_empty().then_some(why);
    let no_wasmtime = unless(wasmtime, NO_WASMTIME);
    let no_fastify = unless(fastify, NO_FASTIFY);
    let no_reuse = unless(reused, NO_REUSE);
    row(
        "answers a second, of `wasmtime serve` with a pool",
        fresh.rate.of(&wasmtime.rate),
        OF_WASMTIME,
        no_wasmtime,
    );
    row("of axum, native code, one thread", fresh.rate.of(&axum.rate), OF_AXUM, None);
    row("of Fastify in a cluster worker", fresh.rate.of(&fastify.rate), OF_FASTIFY, no_fastify);
    row(
        "99 of 100 answers within, of Fastify's",
        fresh.p99.of(&fastify.p99),
        P99_OF_FASTIFY,
        no_fastify,
    );
    row("with `reuse: 128`, of axum", reused.rate.of(&axum.rate), REUSED_OF_AXUM, no_reuse);
    for (name, Measured { rate, cost, p99, load: _ }) in [
        ("fresh", fresh),
        ("reused", reused),
        ("axum", axum),
        ("wasmtime", wasmtime),
        ("Fastify", fastify),
    ] {
        if !rate.is_empty() {
            let (rate, cost, p99) = (rate.median(), cost.median(), p99.median());
            let said = format!("{rate:.0}; {cost:.1} us; {p99:.1} ms");
            rows.push(Row::aside(format!("{name}: a second; time each; 99 of 100"), said));
        }
    }
    let busy = axum.load.median() * axum.rate.median() / 1e4;
    rows.push(Row::aside("how busy the load was with axum's answers", format!("{busy:.0} %")));
    rows
}
