//! When a connection is kept and when it ends: who is waited for, which answers say that they are
//! the last, and that no request is lost with what another one left unread. At all three addresses,
//! and behind a proxy that keeps its connections for everybody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::guests;
use crate::host::{Address, Host, upload};
use crate::http::{Answer, Connection, Request};
use crate::processes::{eventually, far_end, pause};
use crate::proxies::{DOMAIN, Kind, Proxy};

/// Longer than anybody waits for somebody who stopped in the middle of a body.
const LATE: Duration = Duration::from_secs(24);
/// From a head to its body, as a slow line has it.
const BEHIND: Duration = Duration::from_millis(300);
/// More than a connection forgets of a body, and more than a worker reads ahead.
const MUCH: usize = 1 << 20;

/// The head, and what follows it, in pieces.
struct Parts {
    head: Vec<u8>,
    rest: Vec<Vec<u8>>,
}

fn announced(request: Request, body: &[u8]) -> Parts {
    let head = request.header("content-length", &body.len().to_string()).bytes("demo");
    Parts { head, rest: body.chunks(body.len().div_ceil(2).max(1)).map(<[u8]>::to_vec).collect() }
}

fn chunked(request: Request, body: &[u8]) -> Parts {
    let head = request.header("transfer-encoding", "chunked").bytes("demo");
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), body, b"\r\n"].concat();
    Parts { head, rest: vec![chunk, b"0\r\n\r\n".to_vec()] }
}

fn as_http_1_0(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let kept = " HTTP/1.0\r\nconnection: keep-alive\r\n";
    text.replacen(" HTTP/1.1\r\n", kept, 1).into_bytes()
}

#[test]
fn an_answer_that_is_due_late_is_not_cut_for_a_body_that_came_late() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("slow", guests::slow(), &json!({ "timeout_ms": 120_000 }));
    let late = LATE.as_millis();
    let mut calls = Vec::new();
    for address in tenant.addresses() {
        for query in ["", "&reads=1"] {
            for frame in [announced, chunked] {
                let request = address.request("POST", &format!("/slow?ms={late}{query}"));
                let mut connection = Connection::open(address.to).unwrap();
                let parts = frame(request, b"some words");
                connection.send(&parts.head).unwrap();
                calls.push((format!("{}{query}", address.name), connection, parts.rest));
            }
        }
    }
    for piece in 0..2 {
        pause(BEHIND);
        for (_, connection, rest) in &mut calls {
            connection.send(&rest[piece]).unwrap();
        }
    }
    for (name, connection, _) in &mut calls {
        let answer = connection.try_answer("POST").unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!answer.closes(), "{name}: {answer:?}");
        assert_eq!(answer.expect(200).text(), format!("waited {late} ms"), "{name}");
    }
}

/// The compiler waits before it begins, as long as it is told to by a file.
fn with_a_slow_compiler() -> Host {
    Host::of(|directory| {
        let real = Path::new(env!("CARGO_BIN_EXE_hearth"));
        for name in ["hearth", "hearth-worker"] {
            let (from, to) = (real.with_file_name(name), directory.join(name));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(from, to).map(drop)).unwrap();
        }
        let script = format!(
            "#!/bin/sh\n[ -e '{}' ] && sleep {}\nexec '{}'\n",
            directory.join("slowly").display(),
            LATE.as_secs(),
            real.with_file_name("hearth-compile").display(),
        );
        let compiler = directory.join("hearth-compile");
        fs::write(&compiler, script).unwrap();
        fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
        directory.join("hearth")
    })
}

