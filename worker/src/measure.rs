//! Measures a call by itself, without a socket: what the bench runs and what profilers look at.
//! Never part of what is installed.
//!
//! ```text
//! hearth-worker measure-call RELEASE [PATH [BODY [CALLS [KIND]]]]
//! ```
//!
//! RELEASE is a generation's directory, with its manifest and its artifacts. PATH is one of its
//! functions, by default the first; BODY what is posted, by default an empty JSON object; CALLS
//! how many are made of each kind, by default 50,000; KIND the only kind to measure. Prints one
//! line of JSON:
//!
//! ```json
//! {"function":"/hello","calls":50000,"fresh_us":17.20,"reused_us":6.10,"instance_us":7.90,"answer_us":22.40}
//! ```
//!
//! - `fresh`: a whole call as [`crate::call`] makes it, from the request to the body's last byte
//!   and the instance's end, each with an instance of its own.
//! - `reused`: the same with instances that serve 128 calls each.
//! - `instance`: a store, an instance in it and their end, with no call.
//! - `answer`: the answer to a request over a kept connection, which is a pipe in memory.
//!
//! Times are microseconds of processor time for one call. The kinds take turns; of a kind's
//! turns the median counts. A kind that was not measured has 0.

#![expect(clippy::print_stdout, reason = "what it measured is for the program that started it")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hearth_host::Settings;
use hearth_wire::{Entry, Manifest, Origin, RequestId, Start, VERSION};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::admit::Grants;
use crate::call;
use crate::connection::{self, Arrival, Drain};
use crate::generation;
use crate::instance::Instance;
use crate::ledger::Ledger;
use crate::peer::{Peer, Trusted};
use crate::report::CallLog;
use crate::serving::Serving;
use crate::state::{Share, State};
use crate::zygote::Base;

const CALLS: u32 = 50_000;
const TURNS: u32 = 50;
const REUSE: u32 = 128;
const KINDS: [Kind; 4] = [Kind::Fresh, Kind::Reused, Kind::Instance, Kind::Answer];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fresh,
    Reused,
    Instance,
    Answer,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reused => "reused",
            Self::Instance => "instance",
            Self::Answer => "answer",
        }
    }
}

