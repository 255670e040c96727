//! Cookies of one tenant's page go with every request to the same host, at whatever port: however
//! many there are, they cost nobody else an answer.

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host};
use crate::http::{Connection, Request};

/// As large as browsers keep one.
fn cookie(at: usize) -> String {
    format!("c{at}={}", "x".repeat(4_000))
}

/// As a browser sends them.
fn cookies(count: usize) -> String {
    (0..count).map(cookie).collect::<Vec<_>>().join("; ")
}

fn echo(address: &Address) -> Request {
    address.request("POST", "/echo")
}

fn seen(answer: crate::http::Answer) -> Value {
    answer.expect(200).json()["headers"]["cookie"].clone()
}

#[test]
fn cookies_that_are_too_many_cost_nobody_an_answer() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for count in [12, 180] {
        let many = cookies(count);
        for address in tenant.addresses() {
            let answer =
                address.send(&echo(&address).header("cookie", &many).header("x-after", "kept"));
            let answer = answer.expect(200).json();
            assert_eq!(answer["headers"]["cookie"], json!(null), "{count} at {}", address.name);
            assert_eq!(
                answer["headers"]["x-after"],
                json!(["kept"]),
                "{count} at {}",
                address.name
            );
        }
        for path in ["/healthz", "/", "/api/v1/tenants"] {
            let request = Request::new("GET", path).bearer(crate::host::ADMIN_TOKEN);
            host.send(&request.header("cookie", &many)).expect(200);
        }
    }
}

#[test]
fn those_that_fit_reach_the_function() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let [port, by_name, by_path] = tenant.addresses();
    for address in [&port, &by_name] {
        for some in [cookies(1), cookies(7), "a=1; b=2".to_owned()] {
            let request = echo(address).header("Cookie", &some);
            assert_eq!(seen(address.send(&request)), json!([some]), "{}", address.name);
        }
        let two =
            echo(address).header("cookie", "a=1").header("x-between", "1").header("cookie", "b=2");
        assert_eq!(seen(address.send(&two)), json!(["a=1", "b=2"]), "{}", address.name);
    }
    // On the platform's own origin they are nobody's.
    assert_eq!(seen(by_path.send(&echo(&by_path).header("cookie", "a=1"))), json!(null));
    // What counts against a head's bound is all the rest of it.
    for address in tenant.addresses() {
        let request =
            echo(&address).header("x-long", &"x".repeat(33 << 10)).header("cookie", "a=1");
        address.send(&request).expect_problem(431, "headers_too_large");
    }
}

/// One connection after another request, with a body and without, written whole and in pieces.
#[test]
fn on_a_connection_that_is_kept_as_well() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let many = cookies(20);
    for address in tenant.addresses() {
        let mut kept = Connection::open(address.to).unwrap();
        for body in ["", "cookie: not one\r\n\r\ncookie: nor this\r\n", "x"] {
            for cookie in [None, Some("a=1"), Some(&*many)] {
                let request =
                    cookie.map_or(echo(&address), |it| echo(&address).header("cookie", it));
                let bytes = request.body(body).bytes("localhost");
                let (first, rest) = bytes.split_at(bytes.len() / 3);
                kept.send(first).unwrap();
                kept.send(rest).unwrap();
                let answer = kept.answer("POST").expect(200).json();
                assert_eq!(answer["body"], body, "{}", address.name);
                let small = cookie == Some("a=1") && address.name != "its path";
                let left = if small { json!(["a=1"]) } else { json!(null) };
                assert_eq!(answer["headers"]["cookie"], left, "{}", address.name);
            }
        }
    }
}
