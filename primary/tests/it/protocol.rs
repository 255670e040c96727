//! HTTP/1.1 at a tenant's own port, where the worker itself speaks it.

use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::http::Connection;

#[test]
fn a_connection_is_kept_and_requests_may_follow_without_waiting() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        for at in 0..5 {
            let answer = connection.call(&address.request("POST", "/echo").body(format!("{at}")));
            assert_eq!(answer.expect(200).json()["body"], format!("{at}"));
        }
        let three: Vec<u8> = (0..3)
            .flat_map(|at| {
                address.request("POST", "/echo").body(format!("piped {at}")).bytes("demo")
            })
            .collect();
        connection.send(&three).unwrap();
        for at in 0..3 {
            let answer = connection.answer("POST").expect(200);
            assert_eq!(
                answer.json()["body"],
                format!("piped {at}"),
                "in order at {}",
                address.name
            );
        }
        let last = address.request("POST", "/echo").header("connection", "close");
        connection.call(&last).expect(200);
        assert!(connection.is_closed());
    }
}

#[test]
fn an_answer_to_head_has_no_body_and_a_body_of_unknown_length_is_chunked() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let both = json!({ "methods": ["GET", "HEAD", "POST"] });
    tenant.deploy_with("one", guests::version_one(), &both);
    tenant.deploy("streams", guests::streams());
    tenant.deploy("answers", guests::answers());
    for address in tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let answer = connection.call(&address.request("HEAD", "/one"));
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        connection.call(&address.request("GET", "/one")).expect(200);
        let answer = connection.call(&address.request("POST", "/streams?pieces=2")).expect(200);
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.text(), "piece 0\npiece 1\n");
        for status in [204, 304] {
            let wanted = json!({ "status": status, "headers": [] });
            let answer =
                connection.call(&address.request("POST", "/answers").body(wanted.to_string()));
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{}", address.name);
        }
        connection.call(&address.request("GET", "/one")).expect(200);
    }
}

#[test]
fn pieces_travel_both_ways_as_they_come_and_trailers_follow() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("streams", guests::streams());
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let head = address
            .request("POST", "/streams")
            .header("transfer-encoding", "chunked")
            .header("te", "trailers");
        connection.send(&head.bytes("demo")).unwrap();
        connection.send(b"3\r\none\r\n").unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        // Each piece is back before the next is sent: nobody on the way waits for the whole.
        assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"one"[..]), "{}", address.name);
        for piece in ["two", "three"] {
            connection.send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).unwrap();
            assert_eq!(connection.chunk().unwrap().as_deref(), Some(piece.as_bytes()));
        }
        connection.send(b"0\r\n\r\n").unwrap();
        assert_eq!(connection.chunk().unwrap(), None);
        let trailers = connection.fields().unwrap();
        assert_eq!(trailers, [("x-pieces".to_owned(), "3".to_owned())], "{}", address.name);

        let head = address
            .request("POST", "/echo")
            .header("transfer-encoding", "chunked")
            .header("trailer", "x-sum");
        connection.send(&head.bytes("demo")).unwrap();
        connection.send(b"4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n").unwrap();
        let seen = connection.answer("POST").expect(200).json();
        assert_eq!(seen["body"], "body");
        assert_eq!(seen["trailers"], json!({ "x-sum": ["42"] }), "{}", address.name);
    }
}

#[test]
fn a_large_answer_comes_whole() {
    const BYTES: usize = 20 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("big", guests::big_response());
    for address in tenant.addresses() {
        let answer = address.post(&format!("/big?bytes={BYTES}"), "").expect(200);
        assert_eq!(answer.body.len(), BYTES, "{}", address.name);
        let wrong = answer.body.iter().enumerate().find(|(at, byte)| (at % 251) as u8 != **byte);
        assert_eq!(wrong, None, "{}", address.name);
    }
}

