//! What functions wrote, and how their calls went: paged, and as it happens.

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::{Connection, Request};
use crate::processes::eventually;

fn lines(page: &Value) -> Vec<&Value> {
    page["lines"].as_array().unwrap().iter().collect()
}

fn texts(page: &Value) -> Vec<String> {
    lines(page).iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn eventually_lines(tenant: &Tenant, query: &str, number: usize) -> Value {
    eventually("log lines", || {
        let page = tenant.ask(&format!("/logs?{query}"));
        (lines(&page).len() >= number).then_some(page)
    })
}

#[test]
fn both_streams_are_lines_of_their_call() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    let long = "x".repeat(10_000);
    let body = format!("first\nsecond \u{e4}\r\n\n{long}\nno end");
    let request = tenant.address().request("POST", "/prints").header("x-request-id", "call-1");
    tenant.address().send(&request.body(body)).expect(204);
    let page = eventually_lines(&tenant, "request_id=call-1&stream=stdout", 4);
    for line in lines(&page) {
        assert_eq!(line["function"], "/prints", "{line}");
        assert_eq!((&line["version"], &line["request_id"]), (&json!(1), &json!("call-1")));
        assert_eq!(line["stream"], "stdout");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let texts = texts(&page);
    assert_eq!(texts.first().map(String::as_str), Some("first"));
    assert_eq!(texts[1].trim_end(), "second \u{e4}");
    assert_eq!(texts.last().map(String::as_str), Some("no end"));
    let bound = hearth_wire::limits::LOG_LINE_MAX_BYTES;
    assert!(texts.iter().all(|text| text.len() <= bound), "a line is bounded");
    assert!(texts.iter().any(|text| text.starts_with("xxxx")));
    let errors = eventually_lines(&tenant, "request_id=call-1&stream=stderr", 4);
    assert_eq!(lines(&errors).len(), lines(&page).len());
}

#[test]
fn what_the_host_has_to_say_of_a_call_is_a_line_too() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("traps", guests::traps());
    let request = tenant.address().request("POST", "/traps").header("x-request-id", "trap-1");
    tenant.address().send(&request).expect(500);
    let page = eventually_lines(&tenant, "request_id=trap-1&stream=host", 1);
    assert!(texts(&page)[0].contains("unreachable"), "{page}");
    let page = eventually_lines(&tenant, "request_id=trap-1&stream=stderr", 1);
    assert!(texts(&page).concat().contains("this function always fails"), "{page}");
}

#[test]
fn pages_go_back_in_time_without_a_gap() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    let body: String = (0..50).map(|at| format!("line {at}\n")).collect();
    tenant.post("/prints", &body).expect(204);
    eventually_lines(&tenant, "stream=stdout&limit=1000", 50);
    let mut found = Vec::new();
    let mut query = "stream=stdout&limit=20".to_owned();
    loop {
        let page = tenant.ask(&format!("/logs?{query}"));
        let mut older = texts(&page);
        older.append(&mut found);
        found = older;
        let Some(next) = page["next"].as_u64() else { break };
        query = format!("stream=stdout&limit=20&before={next}");
    }
    assert_eq!(found, (0..50).map(|at| format!("line {at}")).collect::<Vec<_>>());
    for wrong in ["limit=0", "limit=1001", "before=x", "stream=neither", "nonsense=1"] {
        let request = tenant.api("GET", &format!("/logs?{wrong}"));
        host.send(&request).expect_problem(400, "bad_request");
    }
}

#[test]
fn calls_are_kept_with_how_they_went() {
    let host = Host::with(&["--idle", "200ms"]);
    let tenant = host.tenant("demo");
    let limited = json!({
        "echo.wasm": {}, "traps.wasm": {}, "silent.wasm": {}, "loops.wasm": { "timeout_ms": 100 },
        "eats.wasm": { "memory_mb": 8 },
    });
    let files = [
        ("echo.wasm", guests::echo()),
        ("traps.wasm", guests::traps()),
        ("silent.wasm", guests::no_response()),
        ("loops.wasm", guests::loops()),
        ("eats.wasm", guests::eats_memory()),
    ];
    tenant.upload(&files, Some(&limited.to_string())).expect(200);
    eventually("sleep", || (tenant.state() == "asleep").then_some(()));
    for (path, status, outcome) in [
        ("/echo", 200, "answered"),
        ("/traps", 500, "trapped"),
        ("/silent", 502, "no_response"),
        ("/loops", 504, "timeout"),
        ("/eats", 500, "memory_limit"),
    ] {
        let id = format!("call-of{}", path.replace('/', "-"));
        let request =
            tenant.address().request("POST", path).header("x-request-id", &id).body("1234");
        let answer = tenant.address().send(&request).expect(status);
        let call = eventually("its record", || {
            tenant.ask(&format!("/calls?path={}", &path[1..]))["calls"].get(0).cloned()
        });
        assert_eq!(call["function"], path, "{call}");
        assert_eq!(
            (&call["outcome"], &call["status"]),
            (&json!(outcome), &json!(status)),
            "{call}"
        );
        assert_eq!((&call["method"], &call["version"]), (&json!("POST"), &json!(1)), "{call}");
        assert_eq!(call["request_id"], id);
        assert!(call["duration_us"].as_u64().unwrap() > 0, "{call}");
        if path == "/echo" {
            assert_eq!(call["request_bytes"], 4, "{call}");
            assert_eq!(call["response_bytes"], answer.body.len(), "{call}");
            assert!(call["cold_us"].as_u64().is_some_and(|cold| cold > 0), "it woke: {call}");
            let timing = answer.header("server-timing").unwrap();
            assert!(timing.contains("cold;dur="), "{timing}");
        }
    }
}

