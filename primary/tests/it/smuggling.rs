//! Requests that two programs could read differently. One table of forms, sent to a tenant's own
//! port, to the front door by host name and by path: what they are taken for is the same at all
//! three, and nobody on the way sees a second request in one.

use serde_json::json;

use crate::guests;
use crate::host::{Address, Host};
use crate::http::Connection;

/// What a form is taken for: the answers on its connection, in order. Behind each form a request
/// follows that is answered if the connection is kept and everybody agrees on where it begins.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// 400, and nothing more is read.
    Refused,
    /// 431, likewise.
    TooLarge,
    /// A request with this body, and the next one is read as well.
    Read(&'static str),
    /// A request with this body, which is the connection's last.
    ReadLast(&'static str),
    /// A request whose body breaks off: its function may have begun, and nothing more is read.
    Broken,
}
use Taken::{Broken, Read, ReadLast, Refused, TooLarge};

/// `TARGET` and `HOST` stand for what each address takes.
const POST: &str = "POST TARGET HTTP/1.1\r\nhost: HOST\r\n";

fn forms() -> Vec<(&'static str, String, Taken)> {
    let post = |rest: &str| format!("{POST}{rest}");
    let chunked = |body: &str| post(&format!("transfer-encoding: chunked\r\n\r\n{body}"));
    vec![
        ("plain", post("content-length: 3\r\n\r\nabc"), Read("abc")),
        ("chunked", chunked("3\r\nabc\r\n0\r\n\r\n"), Read("abc")),
        (
            "content-length, then transfer-encoding",
            post("content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            ReadLast("abc"),
        ),
        (
            "transfer-encoding, then content-length",
            post("transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            ReadLast("abc"),
        ),
        ("two content-lengths", post("content-length: 3\r\ncontent-length: 4\r\n\r\nabcd"), Refused),
        ("two equal ones", post("content-length: 3\r\ncontent-length: 3\r\n\r\nabc"), Read("abc")),
        ("a list of lengths", post("content-length: 3, 4\r\n\r\nabcd"), Refused),
        ("a length with a sign", post("content-length: +3\r\n\r\nabc"), Refused),
        ("a negative length", post("content-length: -3\r\n\r\nabc"), Refused),
        ("a length in hexadecimal", post("content-length: 0x3\r\n\r\nabc"), Refused),
        ("an empty length", post("content-length: \r\n\r\nabc"), Refused),
        ("a length beyond numbers", post("content-length: 99999999999999999999\r\n\r\nabc"), Refused),
        ("another coding last", post("transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"), Refused),
        ("a coding of no name", post("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"), Refused),
        ("a coding behind a vertical tab", post("transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"), Refused),
        ("transfer-encoding with a space before its colon", post("transfer-encoding : chunked\r\n\r\n0\r\n\r\n"), Refused),
        ("content-length with a space before its colon", post("content-length : 3\r\n\r\nabc"), Refused),
        ("a folded line", post("x-folded: a\r\n b\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a folded transfer-encoding", post("transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"), Refused),
        ("a field before the host that is folded", "POST TARGET HTTP/1.1\r\n host: HOST\r\n\r\n".to_owned(), Refused),
        ("bare line feeds", "POST TARGET HTTP/1.1\nhost: HOST\ncontent-length: 3\n\nabc".to_owned(), Read("abc")),
        ("a bare carriage return in a value", post("x-a: b\rtransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a NUL in a value", post("x-a: b\0c\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a NUL in a name", post("x-\0a: b\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a control byte in a value", post("x-a: b\x01c\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a delete in a value", post("x-a: b\x7fc\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("an empty name", post(": b\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a line without a colon", post("nothing\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("a NUL in the target", "POST TARGET\0x HTTP/1.1\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        ("a space in the target", "POST TARGET x HTTP/1.1\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        ("a version that is none", "POST TARGET HTTP/1.2\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        ("no version", "POST TARGET\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        ("HTTP/2 by its word", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Refused),
        ("no host", "POST TARGET HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc".to_owned(), Refused),
        ("two hosts", post("host: HOST\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        ("two different hosts", post("host: other.localhost\r\ncontent-length: 3\r\n\r\nabc"), Refused),
        (
            "the whole address, with another host",
            "POST http://other.localhostTARGET HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\n\r\nabc".to_owned(),
            Refused,
        ),
        (
            "the whole address, with another port",
            "POST http://HOST1TARGET HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\n\r\nabc".to_owned(),
            Refused,
        ),
        (
            "the whole address",
            "POST http://HOSTTARGET HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\n\r\nabc".to_owned(),
            Read("abc"),
        ),
        ("a host in the place of a path", "POST HOST HTTP/1.1\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        ("a tunnel", "CONNECT HOST HTTP/1.1\r\nhost: HOST\r\n\r\n".to_owned(), Refused),
        (
            "transfer-encoding in HTTP/1.0",
            "POST TARGET HTTP/1.0\r\nhost: HOST\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(),
            Refused,
        ),
        ("HTTP/1.0", "POST TARGET HTTP/1.0\r\nhost: HOST\r\ncontent-length: 3\r\n\r\nabc".to_owned(), ReadLast("abc")),
        ("a chunk size that is none", chunked("g\r\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk size with a sign", chunked("+3\r\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk size with a prefix", chunked("0x3\r\nabc\r\n0\r\n\r\n"), Broken),
        ("an empty chunk size", chunked("\r\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk size beyond numbers", chunked("fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk size with zeros before it", chunked("000000003\r\nabc\r\n0\r\n\r\n"), Read("abc")),
        ("a chunk that is longer than it says", chunked("2\r\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk size that ends with a line feed alone", chunked("3\nabc\r\n0\r\n\r\n"), Broken),
        ("a chunk extension", chunked("3;a=b\r\nabc\r\n0\r\n\r\n"), Read("abc")),
        ("a chunk extension with a line feed", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), Broken),
        (
            "chunk extensions without end",
            chunked(&format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(1_000)).repeat(40))),
            Broken,
        ),
        ("a trailer that would frame", chunked("3\r\nabc\r\n0\r\ncontent-length: 7\r\n\r\n"), Read("abc")),
        ("a head that is too large", post(&format!("x-a: {}\r\n\r\n", "x".repeat(33 << 10))), TooLarge),
        ("too many fields", post(&format!("{}\r\n", "x-a: b\r\n".repeat(200))), TooLarge),
        ("a request within a request", post("content-length: 45\r\n\r\nPOST /admin HTTP/1.1\r\nhost: admin.localhost\r\n"), Read("POST /admin HTTP/1.1\r\nhost: admin.localhost\r\n")),
    ]
}

/// What came back: of each answer its status, and the body that the function saw or the code.
fn taken(address: &Address, form: &str) -> Vec<String> {
    let bare = address.request("POST", "/echo").bytes(&address.to.to_string());
    let head = String::from_utf8(bare).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let host = head.split("\r\n").find_map(|line| line.strip_prefix("host: ")).unwrap();
    let behind = address.request("POST", "/echo").header("connection", "close").body("behind");
    let mut bytes = form.replace("TARGET", target).replace("HOST", host).into_bytes();
    bytes.extend(behind.bytes(host));
    let mut connection = Connection::open(address.to).unwrap();
    // Who refuses it may have closed already.
    let _ = connection.send(&bytes);
    let mut taken = Vec::new();
    while let Ok(answer) = connection.try_answer("POST") {
        let said = match answer.status {
            200 => answer.json()["body"].as_str().unwrap().to_owned(),
            _ => answer.json()["code"].as_str().unwrap().to_owned(),
        };
        assert_eq!(answer.header("connection").is_some(), answer.closes(), "{answer:?}");
        taken.push(format!("{} {said}", answer.status));
    }
    taken
}

#[test]
fn row_10_what_could_be_read_in_two_ways_is_taken_for_the_same_everywhere() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    host.tenant("other");
    tenant.deploy("echo", guests::echo());
    let mut wrong = Vec::new();
    for (name, form, expected) in forms() {
        let expected = match expected {
            Refused => vec!["400 bad_request".to_owned()],
            TooLarge => vec!["431 headers_too_large".to_owned()],
            Read(body) => vec![format!("200 {body}"), "200 behind".to_owned()],
            ReadLast(body) => vec![format!("200 {body}")],
            Broken => vec!["400 bad_request".to_owned()],
        };
        for address in tenant.addresses() {
            let taken = taken(&address, &form);
            if taken != expected {
                wrong.push(format!("{name} at {}: {taken:?}, not {expected:?}", address.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for address in tenant.addresses() {
        assert_eq!(address.post("/echo", "still").expect(200).json()["body"], "still");
    }
}

#[test]
fn row_10_what_outsiders_say_of_themselves_and_of_one_connection_is_taken_off() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let request = address
            .request("POST", "/echo")
            .header("connection", "keep-alive, x-internal, X-Other , host, content-length")
            .header("x-internal", "yes")
            .header("x-other", "yes")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authorization", "Basic x")
            .header("x-hearth-caller", "admin")
            .header("X-Hearth-Version", "/echo@9")
            .header("x-hearth-", "x")
            .header("x-kept", "yes")
            .body("body");
        let seen = address.send(&request).expect(200).json();
        let headers = seen["headers"].as_object().unwrap();
        for gone in [
            "connection",
            "x-internal",
            "x-other",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "x-hearth-caller",
            "x-hearth-version",
            "x-hearth-",
        ] {
            assert!(!headers.contains_key(gone), "{gone} at {}: {seen}", address.name);
        }
        assert_eq!((&seen["body"], &seen["headers"]["x-kept"]), (&json!("body"), &json!(["yes"])));
    }
}

#[test]
fn row_11_a_long_address_is_no_matter_within_the_head_and_refused_beyond_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let with =
            |length: usize| address.request("POST", &format!("/echo?{}", "x".repeat(length)));
        let seen = address.send(&with(20_000)).expect(200).json();
        assert_eq!(seen["target"].as_str().unwrap().len(), 20_006, "{}", address.name);
        address.send(&with(100 << 10)).expect_problem(431, "headers_too_large");
    }
}
