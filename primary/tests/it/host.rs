//! A real Hearth for one test: `hearth up` in a directory of its own, its tenants, and its
//! command line. It is killed with the test; what it logged is printed when the test failed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, Connection, Part, Request, form};
use crate::processes::{
    children, command_line, descendants, eventually, holders, is_alive, signal,
};

pub const ADMIN_TOKEN: &str = "hearth_the-admin-token-of-the-tests-and-of-none-else";

const PROGRAM: &str = env!("CARGO_BIN_EXE_hearth");

/// Nobody in particular, who is not root.
pub const USER: u32 = 1_500;

/// Each host has its own range of ports, below those that the kernel hands out by itself. A port
/// that something else has is skipped by the host.
const PORTS_EACH: u16 = 24;
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_000);

/// A port that nobody has, and no host of these tests takes. Nor does the kernel give it to a
/// caller, who keeps it for a minute after: a host that starts again has it again.
pub fn spare_port() -> u16 {
    loop {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub struct Host {
    directory: TempDir,
    /// What it was started by: the program, with what stands before it.
    command: Vec<String>,
    options: Vec<String>,
    child: Child,
    pub front: SocketAddr,
}

impl Host {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(options: &[&str]) -> Self {
        Self::of_command(|_| vec![PROGRAM.to_owned()], options)
    }

    /// One whose programs are others, which lie beside the one that is given.
    pub fn of(program: impl FnOnce(&Path) -> PathBuf) -> Self {
        Self::of_command(|directory| vec![text(&program(directory))], &[])
    }

    /// Started by another program, which is given the host's as its last arguments.
    pub fn wrapped(wrapper: &[&str], options: &[&str]) -> Self {
        let words = wrapper.iter().copied().chain([PROGRAM]).map(str::to_owned);
        Self::of_command(|_| words.collect(), options)
    }

    /// Started by a shell that lets it have so many descriptors.
    pub fn with_descriptors(most: u64, options: &[&str]) -> Self {
        let command = format!(r#"ulimit -n {most}; exec "$0" "$@""#);
        Self::wrapped(&["sh", "-c", &command], options)
    }

    fn of_command(command: impl FnOnce(&Path) -> Vec<String>, options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
        let command = command(directory.path());
        Self::begin(directory, command, options)
    }

    /// As somebody who is not root, with programs and a directory that are his.
    pub fn as_user() -> Self {
        Self::as_user_with(&[])
    }

    pub fn as_user_with(options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
        let user = Some(USER);
        std::os::unix::fs::chown(directory.path(), user, user).unwrap();
        let program = install(directory.path());
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        let command = ["setpriv", &user, &group, "--clear-groups", &text(&program)];
        Self::begin(directory, command.map(str::to_owned).into(), options)
    }

    fn begin(directory: TempDir, command: Vec<String>, options: &[&str]) -> Self {
        let first = NEXT_PORT.fetch_add(PORTS_EACH, Ordering::Relaxed);
        let ports = format!("{first}-{}", first + PORTS_EACH - 1);
        let mut all = vec!["--log", "text"];
        // Few tests need more of them.
        if !options.contains(&"--tenant-ports") {
            all.extend(["--tenant-ports", &ports]);
        }
        // Most tests that remove a tenant make it again.
        if !options.contains(&"--rest") {
            all.extend(["--rest", "0s"]);
        }
        all.extend(options);
        let options: Vec<String> = all.into_iter().map(str::to_owned).collect();
        Self::first(directory, command, options)
    }

    fn first(directory: TempDir, command: Vec<String>, options: Vec<String>) -> Self {
        let listen = format!("127.0.0.1:{}", spare_port());
        let (child, front) = launch(&command, directory.path(), &listen, &options)
            .unwrap_or_else(|log| panic!("hearth up ended before it served:\n{log}"));
        Self { directory, command, options, child, front }
    }

    /// On a data directory that somebody filled, with the ports and options of a host that ended.
    pub fn on(directory: TempDir, like: &Self) -> Self {
        let (command, options) = (like.command.clone(), like.options.clone());
        Self::first(directory, command, options)
    }

    /// From its next start on, what stands before its program.
    pub fn is_started_by(&mut self, wrapper: &[&str]) {
        let program = self.command.pop().unwrap();
        self.command = wrapper.iter().copied().map(str::to_owned).chain([program]).collect();
    }

    /// Dies as by a power cut.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same, and nothing of it is left.
    pub fn kill_and_wait(&mut self) {
        let left = descendants(self.pid());
        self.kill();
        // What belonged to it ends by itself, and only then are its ports free.
        eventually("the end of the host's processes", || {
            left.iter().all(|pid| !is_alive(*pid)).then_some(())
        });
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// All that it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The host dies as by a power cut, and starts again on what it left.
    pub fn kill_and_start_again(&mut self) {
        self.kill_and_wait();
        self.start_again();
    }

    /// At the same address, so that what the test knows of it stays true.
    pub fn start_again(&mut self) {
        self.try_start_again().unwrap_or_else(|log| panic!("ended before it served:\n{log}"));
    }

    /// What it said, where it ended before it served.
    pub fn try_start_again(&mut self) -> Result<(), String> {
        let listen = self.front.to_string();
        (self.child, self.front) =
            launch(&self.command, self.directory.path(), &listen, &self.options)?;
        Ok(())
    }

    /// Sends the signal that asks for an end; the end itself is waited for by [`Host::ended`].
    pub fn terminate(&self) {
        signal(self.pid(), Signal::SIGTERM);
    }

    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the host's end", || self.child.try_wait().unwrap())
    }

    pub fn admin(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("/api/v1{path}")).bearer(ADMIN_TOKEN)
    }

    #[track_caller]
    pub fn send(&self, request: &Request) -> Answer {
        request.send(self.front)
    }

    #[track_caller]
    pub fn tenant(&self, name: &str) -> Tenant {
        let request = self.admin("POST", "/tenants").json(&json!({ "name": name }));
        let made = self.send(&request).expect(201).json();
        Tenant {
            name: name.to_owned(),
            port: made["port"].as_u64().unwrap().try_into().unwrap(),
            token: made["token"].as_str().unwrap().to_owned(),
            front: self.front,
        }
    }

    /// Connections at the front door that went to a worker, rather than being proxied.
    #[track_caller]
    pub fn handed_over(&self) -> u64 {
        self.figure(r#"hearth_front_connections_total{way="handed_over"}"#)
    }

    /// The host has handed over so many. It counts one that it gave, and by then a worker may have
    /// answered.
    #[track_caller]
    pub fn has_handed_over(&self, connections: u64) {
        let counted = eventually("the count", || {
            Some(self.handed_over()).filter(|counted| *counted >= connections)
        });
        assert_eq!(counted, connections);
    }

    #[track_caller]
    pub fn proxied(&self) -> u64 {
        self.figure(r#"hearth_front_connections_total{way="proxied"}"#)
    }

    /// One figure for Prometheus; zero where nothing has been counted.
    #[track_caller]
    pub fn figure(&self, name: &str) -> u64 {
        let said = self.send(&Request::new("GET", "/metrics")).expect(200).text();
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until the tenant sleeps, and the kernel knows of no process that serves it.
    #[track_caller]
    pub fn sleeps(&self, tenant: &Tenant) {
        eventually("sleep", || {
            (tenant.state() == "asleep" && self.workers(tenant).is_empty()).then_some(())
        });
    }

    /// The processes that serve this tenant, as the kernel sees them.
    pub fn workers(&self, tenant: &Tenant) -> Vec<i32> {
        let zygote = self.zygote();
        let theirs = descendants(self.pid()).into_iter().filter(|pid| Some(*pid) != zygote);
        holders(tenant.port, &theirs.collect::<Vec<_>>()).into_iter().collect()
    }

    /// The process that workers are forked from: of those that are what it is, the oldest that
    /// holds no tenant's socket. A worker whose zygote died is a child of the host, too.
    pub fn zygote(&self) -> Option<i32> {
        let zygotes = children(self.pid())
            .into_iter()
            .filter(|pid| command_line(*pid).contains("hearth-worker") && !has_a_listener(*pid));
        zygotes.min()
    }

    /// The command line, as somebody with this token has it.
    pub fn command(&self, token: &str, arguments: &[&str]) -> Said {
        self.command_in(self.directory.path(), token, arguments)
    }

    pub fn command_in(&self, directory: &Path, token: &str, arguments: &[&str]) -> Said {
        let output = hearth(self.directory.path())
            .current_dir(directory)
            .args(arguments)
            .env("HEARTH_URL", format!("http://{}", self.front))
            .env("HEARTH_TOKEN", token)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said { asked: arguments.join(" "), output }
    }
}

/// The command line where no host is, or none that matters.
pub fn run(home: &Path, arguments: &[&str]) -> Said {
    let output = hearth(home).args(arguments).stdin(Stdio::null()).output().unwrap();
    Said { asked: arguments.join(" "), output }
}

impl Drop for Host {
    fn drop(&mut self) {
        let workers = descendants(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Whatever it failed in the middle of: nothing here may panic once more.
            for pid in &workers {
                signal(*pid, Signal::SIGKILL);
            }
        }
        remove_cgroups(self.directory.path(), &workers);
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            println!("---- what the host said last ----\n{}", last.join("\n"));
        }
    }
}

/// Where a module's artifact lies: in the directory of the engine that it needs.
pub fn artifact(data: &Path, owner: &str, sha256: &str) -> PathBuf {
    let engines = fs::read_dir(data.join("artifacts")).unwrap();
    let owners = engines.map(|engine| engine.unwrap().path().join(owner));
    let mut places = owners.map(|owner| owner.join(format!("{sha256}.cwasm")));
    places.find(|place| place.exists()).unwrap_or_else(|| panic!("no artifact of {sha256}"))
}

/// The programs where every user can come to them; tells where `hearth` is.
pub fn install(directory: &Path) -> PathBuf {
    let installed = directory.join("bin");
    fs::create_dir(&installed).unwrap();
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["hearth", "hearth-worker", "hearth-compile"] {
        let program = Path::new(env!("CARGO_BIN_EXE_hearth")).with_file_name(name);
        // On another file system it is copied.
        if fs::hard_link(&program, installed.join(name)).is_err() {
            fs::copy(&program, installed.join(name)).unwrap();
        }
    }
    installed.join("hearth")
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Where version 2 of cgroups is mounted, a host needs one that it shares with nobody, as a service
/// has; each start gets another, since the one before may not be empty yet.
fn make_own_group(directory: &Path) -> Option<PathBuf> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let root = Path::new("/sys/fs/cgroup");
    let name = format!("{}-{number}", directory.file_name()?.to_str()?);
    let has_all = fs::read_to_string(root.join("cgroup.subtree_control")).ok()?;
    ["cpu", "memory", "pids"].iter().all(|it| has_all.contains(it)).then_some(())?;
    let group = root.join(name);
    fs::create_dir(&group).ok()?;
    Some(group)
}

/// What a host that was killed leaves to its next start, which here there is none of.
fn remove_cgroups(directory: &Path, processes: &[i32]) {
    let mut prefixes = vec![format!("{}-", directory.file_name().unwrap().to_str().unwrap())];
    if let Ok(data) = fs::metadata(directory.join("data")) {
        prefixes.push(format!("hearth-{:x}-{:x}-", data.dev(), data.ino()));
    }
    let (mut groups, mut places) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(place) = places.pop() {
        let entries = fs::read_dir(place).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let name = entry.file_name();
            if prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                groups.push(entry.path());
            }
            // One of its own has others of its within.
            places.push(entry.path());
        }
    }
    if groups.is_empty() {
        return;
    }
    eventually("the end of the host's processes", || {
        processes.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    // Those within come behind those that they are in.
    for group in groups.iter().rev() {
        let _ = fs::remove_dir(group.join("hearth-host"));
        let _ = fs::remove_dir(group);
    }
}

/// The program, with nothing of the environment that the tests themselves run in.
pub fn hearth(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.env_clear().env("HOME", home).env("RUST_BACKTRACE", "1");
    let given = |name: &str| std::env::var_os(name);
    let outside = PathBuf::from(given("HOME").unwrap_or_default());
    for (name, usual) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        command.env(name, given(name).unwrap_or_else(|| outside.join(usual).into()));
    }
    command.env("PATH", given("PATH").unwrap_or_default());
    command
}

/// Starts the host and waits until it says, on descriptor 3, that it serves; else what it said.
fn launch(
    command: &[String],
    directory: &Path,
    listen: &str,
    options: &[String],
) -> Result<(Child, SocketAddr), String> {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let (ready, its_end) = std::io::pipe().unwrap();
    // The host opens it once more, which is for whoever the pipe belongs to.
    let owner = fs::metadata(directory).unwrap();
    std::os::unix::fs::fchown(&its_end, Some(owner.uid()), Some(owner.gid())).unwrap();
    let environment = hearth(directory);
    let group = make_own_group(directory);
    let words = command;
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"echo 0 > "$0"; exec "$@" 3>&0 0</dev/null"#])
        .arg(group.map_or("/dev/null".into(), |group| group.join("cgroup.procs")))
        .args(words)
        .args(["up", "--ready-fd", "3", "--data"])
        .arg(directory.join("data"))
        .args(["--listen", listen])
        .args(options)
        .env_clear()
        .envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("HEARTH_ADMIN_TOKEN", ADMIN_TOKEN)
        .stdin(Stdio::from(its_end))
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = command.spawn().unwrap();
    // The command holds our copy of its end; without it, the pipe ends when the host does.
    drop(command);
    let Some(line) = first_line(ready) else {
        child.wait().unwrap();
        return Err(fs::read_to_string(directory.join("log")).unwrap_or_default());
    };
    let said: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(said["pid"], child.id(), "{line}");
    Ok((child, said["listen"].as_str().unwrap().parse().unwrap()))
}

fn first_line(pipe: PipeReader) -> Option<String> {
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line).unwrap();
    line.ends_with('\n').then_some(line)
}

pub fn has_a_listener(pid: i32) -> bool {
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listening: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            (columns.get(3) == Some(&"0A")).then(|| format!("socket:[{}]", columns[9]))
        })
        .collect();
    fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|fds| {
        fds.flatten().any(|fd| {
            fs::read_link(fd.path())
                .is_ok_and(|to| listening.iter().any(|it| to.as_os_str() == it.as_str()))
        })
    })
}