pub fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let release = arguments.next().context("which release?")?;
    let (path, body) = (arguments.next(), arguments.next().unwrap_or_else(|| "{}".to_owned()));
    let calls = arguments.next().map_or(Ok(CALLS), |calls| calls.parse())?;
    let only = arguments.next();
    let release = OwnedFd::from(File::open(&release).context(release)?);
    let base = Base::new()?;
    let once = serving(&base, &release, 1)?;
    let often = serving(&base, &release, REUSE)?;
    let functions = &once.generation.manifest.functions;
    let wanted = |given: &str| path.as_deref().is_none_or(|path| path == given);
    let number = functions.iter().position(|function| wanted(function.path.as_str()));
    let number = number.context("there is no such function")?;
    let path = functions[number].path.as_str().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // In a task, as everything else there is: what the runtime itself waits for is woken by a
    // system call.
    let measuring = runtime.spawn(async move {
        let mut connection = Connection::open(&once, &path, &body);
        let mut took = KINDS.map(|_| Vec::new());
        let turn = (calls / TURNS).max(1);
        for _ in 0..TURNS {
            for (kind, took) in KINDS.into_iter().zip(&mut took) {
                if only.as_deref().is_some_and(|only| only != kind.name()) {
                    continue;
                }
                let began = processor_time();
                for _ in 0..turn {
                    match kind {
                        Kind::Fresh => whole(&once, number, &body).await?,
                        Kind::Reused => whole(&often, number, &body).await?,
                        Kind::Instance => instance(&once, number).await?,
                        Kind::Answer => connection.ask().await?,
                    }
                }
                took.push((processor_time() - began) / turn);
                once.reporter.forget();
                often.reporter.forget();
            }
        }
        let figures = KINDS.into_iter().zip(took);
        let figures =
            figures.map(|(kind, took)| format!(r#","{}_us":{:.2}"#, kind.name(), median(took)));
        let figures: String = figures.collect();
        println!(r#"{{"function":"{path}","calls":{calls}{figures}}}"#);
        anyhow::Ok(())
    });
    runtime.block_on(measuring)?
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort();
    took.get(took.len() / 2).map_or(0.0, |took| took.as_secs_f64() * 1e6)
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// As a worker has it, with that many calls an instance.
fn serving(base: &Base, release: &OwnedFd, reuse: u32) -> anyhow::Result<Arc<Serving>> {
    let manifest = rustix::fs::openat(
        release,
        Manifest::FILE,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let manifest: Manifest = serde_json::from_reader(File::from(manifest))?;
    let start = Start {
        version: VERSION,
        tenant: manifest.tenant.clone(),
        generation: manifest.generation,
        serves: hearth_wire::Serves::Functions,
        idle: Duration::from_secs(600),
        woken_at: None,
        trusted_proxies: vec![],
        trusted_headers: vec![],
        domain: None,
        settings: 0,
        state_bytes: 0,
    };
    let mut generation = generation::load(base, release, &start)?;
    for function in &mut generation.manifest.functions {
        function.options.reuse = reuse;
    }
    let grants = watch::Sender::new(Arc::new(Grants::new())).subscribe();
    let state = State::new(None, Share::of(&generation.manifest.limits));
    let (trusted, settings) = (Trusted::default(), Settings::default());
    let began = Instant::now();
    let serving = Serving::new(generation, state, trusted, &start, settings, grants, began);
    Ok(Arc::new(serving))
}

fn log(serving: &Serving, number: usize) -> CallLog {
    let function = &serving.generation.manifest.functions[number];
    CallLog {
        reporter: serving.reporter.clone(),
        function: function.path.clone(),
        version: function.version.clone(),
        request_id: RequestId::from_random([7; 16]),
    }
}

async fn whole(serving: &Arc<Serving>, number: usize, body: &str) -> anyhow::Result<()> {
    let path = serving.generation.manifest.functions[number].path.as_str();
    let ledger =
        Ledger::new(log(serving, number), Origin::Outside, &Method::POST, Instant::now(), None);
    let ledger = Arc::new(ledger);
    ledger.count(serving.doing.activity.begin());
    let Ok(permit) = serving.room.permits.turn().await else { bail!("there is no turn") };
    let sent = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let request = Request::post(path)
        .header("host", "demo")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(sent.map_err(|never| match never {}).boxed_unsync())?;
    let answer = call::call(serving, number, request, permit, Arc::clone(&ledger)).await;
    let Ok(answer) = answer else { bail!("{:?}", answer.err()) };
    ensure!(answer.status() == 200, "the answer is {}", answer.status());
    ledger.answered(answer.status());
    answer.into_body().collect().await?;
    drop(ledger);
    while serving.doing.activity.now().calls > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn instance(serving: &Serving, number: usize) -> anyhow::Result<()> {
    let log = Arc::new(log(serving, number));
    let instances = &serving.doing.instances;
    let mut instance = Instance::take(instances, number, &log);
    instance.ready(instances, &log).await?;
    instance.end(instances);
    Ok(())
}

/// A client that knows what it gets.
struct Connection {
    stream: DuplexStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    fn open(serving: &Arc<Serving>, path: &str, body: &str) -> Self {
        let (stream, theirs) = tokio::io::duplex(64 << 10);
        let peer = Peer::Tcp([127, 0, 0, 1].into(), Entry::Port);
        let drain = watch::Sender::new(Drain::No).subscribe();
        let arrival = Arrival::new(theirs, peer, None);
        tokio::spawn(connection::serve(arrival, Arc::clone(serving), drain));
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: demo\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        Self { stream, request: request.into(), answer: vec![0; 64 << 10] }
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.request).await?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.answer[filled..]).await?;
            ensure!(read > 0, "the connection ended");
            filled += read;
            let answer = std::str::from_utf8(&self.answer[..filled])?;
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            ensure!(head.starts_with("HTTP/1.1 200 "), "the answer is {head}");
            let length = head.split_once("content-length: ").map(|(_, rest)| rest);
            let length = length.and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
            if length.map_or(body.ends_with("0\r\n\r\n"), |length| length == body.len()) {
                return Ok(());
            }
        }
    }
}
