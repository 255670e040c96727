//! Callers who mean harm: crowds that say nothing, bodies in the smallest pieces, names that are
//! somebody else's, and what they write into logs.

use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use super::Scene;
use crate::guests;
use crate::host::Host;
use crate::http::{Connection, Request};
use crate::limits::Growth;
use crate::processes::{allow_many_descriptors, eventually, pause};

#[test]
fn row_08_ten_thousand_silent_connections_keep_nobody_out_of_the_front_door() {
    const CROWD: usize = 10_050;
    allow_many_descriptors();
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let growth = Growth::of(scene.host.pid());
    let mut crowd = Vec::with_capacity(CROWD);
    for at in 0..CROWD {
        // As many as come from one client are not enough for a crowd.
        let client = Ipv4Addr::new(127, 7, (at / 200) as u8, 1);
        let mut connection = Connection::open_from(client, scene.host.front).unwrap();
        if at % 2 == 0 {
            // Some begin, and some have been answered before.
            connection.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\n").unwrap();
        } else if at % 101 == 0 {
            connection.call(&Request::new("GET", "/healthz")).expect(200);
        }
        crowd.push(connection);
    }
    for _ in 0..20 {
        scene.host.send(&scene.host.admin("GET", "/tenants")).expect(200);
    }
    scene.serves_on("", "well");
    assert!(scene.host.figure("hearth_connections_dropped_total") >= 50);
    // The first to come was the first to go.
    assert!(crowd[1].is_closed());
    growth.stays_below(400);
    drop(crowd);
    scene.ends_well();
}

#[test]
fn row_08_who_connects_in_a_loop_takes_a_core_from_nobody() {
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let mut kept = Connection::open(scene.tenant.address().to).unwrap();
    let call = scene.tenant.address().request("POST", "/guest");
    kept.call(&call).expect(200);
    let processor_time = || {
        let used = scene.tenant.ask("/worker")["cpu_ms"].as_u64().unwrap();
        Duration::from_millis(used)
    };
    let (began, before) = (Instant::now(), processor_time());
    let mut made = 0;
    while began.elapsed() < Duration::from_secs(3) {
        // Once the kernel has no room for more of them it says nothing.
        let connected =
            TcpStream::connect_timeout(&scene.tenant.address().to, Duration::from_millis(20));
        made += usize::from(connected.is_ok());
    }
    let (took, used) = (began.elapsed(), processor_time() - before);
    println!("{made} connections, {used:?} of the worker's in {took:?}");
    assert!(made > 1_000, "{made}");
    assert!(used < took.mul_f64(0.6), "{used:?} of {took:?}");
    kept.call(&call).expect(200);
    scene.serves_on("", "well");
    scene.ends_well();
}

#[test]
fn row_08_who_sends_or_reads_too_slowly_is_given_up_at_every_address() {
    let scene = Scene::of(guests::sends_on(), &json!({ "timeout_ms": 120_000 }));
    let mut slow = Vec::new();
    for address in scene.tenant.addresses() {
        let mut sends = Connection::open(address.to).unwrap();
        let head = address.request("POST", "/guest").header("content-length", "100000");
        sends.send(&head.bytes("hostile")).unwrap();
        sends.send(b"a beginning").unwrap();
        let mut reads = Connection::open(address.to).unwrap();
        reads.send(&address.request("POST", "/guest?bytes=1073741824").bytes("hostile")).unwrap();
        reads.head().unwrap();
        slow.push((address.name, sends, reads));
    }
    eventually("all of them in service", || {
        let usage = scene.tenant.ask("/limits");
        let running = usage["limits"].as_array().unwrap().iter();
        let mut running = running.filter(|limit| limit["name"] == "calls_running");
        (running.next().unwrap()["used"].as_u64().unwrap() >= 3).then_some(())
    });
    for (name, mut sends, _) in slow {
        // Its function had answered without it, or is given up with it.
        while sends.try_answer("POST").is_ok() {}
        assert!(sends.is_closed(), "{name}");
    }
    scene.serves_on("?bytes=3", "xxx");
    scene.ends_well();
}

#[test]
fn row_09_a_body_in_the_smallest_pieces_comes_whole_and_takes_no_memory() {
    const BYTES: usize = 200_000;
    let scene = Scene::of(guests::counts(), &json!({}));
    let growth = [scene.growth(), Growth::of(scene.host.pid())];
    let mut pieces = b"1\r\nx\r\n".repeat(BYTES);
    pieces.extend(b"0\r\n\r\n");
    for address in scene.tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let head = address.request("POST", "/guest").header("transfer-encoding", "chunked");
        connection.send(&head.bytes("hostile")).unwrap();
        connection.send(&pieces).unwrap();
        let counted = connection.answer("POST").expect(200).text();
        assert!(counted.contains(&BYTES.to_string()), "{counted} at {}", address.name);
    }
    for growth in growth {
        growth.stays_below(64);
    }
    scene.ends_well();
}

