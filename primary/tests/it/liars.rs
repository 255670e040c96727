//! Workers that lie to the host. Between the host and its real zygote stands a process that
//! passes on everything they say, and says something of its own in a worker's name when a test
//! tells it to.
//!
//! ```text
//! hearth ◄──► hearth-worker (a script: this test program again) ◄──► hearth-worker zygote
//!        ◄──► one relay for each worker, which may lie         ◄──► worker
//! ```

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hearth_wire::uplink::Kind;
use hearth_wire::{
    Entry, FRAME_MAX, FromWorker, FromZygote, Given, LogLine, LogStream, Moment, Passing, Report,
    Subject, ToWorker, ToZygote, VERSION, pair, recv, send,
};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::net::{SendFlags, Shutdown, shutdown};

use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::processes::{Beside, eventually, is_alive};

const WANTED: FromWorker = FromWorker::WantUplink { kind: Kind::Upload };

/// Where the relay finds its lie.
const LIE: &str = "LIE";
const FLOOD: Duration = Duration::from_secs(2);

/// A host whose workers lie when told to.
struct Liars {
    host: Host,
    tenant: Tenant,
    neighbour: Tenant,
    lie: PathBuf,
    /// What the relay has to say of its lie.
    said: PathBuf,
}

impl Liars {
    fn new() -> Self {
        let host = Host::of(|directory| {
            let real = Path::new(env!("CARGO_BIN_EXE_hearth"));
            let program = directory.join("hearth");
            for name in ["hearth", "hearth-compile"] {
                let (from, to) = (real.with_file_name(name), directory.join(name));
                fs::hard_link(&from, &to).or_else(|_| fs::copy(from, to).map(drop)).unwrap();
            }
            let script = format!(
                "#!/bin/sh
                [ \"$1\" = zygote ] || exec '{}' \"$@\"
                LIE='{}' exec '{}' liars::in_the_zygotes_place --exact --ignored --nocapture\n",
                real.with_file_name("hearth-worker").display(),
                directory.join("lie").display(),
                std::env::current_exe().unwrap().display(),
            );
            let worker = directory.join("hearth-worker");
            fs::write(&worker, script).unwrap();
            fs::set_permissions(&worker, fs::Permissions::from_mode(0o755)).unwrap();
            program
        });
        let (tenant, neighbour) = (host.tenant("liar"), host.tenant("neighbour"));
        let lie = host.scratch().join("lie");
        let said = lie.with_extension("said");
        Self { host, tenant, neighbour, lie, said }
    }

    fn tell(&self, lie: &str) {
        fs::write(&self.lie, lie).unwrap();
    }

    /// Whatever it has to say is true again.
    fn repent(&self) {
        fs::remove_file(&self.lie).unwrap();
        self.host.send(&self.tenant.api("POST", "/worker/start"));
        eventually("an honest worker", || {
            let call = self.tenant.address().request("POST", "/hello").body("{}");
            call.try_send(self.tenant.address().to).ok().filter(|answer| answer.status == 200)
        });
    }

    fn ended_for_nonsense(&self) -> u64 {
        self.host.figure(r#"hearth_workers_ended_for_nonsense_total{tenant="liar"}"#)
    }
}

fn call_on(tenant: &Tenant) -> Beside<String> {
    let (address, mut connection) = (tenant.address(), tenant.open());
    Beside::run(move |wrong| {
        let answer = connection.call(&address.request("POST", "/hello").body("{}"));
        if answer.status != 200 {
            wrong.insert(answer.text());
        }
    })
}

#[test]
fn row_26_a_worker_that_talks_nonsense_is_ended_and_its_tenant_backs_off() {
    let liars = Liars::new();
    let neighbour = call_on(&liars.neighbour);
    for (lie, reason) in [
        ("garbage", "could not be decoded"),
        ("giant", "could not be decoded"),
        ("ready", "`Ready`"),
        ("tokens", "`Applied`"),
        ("reported", "`Reported`"),
        ("passed", "`Passed`"),
        ("passes", "`Pass`"),
        ("quiesced", "`Quiesced`"),
        ("descriptors", "1 descriptors where 0"),
        ("crowd", "more at once"),
        ("long-line", "more at once"),
    ] {
        let before = liars.ended_for_nonsense();
        liars.tell(lie);
        // Whoever serves already has said all that it has to say.
        liars.host.send(&liars.tenant.api("POST", "/worker/restart"));
        eventually(lie, || {
            // It may be answered: whoever lies serves as well.
            let call = liars.tenant.address().request("POST", "/hello").body("{}");
            let refused = call.try_send(liars.tenant.address().to).ok()?;
            (refused.status == 503).then_some(())
        });
        let worker = liars.tenant.ask("/worker");
        let said = worker["reason"].as_str().unwrap_or_default();
        assert!(said.contains(reason), "{lie}: {worker}");
        assert!(matches!(worker["state"].as_str(), Some("backoff" | "barred")), "{worker}");
        assert!(liars.ended_for_nonsense() >= before + 3, "{lie}");
        for address in liars.tenant.addresses() {
            let refused = address.post("/hello", "{}").expect_problem(503, "worker_unavailable");
            assert!(refused.header("retry-after").is_some(), "{lie} at {}", address.name);
        }
        liars.repent();
    }
    assert_eq!(neighbour.stop(), BTreeSet::new());
}

#[test]
fn row_26_a_connection_that_is_not_a_tenants_ends_the_worker_that_passes_it_on() {
    let liars = Liars::new();
    liars.tenant.post("/hello", "{}").expect(200);
    let neighbour = call_on(&liars.neighbour);
    for lie in ["foreign", "pipe"] {
        let before = liars.ended_for_nonsense();
        liars.tell(lie);
        // It says so when it is told to pass on what it has, and by then the next one serves.
        liars.host.send(&liars.tenant.api("POST", "/worker/restart")).expect(200);
        eventually(lie, || (liars.ended_for_nonsense() == before + 1).then_some(()));
        liars.tenant.post("/hello", "{}").expect(200);
        assert_eq!(liars.tenant.state(), "ready");
        assert_eq!(liars.tenant.parked(), 0);
        fs::remove_file(&liars.lie).unwrap();
    }
    assert_eq!(neighbour.stop(), BTreeSet::new());
}

#[test]
fn row_26_a_flood_of_reports_waits_in_the_kernel_and_holds_up_nobody() {
    let liars = Liars::new();
    let neighbour = call_on(&liars.neighbour);
    liars.tell("flood");
    liars.tenant.post("/hello", "{}").expect(200);
    let told: u64 = eventually("the end of the flood", || {
        fs::read_to_string(&liars.said).ok()?.trim().parse().ok()
    });
    // 1,000 a second, 200 at once, and what the kernel holds; unhindered it is a hundred times that.
    assert!((1_000..5_000).contains(&told), "{told}");
    for address in liars.tenant.addresses() {
        address.post("/hello", "{}").expect(200);
    }
    assert_eq!((liars.tenant.state().as_str(), liars.ended_for_nonsense()), ("ready", 0));
    assert_eq!(neighbour.stop(), BTreeSet::new());
}

#[test]
fn row_26_a_worker_has_a_few_uplinks_however_often_it_asks() {
    let liars = Liars::new();
    liars.tell("uplinks");
    liars.tenant.post("/hello", "{}").expect(200);
    eventually("uplinks", || (count(&liars.said)? == 4).then_some(()));
    // What it says later was heard later.
    let call = liars.tenant.address().request("POST", "/hello").body("{}");
    liars.tenant.open().call(&call).expect(200);
    assert_eq!(count(&liars.said), Some(4));
    // The neighbour's uploads have uplinks of their own.
    liars.neighbour.deploy("one", guests::version_one());
    // Its own do not get through any more, and it is told so; elsewhere they do.
    let files: [(&str, &[u8]); 1] = [("one.wasm", guests::version_one())];
    liars.tenant.upload(&files, None).expect_problem(503, "worker_unavailable");
    let [_, by_name, _] = liars.tenant.addresses();
    let request = upload(by_name.request("POST", "/$upload"), &files, None);
    by_name.send(&request.bearer(&liars.tenant.token)).expect(200);
}

/// Whatever it asks for on an uplink, it is answered like a stranger at its tenant's address, or
/// that nothing is there.
#[test]
fn row_26_a_worker_asks_for_no_more_than_its_tenant_could() {
    let liars = Liars::new();
    liars.tell(&format!("astray {}", liars.neighbour.token));
    liars.tenant.post("/hello", "{}").expect(200);
    let said = eventually("answers", || {
        let said = fs::read_to_string(&liars.said).ok()?;
        (said.lines().count() == ASTRAY.len()).then_some(said)
    });
    let expected: Vec<_> =
        ASTRAY.map(|(method, path, status)| format!("{status} {method} {path}")).into();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert_eq!((liars.tenant.state().as_str(), liars.ended_for_nonsense()), ("ready", 0));
}

#[test]
fn row_26_a_worker_that_floods_its_uplink_loses_that_alone() {
    let liars = Liars::new();
    let neighbour = call_on(&liars.neighbour);
    liars.tell("floods without-end");
    liars.tenant.post("/hello", "{}").expect(200);
    eventually("its end", || (count(&liars.said)? == 1).then_some(()));
    let said = fs::read_to_string(&liars.said).unwrap();
    assert_eq!(said, "ended\n");
    fs::remove_file(&liars.lie).unwrap();
    for address in liars.tenant.addresses() {
        let files: [(&str, &[u8]); 1] = [("one.wasm", guests::version_one())];
        let request = upload(address.request("POST", "/$upload"), &files, None);
        address.send(&request.bearer(&liars.tenant.token)).expect(200);
        address.post("/hello", "{}").expect(200);
    }
    assert_eq!((liars.tenant.state().as_str(), liars.ended_for_nonsense()), ("ready", 0));
    assert_eq!(neighbour.stop(), BTreeSet::new());
}

/// A token is there, or gone, when the API says so: no worker goes by older ones then.
#[test]
fn row_26_a_worker_that_does_not_go_by_new_tokens_is_ended_before_anybody_is_answered() {
    let liars = Liars::new();
    let neighbour = call_on(&liars.neighbour);
    liars.tenant.post("/hello", "{}").expect(200);
    liars.tell("forgets");
    let before = liars.tenant.ask("/worker")["pid"].as_i64().unwrap();
    liars.tenant.token("invoke");
    assert_eq!(count(&liars.said), Some(1));
    assert!(!is_alive(before.try_into().unwrap()));
    eventually("the reason", || {
        let worker = liars.tenant.ask("/worker");
        worker["reason"].as_str()?.contains("new tokens").then_some(())
    });
    fs::remove_file(&liars.lie).unwrap();
    liars.tenant.post("/hello", "{}").expect(200);
    assert_eq!(neighbour.stop(), BTreeSet::new());
}

#[test]
fn row_26_a_worker_that_hangs_up_is_ended() {
    let liars = Liars::new();
    liars.tell("hangs-up");
    let call = liars.tenant.address().request("POST", "/hello").body("{}");
    let _ = call.try_send(liars.tenant.address().to);
    let ended = eventually("an end", || {
        let worker = liars.tenant.ask("/worker");
        (worker["state"] == "backoff").then_some(worker)
    });
    assert!(ended["pid"].is_null(), "{ended}");
    liars.repent();
}

#[test]
fn row_26_a_worker_that_shuts_its_listener_down_does_so_for_itself_alone() {
    let liars = Liars::new();
    liars.tell("deafens");
    let call = liars.tenant.address().request("POST", "/hello").body("{}");
    let _ = call.try_send(liars.tenant.address().to);
    eventually("its end", || (liars.ended_for_nonsense() > 0).then_some(()));
    liars.repent();
    liars.tenant.post("/hello", "{}").expect(200);
}

fn count(file: &Path) -> Option<usize> {
    Some(fs::read_to_string(file).ok()?.lines().count())
}

#[test]
#[ignore = "no test of its own: the tests above run it in the place of the zygote"]
fn in_the_zygotes_place() {
    let Some(lie) = std::env::var_os(LIE).map(PathBuf::from) else { return };
    let primary = Arc::new(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let (ours, theirs) = pair().unwrap();
    let real = Path::new(env!("CARGO_BIN_EXE_hearth")).with_file_name("hearth-worker");
    let mut zygote = Command::new(real)
        .arg("zygote")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ours = Arc::new(ours);
    std::thread::spawn({
        let (primary, ours) = (Arc::clone(&primary), Arc::clone(&ours));
        move || {
            while let Ok(Some((message, fds))) = recv::<FromZygote>(&*ours) {
                pass(&primary, &message, &fds).unwrap();
            }
        }
    });
    while let Ok(Some((message, mut fds))) = recv::<ToZygote>(&*primary) {
        if let ToZygote::Fork { given, .. } = &message {
            let at = |name: Given| given.iter().position(|it| *it == name).unwrap();
            let (near, far) = pair().unwrap();
            let control = std::mem::replace(&mut fds[at(Given::Control)], far);
            let listener = fds[at(Given::Listener)].try_clone().unwrap();
            Relay::between(control, near, listener, &lie);
        }
        pass(&ours, &message, &fds).unwrap();
    }
    let _ = shutdown(&*ours, Shutdown::Both);
    zygote.wait().unwrap();
}

fn pass<T: serde::Serialize>(
    to: &OwnedFd,
    message: &T,
    fds: &[OwnedFd],
) -> Result<(), hearth_wire::SocketError> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    send(to, message, &fds)
}

/// Between the primary and one worker.
struct Relay {
    primary: OwnedFd,
    worker: OwnedFd,
    listener: OwnedFd,
    lie: PathBuf,
    tenant: Mutex<String>,
}

impl Relay {
    fn between(primary: OwnedFd, worker: OwnedFd, listener: OwnedFd, lie: &Path) {
        let relay = Arc::new(Self {
            primary,
            worker,
            listener,
            lie: lie.to_owned(),
            tenant: Mutex::default(),
        });
        let down = Arc::clone(&relay);
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok(Some((message, fds))) = recv::<ToWorker>(&down.primary) {
                if let ToWorker::Start(start) = &message {
                    *down.tenant.lock().unwrap() = start.tenant.to_string();
                }
                if let ToWorker::Uplink { .. } = message
                    && let Some(lie) = down.lie()
                {
                    let [uplink] = <[OwnedFd; 1]>::try_from(fds).unwrap();
                    match lie.split_once(' ') {
                        Some(("astray", token)) => down.note(&astray(uplink, token)),
                        Some(("floods", _)) => down.note(&flooded(uplink)),
                        // Kept open: the worker, who did not ask, would make room for the next.
                        _ => {
                            kept.push(uplink);
                            down.note("uplink\n");
                        }
                    }
                    continue;
                }
                if let ToWorker::Told { serial: 2.., .. } = message
                    && down.lie().as_deref() == Some("forgets")
                    && count(&down.said()).is_none()
                {
                    down.note("forgot\n");
                    continue;
                }
                if let ToWorker::Quiesce = message {
                    // Before the worker hears of it, which may have nothing to do but leave.
                    down.lies_at_its_end();
                }
                if pass(&down.worker, &message, &fds).is_err() {
                    break;
                }
            }
            let _ = shutdown(&down.worker, Shutdown::Both);
        });
        std::thread::spawn(move || {
            while let Ok(Some((message, fds))) = recv::<FromWorker>(&relay.worker) {
                if pass(&relay.primary, &message, &fds).is_err() {
                    break;
                }
                if let FromWorker::Accepting = message {
                    relay.lies();
                }
            }
            let _ = shutdown(&relay.primary, Shutdown::Both);
        });
    }