#[test]
fn an_upload_that_compiles_for_long_is_answered() {
    let host = with_a_slow_compiler();
    // Compilations of different tenants run beside each other.
    let tenants = ["port", "host", "path"].map(|name| host.tenant(name));
    fs::write(host.scratch().join("slowly"), "").unwrap();
    let begun = Instant::now();
    let mut uploads: Vec<_> = tenants
        .iter()
        .enumerate()
        .map(|(at, tenant)| {
            let address = tenant.addresses().into_iter().nth(at).unwrap();
            let files = [("one.wasm", guests::version_one())];
            let request = upload(address.request("POST", "/$upload"), &files, None);
            let bytes = request.bearer(&tenant.token).bytes("demo");
            let mut connection = Connection::open(address.to).unwrap();
            let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let (head, body) = (bytes[..body].to_vec(), bytes[body..].to_vec());
            connection.send(&head).unwrap();
            pause(BEHIND);
            connection.send(&body).unwrap();
            (address.name, connection)
        })
        .collect();
    for (name, connection) in &mut uploads {
        let answer = connection.try_answer("POST").unwrap_or_else(|e| panic!("{name}: {e}"));
        answer.expect(200);
    }
    assert!(begun.elapsed() >= LATE, "{:?}", begun.elapsed());
    for tenant in &tenants {
        assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    }
}

/// One client that keeps its connection, and opens another only where an answer says so.
fn asks_on(
    address: &Address,
    requests: usize,
    parts: impl Fn(usize) -> Parts,
) -> Result<(), String> {
    let mut connection = Connection::open(address.to).map_err(|e| e.to_string())?;
    for at in 0..requests {
        let Parts { head, rest } = parts(at);
        let sent = match at % 3 {
            0 => connection.send(&[head, rest.concat()].concat()),
            1 => connection.send(&head).and_then(|()| connection.send(&rest.concat())),
            _ => connection.send(&head).and_then(|()| {
                rest.iter().try_for_each(|piece| {
                    pause(Duration::from_micros(100));
                    connection.send(piece)
                })
            }),
        };
        let answer = sent.and_then(|()| connection.try_answer("POST"));
        let answer = answer.map_err(|e| format!("{at} at {}: {e}", address.name))?;
        if answer.status != 200 || answer.closes() {
            return Err(format!("{at} at {}: {answer:?} {}", address.name, answer.text()));
        }
    }
    Ok(())
}

#[track_caller]
fn none_is_lost(results: Vec<Result<(), String>>) {
    let lost: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn small_bodies_that_nobody_reads_take_no_request_with_them() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 250;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    tenant.deploy_with("streams", guests::streams(), &json!({}));
    let results = Mutex::new(Vec::new());
    let addresses = tenant.addresses();
    std::thread::scope(|scope| {
        for address in &addresses {
            for client in 0..CLIENTS {
                let results = &results;
                scope.spawn(move || {
                    let parts = |at: usize| {
                        let path = ["/unread", "/streams?pieces=2"][client % 2];
                        let request = address.request("POST", path);
                        let frame = [announced, chunked][(at / 3) % 2];
                        frame(request, &vec![b'x'; [2, 1_000, 40_000][at % 3]])
                    };
                    let result = asks_on(address, REQUESTS, parts);
                    results.lock().unwrap().push(result);
                });
            }
        }
    });
    none_is_lost(results.into_inner().unwrap());
}

/// Both tenants' requests go over the same few connections, and what one tenant's function leaves
/// unread costs the other nothing.
#[test]
fn behind_a_proxy_that_keeps_its_connections_nobody_pays_for_what_another_left() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 200;
    let host = Host::with(&["--trusted-proxy", "127.0.0.1/32", "--domain", DOMAIN]);
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    red.deploy("one", guests::version_one());
    red.deploy_with("small", guests::counts(), &json!({ "max_body": 1_000 }));
    blue.deploy("one", guests::version_one());
    let nginx = Proxy::start(Kind::Nginx, host.scratch(), host.front);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..2 * CLIENTS {
            let (nginx, results) = (&nginx, &results);
            scope.spawn(move || {
                let result = (0..REQUESTS).try_for_each(|at| {
                    let (site, path, bytes, status) = match (client % 2, at % 4) {
                        (0, _) => ("blue.apps.example.org", "/one", 100, 200),
                        (_, 0) => ("red.apps.example.org", "/one", 900 << 10, 200),
                        (_, 1) => ("red.apps.example.org", "/small", 600 << 10, 413),
                        (_, 2) => ("red.apps.example.org", "/small", 2_000, 413),
                        (_, _) => ("red.apps.example.org", "/one", 2_000, 200),
                    };
                    let request = Request::new("POST", path).header("host", site);
                    match request.body(vec![b'x'; bytes]).try_send(nginx.address) {
                        Ok(answer) if answer.status == status => Ok(()),
                        // Where an answer is early the proxy may cut off its own client.
                        Err(_) if bytes > 100 << 10 => Ok(()),
                        Ok(answer) => Err(format!("{at} of {site}{path}: {}", answer.status)),
                        Err(error) => Err(format!("{at} of {site}{path}: {error}")),
                    }
                });
                results.lock().unwrap().push(result);
            });
        }
    });
    none_is_lost(results.into_inner().unwrap());
}