#[derive(Clone)]
pub struct Tenant {
    pub name: String,
    pub port: u16,
    pub token: String,
    front: SocketAddr,
}

/// One of the three addresses at which a tenant's functions answer.
pub struct Address {
    pub name: &'static str,
    pub to: SocketAddr,
    host: Option<String>,
    prefix: String,
}

impl Address {
    /// What requests name as their host.
    pub fn authority(&self) -> String {
        self.host.clone().unwrap_or_else(|| self.to.to_string())
    }

    pub fn request(&self, method: &str, path: &str) -> Request {
        let request = Request::new(method, &format!("{}{path}", self.prefix));
        match &self.host {
            Some(host) => request.header("host", host),
            None => request,
        }
    }

    #[track_caller]
    pub fn send(&self, request: &Request) -> Answer {
        request.send(self.to)
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.send(&self.request("POST", path).body(body))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send(&self.request("GET", path))
    }
}

impl Tenant {
    /// One that the host had before this test asked for any.
    pub fn known(host: &Host, name: &str, port: u16, token: &str) -> Self {
        Self { name: name.to_owned(), port, token: token.to_owned(), front: host.front }
    }

    /// The same tenant, where another host has it.
    pub fn on(&self, host: &Host) -> Self {
        Self { front: host.front, ..self.clone() }
    }

