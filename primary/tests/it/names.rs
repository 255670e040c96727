//! By which names the platform answers, and what every answer of it says of itself.

use crate::host::{ADMIN_TOKEN, Host, Tenant};
use crate::http::{Answer, Request};

/// What a browser is led to by a page that has its own name point here.
const STRANGERS: [&str; 8] = [
    "evil.example",
    "evil.example:3400",
    "red_localhost",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "apps.example.org.evil.example",
    "notapps.example.org",
    "",
];

fn asked(host: &Host, name: &str, path: &str) -> Answer {
    host.send(&Request::new("GET", path).header("host", name).bearer(ADMIN_TOKEN))
}

#[test]
fn row_13_the_platform_answers_to_its_own_names_alone() {
    let names =
        ["--domain", "apps.example.org", "--name", "Hearth.example.org.", "--name", "box,b2"];
    let host = Host::with(&names);
    host.tenant("demo");
    for name in STRANGERS {
        for path in ["/api/v1/tenants", "/", "/api/docs/", "/metrics", "/t/demo/hello", "/nothing"]
        {
            let answer = asked(&host, name, path).expect_problem(421, "misdirected");
            // It says how that is changed, and repeats nothing that is no name.
            let answer = answer.expect_detail("`name`").expect_detail("HEARTH_NAME");
            is_guarded(&answer);
        }
        for path in ["/healthz", "/readyz"] {
            asked(&host, name, path).expect(200);
        }
    }
    for name in [
        &*host.front.to_string(),
        "127.0.0.1",
        "[::1]:80",
        "localhost",
        "LOCALHOST.:3400",
        "apps.example.org",
        "APPS.example.org.",
        "hearth.example.org:443",
        "box",
        "b2",
    ] {
        asked(&host, name, "/api/v1/tenants").expect(200);
        asked(&host, name, "/healthz").expect(200);
        let call = Request::new("POST", "/t/demo/hello").header("host", name).body("{}");
        host.send(&call).expect(200);
    }
    // Nobody can have sent this but by address.
    let mut connection = crate::http::Connection::open(host.front).unwrap();
    connection.send(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    connection.answer("GET").expect(200);
}

#[test]
fn row_13_a_name_that_is_complete_leads_to_its_tenant() {
    for handover in ["auto", "never"] {
        let host = Host::with(&["--handover", handover, "--domain", "apps.example.org"]);
        host.tenant("demo");
        for name in ["home.localhost.", "HOME.localhost.:1", "demo.apps.example.org."] {
            let request = Request::new("POST", "/hello").header("host", name).body("{}");
            host.send(&request).expect(200);
        }
        let given = if handover == "auto" { 3 } else { 0 };
        host.has_handed_over(given);
    }
}

/// A name that is the platform's is no tenant's, whoever asks under it first.
#[test]
fn a_tenant_of_the_platforms_own_name_is_found_elsewhere() {
    let host = Host::with(&["--domain", "example.org", "--name", "hearth.example.org"]);
    let tenant = host.tenant("hearth");
    asked(&host, "hearth.example.org", "/api/v1/tenants").expect(200);
    let mut kept = crate::http::Connection::open(host.front).unwrap();
    let ask = |name: &str| Request::new("POST", "/hello").header("host", name).body("{}");
    kept.call(&ask("hearth.localhost")).expect(200);
    // Its worker has that connection now.
    kept.call(&ask("hearth.example.org")).expect_problem(421, "misdirected");
    for address in tenant.addresses() {
        address.post("/hello", "{}").expect(200);
    }
}

#[track_caller]
fn is_guarded(answer: &Answer) {
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
}

/// What somebody names or writes is data to whoever reads it: JSON, and taken for nothing else.
#[test]
fn row_28_the_api_tells_everything_as_data_and_nobody_keeps_it() {
    let host = Host::start();
    let tenant: Tenant = host.tenant("demo");
    let script = "<script>alert(1)</script>";
    tenant.deploy("prints", crate::guests::prints());
    tenant.post("/prints", script).expect(204);
    let token = tenant.api("POST", "/tokens");
    let token = token.json(&serde_json::json!({ "name": script, "scope": "invoke" }));
    host.send(&token).expect(201);
    crate::processes::eventually("its line", || {
        tenant.ask("/logs").to_string().contains(script).then_some(())
    });
    let with_admin = |method: &str, path: &str| Request::new(method, path).bearer(ADMIN_TOKEN);
    let mut shown = 0;
    for (request, status) in [
        (with_admin("GET", "/"), 200),
        (with_admin("GET", "/api/docs/"), 200),
        (with_admin("GET", "/api/docs"), 308),
        (with_admin("GET", "/api/openapi.json"), 200),
        (with_admin("GET", "/healthz"), 200),
        (with_admin("GET", "/readyz"), 200),
        (with_admin("GET", "/metrics"), 200),
        (with_admin("GET", "/api/v1/whoami"), 200),
        (Request::new("GET", "/api/v1/whoami"), 401),
        (with_admin("GET", "/%3Cscript%3E"), 404),
        (with_admin("GET", &format!("/{script}")), 400),
        (with_admin("DELETE", "/api/v1/whoami"), 405),
        (with_admin("GET", "/api/v1/tenants"), 200),
        (with_admin("GET", "/api/v1/tenants/%3Cscript%3E"), 404),
        (tenant.api("GET", "/functions"), 200),
        (tenant.api("GET", "/functions/%3Cscript%3E"), 400),
        (tenant.api("GET", "/tokens"), 200),
        (tenant.api("GET", "/calls"), 200),
        (tenant.api("GET", "/logs"), 200),
        (tenant.api("GET", "/worker"), 200),
        (tenant.api("GET", "/limits"), 200),
        (
            tenant.api("PATCH", "/limits").json(&serde_json::json!({ "limits": { (script): 1 } })),
            400,
        ),
        (tenant.api("POST", "/functions/hello/invoke").body("{}"), 200),
        (with_admin("GET", "/api/v1/backup"), 200),
        (with_admin("GET", "/t/-/hello"), 404),
    ] {
        let answer = host.send(&request);
        let wrong = || format!("{request:?}: {answer:?}");
        assert!(answer.status == status || (status == 400 && answer.status < 500), "{}", wrong());
        is_guarded(&answer);
        let kind = answer.header("content-type").unwrap_or_default();
        let is_page = kind.starts_with("text/html");
        assert!(!is_page || answer.header("content-security-policy").is_some(), "{}", wrong());
        if answer.text().contains("<script>alert") {
            assert!(kind.starts_with("application/"), "{}", wrong());
            shown += 1;
        }
    }
    // Lines and tokens at the least: else nothing was tried.
    assert!(shown >= 2, "{shown}");
}
