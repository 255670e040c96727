//! Those that Hearth is compared with: each a program of its own, which is asked for the same
//! and must answer the same, on the ground that a worker stands on. One that this machine does not
//! have is no failure: its rows say so.

use std::fs;
use std::io::{self, PipeReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Setup;
use crate::cores::{self, Cores};
use crate::ground::{self, Ground};
use crate::host;
use crate::http::{Client, Timed};
use crate::lines::Lines;
use crate::rounds::Subject;

/// What all of them are asked, and what they answer. It is what the tests' function `answers`
/// does: the body says what the answer is.
pub const FUNCTION: &str = "answers";
pub const BODY: &[u8] = br#"{"status":200,"headers":[["content-type","application/json"]],"body":"{\"greeting\":\"Hello, Ada!\"}"}"#;
pub const ANSWER: &[u8] = br#"{"greeting":"Hello, Ada!"}"#;

/// Beside the programs, where whoever built them says how.
const BUILT: &str = "built.txt";

pub const NO_FASTIFY: &str = "no Fastify; with `node` and `npm`, `cargo xtask bench` installs it";
pub const NO_WASMTIME: &str = "no `wasmtime` on the PATH, nor named in WASMTIME; \
    https://github.com/bytecodealliance/wasmtime/releases has it";

/// How each program was built that is compared, in a sentence for the table.
pub fn programs(setup: &Setup) -> String {
    let ours = fs::read_to_string(setup.programs.join(BUILT));
    let ours = ours.as_deref().map_or("as nobody has said", str::trim);
    let mut said =
        format!("Hearth is built {ours}, axum with the profile `dist`, without a recorded run");
    if let Some(version) = version_of(Command::new(&setup.wasmtime)) {
        said.push_str(&format!("; `wasmtime` is {version} as it is released"));
    }
    let package = fs::read(setup.fastify.join("node_modules/fastify/package.json"));
    let package = package.ok().and_then(|it| serde_json::from_slice::<Value>(&it).ok());
    if let Some(version) = package.as_ref().and_then(|it| it["version"].as_str())
        && let Some(node) = version_of(Command::new("node"))
    {
        said.push_str(&format!("; Fastify is {version} on Node {node}"));
    }
    said + "."
}

/// What follows a program's name, where it says that as most do.
fn version_of(mut command: Command) -> Option<String> {
    let said = command.arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let mut words = said.split_whitespace();
    let version = words.find(|word| word.trim_start_matches('v').starts_with(char::is_numeric))?;
    Some(version.trim_start_matches('v').to_owned())
}

/// A server that is not Hearth, on the server's core.
pub struct Other {
    _process: Process,
    to: SocketAddr,
    /// The process that has the work.
    pid: i32,
}

impl Other {
    /// The program `raw-axum`, which is built with this one.
    pub fn axum(ground: &Ground, cores: Cores) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("raw-axum");
        let process = Process::start(Command::new(&program).stdout(Stdio::piped()))?;
        let mut process = process.with_context(|| format!("there is no {}", program.display()))?;
        let at = process.output()?.expect("where axum listens")?;
        Self::listening(process, &at, ground, cores)
    }

    /// `wasmtime serve` with a pool of instances; none where the program is not there.
    pub fn wasmtime(
        program: &Path,
        component: &Path,
        ground: &Ground,
        cores: Cores,
    ) -> anyhow::Result<Option<Self>> {
        let mut command = Command::new(program);
        // Rust's standard library imports `wasi:cli`, which is not given without being asked for.
        command.args(["serve", "-O", "pooling-allocator=y", "-S", "cli=y"]);
        command.args(["--addr", "127.0.0.1:0"]);
        command.arg(component).stdout(Stdio::null()).stderr(Stdio::piped());
        let Some(mut process) = Process::start(&mut command)? else { return Ok(None) };
        let line = process.error_output()?.expect("where wasmtime listens")?;
        let at = line.split_once("http://").map(|(_, at)| at.trim_end_matches('/'));
        let at = at.with_context(|| format!("wasmtime does not serve: {line}"))?;
        Self::listening(process, at, ground, cores).map(Some)
    }

    fn listening(
        process: Process,
        at: &str,
        ground: &Ground,
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let pid = process.pid()?;
        ground.take_in(pid)?;
        cores::keep_process(pid, cores.server)?;
        let to = at.parse().with_context(|| format!("no address: {at}"))?;
        Ok(Self { _process: process, to, pid })
    }

    pub fn subject(&self) -> Subject<'static> {
        subject(self.to, self.pid)
    }
}

