//! Which connections the front door hands over, which it proxies, and what a client of either may
//! ask for.

use super::{Stage, ask};
use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::{Connection, Request};
use crate::proxies::{DOMAIN, Kind, Proxy};

#[test]
fn a_direct_client_by_host_name_is_handed_over() {
    let stage = Stage::new();
    let [_, by_name] = stage.addresses();
    let mut connection = stage.kept(&by_name);
    stage.host.has_handed_over(1);
    for _ in 0..3 {
        stage.goes_on(&by_name, &mut connection);
    }
    // Once, and not with each request.
    stage.host.has_handed_over(1);
    // Which function it is does not matter, nor whether there is one.
    for (method, path, status) in [("GET", "/$health", 200), ("POST", "/nothing", 404)] {
        let answer = by_name.send(&by_name.request(method, path));
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    stage.host.has_handed_over(3);
}

#[test]
fn a_connection_that_was_handed_over_serves_its_tenant_only() {
    let host = Host::start();
    let (red, blue) = two(&host);
    let ([_, to_red, _], [_, to_blue, by_path]) = (red.addresses(), blue.addresses());
    let elsewhere = [
        to_blue.request("POST", "/one"),
        by_path.request("POST", "/one"),
        Request::new("POST", "/one").header("host", "nobody.localhost"),
        Request::new("POST", "/one").header("host", "red.example.org"),
        Request::new("GET", "/healthz"),
    ];
    for request in elsewhere {
        let mut connection = Connection::open(host.front).unwrap();
        for _ in 0..2 {
            let answer = connection.call(&to_red.request("POST", "/one")).expect(200);
            assert_eq!(answer.text(), "version one");
            // The same name, as others would write it.
            let shouted = Request::new("POST", "/one").header("host", "RED.LocalHost:1");
            connection.call(&shouted).expect(200);
        }
        let answer = connection.call(&request).expect_problem(421, "misdirected");
        assert!(answer.closes(), "{request:?}: {answer:?}");
        assert!(connection.is_closed(), "{request:?}");
    }
    host.has_handed_over(5);
}

#[test]
fn what_was_sent_behind_the_first_request_is_not_taken_for_the_same_tenants() {
    let host = Host::start();
    let (red, blue) = two(&host);
    let ([_, to_red, _], [_, to_blue, _]) = (red.addresses(), blue.addresses());
    let mut connection = Connection::open(host.front).unwrap();
    let all: Vec<u8> = [&to_red, &to_red, &to_blue, &to_red]
        .iter()
        .flat_map(|address| address.request("POST", "/one").body("x").bytes(""))
        .collect();
    connection.send(&all).unwrap();
    for _ in 0..2 {
        assert_eq!(connection.answer("POST").expect(200).text(), "version one");
    }
    connection.answer("POST").expect_problem(421, "misdirected");
    assert!(connection.is_closed(), "what came behind it is not looked at");
}

#[test]
fn what_passed_through_a_proxy_is_proxied() {
    let host = Host::start();
    let (red, blue) = two(&host);
    let ([_, to_red, _], [_, to_blue, _]) = (red.addresses(), blue.addresses());
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-host", "red.example.org"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.9"),
        ("via", "1.1 proxy"),
        ("x-real-ip", "203.0.113.9"),
        ("upgrade", "h2c"),
    ] {
        let mut connection = Connection::open(host.front).unwrap();
        let proxied = host.proxied();
        for _ in 0..2 {
            for (address, text) in [(&to_red, "version one"), (&to_blue, "version two")] {
                let answer = connection.call(&address.request("POST", "/one").header(name, value));
                assert_eq!(answer.expect(200).text(), text, "{name}");
            }
        }
        assert_eq!(host.handed_over(), 0, "{name}");
        assert!(host.proxied() > proxied, "{name}");
    }
}

