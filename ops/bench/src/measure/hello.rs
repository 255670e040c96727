//! One small function, JSON in and JSON out, in a fresh instance a call: beside the same answer
//! from others, each alone on the server's core. And the same function where its instances may
//! be used again.

use anyhow::{bail, ensure};

use crate::Setup;
use crate::cores::Cores;
use crate::ground::Ground;
use crate::host::{Host, Placed, Tenant};
use crate::http::{Client, Timed};
use crate::others::{ANSWER, BODY, Cluster, FUNCTION, NO_FASTIFY, NO_WASMTIME, Other};
use crate::rounds::{Measured, Subject, by_turns, warm};
use crate::samples::Samples;
use crate::table::{Goal, Row};

pub const CONNECTIONS: usize = 64;
/// As `gate` has them, and for the same reason.
const STARTS: u32 = 3;
/// Rounds that do not count: JavaScript becomes machine code only when it has run for a while.
const WARMING: u32 = 3;

const OF_AXUM: Goal = Goal::at_most(2.5).better(2.0);
const REUSED_OF_AXUM: Goal = Goal::at_most(1.8).better(1.6);
const WASMTIMES: Goal = Goal::at_least(5.0).better(7.0);

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

    let ground = Ground::of(worker)?;
    let axum = Other::axum(&ground, cores)?;
    let wasmtime = Other::wasmtime(&setup.wasmtime, &setup.guest_file(FUNCTION), &ground, cores)?;
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
        cluster.place(worker, &ground, cores)?;
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
    let missing = |measured: &Measured, why| measured.rate.is_empty().then_some(why);
    let [no_reuse, no_wasmtime, no_fastify] =
        [missing(reused, NO_REUSE), missing(wasmtime, NO_WASMTIME), missing(fastify, NO_FASTIFY)];
    let mut rows = Vec::new();
    let mut row = |what: &str, ratios: Samples, goal: Option<Goal>, missing: Option<&str>| {
        rows.push(match (missing, goal) {
            (Some(why), _) => Row::unmeasured(what, why),
            (None, Some(goal)) => Row::ratio(what, &ratios, goal),
            (None, None) => Row::compared(what, &ratios),
        });
    };
    row(
        "processor time an answer, of axum's (native code, one thread)",
        fresh.cost.of(&axum.cost),
        Some(OF_AXUM),
        None,
    );
    row("with `reuse: 128`", reused.cost.of(&axum.cost), Some(REUSED_OF_AXUM), no_reuse);
    row(
        "that of `wasmtime serve` with a pool, of ours",
        wasmtime.cost.of(&fresh.cost),
        Some(WASMTIMES),
        no_wasmtime,
    );
    row(
        "that of Fastify in a cluster worker, of ours",
        fastify.cost.of(&fresh.cost),
        None,
        no_fastify,
    );
    row("answers a second, of axum's", fresh.rate.of(&axum.rate), None, None);
    row("with `reuse: 128`", reused.rate.of(&axum.rate), None, no_reuse);
    row("of `wasmtime serve`'s", fresh.rate.of(&wasmtime.rate), None, no_wasmtime);
    row("of Fastify's", fresh.rate.of(&fastify.rate), None, no_fastify);
    row("99 of 100 answers within, of Fastify's", fresh.p99.of(&fastify.p99), None, no_fastify);
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