fn subject(to: SocketAddr, pid: i32) -> Subject<'static> {
    Subject { to, request: request(to), answer: ANSWER, pids: vec![pid] }
}

fn request(to: SocketAddr) -> Vec<u8> {
    host::call(&to.to_string(), &format!("/{FUNCTION}"), BODY)
}

/// A Node cluster: a primary that forks workers, in which Fastify answers. One at a time.
pub struct Cluster {
    /// The primary ends its worker, and itself, with this.
    input: ChildStdin,
    says: Lines,
    process: Process,
}

#[derive(Clone, Copy)]
pub struct ClusterWorker {
    to: SocketAddr,
    pid: i32,
}

impl Cluster {
    /// None where there is no Node, or no Fastify in that directory.
    pub fn start(directory: &Path) -> anyhow::Result<Option<Self>> {
        if !directory.join("node_modules/fastify").is_dir() {
            return Ok(None);
        }
        let mut command = Command::new("node");
        command.arg("server.js").current_dir(directory).env("NODE_ENV", "production");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let Some(mut process) = Process::start(&mut command)? else { return Ok(None) };
        let input = process.0.stdin.take().context("its input is a pipe")?;
        let mut says = process.output()?;
        let ready = says.expect("that the cluster is there")?;
        ensure!(ready == "ready", "the cluster does not start: {ready}");
        Ok(Some(Self { input, says, process }))
    }

    /// Starts a worker, and waits until it listens.
    pub fn fork(&mut self) -> anyhow::Result<ClusterWorker> {
        self.input.write_all(b"fork\n")?;
        let line = self.says.expect("that a worker listens")?;
        let said = line.strip_prefix("listening ").and_then(|said| said.split_once(' '));
        let (pid, to) = said.with_context(|| format!("a worker does not start: {line}"))?;
        Ok(ClusterWorker { to: to.parse()?, pid: pid.parse()? })
    }

    /// From a worker's being wanted until its first caller has the first byte, and ends it.
    pub fn wake(&mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let worker = self.fork()?;
        let listening = begun.elapsed();
        let Timed { status, body, first_byte } =
            Client::new(worker.to).time(&request(worker.to))?;
        ensure!(status == 200 && body == ANSWER, "{status}: {}", String::from_utf8_lossy(&body));
        self.end()?;
        Ok(listening + first_byte)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.input.write_all(b"end\n")?;
        let line = self.says.expect("that a worker ended")?;
        ensure!(line == "ended", "a worker does not end: {line}");
        Ok(())
    }

    /// Keeps the worker where servers are, and the primary, which only hands it its connections,
    /// with the load.
    pub fn place(
        &self,
        worker: ClusterWorker,
        ground: &Ground,
        cores: Cores,
    ) -> anyhow::Result<()> {
        ground.take_in(worker.pid)?;
        cores::keep_process(self.process.pid()?, cores.load)?;
        cores::keep_process(worker.pid, cores.server)
    }
}

impl ClusterWorker {
    pub fn subject(self) -> Subject<'static> {
        subject(self.to, self.pid)
    }
}

/// A program that ends with its measurement.
struct Process(Child);

impl Process {
    /// None where there is no such program.
    fn start(command: &mut Command) -> anyhow::Result<Option<Self>> {
        match ground::spawn(command) {
            Ok(child) => Ok(Some(Self(child))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{command:?} cannot be started")),
        }
    }

    fn pid(&self) -> anyhow::Result<i32> {
        Ok(self.0.id().try_into()?)
    }

    fn output(&mut self) -> anyhow::Result<Lines> {
        let output = self.0.stdout.take().context("its output is a pipe")?;
        Ok(Lines::new(PipeReader::from(OwnedFd::from(output))))
    }

    fn error_output(&mut self) -> anyhow::Result<Lines> {
        let output = self.0.stderr.take().context("its error output is a pipe")?;
        Ok(Lines::new(PipeReader::from(OwnedFd::from(output))))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
