//! A request's body: exactly as many bytes as may be, however they are announced, and an endless
//! one.

use serde_json::json;

use super::{Growth, set};
use crate::guests;
use crate::host::{Address, Host, Tenant};
use crate::http::{Answer, Connection};

const PIECE: usize = 64 << 10;
/// Far above every bound that it meets here, and never followed by a last chunk.
const ENDLESS_BYTES: usize = 96 << 20;

/// A body without an announced length. Its sender does not mind an early answer.
fn send_chunks(connection: &mut Connection, mut bytes: usize) {
    let piece = vec![b'x'; PIECE];
    while bytes > 0 {
        let next = bytes.min(PIECE);
        let mut framed = format!("{next:x}\r\n").into_bytes();
        framed.extend_from_slice(&piece[..next]);
        framed.extend_from_slice(b"\r\n");
        if connection.send(&framed).is_err() {
            return;
        }
        bytes -= next;
    }
}

fn begin_chunked(address: &Address, path: &str) -> Connection {
    let mut connection = Connection::open(address.to).unwrap();
    let head = address.request("POST", path).header("transfer-encoding", "chunked");
    connection.send(&head.bytes("demo")).unwrap();
    connection
}

#[track_caller]
fn post_chunked(address: &Address, path: &str, bytes: usize) -> Answer {
    let mut connection = begin_chunked(address, path);
    send_chunks(&mut connection, bytes);
    // Fails where the answer came early and the connection is closed.
    let _ = connection.send(b"0\r\n\r\n");
    connection.answer("POST")
}

#[track_caller]
fn post_announced(address: &Address, path: &str, bytes: usize) -> Answer {
    let request = address.request("POST", path).body(vec![b'x'; bytes]);
    request
        .try_send(address.to)
        .unwrap_or_else(|e| panic!("{bytes} bytes at {}: {e}", address.name))
}

/// So many bytes reach the function, and one more does not.
#[track_caller]
fn takes_exactly(tenant: &Tenant, path: &str, most: usize) {
    for address in tenant.addresses() {
        for post in [post_announced, post_chunked] {
            let whole = post(&address, path, most).expect(200);
            assert_eq!(whole.text(), most.to_string(), "{}", address.name);
            let large = post(&address, path, most + 1);
            large.expect_problem(413, "too_large").expect_detail(&most.to_string());
        }
    }
}

#[test]
fn bodies_are_bounded() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("small", guests::counts(), &json!({ "max_body": 1_000 }));
    tenant.deploy_with("none", guests::counts(), &json!({ "max_body": 1 }));
    tenant.deploy("usual", guests::counts());
    takes_exactly(&tenant, "/small", 1_000);
    takes_exactly(&tenant, "/none", 1);
    takes_exactly(&tenant, "/usual", 10 << 20);
}

#[test]
fn a_body_is_bounded_by_the_tenants_limit_too() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("usual", guests::counts());
    let most = json!({ "max_body": 100 << 20 });
    tenant.deploy_with("asks", guests::counts(), &most);
    let more = json!({ "max_body": (100 << 20) + 1 }).to_string();
    let more = tenant.upload(&[("more.wasm", guests::counts())], Some(&more));
    more.expect_problem(400, "bad_request").expect_detail("max_body");
    set(&host, &tenant, &json!({ "max_body": 2_000 }));
    takes_exactly(&tenant, "/usual", 2_000);
    takes_exactly(&tenant, "/asks", 2_000);
}

#[test]
fn a_body_with_a_schema_is_bounded_in_the_same_way() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({ "max_body": 1_000, "schema": { "body": { "type": "string" } } });
    tenant.deploy_with("checked", guests::counts(), &options);
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for address in tenant.addresses() {
        assert_eq!(
            address.post("/checked", &text(1_000)).expect(200).text(),
            "1000",
            "{}",
            address.name
        );
        let large =
            address.request("POST", "/checked").body(text(1_001)).try_send(address.to).unwrap();
        large.expect_problem(413, "too_large").expect_detail("1000");
        post_chunked(&address, "/checked", 1_001).expect_problem(413, "too_large");
    }
}

#[test]
fn an_endless_body_is_cut_off_and_nobody_keeps_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = json!({
        "unread.wasm": {},
        "waits.wasm": {},
        "counts.wasm": { "max_body": 1 << 20 },
        "checked.wasm": { "schema": { "body": { "type": "string" } } },
    });
    let files = [
        ("unread.wasm", guests::version_one()),
        ("waits.wasm", guests::slow()),
        ("counts.wasm", guests::counts()),
        ("checked.wasm", guests::counts()),
    ];
    tenant.upload(&files, Some(&options.to_string())).expect(200);
    tenant.post("/unread", "").expect(200);
    let memory = [Growth::of(host.pid()), Growth::of_worker(&tenant)];
    for address in tenant.addresses() {
        for (path, refused) in
            [("/unread", false), ("/waits?ms=500", false), ("/counts", true), ("/checked", true)]
        {
            let mut connection = begin_chunked(&address, path);
            send_chunks(&mut connection, ENDLESS_BYTES);
            let answer = connection.try_answer("POST");
            let answer = answer.unwrap_or_else(|e| panic!("{path} at {}: {e}", address.name));
            if refused {
                answer.expect_problem(413, "too_large");
            } else {
                answer.expect(200);
            }
            tenant.post("/unread", "").expect(200);
        }
    }
    for growth in memory {
        growth.stays_below(64);
    }
}
