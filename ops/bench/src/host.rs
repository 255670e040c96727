//! A host of its own for one measurement: `hearth up` in a scratch directory, with one tenant.
//! It ends with the measurement, and what it kept goes with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cores::{self, Cores};
use crate::http::{Client, form, request};

const ADMIN_TOKEN: &str = "hearth_the-admin-token-of-the-bench-and-of-none-else";
/// The one that a first start makes.
const TENANT: &str = "home";
/// Each host has its own few ports, below those that the kernel hands out by itself. A port that
/// something else has is skipped by the host.
const PORTS_EACH: u16 = 16;
static NEXT_PORT: AtomicU16 = AtomicU16::new(18_000);

/// What a tenant is born with, what it is asked here, and what it answers.
pub const HELLO: &str = "/hello";
pub const HELLO_BODY: &[u8] = br#"{"name":"Ada"}"#;
pub const HELLO_ANSWER: &[u8] = br#"{"greeting":"Hello, Ada!"}"#;

pub struct Host {
    child: Child,
    /// Outlives the child.
    _directory: TempDir,
    pub front: SocketAddr,
    /// The tenant's own port.
    pub own: SocketAddr,
    token: String,
}

/// Which of the host's processes share the server's core.
#[derive(Debug, Clone, Copy)]
pub enum Placed {
    /// All of them: what serving costs as a whole.
    Together,
    /// The worker: what it costs by itself. The primary, which only files its reports, is with
    /// the load.
    WorkerAlone,
}

impl Host {
    /// Starts the host whose programs lie there.
    pub fn start(programs: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("hearth-bench-").tempdir()?;
        let (child, front) = launch(directory.path(), programs, options)?;
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut host = Self { child, _directory: directory, front, own, token: String::new() };
        let tenant = host.api("GET", &format!("/tenants/{TENANT}"), b"")?;
        let port = tenant["port"].as_u64().and_then(|port| port.try_into().ok());
        host.own.set_port(port.context("a tenant has a port")?);
        let wanted = json!({ "name": "bench", "scope": "deploy" }).to_string();
        let made = host.api("POST", &format!("/tenants/{TENANT}/tokens"), wanted.as_bytes())?;
        host.token = made["token"].as_str().context("a token is shown")?.to_owned();
        Ok(host)
    }

    fn api(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        let target = format!("/api/v1{path}");
        let request = request(method, &target, &self.front.to_string(), &headers, body);
        let answer = Client::new(self.front).call(&request);
        Ok(serde_json::from_slice(&answer.with_context(|| format!("{method} {target}"))?)?)
    }

    pub fn primary(&self) -> anyhow::Result<i32> {
        Ok(self.child.id().try_into()?)
    }

    /// The tenant's worker, which a call starts if it is not there.
    pub fn worker(&self) -> anyhow::Result<i32> {
        Client::new(self.own).call(&self.hello(&self.own.to_string(), ""))?;
        let status = self.api("GET", &format!("/tenants/{TENANT}/worker"), b"")?;
        let pid = status["pid"].as_i64().and_then(|pid| pid.try_into().ok());
        pid.with_context(|| format!("no worker: {status}"))
    }

    /// Gives everything that there is, and what it will start, its place.
    pub fn place(&self, cores: Cores, placed: Placed) -> anyhow::Result<()> {
        let (primary, worker) = (self.primary()?, self.worker()?);
        let primarys_core = match placed {
            Placed::Together => cores.server,
            Placed::WorkerAlone => cores.load,
        };
        cores::keep_process(primary, primarys_core)?;
        cores::keep_process(worker, cores.server)?;
        // Later workers are where the zygote is that they are forked from.
        for zygote in children(primary)?.into_iter().filter(|pid| *pid != worker) {
            cores::keep_process(zygote, cores.server)?;
        }
        Ok(())
    }

    /// `POST /hello` at one of the tenant's addresses.
    pub fn hello(&self, host: &str, prefix: &str) -> Vec<u8> {
        let headers = [("content-type", "application/json")];
        request("POST", &format!("{prefix}{HELLO}"), host, &headers, HELLO_BODY)
    }

    /// The tenant as a host name.
    pub fn name(&self) -> String {
        format!("{TENANT}.localhost:{}", self.front.port())
    }

    /// The tenant as a path.
    pub fn path(&self) -> String {
        format!("/t/{TENANT}")
    }

    /// An upload of one module to the tenant's own port.
    pub fn upload(&self, function: &str, module: &[u8]) -> Vec<u8> {
        let (content_type, body) = form(&format!("{function}.wasm"), module);
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", &*bearer), ("content-type", &*content_type)];
        request("POST", "/$upload", &self.own.to_string(), &headers, &body)
    }

    /// One series of `/metrics`; nothing where the host does not have it.
    pub fn metric(&self, series: &str) -> anyhow::Result<Option<f64>> {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", &*bearer)];
        let request = request("GET", "/metrics", &self.front.to_string(), &headers, b"");
        let text = String::from_utf8(Client::new(self.front).call(&request)?)?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its workers end when it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children(pid: i32) -> anyhow::Result<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children"))?;
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Ok(children)
}

/// Starts the host and waits until it says, on descriptor 3, that it serves.
fn launch(
    directory: &Path,
    programs: &Path,
    options: &[&str],
) -> anyhow::Result<(Child, SocketAddr)> {
    let hearth = fs::canonicalize(programs.join("hearth"));
    let hearth = hearth.with_context(|| format!("there is no hearth in {}", programs.display()))?;
    let first = NEXT_PORT.fetch_add(PORTS_EACH, Ordering::Relaxed);
    let log = directory.join("log");
    let its_log = File::create(&log)?;
    let (ready, its_end) = std::io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"exec "$0" up --ready-fd 3 "$@" 3>&0 0</dev/null"#])
        .arg(hearth)
        .arg("--data")
        .arg(directory.join("data"))
        .args(["--listen", "127.0.0.1:0", "--log", "text"])
        .args(["--tenant-ports", &format!("{first}-{}", first + PORTS_EACH - 1)])
        .args(options)
        .env_clear()
        .env("HEARTH_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdin(Stdio::from(its_end))
        .stdout(its_log.try_clone()?)
        .stderr(its_log);
    let mut child = command.spawn()?;
    // The command holds our copy of its end; without it, the pipe ends when the host does.
    drop(command);
    let Some(line) = first_line(ready)? else {
        child.wait()?;
        bail!("hearth up ended before it served:\n{}", fs::read_to_string(log)?);
    };
    let said: Value = serde_json::from_str(&line)?;
    ensure!(said["pid"] == child.id(), "another process than the one started: {line}");
    let front = said["listen"].as_str().context("a host listens somewhere")?.parse()?;
    Ok((child, front))
}

fn first_line(pipe: PipeReader) -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line)?;
    Ok(line.ends_with('\n').then_some(line))
}
