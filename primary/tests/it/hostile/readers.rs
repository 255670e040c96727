//! Callers who ask the host itself for much and read nothing of it, or send it next to nothing: many
//! of them, from one address and from many, without a token and with one.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::json;

use super::Scene;
use crate::guests;
use crate::host::{Address, Host};
use crate::http::{Connection, Request};
use crate::limits::Growth;
use crate::processes::{eventually, far_end, pause};

/// The largest answer that anybody may ask for.
const LARGE: &str = "/api/docs/swagger-ui-bundle.js";

/// Nobody else's.
fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, (number / 250) as u8, (number % 250) as u8 + 1)
}

/// Asks, and reads no more than the head of the answer.
fn asks(from: Ipv4Addr, host: &Host, request: &Request) -> (u16, Connection) {
    let mut connection = Connection::open_from(from, host.front).unwrap();
    connection.send(&request.bytes("localhost")).unwrap();
    (connection.head().unwrap().status, connection)
}

#[test]
fn row_08_slow_readers_of_what_the_host_answers_itself_cost_it_next_to_nothing() {
    const READERS: usize = 200;
    const KEPT_EACH: u64 = 160 << 10;
    let scene = Scene::of(guests::ends_early(), &json!({}));
    // What is loaded when it is first asked for is not the readers'.
    scene.host.send(&Request::new("GET", LARGE)).expect(200);
    let growth = Growth::of(scene.host.pid());
    let mut readers = Vec::new();
    for at in 0..READERS {
        let address = if at % 4 == 0 { "/api/openapi.json" } else { LARGE };
        let (status, reader) = asks(client(at), &scene.host, &Request::new("GET", address));
        assert_eq!(status, 200);
        // It is where it can get without its reader, who is not let wait for ever.
        let mut before = None;
        let kept = eventually("a reader for whom nothing moves", || {
            let now = far_end(reader.ends())?.untaken;
            pause(Duration::from_millis(5));
            (before.replace(now) == Some(now)).then_some(now)
        });
        assert!(kept < KEPT_EACH, "the kernel keeps {kept} bytes for one reader");
        readers.push(reader);
    }
    growth.stays_below(24);
    // The same bytes come whole to who reads them.
    let whole = scene.host.send(&Request::new("GET", LARGE)).expect(200).body;
    assert!(whole.len() > 1 << 20, "{} bytes", whole.len());
    let (_, mut late) = asks(client(READERS), &scene.host, &Request::new("GET", LARGE));
    pause(Duration::from_secs(1));
    assert_eq!(late.try_body(whole.len()).unwrap(), whole);
    drop(readers);
    scene.ends_well();
}

#[test]
fn row_08_slow_readers_of_their_own_log_are_bounded_and_in_nobodys_way() {
    const READERS: usize = 100;
    let scene = Scene::of(guests::prints(), &json!({}));
    let limits = json!({ "limits": { "log_bytes_per_second": 16 << 20 } });
    let limits = scene.host.admin("PATCH", "/tenants/hostile/limits").json(&limits);
    scene.host.send(&limits).expect(200);
    let lines = format!("{}\n", "x".repeat(8_000)).repeat(100);
    for _ in 0..3 {
        scene.tenant.post("/guest", &lines).expect(204);
    }
    let page = scene.tenant.api("GET", "/logs?limit=1000");
    let whole = eventually("its lines", || {
        let page = scene.host.send(&page).expect(200).json();
        page["next"].as_u64().map(|_| page)
    });
    let size = whole.to_string().len();
    assert!(size < 512 << 10, "a page of {size} bytes");

    let token = scene.tenant.token("deploy");
    let page = Request::new("GET", "/api/v1/tenants/hostile/logs?limit=1000").bearer(&token);
    let growth = Growth::of(scene.host.pid());
    let mut readers = Vec::new();
    for at in 0..READERS {
        readers.push(asks(client(at), &scene.host, &page));
    }
    growth.stays_below(48);
    let refused = readers.iter().filter(|(status, _)| *status == 429).count();
    let answered = readers.iter().filter(|(status, _)| *status == 200).count();
    assert!(answered >= 4 && refused + answered == READERS, "{answered} and {refused}");
    // Another tenant reads its own all the while, and so does the admin.
    let neighbour = scene.host.admin("GET", "/tenants/neighbour/calls?limit=1000");
    scene.host.send(&neighbour).expect(200);
    drop(readers);
    eventually("room for another page", || {
        let answer = page.try_send(scene.host.front).ok()?;
        (answer.status == 200).then_some(())
    });
    scene.ends_well();
}