#[test]
fn a_connection_that_is_proxied_first_stays_so() {
    let host = Host::start();
    let (red, blue) = two(&host);
    let mut connection = Connection::open(host.front).unwrap();
    connection.call(&Request::new("GET", "/healthz")).expect(200);
    for (tenant, text) in [(&red, "version one"), (&blue, "version two"), (&red, "version one")] {
        for address in tenant.addresses().into_iter().skip(1) {
            let answer = connection.call(&address.request("POST", "/one"));
            assert_eq!(answer.expect(200).text(), text, "{}", address.name);
        }
    }
    assert_eq!(host.handed_over(), 0);
}

#[test]
fn an_operator_can_have_everything_proxied() {
    let stage = Stage::with(&["--handover", "never"]);
    let [_, by_name] = stage.addresses();
    let mut connection = stage.kept(&by_name);
    stage.swap();
    stage.goes_on(&by_name, &mut connection);
    connection.call(&Request::new("GET", "/healthz")).expect(200);
    assert_eq!(stage.host.handed_over(), 0);
    assert!(stage.host.proxied() >= 1);
}

#[test]
fn an_upload_by_host_name_goes_through_the_host() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let [_, by_name, _] = tenant.addresses();
    let mut connection = Connection::open(by_name.to).unwrap();
    for (text, module) in [
        ("version one", guests::version_one()),
        ("version two", guests::version_two()),
        ("version one", guests::version_one()),
    ] {
        let request = upload(by_name.request("POST", "/$upload"), &[("one.wasm", module)], None);
        connection.call(&request.bearer(&tenant.token)).expect(200);
        assert_eq!(tenant.post("/one", "").expect(200).text(), text);
    }
    assert_eq!(host.handed_over(), 0);

    // On a connection that a worker has, the worker takes it, and outlives it for the answer.
    let mut connection = Connection::open(by_name.to).unwrap();
    let call = by_name.request("POST", "/one");
    assert_eq!(connection.call(&call).expect(200).text(), "version one");
    let files = [("one.wasm", guests::version_two())];
    let request = upload(by_name.request("POST", "/$upload"), &files, None);
    let answer = connection.call(&request.bearer(&tenant.token)).expect(200);
    assert!(!answer.closes(), "{answer:?}");
    assert_eq!(connection.call(&call).expect(200).text(), "version two");
    host.has_handed_over(1);
}

#[test]
fn a_sleeping_tenant_is_woken_for_what_is_handed_over() {
    let stage = Stage::with(&["--idle", "200ms"]);
    let [_, by_name] = stage.addresses();
    for woken in 1..=3 {
        stage.host.sleeps(&stage.tenant);
        let answer = by_name.send(&ask(&by_name, "awake?"));
        super::answered(&stage.history.current(), "awake?", &answer);
        stage.host.has_handed_over(woken);
    }
}

/// Nginx keeps its connections for both tenants. Nothing but its address says that it is one.
#[test]
fn behind_a_trusted_proxy_nothing_is_handed_over_and_nothing_crossed() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 200;
    let host = Host::with(&["--trusted-proxy", "127.0.0.1/32", "--domain", DOMAIN]);
    let tenants = [host.tenant("red"), host.tenant("blue")];
    tenants[0].deploy("one", guests::repeats_one());
    tenants[1].deploy("one", guests::repeats_two());
    let nginx = Proxy::start(Kind::Nginx, host.scratch(), host.front);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let nginx = &nginx;
            scope.spawn(move || {
                let mut connection = Connection::open(nginx.address).unwrap();
                for at in 0..REQUESTS {
                    let (tenant, says) = [("red", "one"), ("blue", "two")][at % 2];
                    let body = format!("{client} {at}");
                    let site = format!("{tenant}.{DOMAIN}");
                    let request = Request::new("POST", "/one").header("host", &site).body(&body);
                    let answer = connection.call(&request).expect(200);
                    assert_eq!(answer.text(), format!("{says}: {body}"));
                    assert!(answer.header("server").is_some_and(|it| it.contains("nginx")));
                }
            });
        }
    });
    assert_eq!(host.handed_over(), 0);
    assert!(host.proxied() >= 1);
    assert!(host.proxied() < 100, "nginx keeps its connections: {}", host.proxied());
}

fn two(host: &Host) -> (Tenant, Tenant) {
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    red.deploy("one", guests::version_one());
    blue.deploy("one", guests::version_two());
    (red, blue)
}
