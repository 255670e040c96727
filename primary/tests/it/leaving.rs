//! Callers that leave: with a break (RST) or by closing their side (FIN), before their answer
//! begins, in the middle of it or of their own body, at each address and over each hop. What they
//! were told and what is recorded of their calls agree. The table is `docs/calls.md`'s.

use std::time::Duration;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host, Tenant, upload};
use crate::http::{Connection, Request};
use crate::processes::{command_line, descendants, eventually};

/// A call would last for a minute. One that was ended by its caller's leaving is over before.
const TIMEOUT_MS: u64 = 90_000;
/// What a half-closed caller is given, and what a slow machine takes for what is done at once.
const HALF_CLOSED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Fin,
    Rst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Its request is sent, and nobody has read the body.
    BeforeTheHead,
    /// The same, and there is more of the body than anybody reads ahead. A FIN is behind it where
    /// nobody sees it.
    BeforeTheHeadOfMuch,
    InTheAnswer,
    /// In the middle of a body that the function reads.
    InTheUpload,
}
use Leaves::{Fin, Rst};
use When::{BeforeTheHead, BeforeTheHeadOfMuch, InTheAnswer, InTheUpload};

/// Where a function is called.
struct Way {
    name: String,
    address: Address,
    /// By the management API there is no query, so each behaviour has a function of its own.
    by_api: Option<Tenant>,
}

impl Way {
    fn request(&self, path: &str, query: &str, id: &str) -> Request {
        let request = match &self.by_api {
            Some(tenant) => tenant.api("POST", &format!("/functions{path}/invoke")),
            None => self.address.request("POST", &format!("{path}{query}")),
        };
        request.header("x-request-id", id)
    }
}

fn ways(hosts: &[(&str, &Tenant)]) -> Vec<Way> {
    let mut all = Vec::new();
    for (host, tenant) in hosts {
        for address in tenant.addresses() {
            all.push(Way { name: format!("{}{host}", address.name), address, by_api: None });
        }
        let [_, _, address] = tenant.addresses();
        let by_api = Some((*tenant).clone());
        all.push(Way { name: format!("the API{host}"), address, by_api });
    }
    all
}

fn deploy(tenant: &Tenant) {
    let options = json!({ "timeout_ms": TIMEOUT_MS });
    for (name, module) in
        [("stalls", guests::stalls()), ("streams", guests::streams()), ("counts", guests::counts())]
    {
        tenant.deploy_with(name, module, &options);
    }
}

fn record(tenant: &Tenant, id: &str) -> Option<Value> {
    tenant.ask(&format!("/calls?request_id={id}"))["calls"].get(0).cloned()
}