/// What an answer says is so: it closes, or the next request on the connection is answered. Returns
/// whether it closes.
#[track_caller]
fn is_as_it_says(address: &Address, connection: &mut Connection, answer: &Answer) -> bool {
    let said = answer.header("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(!(said.contains("close") && said.contains("keep-alive")), "{}: {said}", address.name);
    if answer.closes() {
        assert!(connection.is_closed(), "{}: {answer:?}", address.name);
        return true;
    }
    let request = address.request("POST", "/unread").body("again");
    connection.send(&request.bytes("demo")).unwrap();
    let again = connection.try_answer("POST");
    again.unwrap_or_else(|e| panic!("{} after {answer:?}: {e}", address.name)).expect(200);
    false
}

#[test]
fn an_answer_says_that_it_is_the_last_whenever_it_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    tenant.deploy_with("small", guests::counts(), &json!({ "max_body": 1_000 }));
    tenant.deploy_with("private", guests::version_one(), &json!({ "auth": "invoke" }));
    tenant.deploy("streams", guests::streams());
    for address in tenant.addresses() {
        for (path, status, bytes, closes) in [
            // Its head may be out before its function is done with the body.
            ("/unread", 200, MUCH, None),
            ("/unread", 200, 100, Some(false)),
            ("/unread", 200, 100 << 10, Some(false)),
            ("/small", 413, MUCH, Some(true)),
            ("/small", 413, 2_000, Some(false)),
            ("/private", 401, MUCH, Some(true)),
            ("/private", 401, 100, Some(false)),
            ("/nothing", 404, MUCH, Some(true)),
            ("/nothing", 404, 100, Some(false)),
            ("/$upload", 401, MUCH, None),
            ("/$upload", 401, 100, None),
            ("/streams?pieces=3", 200, MUCH, None),
        ] {
            for old in [false, true] {
                let request = address.request("POST", path).header("content-type", "text/plain");
                let Parts { head, rest } = announced(request, &vec![b'x'; bytes]);
                let head = if old { as_http_1_0(&head) } else { head };
                let mut connection = Connection::open(address.to).unwrap();
                connection.send(&head).unwrap();
                // Fails where it ends before all is read.
                let _ = connection.send(&rest.concat());
                let what = format!("{path} with {bytes} at {}, old: {old}", address.name);
                // An answer of unknown length ends with its connection, in the old version.
                let is_endless = path.starts_with("/streams");
                let closes = if old && is_endless { Some(true) } else { closes };
                let answer = connection.try_answer("POST");
                let answer = answer.unwrap_or_else(|e| panic!("{what}: {e}")).expect(status);
                let closed = is_as_it_says(&address, &mut connection, &answer);
                assert!(closes.is_none_or(|closes| closes == closed), "{what}: {answer:?}");
            }
        }
        // Of unknown length.
        for (path, bytes) in [("/unread", 100), ("/unread", MUCH), ("/small", MUCH)] {
            let Parts { head, rest } = chunked(address.request("POST", path), &vec![b'x'; bytes]);
            let mut connection = Connection::open(address.to).unwrap();
            connection.send(&head).unwrap();
            let _ = connection.send(&rest.concat());
            let answer = connection.answer("POST");
            is_as_it_says(&address, &mut connection, &answer);
        }
    }
}

