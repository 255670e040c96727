//! What is whole and what is not, either way, in both versions of HTTP and at each address: an
//! answer announces what it sends and nothing else, what broke off is seen to have broken off, and
//! what is recorded of it is what its caller was told.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host, Tenant};
use crate::http::Connection;
use crate::processes::eventually;

const VERSIONS: [&str; 2] = ["HTTP/1.0", "HTTP/1.1"];

/// A request as it is written, in either version. `FIELDS` are lines with their ends.
fn bytes(
    address: &Address,
    version: &str,
    method: &str,
    path: &str,
    fields: &str,
    body: &[u8],
) -> Vec<u8> {
    let request = address.request(method, path).header("x-hop", "x");
    let text = String::from_utf8(request.bytes(&address.to.to_string())).unwrap();
    let text = text.replace("HTTP/1.1", version);
    let own = text.lines().filter(|line| !line.starts_with("content-length") && !line.is_empty());
    let head: String = own.map(|line| format!("{line}\r\n")).collect();
    let mut bytes = format!("{head}{fields}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// All that comes back until the end, and whether that was a break.
fn all(address: &Address, sent: &[u8], finishes: bool) -> (String, bool) {
    let mut connection = Connection::open(address.to).unwrap();
    connection.send(sent).unwrap();
    if finishes {
        connection.finish_sending().unwrap();
    }
    rest(connection.into_stream())
}

fn rest(mut stream: TcpStream) -> (String, bool) {
    let (mut all, mut piece) = (Vec::new(), [0; 64 << 10]);
    let broke = loop {
        match stream.read(&mut piece) {
            Ok(0) => break false,
            Ok(came) => all.extend_from_slice(&piece[..came]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
            Err(error) => panic!("{error} behind {}", String::from_utf8_lossy(&all)),
        }
    };
    (String::from_utf8_lossy(&all).into_owned(), broke)
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn code(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    problem["code"].as_str().unwrap_or("none").to_owned()
}

/// Whether what came back is seen to be less than the answer, by what its head announced.
fn is_seen_to_be_cut(answer: &str, broke: bool) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return true };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return !body.ends_with("0\r\n\r\n") && !body.contains("\r\n0\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() < length.parse().unwrap(),
        None => broke,
    }
}

fn record(tenant: &Tenant, id: &str) -> (String, u64) {
    let found = eventually(&format!("the record of {id}"), || {
        tenant.ask(&format!("/calls?request_id={id}"))["calls"].get(0).cloned()
    });
    (found["outcome"].as_str().unwrap().to_owned(), found["status"].as_u64().unwrap())
}

/// The lines of a head that say how what follows is framed, and those that are one connection's.
fn framing(answer: &str) -> Vec<String> {
    let head = answer.split_once("\r\n\r\n").map_or(answer, |(head, _)| head);
    let told = ["content-length", "transfer-encoding", "trailer", "upgrade", "keep-alive"];
    let mut lines: Vec<_> = head
        .to_ascii_lowercase()
        .lines()
        .filter(|line| told.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn what_has_no_content_announces_none_and_the_rest_what_it_sends_at_each_address() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let methods = json!({ "methods": ["GET", "HEAD", "POST"] });
    tenant.deploy_with("answers", guests::answers(), &methods);
    tenant.deploy_with("one", guests::version_one(), &methods);
    tenant.deploy_with("stalls", guests::stalls(), &methods);
    let answer = |status: u16, headers: Value, body: &str| {
        ("POST", "/answers", json!({ "status": status, "headers": headers, "body": body }))
    };
    let length = |bytes: &str| json!([["content-length", bytes]]);
    let none: &[&str] = &[];
    for ((method, path, wanted), first, second, body) in [
        (answer(200, json!([]), "x"), &["content-length: 1"][..], &["content-length: 1"][..], true),
        (answer(200, json!([]), ""), &["content-length: 0"], &["content-length: 0"], false),
        (answer(200, length("1"), "x"), &["content-length: 1"], &["content-length: 1"], true),
        (answer(404, length("0"), ""), &["content-length: 0"], &["content-length: 0"], false),
        (
            answer(200, json!([["trailer", "x-sum"]]), "x"),
            &["content-length: 1"],
            &["content-length: 1"],
            true,
        ),
        (answer(204, json!([]), "x"), none, none, false),
        (answer(204, json!([]), ""), none, none, false),
        (answer(204, length("1"), "x"), none, none, false),
        (answer(204, length("0"), ""), none, none, false),
        (answer(204, json!([["trailer", "x-sum"]]), ""), none, none, false),
        (answer(205, json!([]), "x"), &["content-length: 0"], &["content-length: 0"], false),
        (answer(205, length("1"), "x"), &["content-length: 0"], &["content-length: 0"], false),
        (answer(304, json!([]), "x"), none, none, false),
        (answer(304, length("1"), "x"), none, none, false),
        (("HEAD", "/one", json!("")), none, none, false),
        (
            ("HEAD", "/stalls?head=1&length=7&sends=7&ms=1", json!("")),
            &["content-length: 7"],
            &["content-length: 7"],
            false,
        ),
    ] {
        for (version, expected) in VERSIONS.into_iter().zip([first, second]) {
            for address in tenant.addresses() {
                let sent = wanted.to_string();
                let fields = format!("connection: close\r\ncontent-length: {}\r\n", sent.len());
                let request = bytes(&address, version, method, path, &fields, sent.as_bytes());
                let (came, broke) = all(&address, &request, false);
                let what = format!("{version} {method} {wanted} at {}: {came}", address.name);
                assert_eq!(framing(&came), expected, "{what}");
                let rest = came.split_once("\r\n\r\n").unwrap().1;
                assert_eq!((rest.contains('x'), broke), (body, false), "{what}");
                assert!(body || rest.is_empty(), "{what}");
            }
        }
    }
    // The platform's own are framed like them.
    for (method, path, status) in [("HEAD", "/$health", 200), ("HEAD", "/nothing", 404)] {
        let mut lengths = Vec::new();
        for address in tenant.addresses() {
            let request = bytes(&address, "HTTP/1.1", method, path, "connection: close\r\n", b"");
            let (came, _) = all(&address, &request, false);
            assert_eq!(self::status(&came), status, "{came}");
            assert!(came.ends_with("\r\n\r\n"), "{came}");
            lengths.push(framing(&came).len());
        }
        assert_eq!(lengths, [1, 1, 1], "{path}");
    }
}

/// What the functions of a guest may not say, it cannot say: the engine refuses these fields.
#[test]
fn a_function_says_nothing_of_its_callers_connection() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("answers", guests::answers());
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("content-length", "x"),
        ("content-length", "-1"),
    ] {
        for address in tenant.addresses() {
            let wanted = json!({ "status": 200, "headers": [[name, value]], "body": "x" });
            let answer = address.post("/answers", &wanted.to_string());
            assert!(answer.status >= 500, "{name} at {}: {answer:?}", address.name);
            assert_eq!(answer.header(name).filter(|it| *it == value), None, "{}", address.name);
        }
    }
}

#[test]
fn a_function_that_fails_behind_its_head_is_told_as_that_as_long_as_nothing_was_sent() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("stalls", guests::stalls());
    for (at, (query, told, recorded)) in [
        ("head=1&ms=0&traps=1", "500 function_trapped", ("trapped", 500)),
        ("head=1&ms=0&traps=1&length=9", "500 function_trapped", ("trapped", 500)),
        ("head=1&ms=0&drops=1&length=9", "500 function_trapped", ("trapped", 500)),
        ("head=1&ms=0&length=9", "500 function_trapped", ("trapped", 500)),
        ("head=1&sends=4&ms=300&traps=1", "200 cut", ("trapped", 200)),
        ("head=1&sends=4&ms=300&drops=1", "200 cut", ("trapped", 200)),
        ("head=1&sends=4&ms=300&traps=1&length=9", "200 cut", ("trapped", 200)),
        ("head=1&sends=4&ms=300&length=9", "200 cut", ("trapped", 200)),
        // It has all that was announced, and the function, which cannot send more, fails at that.
        ("head=1&sends=9&ms=300&length=4", "200 whole", ("trapped", 200)),
        ("head=1&sends=4&ms=300", "200 whole", ("answered", 200)),
        ("head=1&ms=0", "200 whole", ("answered", 200)),
    ]
    .into_iter()
    .enumerate()
    {
        for (version, short) in VERSIONS.into_iter().zip(["0", "1"]) {
            for address in tenant.addresses() {
                let id = format!("{}-{at}-{short}", address.name.replace(' ', "-"));
                let fields =
                    format!("x-request-id: {id}\r\nconnection: close\r\ncontent-length: 0\r\n");
                let path = format!("/stalls?{query}");
                let (came, broke) =
                    all(&address, &bytes(&address, version, "POST", &path, &fields, b""), false);
                let said = match status(&came) {
                    200 if is_seen_to_be_cut(&came, broke) => "200 cut".to_owned(),
                    200 => "200 whole".to_owned(),
                    status => format!("{status} {}", code(&came)),
                };
                // Only a reset would tell, and a worker cannot reset a connection.
                let nothing_tells =
                    short == "0" && !query.contains("length") && address.name == "its own port";
                let told = match told {
                    "200 cut" if nothing_tells => "200 whole",
                    told => told,
                };
                assert_eq!(said, told, "{version} {query} at {}: {came}", address.name);
                let recorded = (recorded.0.to_owned(), recorded.1);
                assert_eq!(record(&tenant, &id), recorded, "{version} {query} at {}", address.name);
            }
        }
    }
}

