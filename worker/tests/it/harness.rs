//! The primary's side of a worker, as small as tests need it: real processes, real sockets, the
//! messages of `hearth-wire`. The only file that knows how any of it is started.

mod births;
mod made;
pub use births::of_each_birth;
pub use made::{DEMO, LATER, made};

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use hearth_e2e::component;
use hearth_engine::EngineKind;
use hearth_wire::uplink::Kind;
use hearth_wire::{
    Bundle, Cell, CompileJob, CompileReply, CompileRequest, ExitStatus, Fingerprint, FromWorker,
    FromZygote, GenerationNumber, Given, HandlerKind, Limits, Manifest, ManifestFunction,
    ModuleDigest, Mount, OptionsPatch, Origin, Over, Passing, Report, Start, Subject, ToWorker,
    ToZygote, TokenGrant, VERSION, What,
};
use sha2::{Digest, Sha256};

/// Nothing here takes longer, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hearth-worker")).parent().expect("a program lies in a directory")
}

pub fn guest(name: &str) -> PathBuf {
    let target = programs().parent().expect("the profile's directory lies in the target's");
    let guest = target.join(format!("wasm32-wasip2/release/{name}.wasm"));
    assert!(guest.exists(), "the guest {name} is not built: run `cargo xtask test`");
    guest
}

/// What the compiler made of a module. Its files are deleted already.
pub struct Made {
    pub reply: CompileReply,
    pub artifact: File,
    /// What the module declares of itself; empty where it declares nothing.
    pub declared: String,
}

pub fn compile(module: &Path) -> Made {
    compile_as(module, hearth_engine::fingerprints())
}

pub fn compile_as(module: &Path, engines: Vec<Fingerprint>) -> Made {
    let [artifact, mut declared] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let module = File::open(module).unwrap();
    let reply = ask_compiler(CompileJob::Compile, engines, &[&module, &artifact, &declared]);
    let mut options = String::new();
    declared.rewind().unwrap();
    declared.read_to_string(&mut options).unwrap();
    Made { reply, artifact, declared: options }
}

/// Whether a function can have these options.
pub fn check(guest: &str, options: &str) -> CompileReply {
    let Artifact { engine, code, .. } = artifact(guest);
    let options = OptionsPatch::parse(options).unwrap().resolve();
    let files = [serde_json::to_vec(&options).unwrap(), code].map(|bytes| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.rewind().unwrap();
        file
    });
    let job = CompileJob::Check { engine };
    ask_compiler(job, hearth_engine::fingerprints(), &[&files[0], &files[1]])
}

fn ask_compiler(job: CompileJob, engines: Vec<Fingerprint>, files: &[&File]) -> CompileReply {
    let program = programs().join("hearth-compile");
    assert!(program.exists(), "hearth-compile is not built: run `cargo xtask test`");
    let (ours, theirs) = hearth_wire::pair().unwrap();
    let mut child = Command::new(program)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors()))
        .spawn()
        .unwrap();
    let request = CompileRequest { version: VERSION, engines, job, uid: None };
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    hearth_wire::send(&ours, &request, &files).unwrap();
    let (reply, _) = hearth_wire::recv::<CompileReply>(&ours).unwrap().expect("one reply");
    assert!(child.wait().unwrap().success());
    reply
}

/// Behind the name of a guest on WASI 0.2: the same one, as the engine with concurrency runs it.
pub const CONCURRENT: &str = " with concurrency";

#[derive(Clone)]
struct Artifact {
    sha256: ModuleDigest,
    engine: Fingerprint,
    kind: HandlerKind,
    code: Vec<u8>,
}

