//! A host of its own for one measurement: `hearth up` in a scratch directory, with the tenant of
//! a first start, and with more where a measurement makes them. It ends with the measurement, and
//! what it kept goes with it.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cores::{self, Cores};
use crate::http::{Client, form, request};
use crate::lines::{Lines, wait_for_input};

const ADMIN_TOKEN: &str = "hearth_the-admin-token-of-the-bench-and-of-none-else";
/// The tenant that a first start makes.
const HOME: &str = "home";
/// Each host has its own few ports, below those that the kernel hands out by itself. A port that
/// something else has is skipped by the host.
const PORTS_FIRST: u16 = 14_000;
const PORTS_SPARE: u16 = 15;
static NEXT_PORT: AtomicU16 = AtomicU16::new(PORTS_FIRST);
/// A worker that is told to end, or has nothing to do, is gone before.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a tenant is born with, what it is asked here, and what it answers.
pub const HELLO: &str = "/hello";
pub const HELLO_BODY: &[u8] = br#"{"name":"Ada"}"#;
pub const HELLO_ANSWER: &[u8] = br#"{"greeting":"Hello, Ada!"}"#;

pub struct Host {
    child: Child,
    programs: PathBuf,
    arguments: Vec<String>,
    /// That it may have open, where that is not as many as this process may.
    files: Option<u32>,
    /// Outlives the child.
    directory: TempDir,
    pub front: SocketAddr,
    pub home: Tenant,
    /// From its last start until it served.
    pub start: Duration,
}

