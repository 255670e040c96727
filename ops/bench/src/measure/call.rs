//! A call by itself, without a socket: the worker's own `measure-call`, on what a host wrote for
//! it to serve.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Setup;
use crate::cores::{self, Cores};
use crate::host::Host;
use crate::http::Client;
use crate::others::{BODY, FUNCTION};
use crate::table::{Goal, Row, rounded};

const FRESH: Goal = Goal::at_most(18.0).better(14.0);
const FRESH_ROW: &str = "a call in process, in a fresh instance";
const NO_REUSE: &str = "this build of the worker uses no instance again";
const NO_MEASURE: &str = "this build of the worker has no `measure-call`";
/// How the worker ends where it does not know what it is told.
const EXIT_USAGE: i32 = 2;

/// The worker has the server's core; who waits for it needs none.
pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let home = &host.home;
    let upload = home.upload(&[(FUNCTION, &setup.guest(FUNCTION)?)], None);
    let uploaded: Value = serde_json::from_slice(&Client::new(home.own).call(&upload)?)?;
    let generation = &uploaded["generation"];
    let release = host.data().join(format!("tenants/{}/releases/{generation}", home.name));
    let worker = fs::canonicalize(setup.measuring.join("hearth-worker"));
    let mut worker = Command::new(worker.context("the worker that measures")?);
    worker.arg("measure-call").arg(release).arg(format!("/{FUNCTION}"));
    worker.arg(str::from_utf8(BODY)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    let worker = worker.spawn()?;
    cores::keep_process(worker.id().try_into()?, cores.server)?;
    let ended = worker.wait_with_output()?;
    if ended.status.code() == Some(EXIT_USAGE) {
        return Ok(vec![Row::unmeasured(FRESH_ROW, NO_MEASURE)]);
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "measure-call ended with {}: {said}", ended.status);
    let figures: Value = serde_json::from_slice(&ended.stdout)?;
    let figure = |name: &str| figures[name].as_f64();
    let aside = |what: &str, name: &str| {
        let said = figure(name).map_or("not said".to_owned(), |it| format!("{} us", rounded(it)));
        Row::aside(what, said)
    };
    let fresh = figure("fresh_us").with_context(|| format!("no call was measured: {figures}"))?;
    let reused = "the same in an instance that is used again";
    Ok(vec![
        Row::figure(FRESH_ROW, fresh, " us", FRESH),
        match figure("reused_us") {
            Some(took) => Row::stated(reused, format!("{} us", rounded(took))),
            None => Row::unmeasured(reused, NO_REUSE),
        },
        aside("an instance's making and end alone", "instance_us"),
        aside("with HTTP over a pipe in memory", "answer_us"),
    ])
}