    /// What it is to say, if it is this tenant's.
    fn lie(&self) -> Option<String> {
        let is_a_liar = *self.tenant.lock().unwrap() == "liar";
        fs::read_to_string(&self.lie).ok().filter(|_| is_a_liar)
    }

    fn said(&self) -> PathBuf {
        self.lie.with_extension("said")
    }

    fn note(&self, text: &str) {
        if self.lie().is_some() {
            let file = OpenOptions::new().create(true).append(true).open(self.said());
            file.unwrap().write_all(text.as_bytes()).unwrap();
        }
    }

    fn says(&self, message: &FromWorker, fds: &[OwnedFd]) {
        // It may be ended already.
        let _ = pass(&self.primary, message, fds);
    }

    fn says_bytes(&self, bytes: &[u8]) {
        let _ = rustix::net::send(&self.primary, bytes, SendFlags::NOSIGNAL);
    }

    /// As soon as it serves.
    fn lies(&self) {
        let Some(lie) = self.lie() else { return };
        let passing = Passing { unread: Vec::new(), since: Moment::now(), entry: Entry::Port };
        match lie.split(' ').next().unwrap() {
            "garbage" => self.says_bytes(&[250, 1]),
            "giant" => self.says_bytes(&vec![0; FRAME_MAX + 1]),
            "ready" => {
                self.says(&FromWorker::Ready { version: VERSION, load_us: 0, walls_us: 0 }, &[])
            }
            "tokens" => {
                self.says(&FromWorker::Applied { serial: u64::MAX, what: Subject::Tokens }, &[]);
            }
            "reported" => self.says(&FromWorker::Reported { serial: u64::MAX }, &[]),
            "passed" => self.says(&FromWorker::Passed, &[]),
            "passes" => self.says(&FromWorker::Pass(vec![passing]), &[connection()]),
            "quiesced" => self.says(&FromWorker::Quiesced, &[]),
            "descriptors" => {
                self.says(&FromWorker::Report(Report::default()), &[io::pipe().unwrap().0.into()]);
            }
            "crowd" => self.says(&report(Report::ITEMS_MAX + 1, 0), &[]),
            "long-line" => self.says(&report(1, 8_193), &[]),
            "deafens" => {
                shutdown(&self.listener, Shutdown::Both).unwrap();
                self.says_bytes(&[250, 1]);
            }
            "hangs-up" => drop(shutdown(&self.primary, Shutdown::Both)),
            "uplinks" => (0..50).for_each(|_| self.says(&WANTED, &[])),
            "astray" | "floods" => self.says(&WANTED, &[]),
            "flood" => {
                let (end, mut told) = (Instant::now() + FLOOD, 0);
                while Instant::now() < end {
                    self.says(&FromWorker::Report(Report::default()), &[]);
                    told += 1;
                }
                self.note(&format!("{told}\n"));
            }
            _ => {}
        }
    }

