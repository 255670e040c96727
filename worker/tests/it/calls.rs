//! What a call gets, at a worker's own port and over its links.

use std::io::{BufReader, Write};
use std::time::Duration;

use hearth_wire::limits::LOG_LINE_MAX_BYTES;
use hearth_wire::{LogStream, OptionsPatch, Origin, Outcome, Over, Scope, TokenDigest, TokenGrant};

use crate::harness::{
    Release, Worker, Zygote, ask, bundle, exec, get, is_closed, of_each_birth, post, read_answer,
    start,
};

#[test]
fn a_forked_and_an_execed_worker_answer_alike() {
    let release = Release::new(1, &[("/echo", "echo", "{}")]);
    let mut zygote = Zygote::start();
    let forked = zygote.fork(&release, start(1)).accept();
    let execed = exec(&release, start(1)).accept();
    for worker in [forked, execed] {
        let answer = worker.post("/echo", "hello");
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["body"], "hello");
        assert_eq!(answer.header("x-hearth-version"), Some("/echo@1"));
        assert!(answer.header("server-timing").unwrap().starts_with("host;dur="));
        assert_eq!(answer.header("x-request-id").unwrap().len(), 32);
    }
}

#[test]
fn every_toolchain_is_answered_and_preloaded_ones_too() {
    let release = Release::new(
        1,
        &[
            ("/two", "version_one", "{}"),
            ("/wstd", "wstd_hello", "{}"),
            ("/three", "wasip3_hello", "{}"),
        ],
    );
    let mut zygote = Zygote::start();
    zygote.preload("version_one");
    zygote.preload("wasip3_hello");
    let worker = zygote.fork(&release, start(1)).accept();
    assert_eq!(worker.post("/two", "").text(), "version one");
    assert_eq!(worker.post("/wstd", "Ada").text(), "hello Ada from wstd");
    assert_eq!(worker.post("/three", "").text(), "hello http://demo/three from wasip3");
    // An empty name is none, and makes no address.
    let unnamed = worker.call(&post("/three", "").replace("host: demo", "host:"));
    assert_eq!(unnamed.text(), "hello /three from wasip3");
}

/// Whichever bundle a generation was written over: what the zygote has is what serves.
#[test]
fn what_is_bundled_is_served_beside_what_is_a_tenants_own() {
    let mut over = Over::default();
    over.set.insert("/set".parse().unwrap(), OptionsPatch::parse(r#"{"auth":"owner"}"#).unwrap());
    over.removed.insert("/gone".parse().unwrap());
    let release = Release::over(1, &[("/own", "version_two", "{}")], over);
    let mut zygote = Zygote::start();
    let get = r#"{"methods":["GET"]}"#;
    let mut bundled = bundle(&[
        ("/a", "version_one", "{}"),
        ("/gets", "version_one", get),
        ("/gone", "version_one", "{}"),
        ("/own", "version_one", "{}"),
        ("/set", "version_one", "{}"),
        ("/site", "echo", r#"{"path":"root"}"#),
    ]);
    // One component is loaded once, wherever it is mounted; the other one could not be had.
    zygote.bundle(&bundled, &["version_one"]);
    let worker = zygote.fork(&release, start(1)).accept();
    let answer = worker.post("/a", "");
    assert_eq!(answer.text(), "version one");
    let build = format!("/a@{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.header("x-hearth-version"), Some(&*build));
    assert_eq!(worker.post("/own", "").text(), "version two");
    assert_eq!(worker.post("/own", "").header("x-hearth-version"), Some("/own@1"));
    assert_eq!(worker.post("/gets", "").status, 405);
    assert_eq!(worker.post("/set", "").status, 401);
    for missing in ["/gone", "/site", "/whatever/else"] {
        let answer = worker.post(missing, "");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("module_damaged")));
    }
    // A later fork has what the zygote was given last.
    bundled.mounts.retain(|mount| mount.path.as_str() == "/gets");
    zygote.bundle(&bundled, &["version_two"]);
    let worker = zygote.fork(&release, start(1)).accept();
    assert_eq!(worker.post("/a", "").status, 404);
    assert_eq!(worker.post("/own", "").text(), "version two");
}

/// Memory is reset by what the kernel says is dirty, in a process that was forked: a wrong pagemap
/// would let one call see what another wrote. Every fifth call ends itself deep in its stack.
#[test]
fn no_call_finds_what_another_wrote() {
    let release = Release::new(1, &[("/dirties", "dirties_memory", "{}")]);
    for (worker, _zygote) in of_each_birth(&release, "dirties_memory", &start(1)) {
        let worker = worker.accept();
        let begins_at = worker.post("/dirties", "").header("x-begins-at").unwrap().to_owned();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = worker.connect();
                    for number in 0..2_500 {
                        let exits = if number % 5 == 0 { "?exit=1" } else { "" };
                        let request = post(&format!("/dirties{exits}"), "");
                        let answer = ask(&mut connection, &request);
                        assert_eq!(answer.text(), "clean");
                        assert_eq!(answer.header("x-begins-at"), Some(&*begins_at));
                    }
                });
            }
        });
    }
}