#[test]
fn lines_and_calls_are_told_as_they_happen() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    let mut lines = follow(&tenant, &host, "/logs?follow&stream=stdout", None);
    let mut calls = follow(&tenant, &host, "/calls?follow", None);
    tenant.post("/prints", "one\ntwo\n").expect(204);
    let first = lines.event("line");
    assert_eq!(first.data["text"], "one");
    assert_eq!(lines.event("line").data["text"], "two");
    assert_eq!(calls.event("call").data["function"], "/prints");
    assert_eq!(first.data["id"].to_string(), first.id);
    drop(lines);

    tenant.post("/prints", "three\n").expect(204);
    let mut again = follow(&tenant, &host, "/logs?follow&stream=stdout", Some(&first.id));
    assert_eq!(again.event("line").data["text"], "two", "what was missed comes first");
    assert_eq!(again.event("line").data["text"], "three");
    tenant.post("/prints", "four\n").expect(204);
    assert_eq!(again.event("line").data["text"], "four");
}

#[test]
fn lines_of_one_tenant_are_nobody_elses() {
    let host = Host::start();
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    for tenant in [&red, &blue] {
        tenant.deploy("prints", guests::prints());
    }
    red.post("/prints", "a secret of red").expect(204);
    eventually_lines(&red, "", 2);
    blue.post("/prints", "something of blue").expect(204);
    let page = eventually_lines(&blue, "", 2);
    assert!(!page.to_string().contains("secret"), "{page}");
}

#[test]
fn the_command_line_follows_too() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    tenant.post("/prints", "before\n").expect(204);
    eventually_lines(&tenant, "", 2);
    let said = host.command(&tenant.token, &["logs", "prints"]).done();
    assert!(said.contains("before"), "{said}");

    let mut following = Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["--json", "logs", "-f", "prints", "-n", "10"])
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &tenant.token)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(following.stdout.take().unwrap()).lines();
    assert!(out.next().unwrap().unwrap().contains("before"));
    assert!(out.next().unwrap().unwrap().contains("before"));
    tenant.post("/prints", "after\n").expect(204);
    assert!(out.next().unwrap().unwrap().contains("after"));
    following.kill().unwrap();
    following.wait().unwrap();
}

/// A token of this scope, with its id.
fn token(host: &Host, tenant: &Tenant, scope: &str, expires_at: Option<&str>) -> (u64, String) {
    let new = json!({ "name": "brief", "scope": scope, "expires_at": expires_at });
    let made = host.send(&tenant.api("POST", "/tokens").json(&new)).expect(201).json();
    (made["id"].as_u64().unwrap(), made["token"].as_str().unwrap().to_owned())
}

fn path_of(tenant: &Tenant, rest: &str) -> String {
    format!("/api/v1/tenants/{}{rest}", tenant.name)
}

#[track_caller]
fn ends_with(following: &mut Following, detail: &str) {
    let ended = following.event("ended").data;
    assert_eq!((&ended["detail"], &ended["code"]), (&json!(detail), &json!("unauthenticated")));
    assert_eq!(following.connection.chunk().unwrap(), None, "it was the last");
}