/// What a client can do so that the front door waits for it: at each place of an exchange.
fn keeps_waiting(at: usize, from: Ipv4Addr, host: &Host, address: &Address) -> Connection {
    let mut connection = Connection::open_from(from, host.front).unwrap();
    let sent = match at % 5 {
        0 => Vec::new(),
        1 => b"GET /healthz HTTP/1.1\r\nhost: a\r\n".to_vec(),
        2 => {
            let sends = address.request("POST", "/guest").header("content-length", "1000");
            [sends.bytes("localhost"), b"a beginning".to_vec()].concat()
        }
        3 => {
            let sends = Request::new("POST", "/api/v1/tenants/hostile/functions");
            let sends = sends.header("content-length", "1000").bearer("nonsense");
            [sends.bytes("localhost"), b"a beginning".to_vec()].concat()
        }
        _ => Request::new("GET", LARGE).bytes("localhost"),
    };
    connection.send(&sent).unwrap();
    connection
}

#[test]
fn row_08_whoever_is_waited_for_makes_room_and_who_waits_for_an_answer_does_not() {
    // A hundred places, and a quarter of them for each address.
    let host = Host::with_descriptors(512, &[]);
    let scene = Scene::on(host, guests::counts(), &json!({}));
    scene.tenant.deploy("slow", guests::slow());
    let by_path = &scene.tenant.addresses()[2];
    let mut patient = Connection::open(scene.host.front).unwrap();
    patient.send(&by_path.request("POST", "/slow?ms=6000").bytes("front")).unwrap();
    eventually("its call", || {
        let lines = scene.tenant.ask("/logs");
        (!lines["lines"].as_array().unwrap().is_empty()).then_some(())
    });
    let crowd: Vec<Connection> =
        (0..260).map(|at| keeps_waiting(at, client(at % 20), &scene.host, by_path)).collect();
    for _ in 0..20 {
        scene.host.send(&Request::new("GET", "/healthz")).expect(200);
        let call = by_path.request("POST", "/guest").body("abc");
        by_path.send(&call).expect(200);
    }
    assert!(scene.host.figure("hearth_connections_dropped_total") >= 100);
    patient.answer("POST").expect(200);
    drop(crowd);
    scene.ends_well();
}

#[test]
fn row_08_one_address_has_a_bound_and_makes_room_among_its_own() {
    const MOST: usize = 8;
    let options = ["--connections-per-address", "8", "--trusted-proxy", "127.9.9.9"];
    let host = Host::with(&options);
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    let healthz = Request::new("GET", "/healthz");
    let open = |ip: Ipv4Addr| Connection::open_from(ip, host.front).unwrap();
    let (one, other, proxy) = (client(1), client(2), Ipv4Addr::new(127, 9, 9, 9));
    let mut others = open(other);
    others.call(&healthz).expect(200);

    // Its own longest silent goes for each that comes.
    let mut crowd: Vec<Connection> = Vec::new();
    for number in 0..3 * MOST {
        crowd.push(open(one));
        if let Some(first) = number.checked_sub(MOST) {
            assert!(crowd[first].is_closed(), "{first}");
        }
        // Before the next one comes, which may be taken by another thread.
        crowd[number].call(&healthz).expect(200);
    }
    for connection in &mut crowd[2 * MOST..] {
        connection.call(&healthz).expect(200);
    }
    others.call(&healthz).expect(200);

    // Where none of its own is waited for, the next one has no place.
    let by_path = &tenant.addresses()[2];
    for connection in &mut crowd[2 * MOST..] {
        connection.send(&by_path.request("POST", "/slow?ms=5000").bytes("front")).unwrap();
    }
    eventually("all of its in service", || {
        let lines = tenant.ask("/logs");
        (lines["lines"].as_array().unwrap().len() == MOST).then_some(())
    });
    assert!(open(one).is_closed());
    others.call(&healthz).expect(200);
    for connection in &mut crowd[2 * MOST..] {
        connection.answer("POST").expect(200);
    }
    open(one).call(&healthz).expect(200);

    // A proxy carries the requests of many.
    let mut carried: Vec<Connection> = (0..5 * MOST).map(|_| open(proxy)).collect();
    for connection in &mut carried {
        connection.call(&healthz).expect(200);
    }
}