/// A guest's artifact, compiled once for all tests.
fn artifact(name: &str) -> Artifact {
    static COMPILED: OnceLock<Mutex<HashMap<String, Artifact>>> = OnceLock::new();
    let mut compiled = COMPILED.get_or_init(Mutex::default).lock().unwrap();
    let found = compiled.entry(name.to_owned()).or_insert_with(|| {
        let read = |name| made(name).unwrap_or_else(|| std::fs::read(guest(name)).unwrap());
        let bytes = match name.strip_suffix(CONCURRENT) {
            Some(name) => component::concurrent(&read(name)),
            None => read(name),
        };
        let Made { reply, mut artifact, .. } = compile(module(&bytes).path());
        let CompileReply::Compiled { engine, kind, .. } = reply else {
            panic!("{name}: {reply:?}")
        };
        let sha256 = ModuleDigest::new(Sha256::digest(bytes).into());
        let mut code = Vec::new();
        artifact.rewind().unwrap();
        artifact.read_to_end(&mut code).unwrap();
        Artifact { sha256, engine, kind, code }
    });
    found.clone()
}

/// The engine that a guest is run by.
pub fn engine_of(guest: &str) -> EngineKind {
    EngineKind::made(artifact(guest).engine).unwrap()
}

/// What a build brings: paths, guests and options.
pub fn bundle(mounts: &[(&str, &str, &str)]) -> Bundle {
    let mounts = mounts.iter().map(|(path, guest, options)| {
        let Artifact { sha256, kind, .. } = artifact(guest);
        let options = OptionsPatch::parse(options).unwrap();
        let declared = OptionsPatch::default();
        Mount { path: path.parse().unwrap(), sha256, kind, declared, options }
    });
    Bundle { mounts: mounts.collect(), ..Bundle::default() }
}

/// A generation on disk: functions as path, guest and options.
pub struct Release {
    dir: tempfile::TempDir,
}

impl Release {
    pub fn new(generation: u64, functions: &[(&str, &str, &str)]) -> Self {
        Self::over(generation, functions, Over::default())
    }