/// Others of the same tenant go on.
#[test]
fn a_removed_token_reads_no_further() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    let (id, text) = token(&host, &tenant, "deploy", None);
    let mut streams = ["/logs?follow&stream=stdout", "/calls?follow"]
        .map(|path| follow_by(&host, &Request::new("GET", &path_of(&tenant, path)).bearer(&text)));
    let mut owners = follow(&tenant, &host, "/logs?follow&stream=stdout", None);
    tenant.post("/prints", "before\n").expect(204);
    eventually_lines(&tenant, "stream=stdout", 1);
    let mut following = crate::host::hearth(host.scratch())
        .args(["logs", "-f", "-n", "1", "--stream", "stdout"])
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &text)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(following.stdout.take().unwrap()).lines();
    let writing = out.next().unwrap().unwrap();
    assert!(writing.contains("before"), "{writing}");
    assert_eq!(streams[0].event("line").data["text"], "before");
    assert_eq!(streams[1].event("call").data["function"], "/prints");

    host.send(&tenant.api("DELETE", &format!("/tokens/{id}"))).expect(204);
    for following in &mut streams {
        ends_with(following, "this token was removed");
    }
    let mut said = String::new();
    following.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("this token was removed"), "{said}");
    assert_eq!(following.wait().unwrap().code(), Some(1));
    tenant.post("/prints", "after\n").expect(204);
    assert_eq!(owners.event("line").data["text"], "before");
    assert_eq!(owners.event("line").data["text"], "after");
}

#[test]
fn an_expired_token_reads_no_further() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(8)).to_string();
    let (_, text) = token(&host, &tenant, "deploy", Some(&soon));
    let mut streams = ["/logs?follow", "/calls?follow"]
        .map(|path| follow_by(&host, &Request::new("GET", &path_of(&tenant, path)).bearer(&text)));
    for following in &mut streams {
        ends_with(following, "this token has expired");
    }
}

/// At every address that takes one; what came whole before is carried out.
#[test]
fn an_upload_under_way_ends_with_its_token() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let addresses = tenant.addresses();
    let mut ways: Vec<_> =
        addresses.iter().map(|address| (address.to, address.request("POST", "/$upload"))).collect();
    ways.push((host.front, Request::new("POST", &path_of(&tenant, "/functions"))));
    for (to, request) in ways {
        let mut connection = Connection::open(to).unwrap();
        let (id, text) = token(&host, &tenant, "deploy", None);
        let request = request
            .bearer(&text)
            .header("content-type", "multipart/form-data; boundary=b")
            .header("content-length", "1000000")
            .header("expect", "100-continue");
        connection.send(&request.bytes(&to.to_string())).unwrap();
        // It is asked for its body by whoever has looked at its token.
        assert!(connection.line().unwrap().contains("100"));
        assert_eq!(connection.line().unwrap().trim(), "");
        connection.send(b"--b\r\n").unwrap();
        host.send(&tenant.api("DELETE", &format!("/tokens/{id}"))).expect(204);
        let answer = connection.answer("POST").expect_problem(401, "unauthenticated");
        answer.expect_detail("this token was removed");
    }
}

#[test]
fn who_follows_is_told_that_the_host_is_away_and_when_it_is_back() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    tenant.post("/prints", "before\n").expect(204);
    eventually_lines(&tenant, "stream=stdout", 1);
    let mut following = crate::host::hearth(host.scratch())
        .args(["logs", "-f"])
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &tenant.token)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(following.stderr.take().unwrap()).lines();
    out.next().unwrap().unwrap();
    host.kill_and_wait();
    let away = said.next().unwrap().unwrap();
    assert!(away.contains("does not answer"), "{away}");
    host.start_again();
    let back = said.next().unwrap().unwrap();
    assert!(back.contains("is back"), "{back}");
    following.kill().unwrap();
    following.wait().unwrap();
    assert_eq!(said.count(), 0, "each is told once");
}

struct Following {
    connection: Connection,
    rest: String,
}

struct Event {
    id: String,
    data: Value,
}

/// A stream of events, as RFC text/event-stream has it, over a chunked answer.
#[track_caller]
fn follow(tenant: &Tenant, host: &Host, path: &str, last: Option<&str>) -> Following {
    let request: Request = tenant.api("GET", path).header("accept", "text/event-stream");
    let request = match last {
        Some(id) => request.header("last-event-id", id),
        None => request,
    };
    follow_by(host, &request)
}

#[track_caller]
fn follow_by(host: &Host, request: &Request) -> Following {
    let mut connection = Connection::open(host.front).unwrap();
    connection.send(&request.bytes("localhost")).unwrap();
    let head = connection.head().unwrap().expect(200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    Following { connection, rest: String::new() }
}

impl Following {
    #[track_caller]
    fn event(&mut self, name: &str) -> Event {
        loop {
            while let Some((block, rest)) = self.rest.split_once("\n\n") {
                let field = |key: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(key));
                    line.map(|value| value.trim_start().to_owned())
                };
                let (event, id, data) = (field("event:"), field("id:"), field("data:"));
                self.rest = rest.to_owned();
                // A comment keeps the connection and says nothing.
                let Some(data) = data else { continue };
                assert_eq!(event.as_deref(), Some(name), "{data}");
                return Event {
                    id: id.unwrap_or_default(),
                    data: serde_json::from_str(&data).unwrap(),
                };
            }
            let chunk = self.connection.chunk().unwrap().expect("the stream goes on");
            self.rest.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}