    /// Its own port.
    pub fn address(&self) -> Address {
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        Address { name: "its own port", to, host: None, prefix: String::new() }
    }

    pub fn addresses(&self) -> [Address; 3] {
        [
            self.address(),
            Address {
                name: "its host name",
                to: self.front,
                host: Some(format!("{}.localhost:{}", self.name, self.front.port())),
                prefix: String::new(),
            },
            Address {
                name: "its path",
                to: self.front,
                host: Some(self.front.to_string()),
                prefix: format!("/t/{}", self.name),
            },
        ]
    }

    pub fn open(&self) -> Connection {
        Connection::open(self.address().to).unwrap()
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.address().post(path, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.address().get(path)
    }

    /// The management API, as the tenant's owner.
    pub fn api(&self, method: &str, path: &str) -> Request {
        let target = format!("/api/v1/tenants/{}{path}", self.name);
        Request::new(method, &target).bearer(&self.token)
    }

    #[track_caller]
    pub fn ask(&self, path: &str) -> Value {
        self.api("GET", path).send(self.front).expect(200).json()
    }

    #[track_caller]
    pub fn token(&self, scope: &str) -> String {
        let request = self.api("POST", "/tokens").json(&json!({ "name": scope, "scope": scope }));
        let made = request.send(self.front).expect(201).json();
        made["token"].as_str().unwrap().to_owned()
    }

    /// An upload at the tenant's own port, which answers whatever it answers.
    #[track_caller]
    pub fn upload(&self, files: &[(&str, &[u8])], options: Option<&str>) -> Answer {
        self.address().send(
            &upload(self.address().request("POST", "/$upload"), files, options).bearer(&self.token),
        )
    }

    /// An upload that must succeed.
    #[track_caller]
    pub fn deploy(&self, name: &str, module: &[u8]) -> Value {
        self.upload(&[(&format!("{name}.wasm"), module)], None).expect(200).json()
    }

    #[track_caller]
    pub fn deploy_with(&self, name: &str, module: &[u8], options: &Value) -> Value {
        let options = options.to_string();
        self.upload(&[(&format!("{name}.wasm"), module)], Some(&options)).expect(200).json()
    }

    #[track_caller]
    pub fn state(&self) -> String {
        self.ask("/worker")["state"].as_str().unwrap().to_owned()
    }

    /// Connections that the host keeps for it until they speak.
    #[track_caller]
    pub fn parked(&self) -> u64 {
        self.ask("/worker")["parked"].as_u64().unwrap()
    }

    #[track_caller]
    pub fn rollback(&self, path: &str, version: u64) -> Value {
        let request = self.api("POST", &format!("/functions{path}/rollback"));
        request.json(&json!({ "version": version })).send(self.front).expect(200).json()
    }
}

pub fn upload(request: Request, files: &[(&str, &[u8])], options: Option<&str>) -> Request {
    let mut parts: Vec<Part<'_>> =
        files.iter().map(|(file, bytes)| Part { name: "file", file: Some(file), bytes }).collect();
    if let Some(options) = options {
        parts.push(Part { name: "options", file: None, bytes: options.as_bytes() });
    }
    let (content_type, body) = form(&parts);
    request.header("content-type", &content_type).body(body)
}

/// What a command said.
pub struct Said {
    asked: String,
    output: Output,
}

impl Said {
    #[track_caller]
    pub fn done(self) -> String {
        let error = self.error();
        assert!(self.output.status.success(), "hearth {}: {error}", self.asked);
        self.text()
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Ended with this status, and what it said about why.
    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        let (text, error) = (self.text(), self.error());
        assert_eq!(self.output.status.code(), Some(status), "hearth {}: {text}{error}", self.asked);
        error
    }

    /// The same, and what it said besides.
    #[track_caller]
    pub fn failed_text(self, status: i32) -> String {
        let text = self.text();
        self.failed(status);
        text
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn error(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}