/// Makes one call, leaves, and says what was wrong with what came of it.
fn leave(tenant: &Tenant, way: &Way, when: When, leaves: Leaves) -> Vec<String> {
    let what = format!("{leaves:?} {when:?} at {}", way.name);
    let id = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let mut connection = Connection::open(way.address.to).unwrap();
    let host = way.address.to.to_string();
    let mut send = |bytes: &[u8]| connection.send(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
    let in_chunks = |request: Request| request.header("transfer-encoding", "chunked").bytes(&host);
    match when {
        BeforeTheHead => send(&way.request("/stalls", "", &id).body("{}").bytes(&host)),
        BeforeTheHeadOfMuch => {
            let body = vec![b'x'; 1 << 20];
            send(&way.request("/stalls", "", &id).body(body).bytes(&host));
        }
        InTheAnswer => {
            // It goes on as long as its request does, and is silent meanwhile.
            send(&in_chunks(way.request("/streams", "?pieces=1000&pause=60000", &id)));
            if way.by_api.is_some() {
                send(b"3\r\none\r\n");
            } else {
                send(b"0\r\n\r\n");
            }
            assert_eq!(connection.head().unwrap().status, 200, "{what}");
        }
        InTheUpload => {
            let head = way.request("/counts", "", &id).header("content-length", "1000000");
            send(&head.bytes(&host));
            send(&vec![b'x'; 500_000]);
        }
    }
    // It has begun: a record of a call that never came so far would say the same.
    match when {
        InTheAnswer => {}
        InTheUpload => crate::processes::pause(Duration::from_millis(300)),
        BeforeTheHead | BeforeTheHeadOfMuch => {
            eventually(&format!("the beginning of {what}"), || {
                let lines = tenant.ask(&format!("/logs?request_id={id}"));
                lines.to_string().contains("begun").then_some(())
            });
        }
    }
    let told = match leaves {
        Rst => {
            connection.reset();
            None
        }
        Fin => {
            connection.finish_sending().unwrap();
            match when {
                InTheAnswer => {
                    while connection.chunk().is_ok_and(|chunk| chunk.is_some()) {}
                    Some(200)
                }
                _ => connection.try_answer("POST").ok().map(|answer| answer.status),
            }
        }
    };
    let recorded = eventually(&format!("the record of {what}"), || record(tenant, &id));
    let is_by_api_in_answer = way.by_api.is_some() && when == InTheAnswer;
    let (outcome, status, at_once) = match (leaves, when) {
        // Its body breaks off, which is told as long as anything can be.
        (Fin, InTheUpload) => ("refused", 400, true),
        (Fin, InTheAnswer) if is_by_api_in_answer => ("refused", 200, true),
        (Fin, InTheAnswer) => ("abandoned", 200, false),
        (Rst, InTheAnswer) => ("abandoned", 200, true),
        (Rst, _) => ("abandoned", 499, true),
        (Fin, _) => ("abandoned", 499, false),
    };
    let mut wrong = Vec::new();
    if (&recorded["outcome"], &recorded["status"]) != (&json!(outcome), &json!(status)) {
        wrong.push(format!("{what}: not {outcome} {status}: {recorded}"));
    }
    let lasted = Duration::from_micros(recorded["duration_us"].as_u64().unwrap());
    let expected = if at_once { Duration::ZERO..HALF_CLOSED } else { HALF_CLOSED..3 * HALF_CLOSED };
    // What it is in is what it does not wait for: the minute that the function would take.
    if !(expected.contains(&lasted) || (at_once && lasted < 2 * HALF_CLOSED)) {
        wrong.push(format!("{what}: lasted {lasted:?}: {recorded}"));
    }
    let expected = match (leaves, when) {
        (Rst, _) => None,
        (Fin, InTheUpload) => Some(400),
        (Fin, InTheAnswer) => Some(200),
        (Fin, _) => None,
    };
    if told != expected {
        wrong.push(format!("{what}: was told {told:?}, not {expected:?}"));
    }
    wrong
}

#[test]
fn a_call_ends_with_its_caller_at_each_address_in_each_phase() {
    let host = Host::start();
    let proxies = Host::with(&["--handover", "never"]);
    let trusting = Host::with(&["--trusted-proxy", "127.0.0.0/8"]);
    let tenants = [&host, &proxies, &trusting].map(|host| host.tenant("demo"));
    for tenant in &tenants {
        deploy(tenant);
    }
    let hosts = ["", ", where none is handed over", ", behind a trusted proxy"];
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let mut calls = Vec::new();
        for (tenant, host) in tenants.iter().zip(hosts) {
            for when in [BeforeTheHead, BeforeTheHeadOfMuch, InTheAnswer, InTheUpload] {
                let both = [Rst, Fin].into_iter();
                for leaves in both.filter(|it| (*it, when) != (Fin, BeforeTheHeadOfMuch)) {
                    for way in ways(&[(host, tenant)]) {
                        calls.push(scope.spawn(move || leave(tenant, &way, when, leaves)));
                    }
                }
            }
        }
        calls.into_iter().flat_map(|call| call.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for tenant in &tenants {
        // Nothing is left of them, and nobody gets what was another's.
        for address in tenant.addresses() {
            let mut connection = Connection::open(address.to).unwrap();
            for bytes in [0, 3, 70_000] {
                let request = address.request("POST", "/counts").body(vec![b'x'; bytes]);
                assert_eq!(connection.call(&request).expect(200).text(), bytes.to_string());
            }
        }
    }
}

/// One who stays gets the answer that is his, on the link that another has left.
#[test]
fn what_a_caller_has_left_is_never_anothers_answer() {
    let host = Host::with(&["--handover", "never"]);
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    tenant.deploy("stalls", guests::stalls());
    std::thread::scope(|scope| {
        for one in 0..4 {
            let tenant = &tenant;
            scope.spawn(move || {
                for at in 0..100 {
                    let [_, name, path] = tenant.addresses();
                    for address in [name, path] {
                        let mut leaver = Connection::open(address.to).unwrap();
                        let target = match at % 3 {
                            0 => "/echo",
                            1 => "/stalls?head=1&sends=10",
                            _ => "/stalls",
                        };
                        let request = address.request("POST", target).body(format!("left {at}"));
                        leaver.send(&request.bytes("demo")).unwrap();
                        if at % 3 == 1 {
                            leaver.head().unwrap();
                        }
                        match at % 2 {
                            0 => leaver.reset(),
                            _ => drop(leaver),
                        }
                        let mine = format!("{one} {at}");
                        let answer = address.post("/echo", &mine).expect(200);
                        assert_eq!(answer.json()["body"], mine, "{}", address.name);
                    }
                }
            });
        }
    });
}

/// Files of uploads that are on their way, as the kernel knows them: also those without a name.
fn arriving(host: &Host) -> usize {
    let tmp = host.data().join("tmp");
    let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().flatten();
    let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let named = std::fs::read_dir(&tmp).map_or(0, |entries| entries.flatten().count());
    open.filter(|to| to.starts_with(&tmp)).count() + named
}

/// An upload at each address that takes one.
fn uploads(tenant: &Tenant, name: &str, module: &[u8]) -> Vec<(String, Address, Request)> {
    let file = format!("{name}.wasm");
    let files = [(&*file, module)];
    let mut all = Vec::new();
    for address in tenant.addresses() {
        let request =
            upload(address.request("POST", "/$upload"), &files, None).bearer(&tenant.token);
        all.push((address.name.to_owned(), address, request));
    }
    let [_, _, address] = tenant.addresses();
    all.push((
        "the API".to_owned(),
        address,
        upload(tenant.api("POST", "/functions"), &files, None),
    ));
    all
}

fn has(tenant: &Tenant, name: &str) -> bool {
    let functions = tenant.get("/$functions").expect(200).json();
    functions["functions"].as_array().unwrap().iter().any(|it| it["path"] == format!("/{name}"))
}

#[test]
fn an_upload_that_its_caller_leaves_is_not_kept_and_takes_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.get("/$health").expect(200);
    let modules = || std::fs::read_dir(host.data().join("modules")).unwrap().count();
    let before = modules();
    for leaves in [Rst, Fin] {
        for (name, address, request) in uploads(&tenant, "left", guests::version_one()) {
            let mut connection = Connection::open(address.to).unwrap();
            let bytes = request.bytes(&address.to.to_string());
            connection.send(&bytes[..bytes.len() - 5_000]).unwrap();
            eventually(&format!("what arrives at {name}"), || (arriving(&host) > 0).then_some(()));
            match leaves {
                Rst => connection.reset(),
                Fin => {
                    connection.finish_sending().unwrap();
                    let told = connection.answer("POST");
                    told.expect_problem(400, "bad_request")
                        .expect_detail("the body ended before it was complete");
                }
            }
            let what = format!("the end of what arrived at {name} ({leaves:?})");
            eventually(&what, || (arriving(&host) == 0).then_some(()));
            assert!(!has(&tenant, "left") && modules() == before, "{name} {leaves:?}");
        }
    }
    tenant.deploy("kept", guests::version_one());
}

#[test]
fn an_upload_whose_body_is_whole_is_carried_out_whoever_waits_for_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    // Each is compiled, since nobody has sent it before: then its body has come whole.
    let modules = [
        ("port", guests::version_one()),
        ("name", guests::version_two()),
        ("path", guests::streams()),
        ("api", guests::counts()),
    ];
    for (at, (name, module)) in modules.into_iter().enumerate() {
        let (way, address, request) = uploads(&tenant, name, module).swap_remove(at);
        let mut connection = Connection::open(address.to).unwrap();
        connection.send(&request.bytes(&address.to.to_string())).unwrap();
        eventually(&format!("the compiler of what came to {way}"), || {
            let all = descendants(host.pid());
            all.into_iter().any(|it| command_line(it).contains("hearth-compile")).then_some(())
        });
        connection.reset();
        eventually(&format!("what was uploaded at {way}"), || has(&tenant, name).then_some(()));
        tenant.post(&format!("/{name}"), "").expect(200);
    }
    // So is every other change, and the next one waits for it.
    for at in 0..6 {
        let options = json!({ "options": { "timeout_ms": 1_000 + at } });
        let request = tenant.api("PATCH", "/functions/port").json(&options);
        let mut connection = Connection::open(host.front).unwrap();
        connection.send(&request.bytes("localhost")).unwrap();
        if at % 2 == 0 {
            connection.reset();
        } else {
            connection.answer("PATCH").expect(200);
            assert_eq!(tenant.ask("/functions/port")["options"]["timeout_ms"], 1_000 + at);
        }
        tenant.post("/port", "").expect(200);
    }
}

#[test]
fn a_stream_of_the_api_ends_with_its_reader() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().flatten();
        let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        open.filter(|to| to.to_string_lossy().starts_with("socket:")).count()
    };
    let before = sockets();
    for leaves in [Rst, Fin] {
        let mut readers = Vec::new();
        for path in ["/logs?follow", "/calls?follow"] {
            let mut reader = Connection::open(host.front).unwrap();
            reader.send(&tenant.api("GET", path).bytes("localhost")).unwrap();
            assert_eq!(reader.head().unwrap().status, 200);
            readers.push(reader);
        }
        assert!(sockets() >= before + 2);
        for reader in &readers {
            if leaves == Fin {
                reader.finish_sending().unwrap();
            }
        }
        if leaves == Rst {
            readers.drain(..).for_each(Connection::reset);
        }
        eventually(&format!("the end of streams ({leaves:?})"), || {
            (sockets() <= before).then_some(())
        });
    }
}