    /// When it is told to pass on what it has.
    fn lies_at_its_end(&self) {
        let socket = match self.lie().as_deref() {
            Some("foreign") => connection(),
            Some("pipe") => io::pipe().unwrap().0.into(),
            _ => return,
        };
        let passing = Passing { unread: Vec::new(), since: Moment::now(), entry: Entry::Port };
        self.says(&FromWorker::Pass(vec![passing]), &[socket]);
    }
}

/// What a worker asks for, with its neighbour's token, and how it is answered.
const ASTRAY: [(&str, &str, u16); 9] = [
    ("GET", "/", 404),
    ("GET", "/api/v1/tenants", 404),
    ("GET", "/metrics", 404),
    ("POST", "/hello", 404),
    ("POST", "/egress", 404),
    ("POST", "/$uploads", 404),
    ("GET", "/$upload", 405),
    ("POST", "/%2e%2e/$upload", 400),
    ("POST", "/$upload", 403),
];

fn astray(uplink: OwnedFd, token: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = std::os::unix::net::UnixStream::from(uplink);
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut said = String::new();
        for (method, path, _) in ASTRAY {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("http://localhost{path}"))
                .header("authorization", format!("Bearer {token}"))
                .body(http_body_util::Empty::<bytes::Bytes>::new());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            said.push_str(&format!("{} {method} {path}\n", answer.status().as_u16()));
        }
        said
    })
}