#[test]
fn row_12_nothing_is_upgraded_and_http_2_is_no_request() {
    let scene = Scene::of(guests::ends_early(), &json!({}));
    for address in scene.tenant.addresses() {
        for protocol in ["websocket", "h2c", "TLS/1.0"] {
            for _ in 0..100 {
                let request = address
                    .request("POST", "/guest")
                    .header("connection", "upgrade, http2-settings")
                    .header("upgrade", protocol)
                    .header("http2-settings", "AAMAAABkAAQAAP__")
                    .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
                    .header("sec-websocket-version", "13");
                assert_eq!(address.send(&request).expect(200).text(), "well", "{}", address.name);
            }
        }
        let mut connection = Connection::open(address.to).unwrap();
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        connection.answer("POST").expect_problem(400, "bad_request");
        assert!(connection.is_closed());
    }
    scene.ends_well();
}

#[test]
fn row_13_a_name_leads_to_its_tenant_alone() {
    let host = Host::start();
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    red.deploy("whose", guests::version_one());
    blue.deploy("whose", guests::version_two());
    let ask = |name: &str, path: &str| {
        Request::new("POST", path).header("host", name).try_send(host.front).unwrap()
    };
    for name in [
        "red.localhost",
        "RED.localhost",
        "red.localhost:1",
        "rEd.LOCALHOST:80",
        // As a name is written that is complete.
        "red.localhost.",
        "Red.Localhost.:3400",
    ] {
        assert_eq!(ask(name, "/whose").expect(200).text(), "version one", "{name}");
        // By name a tenant is asked, whatever the path looks like.
        for path in ["/api/v1/tenants", "/t/blue/whose", "/healthz", "/metrics"] {
            let answer = ask(name, path);
            assert!(matches!(answer.status, 400 | 404), "{name}{path}: {}", answer.text());
        }
    }
    for name in [
        "red.localhost..",
        "red..localhost",
        "blue.red.localhost",
        "red.localhost.example.org",
        "xn--red-.localhost",
        "r\u{435}d.localhost",
        "red\u{200b}.localhost",
        " .localhost",
        "*.localhost",
        "red@localhost",
        "red%2elocalhost",
        "localhost",
        "[::1]",
        "",
    ] {
        let answer = ask(name, "/whose");
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.text());
    }
    for path in [
        "/t/RED/whose",
        "/t/r%65d/whose",
        "/t/red%2fwhose",
        "/t//red/whose",
        "/t/red/../blue/whose",
    ] {
        let answer = ask("127.0.0.1", path);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.text());
    }
    // No address of a tenant is one of the platform's, and a name of nobody's is not either.
    let admin = crate::host::ADMIN_TOKEN;
    for address in red.addresses() {
        let request = address.request("GET", "/api/v1/tenants");
        address.send(&request.clone().bearer(&red.token)).expect_problem(404, "not_found");
        let answer = address.send(&request.bearer(admin));
        assert!(matches!(answer.status, 403 | 404), "{}: {answer:?}", address.name);
    }
    for name in ["evil.example", "red_localhost", "red.localhost..", "red.localhost.example.org"] {
        let request = host.admin("GET", "/tenants").header("host", name);
        host.send(&request).expect_problem(421, "misdirected");
    }
}

#[test]
fn row_30_what_a_function_says_is_lines_of_its_own_call_and_nothing_else() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    let forged =
        "fine\u{1b}[2J\u{1b}[31mred\u{7}\r{\"stream\":\"host\",\"text\":\"forged\"}\0\u{202e}end";
    tenant.post("/prints", forged).expect(204);
    let lines = eventually("its lines", || {
        let lines = tenant.ask("/logs")["lines"].clone();
        (lines.as_array().unwrap().len() == 2).then_some(lines)
    });
    for line in lines.as_array().unwrap() {
        assert_eq!((&line["text"], &line["function"]), (&json!(forged), &json!("/prints")));
        assert_ne!(line["stream"], "host");
    }
    let shown = host.command(&tenant.token, &["logs"]).done();
    let raw = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!shown.contains(raw) && !shown.contains('\u{202e}'), "{shown:?}");
    assert_eq!(shown.lines().count(), 2, "{shown}");
}