    /// Laid over a bundle, with what its owner changed of that.
    pub fn over(generation: u64, functions: &[(&str, &str, &str)], over: Over) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let functions = functions
            .iter()
            .map(|(path, guest, options)| {
                let Artifact { sha256, engine, kind, code } = artifact(guest);
                let options = OptionsPatch::parse(options).unwrap().resolve();
                let path = path.parse().unwrap();
                let (version, engine) = (1.into(), Some(engine));
                let function = ManifestFunction { path, version, sha256, kind, options, engine };
                std::fs::write(dir.path().join(function.artifact()), code).unwrap();
                function
            })
            .collect();
        let manifest = Manifest {
            tenant: "demo".parse().unwrap(),
            generation: GenerationNumber(generation),
            limits: Limits::default(),
            bundle: Bundle::default().digest,
            over,
            functions,
        };
        let release = Self { dir };
        release.write(&manifest);
        release
    }

    /// For a tenant that has these limits.
    pub fn within(generation: u64, functions: &[(&str, &str, &str)], limits: Limits) -> Self {
        let release = Self::new(generation, functions);
        release.rewrite(|manifest| manifest.limits = limits);
        release
    }

    /// With something else in its manifest.
    pub fn rewrite(&self, change: impl FnOnce(&mut Manifest)) {
        let json = std::fs::read(self.path().join(Manifest::FILE)).unwrap();
        let mut manifest = serde_json::from_slice(&json).unwrap();
        change(&mut manifest);
        self.write(&manifest);
    }

    fn write(&self, manifest: &Manifest) {
        let json = serde_json::to_vec(manifest).unwrap();
        std::fs::write(self.path().join(Manifest::FILE), json).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub struct Zygote {
    socket: OwnedFd,
    child: Child,
    last_ticket: u64,
    /// How many spare children the next bundle is to have.
    pub spares: u8,
    /// Ends of children that were told while something else was waited for.
    ended: Vec<(i32, ExitStatus)>,
}

impl Zygote {
    pub fn start() -> Self {
        let (socket, theirs) = hearth_wire::pair().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hearth-worker"))
            .arg("zygote")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors()))
            .spawn()
            .unwrap();
        let mut zygote = Self { socket, child, last_ticket: 0, spares: 0, ended: Vec::new() };
        zygote.say(&ToZygote::Hello { version: VERSION }, &[]);
        match zygote.hear().0 {
            FromZygote::Hello { version: VERSION, engines, .. } => {
                assert_eq!(engines, hearth_engine::fingerprints());
            }
            other => panic!("{other:?}"),
        }
        zygote
    }

    pub fn say(&self, message: &ToZygote, fds: &[std::os::fd::BorrowedFd<'_>]) {
        hearth_wire::send(&self.socket, message, fds).unwrap();
    }

    pub fn hear(&mut self) -> (FromZygote, Vec<OwnedFd>) {
        wait_readable(&self.socket, PATIENCE);
        hearth_wire::recv(&self.socket).unwrap().expect("the zygote lives")
    }

    pub fn preload(&mut self, name: &str) {
        self.bundle(&Bundle::default(), &[name]);
    }

    /// Makes it the bundle of every later fork, with these guests as its modules.
    pub fn bundle(&mut self, bundle: &Bundle, names: &[&str]) {
        let file = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        };
        let mut files = vec![file(&serde_json::to_vec(bundle).unwrap())];
        let mut modules = Vec::new();
        for name in names {
            let Artifact { sha256, engine, code, .. } = artifact(name);
            modules.push((sha256, engine));
            files.push(file(&code));
        }
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        self.say(&ToZygote::Bundle { modules, spares: self.spares }, &fds);
        match self.hear().0 {
            FromZygote::Bundled { failed } => assert_eq!(failed, []),
            other => panic!("{other:?}"),
        }
    }

    pub fn fork(&mut self, release: &Release, start: Start) -> Worker {
        let listener = listener();
        self.fork_on(&listener, release, start)
    }

    pub fn fork_on(&mut self, listener: &TcpListener, release: &Release, start: Start) -> Worker {
        let (control, theirs) = begin(start);
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let release = File::open(release.path()).unwrap();
        let errors = errors();
        let fds = [theirs.as_fd(), listener.as_fd(), release.as_fd(), errors.as_fd()];
        self.say(&fork(ticket), &fds);
        loop {
            match self.hear() {
                (FromZygote::Exited { pid, status }, _) => self.ended.push((pid, status)),
                (FromZygote::Forked { ticket: theirs, pid }, fds) => {
                    assert_eq!((theirs, fds.len()), (ticket, 1));
                    return Worker::new(control, listener, Some(pid), None);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn exited(&mut self) -> (i32, ExitStatus) {
        if let Some(ended) = self.ended.pop() {
            return ended;
        }
        match self.hear().0 {
            FromZygote::Exited { pid, status } => (pid, status),
            other => panic!("{other:?}"),
        }
    }

    /// The end of the conversation is the end of the zygote.
    pub fn end(self) -> Option<i32> {
        let Self { socket, mut child, .. } = self;
        drop(socket);
        child.wait().unwrap().code()
    }
}

/// With all that a worker cannot be without.
fn fork(ticket: u64) -> ToZygote {
    let given = vec![Given::Control, Given::Listener, Given::Release, Given::Errors];
    ToZygote::Fork { ticket, cell: Cell::default(), given }
}

/// A worker without a zygote.
pub fn exec(release: &Release, start: Start) -> Worker {
    let (socket, theirs) = hearth_wire::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_hearth-worker"))
        .arg("exec")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors()))
        .spawn()
        .unwrap();
    let (control, theirs) = begin(start);
    let listener = listener();
    let release = File::open(release.path()).unwrap();
    let errors = errors();
    let fds = [theirs.as_fd(), listener.as_fd(), release.as_fd(), errors.as_fd()];
    hearth_wire::send(&socket, &fork(1), &fds).unwrap();
    Worker::new(control, &listener, None, Some(child))
}

/// A pipe for what a process says of its own mistakes, which is shown among what the test says.
fn errors() -> io::PipeWriter {
    let (said, errors) = io::pipe().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            println!("it said: {line}");
        }
    });
    errors
}

pub fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn tokens(serial: u64, grants: Vec<TokenGrant>) -> ToWorker {
    ToWorker::Told { serial, what: What::Tokens(grants) }
}

fn begin(start: Start) -> (OwnedFd, OwnedFd) {
    let (control, theirs) = hearth_wire::pair().unwrap();
    let settings = start.settings;
    hearth_wire::send(&control, &ToWorker::Start(start), &[]).unwrap();
    // Behind settings, which the test tells.
    if settings == 0 {
        hearth_wire::send(&control, &tokens(1, vec![]), &[]).unwrap();
    }
    (control, theirs)
}

