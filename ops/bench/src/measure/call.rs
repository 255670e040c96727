//! A call by itself, without a socket: the worker's own `measure-call`, on what a host wrote for
//! it to serve, by turns with axum, which answers over its socket.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Setup;
use crate::cores::{self, Cores};
use crate::ground::{self, Ground};
use crate::host::Host;
use crate::others::{BODY, FUNCTION, Other};
use crate::rounds::{Measured, by_turns};
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

use super::hello::CONNECTIONS;

const FRESH: Goal = Goal::at_most(1.4).better(1.0);
const FRESH_ROW: &str = "a call in process, in a fresh instance, of axum's time an answer";
const TURNS: u32 = 8;
/// Of each kind, in a turn.
const CALLS: u32 = 10_000;
const NO_MEASURE: &str = "this build of the worker has no `measure-call`";
/// How the worker ends where it does not know what it is told.
const EXIT_USAGE: i32 = 2;

/// What a turn of `measure-call` says, microseconds.
#[derive(Default)]
struct Figures {
    fresh: Samples,
    reused: Samples,
    instance: Samples,
    answer: Samples,
}

/// Whoever has the turn has the server's core; who waits for it needs none.
pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let release = host.generation_of(&[(FUNCTION, &setup.guest(FUNCTION)?)])?;
    let worker = setup.measuring_worker()?;

    let ground = Ground::of(host.worker(&host.home)?)?;
    let axum = Other::axum(&ground, cores)?;
    let (mut figures, mut of_axum) = (Figures::default(), Measured::default());
    let mut subjects = [(axum.subject(), &mut of_axum)];
    for _ in 0..TURNS {
        if !turn(&worker, &release, &ground, cores, &mut figures)? {
            return Ok(vec![Row::unmeasured(FRESH_ROW, NO_MEASURE)]);
        }
        by_turns(cores, 1, CONNECTIONS, &mut subjects)?;
    }
    let Figures { fresh, reused, instance, answer } = figures;
    let aside =
        |what: &str, took: &Samples| Row::aside(what, format!("{} us", rounded(took.median())));
    Ok(vec![
        Row::ratio(FRESH_ROW, &fresh.of(&of_axum.cost), FRESH),
        Row::compared("the same in an instance that is used again", &reused.of(&of_axum.cost)),
        aside("a call in a fresh instance", &fresh),
        aside("in one that is used again", &reused),
        aside("an instance's making and end alone", &instance),
        aside("with HTTP over a pipe in memory", &answer),
        aside("axum's answer", &of_axum.cost),
    ])
}

/// Whether this worker can measure itself.
fn turn(
    worker: &Path,
    release: &Path,
    ground: &Ground,
    cores: Cores,
    figures: &mut Figures,
) -> anyhow::Result<bool> {
    let mut command = Command::new(worker);
    command.arg("measure-call").arg(release).arg(format!("/{FUNCTION}"));
    command.arg(str::from_utf8(BODY)?).arg(CALLS.to_string());
    let worker = ground::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let pid = worker.id().try_into()?;
    ground.take_in(pid)?;
    cores::keep_process(pid, cores.server)?;
    let ended = worker.wait_with_output()?;
    if ended.status.code() == Some(EXIT_USAGE) {
        return Ok(false);
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "measure-call ended with {}: {said}", ended.status);
    let measured: Value = serde_json::from_slice(&ended.stdout)?;
    let Figures { fresh, reused, instance, answer } = figures;
    for (name, samples) in
        [("fresh", fresh), ("reused", reused), ("instance", instance), ("answer", answer)]
    {
        let took = measured[format!("{name}_us")].as_f64();
        samples.push(took.with_context(|| format!("{name} was not measured: {measured}"))?);
    }
    Ok(true)
}