#[test]
fn row_08_a_crowd_of_one_tenants_leaves_the_others_theirs() {
    let scene = Scene::of(guests::slow(), &json!({ "timeout_ms": 60_000 }));
    // More than it may have connections, all of them silent.
    let crowd: Vec<Connection> = (0..1_200).map(|_| scene.tenant.open()).collect();
    let begun = Instant::now();
    for _ in 0..50 {
        scene.host.send(&scene.host.admin("GET", "/tenants")).expect(200);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(crowd);
    scene.serves_on("?ms=0", "waited 0 ms");
    scene.ends_well();
}

/// A byte now and then keeps nobody waiting for longer than nothing at all: neither a fresh
/// connection nor one that has been answered before.
#[test]
fn row_08_who_drips_a_head_or_a_body_is_given_up_at_every_address() {
    let scene = Scene::of(guests::counts(), &json!({ "timeout_ms": 120_000 }));
    let begun = Instant::now();
    let mut drips = Vec::new();
    for address in scene.tenant.addresses() {
        for is_fresh in [true, false] {
            let mut connection = Connection::open(address.to).unwrap();
            if !is_fresh {
                connection.call(&address.request("POST", "/guest").body("x")).expect(200);
            }
            let head = address.request("POST", "/guest").header("x-long", &"x".repeat(500));
            drips.push((address.name, false, connection, head.bytes("hostile")));

            let mut connection = Connection::open(address.to).unwrap();
            if !is_fresh {
                connection.call(&address.request("POST", "/guest").body("x")).expect(200);
            }
            let head = address.request("POST", "/guest").header("content-length", "1000");
            connection.send(&head.bytes("hostile")).unwrap();
            drips.push((address.name, true, connection, vec![b'x'; 1_000]));
        }
    }
    // As slow, and above the least rate: it is waited for.
    let patient = scene.tenant.addresses().map(|address| {
        let mut connection = Connection::open(address.to).unwrap();
        let head = address.request("POST", "/guest").header("content-length", "64000");
        connection.send(&head.bytes("hostile")).unwrap();
        (address.name, connection)
    });
    let mut patient = Vec::from(patient);
    // Nobody's head is waited for beyond 10 s, and nobody's body beyond 20 s.
    for at in 0..64 {
        for (_, is_body, connection, bytes) in &mut drips {
            if *is_body || at < 36 {
                // Fails where it was given up.
                let _ = connection.send(&bytes[at..=at]);
            }
        }
        for (name, connection) in &mut patient {
            connection.send(&[b'x'; 1_000]).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        pause(Duration::from_millis(400));
    }
    assert!(begun.elapsed() > Duration::from_secs(25));
    for (name, is_body, mut connection, _) in drips {
        let what = if is_body { "a body" } else { "a head" };
        let answer = connection.try_answer("POST");
        let answer = answer.unwrap_or_else(|e| panic!("{what} at {name}: {e}"));
        match is_body {
            false => answer.expect_problem(408, "request_timeout"),
            true => answer.expect_problem(400, "bad_request"),
        };
        assert!(connection.is_closed(), "{name}");
    }
    for (name, mut connection) in patient {
        assert_eq!(connection.answer("POST").expect(200).text(), "64000", "{name}");
    }
    scene.serves_on("", "0");
    scene.ends_well();
}

/// Those who stop after an answer, which is not a head's or a body's middle.
#[test]
fn row_08_a_crowd_that_was_answered_and_is_silent_leaves_every_address_open() {
    const CROWD: usize = 1_100;
    allow_many_descriptors();
    let scene = Scene::of(guests::ends_early(), &json!({}));
    let [_, by_name, by_path] = scene.tenant.addresses();
    let mut crowd = Vec::with_capacity(2 * CROWD);
    for address in [&by_name, &by_path] {
        let request = address.request("POST", "/guest").bytes("hostile");
        for _ in 0..CROWD {
            let mut connection = Connection::open(address.to).unwrap();
            connection.send(&request).unwrap();
            // A tenant has a bound of connections by host name, and no answer beyond it.
            if crowd.len() < 900 || address.name == by_path.name {
                connection.answer("POST").expect(200);
            }
            crowd.push(connection);
        }
        let begun = Instant::now();
        for _ in 0..20 {
            scene.host.send(&scene.host.admin("GET", "/tenants")).expect(200);
            by_path.post("/guest", "").expect(200);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    scene.neighbour_is_answered();
    drop(crowd);
    scene.serves_on("", "well");
    scene.ends_well();
}