/// The head of a stream whose first event is still to come does not wait for that.
#[test]
fn a_streams_head_comes_before_its_first_piece() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("stalls", guests::stalls(), &json!({ "timeout_ms": 90_000 }));
    for address in tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let begun = std::time::Instant::now();
        connection.send(&address.request("POST", "/stalls?head=1").bytes("demo")).unwrap();
        assert_eq!(connection.head().unwrap().status, 200, "{}", address.name);
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", address.name);
    }
}

#[test]
fn a_body_that_breaks_off_is_told_in_one_way_at_each_address() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "schema": { "body": {} } });
    tenant.deploy("counts", guests::counts());
    tenant.deploy_with("checked", guests::counts(), &options);
    tenant.deploy("one", guests::version_one());
    tenant.deploy("streams", guests::streams());
    let short = "content-length: 100\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    for (at, (path, fields, body, told, recorded)) in [
        ("/counts", short, "half", "400 bad_request", ("refused", 400)),
        ("/counts", short, "", "400 bad_request", ("refused", 400)),
        ("/checked", short, "half", "400 bad_request", ("refused", 400)),
        ("/counts", chunked, "4\r\nhalf\r\n", "400 bad_request", ("refused", 400)),
        ("/counts", chunked, "4\r\nha", "400 bad_request", ("refused", 400)),
        ("/counts", chunked, "4\r\nhalf\r\nx", "400 bad_request", ("refused", 400)),
        ("/checked", chunked, "4\r\nhalf\r\n0\r\n", "400 bad_request", ("refused", 400)),
        // A small one is read first. Who does not read another does not know.
        ("/one", short, "half", "400 bad_request", ("refused", 400)),
        ("/one", chunked, "4\r\nhalf\r\n", "200 whole", ("answered", 200)),
    ]
    .into_iter()
    .enumerate()
    {
        for (version, number) in VERSIONS.into_iter().zip(["0", "1"]) {
            if version == "HTTP/1.0" && fields == chunked {
                continue;
            }
            for address in tenant.addresses() {
                let id = format!("{}-{at}-{number}", address.name.replace(' ', "-"));
                let fields = format!("x-request-id: {id}\r\n{fields}");
                let sent = bytes(&address, version, "POST", path, &fields, body.as_bytes());
                let (came, broke) = all(&address, &sent, true);
                let what = format!("{version} {path} {body:?} at {}: {came}", address.name);
                let said = match status(&came) {
                    200 if is_seen_to_be_cut(&came, broke) => "200 cut".to_owned(),
                    200 => "200 whole".to_owned(),
                    status => format!("{status} {}", code(&came)),
                };
                assert_eq!(said, told, "{what}");
                let recorded = (recorded.0.to_owned(), recorded.1);
                assert_eq!(record(&tenant, &id), recorded, "{what}");
            }
        }
    }
    // One that has begun to answer is not heard to its end.
    for (at, rest) in ["", "x\r\n", "5\r\nha"].into_iter().enumerate() {
        for address in tenant.addresses() {
            let id = format!("{}-streams-{at}", address.name.replace(' ', "-"));
            let mut connection = begin_stream(&address, "/streams", &id);
            connection.send(rest.as_bytes()).unwrap();
            connection.finish_sending().unwrap();
            let error = loop {
                match connection.chunk() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("a whole answer to half a body at {}", address.name),
                    Err(error) => break error.kind(),
                }
            };
            let cut = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(cut.contains(&error), "{error} at {}", address.name);
            assert_eq!(record(&tenant, &id), ("refused".to_owned(), 200), "{}", address.name);
        }
    }
}