pub fn start(generation: u64) -> Start {
    Start {
        version: VERSION,
        tenant: "demo".parse().unwrap(),
        generation: GenerationNumber(generation),
        serves: hearth_wire::Serves::Functions,
        idle: Duration::from_secs(600),
        woken_at: None,
        trusted_proxies: vec![],
        trusted_headers: vec![],
        domain: None,
        settings: 0,
        state_bytes: 0,
    }
}

pub struct Worker {
    control: OwnedFd,
    listener: TcpListener,
    pub address: SocketAddr,
    pub pid: Option<i32>,
    child: Option<Child>,
    pub reports: Report,
    /// What came with the message that was heard last.
    came: Vec<OwnedFd>,
}

impl Worker {
    fn new(
        control: OwnedFd,
        listener: &TcpListener,
        pid: Option<i32>,
        child: Option<Child>,
    ) -> Self {
        let listener = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        Self { control, listener, address, pid, child, reports: Report::default(), came: vec![] }
    }

    /// Of its process, however it was started.
    pub fn id(&self) -> u32 {
        let child = self.child.as_ref().map(Child::id);
        child.or(self.pid.map(i32::cast_unsigned)).unwrap()
    }

    /// Ready, accepting, and with its tokens.
    pub fn accept(mut self) -> Self {
        self.await_ready();
        assert_eq!(self.hear(), FromWorker::Applied { serial: 1, what: Subject::Tokens });
        self.say(&ToWorker::Accept);
        assert_eq!(self.hear(), FromWorker::Accepting);
        self
    }

    pub fn await_ready(&mut self) {
        match self.hear() {
            FromWorker::Ready { version: VERSION, .. } => {}
            other => panic!("{other:?}"),
        }
    }

    pub fn say(&self, message: &ToWorker) {
        hearth_wire::send(&self.control, message, &[]).unwrap();
    }

    pub fn set_tokens(&mut self, grants: Vec<TokenGrant>) {
        self.say(&tokens(2, grants));
        assert_eq!(self.hear(), FromWorker::Applied { serial: 2, what: Subject::Tokens });
    }

    /// What it says next besides reports, which are gathered.
    pub fn hear(&mut self) -> FromWorker {
        self.hear_or_end().expect("the worker lives")
    }

    pub fn hear_or_end(&mut self) -> Option<FromWorker> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            wait_readable(&self.control, deadline.saturating_duration_since(Instant::now()));
            match hearth_wire::recv::<FromWorker>(&self.control).unwrap()? {
                (FromWorker::Report(report), _) => self.gather(report),
                (other, came) => {
                    self.came = came;
                    return Some(other);
                }
            }
        }
    }

    fn gather(&mut self, report: Report) {
        let Report { lines, calls, lines_dropped, calls_dropped } = report;
        self.reports.lines.extend(lines);
        self.reports.calls.extend(calls);
        self.reports.lines_dropped += lines_dropped;
        self.reports.calls_dropped += calls_dropped;
    }

    /// Gathers reports until there are as many as this.
    pub fn await_report(&mut self, enough: impl Fn(&Report) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !enough(&self.reports) {
            wait_readable(&self.control, deadline.saturating_duration_since(Instant::now()));
            match hearth_wire::recv::<FromWorker>(&self.control).unwrap() {
                Some((FromWorker::Report(report), _)) => self.gather(report),
                other => panic!("{other:?} instead of a report"),
            }
        }
    }

    /// Takes the connections that it passes on until there are so many, each batch confirmed.
    pub fn passed(&mut self, connections: usize) -> Vec<(OwnedFd, Passing)> {
        let mut passed = Vec::new();
        while passed.len() < connections {
            let FromWorker::Pass(batch) = self.hear() else { panic!("it passes nothing on") };
            let came = std::mem::take(&mut self.came);
            assert!(came.len() == batch.len() && batch.len() <= Passing::MOST);
            passed.extend(came.into_iter().zip(batch));
            self.say(&ToWorker::Passed);
        }
        assert_eq!(passed.len(), connections);
        passed
    }

    /// Brings it connections, and waits until it has confirmed them.
    pub fn take(&mut self, connections: Vec<(OwnedFd, Passing)>) {
        self.bring(connections);
        assert_eq!(self.hear(), FromWorker::Passed);
    }

    pub fn bring(&self, connections: Vec<(OwnedFd, Passing)>) {
        let (fds, batch): (Vec<_>, Vec<_>) = connections.into_iter().unzip();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        hearth_wire::send(&self.control, &ToWorker::Pass(batch), &fds).unwrap();
    }

    pub fn link(&self, origin: Origin) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        hearth_wire::send(&self.control, &ToWorker::Link(origin), &[theirs.as_fd()]).unwrap();
        ours
    }

    pub fn uplink(&self, kind: Kind) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        hearth_wire::send(&self.control, &ToWorker::Uplink { kind }, &[theirs.as_fd()]).unwrap();
        ours
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn call(&self, request: &str) -> Answer {
        let mut stream = self.connect();
        ask(&mut stream, request)
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.call(&post(path, body))
    }

    /// Its exit code, once it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        assert_eq!(self.hear_or_end(), None);
        self.exit_code()
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.as_mut().and_then(|child| child.wait().unwrap().code())
    }

    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }
}