#[test]
fn workers_of_one_zygote_draw_different_numbers() {
    let release = Release::new(1, &[("/one", "version_one", "{}")]);
    let id = |worker: Worker| worker.post("/one", "").header("x-request-id").unwrap().to_owned();
    for spares in [0, 1] {
        let mut zygote = Zygote::with_spares(spares, "version_one");
        let ids = [(); 3].map(|()| {
            zygote.await_spares(spares.into());
            id(zygote.fork(&release, start(1)).accept())
        });
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    }
}

#[test]
fn what_goes_wrong_is_said_recorded_and_over() {
    let release = Release::new(
        1,
        &[
            ("/traps", "traps", "{}"),
            ("/silent", "no_response", "{}"),
            ("/loops", "loops", r#"{"timeout_ms":200}"#),
            ("/eats", "eats_memory", r#"{"memory_mb":16}"#),
            ("/small", "echo", r#"{"max_body":3}"#),
            ("/waits", "slow", r#"{"timeout_ms":100}"#),
            ("/fine", "version_one", "{}"),
        ],
    );
    let mut worker = exec(&release, start(1)).accept();
    let table = [
        ("/traps", 500, "function_trapped", Outcome::Trapped),
        ("/silent", 502, "function_no_response", Outcome::NoResponse),
        ("/loops", 504, "timeout", Outcome::Timeout),
        ("/eats", 500, "memory_limit", Outcome::MemoryLimit),
        ("/small", 413, "too_large", Outcome::Refused),
        ("/waits?ms=60000", 504, "timeout", Outcome::Timeout),
    ];
    for (path, status, code, _) in table {
        let answer = worker.post(path, "1234");
        answer.is_problem(status, code);
        let function = path.split('?').next().unwrap();
        assert_eq!(answer.header("x-hearth-version"), Some(format!("{function}@1").as_str()));
        assert_eq!(worker.post("/fine", "").status, 200);
    }
    worker.await_report(|report| report.calls.len() == 2 * table.len());
    let failed: Vec<_> =
        worker.reports.calls.iter().filter(|call| call.function.as_str() != "/fine").collect();
    for ((path, status, _, outcome), call) in table.iter().zip(failed) {
        assert_eq!((call.status, call.outcome), (*status, *outcome), "{path}: {call:?}");
        assert!(call.duration_us > 0 && call.cold_us.is_none(), "{call:?}");
    }
    let said: Vec<_> =
        worker.reports.lines.iter().filter(|line| line.stream == LogStream::Host).collect();
    let of_trap = said.iter().find(|line| line.function.as_str() == "/traps").unwrap();
    assert!(of_trap.text.contains("unreachable"), "{of_trap:?}");
}

#[test]
fn a_failure_after_the_head_breaks_the_answer_off() {
    let release = Release::new(
        1,
        &[("/traps", "traps", "{}"), ("/streams", "streams", r#"{"timeout_ms":300}"#)],
    );
    let mut worker = exec(&release, start(1)).accept();
    let answer = worker.post("/traps?late=1", "");
    assert_eq!((answer.status, answer.broken, answer.text()), (200, true, "half "));
    let answer = worker.post("/streams?pieces=1000&pause=50", "");
    assert_eq!((answer.status, answer.broken), (200, true));
    assert!(answer.text().starts_with("piece 0\n"), "{answer:?}");
    worker.await_report(|report| report.calls.len() == 2);
    let outcomes: Vec<_> =
        worker.reports.calls.iter().map(|call| (call.status, call.outcome)).collect();
    assert_eq!(outcomes, [(200, Outcome::Trapped), (200, Outcome::Timeout)]);
}

#[test]
fn bodies_stream_both_ways_with_trailers() {
    let release = Release::new(1, &[("/streams", "streams", "{}"), ("/echo", "echo", "{}")]);
    let worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    let head = "POST /streams HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\nte: trailers\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"3\r\none\r\n").unwrap();
    stream.write_all(b"5\r\nthree\r\n0\r\n\r\n").unwrap();
    let answer = read_answer(&mut BufReader::new(&stream), false);
    assert_eq!(answer.text(), "onethree");
    assert_eq!(answer.trailers.len(), 1, "{answer:?}");

    let head =
        "POST /echo HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n").unwrap();
    let answer = read_answer(&mut BufReader::new(&stream), false);
    assert_eq!(answer.json()["trailers"]["x-sum"][0], "42");
}

#[test]
fn a_large_body_without_its_length_is_counted_on_its_way() {
    let release = Release::new(1, &[("/small", "echo", r#"{"max_body":1000}"#)]);
    let worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    let head = "POST /small HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001)).as_bytes()).unwrap();
    read_answer(&mut BufReader::new(&stream), false).is_problem(413, "too_large");
}

#[test]
fn a_body_that_nobody_wants_does_not_cost_its_sender_the_answer() {
    let release = Release::new(1, &[("/small", "echo", r#"{"max_body":1000}"#)]);
    let worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    let length = 30 << 20;
    let head = format!("POST /small HTTP/1.1\r\nhost: demo\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; length]).unwrap();
    read_answer(&mut BufReader::new(&stream), false).is_problem(413, "too_large");
    assert!(is_closed(&mut stream));
}

#[test]
fn connections_are_kept_pipelined_and_asked_to_continue() {
    let release = Release::new(1, &[("/echo", "echo", r#"{"methods":["POST","HEAD"]}"#)]);
    let worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    for n in 0..3 {
        assert_eq!(ask(&mut stream, &post("/echo", &n.to_string())).json()["body"], n.to_string());
    }
    let three: String = (0..3).map(|n| post("/echo", &format!("piped {n}"))).collect();
    stream.write_all(three.as_bytes()).unwrap();
    {
        let mut answers = BufReader::new(&stream);
        for n in 0..3 {
            assert_eq!(read_answer(&mut answers, false).json()["body"], format!("piped {n}"));
        }
    }
    let head =
        "POST /echo HTTP/1.1\r\nhost: demo\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    assert_eq!(ask(&mut stream, head).status, 100);
    assert_eq!(ask(&mut stream, "body").json()["body"], "body");
    let head = "HEAD /echo HTTP/1.1\r\nhost: demo\r\n\r\n";
    assert_eq!(ask(&mut stream, head).status, 200);
    let last = "POST /echo HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(&mut stream, last).status, 200);
    assert!(is_closed(&mut stream));
}

#[test]
fn the_platform_answers_for_itself() {
    let options = r#"{"methods":["GET","POST"],"path":"prefix","description":"greets"}"#;
    let release = Release::new(4, &[("/a/hello", "version_one", options), ("/b", "echo", "{}")]);
    let worker = exec(&release, start(4)).accept();
    let health = worker.call(&get("/$health"));
    assert_eq!((health.status, health.json()["generation"].as_u64()), (200, Some(4)));
    assert_eq!(worker.call("HEAD /$health HTTP/1.1\r\nhost: demo\r\n\r\n").status, 200);
    let functions = worker.call(&get("/$functions")).json();
    assert_eq!(functions["functions"][0]["path"], "/a/hello");
    assert_eq!(functions["functions"][0]["options"]["path"], "prefix");
    let document = worker.call(&get("/$openapi.json")).json();
    assert_eq!(document["paths"]["/a/hello"]["get"]["description"], "greets");
    worker.post("/$nothing", "").is_problem(404, "not_found");
    worker.post("/A/hello", "").is_problem(404, "not_found");
    worker.post("/a%2fhello", "").is_problem(400, "invalid_path");
    let refused = worker.call(&get("/b"));
    refused.is_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("POST"));
    worker.call(&get("/$upload")).is_problem(405, "method_not_allowed");
    worker.call("GET /b HTTP/1.1\r\n\r\n").is_problem(400, "bad_request");
    assert_eq!(worker.call("POST /b HTTP/1.0\r\n\r\n").json()["authority"], "demo.localhost");
    let kept = worker.call("POST /b HTTP/1.1\r\nhost: demo\r\nx-request-id: mine\r\n\r\n");
    assert_eq!(kept.header("x-request-id"), Some("mine"));
    assert_eq!(kept.json()["headers"]["x-request-id"][0], "mine");
}

#[test]
fn tokens_are_checked_here_and_change_at_once() {
    let release =
        Release::new(1, &[("/private", "echo", r#"{"auth":"invoke"}"#), ("/public", "echo", "{}")]);
    let mut worker = exec(&release, start(1)).accept();
    let with = |path: &str, header: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: demo\r\nx-hearth-caller: forged\r\n{header}\r\n\r\n")
    };
    let call = |worker: &Worker, path, header| worker.call(&with(path, header));
    let refused = call(&worker, "/private", "x-nothing: 1");
    refused.is_problem(401, "unauthenticated");
    assert!(refused.header("www-authenticate").is_some());
    call(&worker, "/private", "authorization: Bearer good").is_problem(401, "unauthenticated");

    let grant = |token: &str, scope| TokenGrant {
        digest: TokenDigest::of(token),
        scope,
        name: "robot".to_owned(),
        expires_at: None,
    };
    worker.set_tokens(vec![grant("good", Scope::Invoke), grant("weak", Scope::Report)]);
    let seen = call(&worker, "/private", "authorization: Bearer good").json();
    assert_eq!(seen["headers"]["x-hearth-caller"][0], "robot");
    assert!(seen["headers"]["authorization"].is_null(), "{seen}");
    call(&worker, "/private", "authorization: Token weak").is_problem(403, "forbidden");
    let seen = call(&worker, "/public", "authorization: Basic its-own").json();
    assert_eq!(seen["headers"]["authorization"][0], "Basic its-own");
    assert!(seen["headers"]["x-hearth-caller"].is_null(), "{seen}");
    worker.set_tokens(vec![]);
    call(&worker, "/private", "authorization: Bearer good").is_problem(401, "unauthenticated");

    let mut api = worker.link(Origin::Api);
    let vouched = with("/private", "x-hearth-scope: invoke\r\nx-forwarded-for: 1.2.3.4");
    let seen = ask(&mut api, &vouched).json();
    assert_eq!(seen["headers"]["x-hearth-caller"][0], "forged", "believed of the primary");
    assert_eq!(seen["headers"]["x-forwarded-for"][0], "1.2.3.4");
    let mut gateway = worker.link(Origin::Outside);
    ask(&mut gateway, &with("/private", "x-forwarded-for: 1.2.3.4"))
        .is_problem(401, "unauthenticated");
    let seen = ask(&mut gateway, &with("/public", "x-forwarded-for: 1.2.3.4")).json();
    assert_eq!(seen["headers"]["x-forwarded-for"][0], "1.2.3.4");
    assert!(seen["headers"]["x-hearth-caller"].is_null(), "{seen}");
    let seen = call(&worker, "/public", "x-forwarded-for: 1.2.3.4").json();
    assert_eq!(seen["headers"]["x-forwarded-for"][0], "127.0.0.1");
}

/// Whatever is written into a head, what counts is where the connection comes from.
#[test]
fn a_calls_origin_is_that_of_its_link() {
    let guarded = r#"{"auth":"internal","methods":["GET","POST"],"cors":"*"}"#;
    let release = Release::new(
        1,
        &[
            ("/internal", "echo", guarded),
            ("/owners", "echo", r#"{"auth":"owner"}"#),
            ("/public", "echo", "{}"),
        ],
    );
    let mut worker = exec(&release, start(1)).accept();
    let request = |path: &str, scope: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: demo\r\nx-hearth-caller: me\r\nx-hearth-scope: {scope}\r\n\
             X-Hearth-Trigger: nightly\r\nx-hearth-origin: internal\r\nx_hearth_trigger: forged\r\n\
             ce-type: anybody's\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n0\r\n\
             x-sum: 1\r\nx-hearth-trigger: late\r\nauthorization: Bearer late\r\n\r\n"
        )
    };
    let [caller, scope, trigger] = ["x-hearth-caller", "x-hearth-scope", "x-hearth-trigger"];
    let told = |answer: &serde_json::Value| {
        let headers = answer["headers"].as_object().unwrap().keys();
        let ours = headers.filter(|name| name.replace('_', "-").starts_with("x-hearth-"));
        ours.cloned().collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for (origin, said, statuses, names) in [
        (Origin::Outside, "owner", [403, 401, 200], &[][..]),
        (Origin::Api, "owner", [200, 200, 200], &[caller, scope]),
        (Origin::Api, "admin", [200, 200, 200], &[caller, scope]),
        (Origin::Api, "invoke", [403, 403, 200], &[caller, scope]),
        (Origin::Trigger, "invoke", [200, 200, 200], &[trigger]),
        (Origin::Internal, "invoke", [200, 200, 200], &[caller]),
    ] {
        let mut link = worker.link(origin);
        for (path, status) in ["/internal", "/owners", "/public"].into_iter().zip(statuses) {
            let answer = ask(&mut link, &request(path, said));
            assert_eq!(answer.status, status, "{path} {origin:?} {said}: {answer:?}");
            if status == 200 {
                let seen = answer.json();
                assert_eq!(told(&seen), names, "{path} {origin:?} {said}: {seen}");
                assert_eq!(seen["trailers"], serde_json::json!({ "x-sum": ["1"] }), "{origin:?}");
            }
            expected.push((path.to_owned(), origin, status));
        }
    }
    // At its own port as on a link that brings somebody from outside.
    let mut own = worker.connect();
    for (path, status) in [("/internal", 403), ("/owners", 401), ("/public", 200)] {
        assert_eq!(ask(&mut own, &request(path, "owner")).status, status, "{path}");
        expected.push((path.to_owned(), Origin::Outside, status));
    }
    worker.await_report(|report| report.calls.len() == expected.len());
    let recorded = worker.reports.calls.iter();
    let recorded: Vec<_> =
        recorded.map(|call| (call.function.to_string(), call.origin, call.status)).collect();
    assert_eq!(recorded, expected);
}

#[test]
fn what_is_internal_is_listed_and_allowed_for_nobody_outside() {
    let guarded = r#"{"auth":"internal","methods":["GET","POST"],"cors":"*"}"#;
    let release = Release::new(1, &[("/guarded", "echo", guarded), ("/public", "echo", "{}")]);
    let worker = exec(&release, start(1)).accept();
    for origin in Origin::ALL {
        let mut link = worker.link(origin);
        for list in ["/$functions", "/$openapi.json"] {
            let listed = ask(&mut link, &get(list));
            assert_eq!(listed.text().contains("/guarded"), origin.sees_internal(), "{origin:?}");
            assert!(listed.text().contains("/public"), "{origin:?}");
        }
        let usage = ask(&mut link, &get("/$usage")).status;
        assert_eq!(usage, if origin.may_ask_usage() { 200 } else { 404 }, "{origin:?}");
    }
    let preflight = "OPTIONS /guarded HTTP/1.1\r\nhost: demo\r\norigin: https://a.example\r\n\
                     access-control-request-method: POST\r\n\r\n";
    let mut outside = worker.link(Origin::Outside);
    for refused in [worker.call(preflight), ask(&mut outside, preflight)] {
        refused.is_problem(403, "forbidden");
        for name in ["access-control-allow-origin", "access-control-allow-methods", "vary", "allow"]
        {
            assert_eq!(refused.header(name), None, "{refused:?}");
        }
    }
}

#[test]
fn a_function_finds_nothing_of_the_machine() {
    let release = Release::new(1, &[("/env", "reads_env", "{}"), ("/out", "calls_out", "{}")]);
    let worker = exec(&release, start(1)).accept();
    let found = worker.post("/env", "").json();
    for empty in ["environment", "arguments", "stdin"] {
        assert_eq!(found[empty], serde_json::json!([]), "{empty}: {found}");
    }
    assert_eq!((&found["root"], &found["passwd"]), (&false.into(), &false.into()), "{found}");
    for socket in ["tcp", "udp"] {
        assert_eq!(found[socket], "PermissionDenied", "{found}");
    }
    assert!(worker.post("/out", "").text().contains("HttpRequestDenied"));
}

#[test]
fn what_is_printed_is_told_in_lines() {
    let release = Release::new(1, &[("/prints", "prints", "{}")]);
    let mut worker = exec(&release, start(1)).accept();
    let long = "x".repeat(LOG_LINE_MAX_BYTES + 100);
    let body = format!("first\r\n\n{long}\nno end");
    let length = body.len();
    let request = format!(
        "POST /prints HTTP/1.1\r\nhost: demo\r\nx-request-id: call-1\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    assert_eq!(worker.call(&request).status, 204);
    worker.await_report(|report| report.lines.len() == 8);
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let lines = worker.reports.lines.iter().filter(|line| line.stream == stream);
        let texts: Vec<_> = lines
            .inspect(|line| {
                assert_eq!((line.function.as_str(), line.version.clone()), ("/prints", 1.into()));
                assert_eq!(line.request_id, "call-1");
            })
            .map(|line| line.text.as_str())
            .collect();
        assert_eq!(texts, ["first", "", &long[..LOG_LINE_MAX_BYTES], "no end"]);
    }
}

#[test]
fn a_caller_that_goes_away_ends_its_call() {
    let release = Release::new(1, &[("/slow", "slow", "{}")]);
    let mut worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    stream.write_all(post("/slow?ms=20000", "").as_bytes()).unwrap();
    worker.await_report(|report| !report.lines.is_empty());
    drop(stream);
    worker.await_report(|report| !report.calls.is_empty());
    assert_eq!(worker.reports.calls[0].outcome, Outcome::Abandoned);
}

#[test]
fn a_loop_keeps_nobody_waiting_for_long() {
    let release = Release::new(
        1,
        &[("/loops", "loops", r#"{"timeout_ms":20000}"#), ("/fine", "version_one", "{}")],
    );
    let worker = exec(&release, start(1)).accept();
    let mut looping = worker.connect();
    looping.write_all(post("/loops", "").as_bytes()).unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        assert_eq!(worker.post("/fine", "").status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