pub struct Tenant {
    pub name: String,
    /// Its own port.
    pub own: SocketAddr,
    /// Of somebody who may upload.
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
        Self::start_with_room(programs, options, 0)
    }

    /// The same, where it may have so many open files.
    pub fn start_with_files(
        programs: &Path,
        options: &[&str],
        files: Option<u32>,
    ) -> anyhow::Result<Self> {
        Self::start_as(programs, options, 0, files)
    }

    /// The same, with ports for so many tenants more.
    pub fn start_with_room(
        programs: &Path,
        options: &[&str],
        tenants: u16,
    ) -> anyhow::Result<Self> {
        Self::start_as(programs, options, tenants, None)
    }

    fn start_as(
        programs: &Path,
        options: &[&str],
        tenants: u16,
        files: Option<u32>,
    ) -> anyhow::Result<Self> {
        let ports = PORTS_SPARE + tenants;
        let first = NEXT_PORT.fetch_add(ports + 1, Ordering::Relaxed);
        let ports = format!("{first}-{}", first + ports);
        let mut arguments = vec!["--tenant-ports".to_owned(), ports];
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        let directory = tempfile::Builder::new().prefix("hearth-bench-").tempdir()?;
        let (child, front, start) = launch(directory.path(), programs, &arguments, files)?;
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let home = Tenant { name: HOME.to_owned(), own, token: String::new() };
        let programs = programs.to_owned();
        let mut host = Self { child, programs, arguments, files, directory, front, home, start };
        let tenant = host.api("GET", &format!("/tenants/{HOME}"), b"")?;
        host.home.own.set_port(port(&tenant)?);
        let wanted = json!({ "name": "bench", "scope": "deploy" }).to_string();
        let made = host.api("POST", &format!("/tenants/{HOME}/tokens"), wanted.as_bytes())?;
        host.home.token = token(&made)?;
        Ok(host)
    }

    /// Ends it as its operator does.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        wait_for_end_of(pid)?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it on what it kept.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        (self.child, self.front, self.start) =
            launch(self.directory.path(), &self.programs, &self.arguments, self.files)?;
        Ok(())
    }

    /// A tenant more.
    pub fn create(&self, name: &str) -> anyhow::Result<Tenant> {
        let made = self.api("POST", "/tenants", json!({ "name": name }).to_string().as_bytes())?;
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&made)?));
        Ok(Tenant { name: name.to_owned(), own, token: token(&made)? })
    }

    /// Sets a tenant's limits.
    pub fn limit(&self, tenant: &Tenant, limits: &Value) -> anyhow::Result<()> {
        let limits = json!({ "limits": limits }).to_string();
        self.api("PATCH", &format!("/tenants/{}/limits", tenant.name), limits.as_bytes())?;
        Ok(())
    }

    /// Of somebody who may upload to this tenant and do nothing else.
    pub fn deploy_token(&self, tenant: &Tenant) -> anyhow::Result<String> {
        let wanted = json!({ "name": "deploy", "scope": "deploy" }).to_string();
        let path = format!("/tenants/{}/tokens", tenant.name);
        token(&self.api("POST", &path, wanted.as_bytes())?)
    }

    /// The process that workers are forked from.
    pub fn zygote(&self) -> anyhow::Result<Pid> {
        let zygotes = children(self.primary()?)?.into_iter().filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(b"zygote".len()).any(|it| it == b"zygote"))
        });
        zygotes.min().and_then(Pid::from_raw).context("a host has a zygote")
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

    /// A tenant's worker, which a call starts if it is not there.
    pub fn worker(&self, tenant: &Tenant) -> anyhow::Result<i32> {
        Client::new(tenant.own).call(&tenant.hello())?;
        self.pid(tenant)
    }

    /// The worker that there is.
    pub fn pid(&self, tenant: &Tenant) -> anyhow::Result<i32> {
        let status = self.status(tenant)?;
        pid(&status).with_context(|| format!("no worker: {status}"))
    }

    fn status(&self, tenant: &Tenant) -> anyhow::Result<Value> {
        self.api("GET", &format!("/tenants/{}/worker", tenant.name), b"")
    }

    /// Waits until a tenant has no process any more, and the host knows it.
    pub fn wait_asleep(&self, tenant: &Tenant) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.status(tenant)?;
            if status["state"] == "asleep" {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "it does not fall asleep: {status}");
            if let Some(worker) = pid(&status).and_then(Pid::from_raw) {
                wait_for_end_of(worker)?;
            }
        }
    }

    /// Gives everything that there is, and what it will start, its place.
    pub fn place(&self, cores: Cores, placed: Placed) -> anyhow::Result<()> {
        let (primary, worker) = (self.primary()?, self.worker(&self.home)?);
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

    /// One series of `/metrics`; nothing where the host does not have it.
    pub fn metric(&self, series: &str) -> anyhow::Result<Option<f64>> {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", &*bearer)];
        let request = request("GET", "/metrics", &self.front.to_string(), &headers, b"");
        let text = String::from_utf8(Client::new(self.front).call(&request)?)?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// What a histogram of seconds has on average, milliseconds.
    pub fn mean_milliseconds(&self, histogram: &str) -> anyhow::Result<Option<f64>> {
        let [sum, count] = ["sum", "count"].map(|it| self.metric(&format!("{histogram}_{it}")));
        Ok(sum?.zip(count?).map(|(sum, count)| sum * 1_000.0 / count))
    }

    /// Uploads these to the first tenant, and tells where the generation that serves then is written
    /// down.
    pub fn generation_of(&self, modules: &[(&str, &[u8])]) -> anyhow::Result<PathBuf> {
        let uploaded = Client::new(self.home.own).call(&self.home.upload(modules, None))?;
        let uploaded: Value = serde_json::from_slice(&uploaded)?;
        let generation = &uploaded["generation"];
        Ok(self.data().join(format!("tenants/{}/releases/{generation}", self.home.name)))
    }

    /// Where it keeps what it keeps.
    pub fn data(&self) -> PathBuf {
        data(self.directory.path())
    }
}

impl Tenant {
    /// `POST /hello` at the tenant's own port.
    pub fn hello(&self) -> Vec<u8> {
        hello(&self.own.to_string(), "")
    }

    /// The same by host name at a front door.
    pub fn hello_by_name(&self, front: SocketAddr) -> Vec<u8> {
        hello(&format!("{}.localhost:{}", self.name, front.port()), "")
    }

    /// The same by path.
    pub fn hello_by_path(&self, front: SocketAddr) -> Vec<u8> {
        hello(&front.to_string(), &format!("/t/{}", self.name))
    }

    /// Another function, asked with JSON at the tenant's own port.
    pub fn call(&self, function: &str, body: &[u8]) -> Vec<u8> {
        call(&self.own.to_string(), &format!("/{function}"), body)
    }

    /// An upload of modules to the tenant's own port.
    pub fn upload(&self, modules: &[(&str, &[u8])], options: Option<&str>) -> Vec<u8> {
        let (content_type, body) = form(modules, options);
        let bearer = format!("Bearer {}", self.token);
        let headers = [("authorization", &*bearer), ("content-type", &*content_type)];
        request("POST", "/$upload", &self.own.to_string(), &headers, &body)
    }
}

fn hello(host: &str, prefix: &str) -> Vec<u8> {
    call(host, &format!("{prefix}{HELLO}"), HELLO_BODY)
}

pub fn call(host: &str, target: &str, body: &[u8]) -> Vec<u8> {
    request("POST", target, host, &[("content-type", "application/json")], body)
}

fn port(tenant: &Value) -> anyhow::Result<u16> {
    let port = tenant["port"].as_u64().and_then(|port| port.try_into().ok());
    port.with_context(|| format!("a tenant has a port: {tenant}"))
}

fn token(made: &Value) -> anyhow::Result<String> {
    Ok(made["token"].as_str().context("a token is shown")?.to_owned())
}

fn pid(status: &Value) -> Option<i32> {
    status["pid"].as_i64()?.try_into().ok()
}

fn wait_for_end_of(pid: Pid) -> anyhow::Result<()> {
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => wait_for_input(&pidfd),
        Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(io::Error::from(errno).into()),
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
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

/// Starts the host and waits until it says, on descriptor 3, that it serves. Returns how long
/// that took as well.
fn launch(
    directory: &Path,
    programs: &Path,
    arguments: &[String],
    files: Option<u32>,
) -> anyhow::Result<(Child, SocketAddr, Duration)> {
    let hearth = fs::canonicalize(programs.join("hearth"));
    let hearth = hearth.with_context(|| format!("there is no hearth in {}", programs.display()))?;
    let log = directory.join("log");
    let its_log = File::create(&log)?;
    let (ready, its_end) = io::pipe()?;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"[ "$0" = all ] || ulimit -n "$0"; exec "$@" 3>&0 0</dev/null"#])
        .arg(files.map_or("all".to_owned(), |files| files.to_string()))
        .arg(hearth)
        .args(["up", "--ready-fd", "3"])
        .arg("--data")
        .arg(data(directory))
        .args(["--listen", "127.0.0.1:0", "--log", "text"])
        .args(arguments)
        .env_clear()
        .env("HEARTH_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdin(Stdio::from(its_end))
        .stdout(its_log.try_clone()?)
        .stderr(its_log);
    let begun = Instant::now();
    let mut child = command.spawn()?;
    // The command holds our copy of its end; without it, the pipe ends when the host does.
    drop(command);
    let Some(line) = Lines::new(ready).next()? else {
        child.wait()?;
        bail!("hearth up ended before it served:\n{}", fs::read_to_string(log)?);
    };
    let took = begun.elapsed();
    let said: Value = serde_json::from_str(&line)?;
    ensure!(said["pid"] == child.id(), "another process than the one started: {line}");
    let front = said["listen"].as_str().context("a host listens somewhere")?.parse()?;
    Ok((child, front, took))
}
