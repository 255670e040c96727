//! A request's head, in size and in time, and how many connections are served at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{set, used};
use crate::guests;
use crate::host::{Address, Host};
use crate::http::{Answer, Connection, Request};
use crate::processes::{eventually, far_end};

const HEAD_BYTES: usize = 32 << 10;

/// A request whose head has exactly so many bytes.
fn with_head(address: &Address, bytes: usize) -> Request {
    let request = |filling: usize| {
        let request = address.request("POST", "/hello").header("content-length", "0");
        request.header("x-filling", &"x".repeat(filling))
    };
    let bare = request(0).bytes(&address.to.to_string()).len();
    request(bytes - bare)
}

#[track_caller]
fn send(address: &Address, request: &Request) -> Answer {
    request.try_send(address.to).unwrap_or_else(|e| panic!("{}: {e}", address.name))
}

#[test]
fn a_head_is_bounded_in_size() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for address in tenant.addresses() {
        send(&address, &with_head(&address, HEAD_BYTES)).expect(200);
        for past in [HEAD_BYTES + 1, 2 * HEAD_BYTES, 1 << 20] {
            send(&address, &with_head(&address, past)).expect_problem(431, "headers_too_large");
        }
        send(&address, &with_head(&address, 200)).expect(200);
    }
}

#[test]
fn a_head_is_bounded_in_its_number_of_fields() {
    const FIELDS: usize = 128;
    let host = Host::start();
    let tenant = host.tenant("demo");
    for address in tenant.addresses() {
        let with = |fields: usize| {
            // These, host and content-length.
            let request = address.request("POST", "/hello");
            (2..fields).fold(request, |request, at| request.header(&format!("x-{at}"), "x"))
        };
        send(&address, &with(FIELDS)).expect(200);
        for past in [FIELDS + 1, 1_000] {
            send(&address, &with(past)).expect_problem(431, "headers_too_large");
        }
    }
}

#[test]
fn a_head_is_bounded_in_time() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let begun = Instant::now();
    let mut slow: Vec<Connection> = tenant
        .addresses()
        .map(|address| {
            let mut slow = Connection::open(address.to).unwrap();
            let head = address.request("POST", "/hello").header("x-half", "").bytes("demo");
            slow.send(&head[..head.len() - 4]).unwrap();
            slow
        })
        .into();
    for slow in &mut slow {
        slow.answer("POST").expect_problem(408, "request_timeout").expect_detail("10 s");
        assert!(slow.is_closed());
    }
    let took = begun.elapsed();
    assert!((9..30).contains(&took.as_secs()), "{took:?}");
    // One that is as slow, and complete in time, is answered.
    let mut patient = tenant.open();
    let head = tenant.address().request("POST", "/hello").body("{}").bytes("demo");
    let (first, second) = head.split_at(20);
    patient.send(first).unwrap();
    eventually("its first half read", || {
        far_end(patient.ends()).filter(|end| end.accepted && end.unread == 0)
    });
    patient.send(second).unwrap();
    patient.answer("POST").expect(200);
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("counts", guests::counts());
    let begun = Instant::now();
    let stalls = tenant.addresses().map(|address| {
        let mut connection = Connection::open(address.to).unwrap();
        let head = address.request("POST", "/counts").header("content-length", "100");
        connection.send(&head.bytes("demo")).unwrap();
        connection.send(b"the rest of it never comes").unwrap();
        (address.name, connection)
    });
    for (name, mut connection) in stalls {
        let answer = connection.try_answer("POST").unwrap_or_else(|e| panic!("{name}: {e}"));
        answer.expect_problem(400, "bad_request");
        // Before the call's own time is up, and after what a slow line may need.
        let took = begun.elapsed();
        assert!((15..29).contains(&took.as_secs()), "{took:?} at {name}");
        assert!(connection.is_closed(), "{name}");
    }
    eventually("nothing left of it", || (used(&tenant, "calls_running") == 0).then_some(()));
}

#[test]
fn a_connection_too_many_waits_until_another_one_ends() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    set(&host, &tenant, &json!({ "connections": 2 }));
    let call = tenant.address().request("POST", "/one");
    let mut first = tenant.open();
    first.call(&call).expect(200);
    let mut second = tenant.open();
    second.call(&call).expect(200);
    assert_eq!(used(&tenant, "connections"), 2);

    let mut third = tenant.open();
    third.send(&call.bytes("demo")).unwrap();
    let waits = |third: &Connection| {
        let end = far_end(third.ends()).unwrap();
        !end.accepted && end.unread > 0
    };
    eventually("its request in the kernel's queue", || waits(&third).then_some(()));
    // The other two are served meanwhile, and it goes on waiting.
    for _ in 0..20 {
        first.call(&call).expect(200);
        second.call(&call).expect(200);
        assert!(waits(&third));
    }
    assert_eq!(used(&tenant, "connections"), 2);
    let begun = Instant::now();
    drop(first);
    third.answer("POST").expect(200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(used(&tenant, "connections"), 2);
}