fn readable(fd: impl AsFd, time: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut watched = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut watched, Some(&time.try_into().unwrap())).unwrap() > 0
}

/// The first of these on which something comes.
#[track_caller]
pub fn first_readable(all: &[TcpStream]) -> usize {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut watched: Vec<_> = all.iter().map(|one| PollFd::new(one, PollFlags::IN)).collect();
    assert!(poll(&mut watched, Some(&PATIENCE.try_into().unwrap())).unwrap() > 0, "nothing came");
    watched.iter().position(|one| !one.revents().is_empty()).unwrap()
}

#[track_caller]
fn wait_readable(fd: impl AsFd, time: Duration) {
    assert!(readable(fd, time), "nothing came");
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: demo\r\n\r\n")
}

pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: demo\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended before it was whole.
    pub broken: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
    }
}

pub fn ask(stream: &mut (impl Read + Write), request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let head = request.starts_with("HEAD ");
    read_answer(&mut BufReader::with_capacity(1, stream), head)
}

/// Reads one answer and nothing beyond it.
pub fn read_answer(stream: &mut impl BufRead, head: bool) -> Answer {
    let mut answer = Answer::default();
    let status = line(stream).expect("a status line");
    answer.status = status.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    answer.headers = fields(stream);
    if answer.status == 100 {
        return answer;
    }
    if head || matches!(answer.status, 204 | 304) {
        return answer;
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = line(stream).and_then(|size| usize::from_str_radix(&size, 16).ok());
            match size {
                Some(0) => {
                    answer.trailers = fields(stream);
                    return answer;
                }
                Some(size) => {
                    let mut chunk = vec![0; size + 2];
                    if stream.read_exact(&mut chunk).is_err() {
                        answer.broken = true;
                        return answer;
                    }
                    answer.body.extend_from_slice(&chunk[..size]);
                }
                None => {
                    answer.broken = true;
                    return answer;
                }
            }
        }
    }
    let length = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
    let Some(length) = length else {
        answer.broken = stream.read_to_end(&mut answer.body).is_err();
        return answer;
    };
    let read = stream.take(length).read_to_end(&mut answer.body);
    answer.broken = read.is_err() || answer.body.len() as u64 != length;
    answer
}

fn fields(stream: &mut impl BufRead) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    while let Some(line) = line(stream) {
        let Some((name, value)) = line.split_once(": ") else { break };
        fields.push((name.to_lowercase(), value.to_owned()));
    }
    fields
}

fn line(stream: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

/// Whether the other side has closed.
pub fn is_closed(stream: &mut impl Read) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

/// A module of these bytes.
pub fn module(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    OpenOptions::new().write(true).open(file.path()).unwrap().write_all(bytes).unwrap();
    file
}