#[test]
fn a_reader_that_stops_holds_up_nobody_else() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("big", guests::big_response());
    let mut lazy = tenant.open();
    let request = tenant.address().request("POST", &format!("/big?bytes={}", 30 << 20));
    lazy.send(&request.bytes("demo")).unwrap();
    lazy.head().unwrap();
    for _ in 0..5 {
        tenant.post("/hello", "{}").expect(200);
    }
}

#[test]
fn who_expects_100_continue_gets_it_only_when_the_body_is_wanted() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("echo", guests::echo(), &json!({ "max_body": 100 }));
    tenant.deploy("one", guests::version_one());
    for address in tenant.addresses() {
        let head = |path: &str, length: usize| {
            address
                .request("POST", path)
                .header("expect", "100-continue")
                .header("content-length", &length.to_string())
                .bytes("demo")
        };
        let mut connection = Connection::open(address.to).unwrap();
        connection.send(&head("/echo", 4)).unwrap();
        assert_eq!(connection.head().unwrap().status, 100, "{}", address.name);
        connection.send(b"body").unwrap();
        assert_eq!(connection.answer("POST").expect(200).json()["body"], "body");

        for (path, length, status) in [("/echo", 101, 413), ("/nothing", 4, 404), ("/one", 4, 200)]
        {
            let mut connection = Connection::open(address.to).unwrap();
            connection.send(&head(path, length)).unwrap();
            let answer = connection.answer("POST");
            assert_eq!(answer.status, status, "{path} at {}", address.name);
            // What comes next could be the body, so that it cannot be a request.
            assert!(answer.closes() && connection.is_closed(), "{path} at {}", address.name);
        }
    }
}

#[test]
fn what_is_no_http_gets_400_or_a_close_and_harms_nobody() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let worker = host.workers(&tenant);
    let garbage: [&[u8]; 9] = [
        b"\0\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /hello\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nhost: demo\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /hello HTTP/1.1\r\nhost: demo\r\ncontent-length: x\r\n\r\n",
        b"POST /hello HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /hello HTTP/1.1\r\nhost: demo\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    for to in [tenant.address().to, host.front] {
        for bytes in garbage {
            let mut connection = Connection::open(to).unwrap();
            connection.send(bytes).unwrap();
            connection.finish_sending().unwrap();
            if let Ok(answer) = connection.try_answer("POST") {
                // Two framings at once may be read by the chunked one, if the connection ends.
                let allowed = match answer.status {
                    200 => answer.header("connection") == Some("close"),
                    status => (400..500).contains(&status),
                };
                assert!(allowed, "{}: {answer:?}", String::from_utf8_lossy(bytes));
            }
        }
    }
    assert_eq!(host.workers(&tenant), worker);
    tenant.post("/hello", "{}").expect(200);
}

#[test]
fn the_platforms_own_paths_answer_at_every_address() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("one", guests::version_one(), &json!({ "description": "the first" }));
    for address in tenant.addresses() {
        address.get("/$health").expect(200);
        address.send(&address.request("HEAD", "/$health")).expect(200);
        address.post("/$health", "").expect_problem(405, "method_not_allowed");
        let functions = address.get("/$functions").expect(200).json();
        let text = functions.to_string();
        assert!(text.contains("/one") && text.contains("/hello"), "{}: {text}", address.name);
        assert!(text.contains("the first"), "{text}");
        let document = address.get("/$openapi.json").expect(200).json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{document}");
        assert!(document["paths"]["/one"]["post"].is_object(), "{document}");
        address.get("/$upload").expect_problem(405, "method_not_allowed");
    }
}

#[test]
fn an_unfinished_request_ends_with_its_connection() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let head = b"POST /echo HTTP/1.1\r\nhost: demo\r\ncontent-length: 100\r\n\r\nhalf";
    let mut connection = tenant.open();
    connection.send(head).unwrap();
    connection.finish_sending().unwrap();
    if let Ok(answer) = connection.try_answer("POST") {
        assert!(answer.status >= 400, "{answer:?}");
    }
    tenant.post("/echo", "whole").expect(200);
}