/// What is sent before the answer, in full, and what comes right behind it.
#[test]
fn the_next_request_may_be_there_before_the_answer() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    for address in tenant.addresses() {
        for frame in [announced, chunked] {
            let mut connection = Connection::open(address.to).unwrap();
            let mut all = Vec::new();
            for _ in 0..20 {
                let Parts { head, rest } =
                    frame(address.request("POST", "/unread"), &vec![b'x'; 5_000]);
                all.extend([head, rest.concat()].concat());
            }
            connection.send(&all).unwrap();
            for at in 0..20 {
                let answer = connection.try_answer("POST");
                let answer = answer.unwrap_or_else(|e| panic!("{at} at {}: {e}", address.name));
                assert!(!answer.expect(200).closes(), "{at} at {}", address.name);
            }
        }
    }
}

/// Who still sends what nobody reads keeps nobody else waiting: not even where both came the same
/// way to the worker.
#[test]
fn nobody_waits_for_the_rest_of_anothers_body() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    let [_, _, by_path] = tenant.addresses();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(by_path.to).unwrap();
        // More than is read before its function begins.
        let Parts { head, rest } = announced(by_path.request("POST", "/unread"), &[b'x'; 20_000]);
        connection.send(&head).unwrap();
        connection.send(&rest[0]).unwrap();
        assert!(!connection.answer("POST").expect(200).closes());
        stalled.push((connection, rest));
    }
    let begun = Instant::now();
    for _ in 0..40 {
        by_path.post("/unread", "quick").expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for (mut connection, rest) in stalled {
        connection.send(&rest[1]).unwrap();
        connection.send(&by_path.request("POST", "/unread").body("next").bytes("demo")).unwrap();
        connection.answer("POST").expect(200);
    }
}

#[test]
fn empty_lines_between_two_requests_are_nobodys() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    let call = |address: &Address, connection: &mut Connection| {
        connection.send(&address.request("POST", "/unread").body("x").bytes("demo")).unwrap();
        let answer = connection.try_answer("POST");
        answer.unwrap_or_else(|e| panic!("{}: {e}", address.name)).expect(200);
    };
    let mut kept = Vec::new();
    for address in tenant.addresses() {
        for blank in ["\r\n", "\n", "\r", "\r\n\r\n"] {
            let mut used = Connection::open(address.to).unwrap();
            call(&address, &mut used);
            used.send(blank.as_bytes()).unwrap();
            let mut fresh = Connection::open(address.to).unwrap();
            fresh.send(blank.as_bytes()).unwrap();
            if blank != "\r" {
                kept.push((
                    tenant.addresses().into_iter().find(|it| it.name == address.name),
                    fresh,
                ));
            }
            kept.push((tenant.addresses().into_iter().find(|it| it.name == address.name), used));
        }
    }
    // A head that had begun would be given up by now.
    pause(Duration::from_secs(12));
    for (address, connection) in &mut kept {
        // The lone one is the first half of such a line.
        connection.send(b"\n").unwrap();
        call(address.as_ref().unwrap(), connection);
    }
}

#[test]
fn empty_lines_wake_nobody() {
    let host = Host::with(&["--idle", "200ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("unread", guests::version_one());
    let [port, by_name, _] = tenant.addresses();
    for address in [port, by_name] {
        let request = address.request("POST", "/unread").body("x").bytes("demo");
        for late in [false, true] {
            let mut connection = Connection::open(address.to).unwrap();
            connection.send(&request).unwrap();
            connection.answer("POST").expect(200);
            if !late {
                // The worker takes it, and passes on a connection on which nobody asks.
                connection.send(b"\r\n").unwrap();
            }
            host.sleeps(&tenant);
            let woken = wakes(&host);
            for blank in ["\r\n", "\n", "\r\n\r\n", &"\r\n".repeat(20)] {
                connection.send(blank.as_bytes()).unwrap();
                eventually("it taken off", || {
                    far_end(connection.ends()).filter(|end| end.unread == 0).map(drop)
                });
            }
            assert_eq!(tenant.state(), "asleep", "{} {late}", address.name);
            assert_eq!(wakes(&host), woken, "{} {late}", address.name);
            assert_eq!(tenant.parked(), 1, "{} {late}", address.name);
            connection.send(&request).unwrap();
            connection.answer("POST").expect(200);
        }
    }
}

/// How often a worker was started for somebody who came.
fn wakes(host: &Host) -> u64 {
    host.figure("hearth_wakes_total")
}