/// A function that sends back what it gets, and has begun to.
fn begin_stream(address: &Address, path: &str, id: &str) -> Connection {
    let mut connection = Connection::open(address.to).unwrap();
    let head = address
        .request("POST", path)
        .header("x-request-id", id)
        .header("transfer-encoding", "chunked");
    connection.send(&head.bytes("demo")).unwrap();
    connection.send(b"3\r\none\r\n").unwrap();
    assert_eq!(connection.head().unwrap().status, 200, "{}", address.name);
    assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"one"[..]), "{}", address.name);
    connection
}

#[test]
fn a_body_that_grows_too_large_under_an_answer_leaves_no_whole_one() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("streams", guests::streams(), &json!({ "max_body": 100_000 }));
    for address in tenant.addresses() {
        for (bytes, is_whole) in [(100_000 - 3, true), (100_000, false), (1_000_000, false)] {
            let id = format!("{}-{bytes}", address.name.replace(' ', "-"));
            let mut connection = begin_stream(&address, "/streams", &id);
            let mut sent = format!("{bytes:x}\r\n").into_bytes();
            sent.extend(vec![b'x'; bytes]);
            sent.extend_from_slice(b"\r\n0\r\n\r\n");
            // Who refuses it may have closed already.
            let _ = connection.send(&sent);
            let mut came = 0;
            let ended = loop {
                match connection.chunk() {
                    Ok(Some(chunk)) => came += chunk.len(),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            assert_eq!(ended, is_whole, "{bytes} at {}: {came} came", address.name);
            let outcome = if is_whole { "answered" } else { "refused" };
            assert_eq!(record(&tenant, &id), (outcome.to_owned(), 200), "{bytes} {}", address.name);
        }
    }
}