/// Begins uploads, takes each back at once, and goes on until it is stopped.
fn flooded(uplink: OwnedFd) -> String {
    let mut stream = std::os::unix::net::UnixStream::from(uplink);
    stream.set_nonblocking(false).unwrap();
    let mut reads = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || io::copy(&mut reads, &mut io::sink()).is_ok());
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let head = b"\x83\x86\x04\x08/$upload\x01\x06hearth";
    for stream_number in (1..u32::MAX >> 1).step_by(2) {
        let mut frames = vec![0, 0, u8::try_from(head.len()).unwrap(), 1, 4];
        frames.extend(stream_number.to_be_bytes());
        frames.extend(head);
        frames.extend([0, 0, 4, 3, 0]);
        frames.extend(stream_number.to_be_bytes());
        frames.extend(8_u32.to_be_bytes());
        if stream.write_all(&frames).is_err() {
            break;
        }
    }
    let _ = reading.join();
    "ended\n".to_owned()
}

/// One that came in nowhere at this host.
fn connection() -> OwnedFd {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    // Open as long as the lie is told.
    std::mem::forget(client);
    server.into()
}

fn report(lines: usize, bytes: usize) -> FromWorker {
    let line = LogLine {
        time_ms: 0,
        function: "/hello".parse().unwrap(),
        version: 1.into(),
        request_id: String::new(),
        stream: LogStream::Stdout,
        level: None,
        text: "x".repeat(bytes),
    };
    FromWorker::Report(Report { lines: vec![line; lines], ..Report::default() })
}
