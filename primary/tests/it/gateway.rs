//! The front door's two ways to a tenant: by host name and by path. What both have in common
//! with the tenant's own port is tested where it belongs, at all three addresses.

use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::http::{Connection, FORWARDING, Request};

#[test]
fn by_path_the_prefix_is_taken_off_and_told() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let [port, name, path] = tenant.addresses();
    let seen = path.post("/echo?x=1", "").expect(200).json();
    assert_eq!(seen["target"], "/echo?x=1");
    assert_eq!(seen["headers"]["x-forwarded-prefix"], json!(["/t/demo"]), "{seen}");
    for address in [port, name] {
        let forged = address.request("POST", "/echo").header("x-forwarded-prefix", "/forged");
        let seen = address.send(&forged).expect(200).json();
        assert!(seen["headers"]["x-forwarded-prefix"].is_null(), "{}: {seen}", address.name);
    }
}

#[test]
fn by_path_nothing_crosses_into_the_platforms_own_origin() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("answers", guests::answers());
    tenant.deploy("echo", guests::echo());
    let wanted = json!({
        "status": 200,
        "headers": [
            ["set-cookie", "a=1"], ["clear-site-data", "\"*\""], ["service-worker-allowed", "/"],
            ["content-security-policy", "script-src *"],
        ],
    });
    let [port, name, path] = tenant.addresses();
    for address in [port, name] {
        let answer = address.post("/answers", &wanted.to_string()).expect(200);
        assert_eq!(answer.header("set-cookie"), Some("a=1"), "{}", address.name);
        assert_eq!(answer.header("clear-site-data"), Some("\"*\""), "{}", address.name);
        let seen = address.send(&address.request("POST", "/echo").header("cookie", "a=1")).json();
        assert_eq!(seen["headers"]["cookie"], json!(["a=1"]), "{}", address.name);
    }
    let answer = path.post("/answers", &wanted.to_string()).expect(200);
    for gone in ["set-cookie", "clear-site-data", "service-worker-allowed"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    let sandbox = "sandbox allow-scripts allow-forms";
    let policies = answer.headers.iter().filter(|(name, _)| name == "content-security-policy");
    assert!(policies.map(|(_, value)| value).any(|value| value == sandbox), "{:?}", answer.headers);
    let seen = path.send(&path.request("POST", "/echo").header("cookie", "a=1")).json();
    assert!(seen["headers"]["cookie"].is_null(), "{seen}");
}

/// What a browser takes as the word of a whole origin, or of a host.
#[test]
fn by_path_no_header_speaks_for_the_platforms_origin() {
    const WORDS: [(&str, &str); 13] = [
        ("www-authenticate", "Basic realm=\"sign in to Hearth\""),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("nel", "{\"report_to\":\"evil\",\"max_age\":31536000}"),
        ("report-to", "{\"group\":\"evil\",\"endpoints\":[{\"url\":\"https://evil.example\"}]}"),
        ("reporting-endpoints", "evil=\"https://evil.example\""),
        ("alt-svc", "h3=\"evil.example:443\"; ma=31536000"),
        ("refresh", "0; url=https://evil.example"),
        ("accept-ch", "Sec-CH-UA-Model"),
        ("origin-agent-cluster", "?1"),
        ("speculation-rules", "\"/rules.json\""),
        ("authentication-info", "nextnonce=\"x\""),
        ("x-accel-redirect", "/api/v1/tenants"),
        ("a-header-of-next-year", "x"),
    ];
    const OWN: [(&str, &str); 6] = [
        ("content-language", "en"),
        ("etag", "\"1\""),
        ("cache-control", "max-age=60"),
        ("location", "/elsewhere"),
        ("access-control-allow-origin", "*"),
        ("x-of-my-own", "1"),
    ];
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("answers", guests::answers());
    for status in [200, 401, 503] {
        let headers: Vec<_> = WORDS.iter().chain(&OWN).map(|(name, value)| [name, value]).collect();
        let wanted = json!({ "status": status, "headers": headers }).to_string();
        let [port, name, path] = tenant.addresses();
        for address in [port, name] {
            let answer = address.post("/answers", &wanted).expect(status);
            for (header, value) in WORDS.iter().chain(&OWN) {
                assert_eq!(answer.header(header), Some(*value), "{}", address.name);
            }
        }
        let invoked = tenant.api("POST", "/functions/answers/invoke").body(&wanted);
        for (way, answer) in
            [("path", path.post("/answers", &wanted)), ("API", host.send(&invoked))]
        {
            let answer = answer.expect(status);
            for (header, _) in WORDS {
                // A challenge that no browser shows is the platform's own.
                let left = (status == 401 && header == "www-authenticate")
                    .then_some("Bearer realm=\"hearth\"");
                assert_eq!(answer.header(header), left, "{header} by {way}");
            }
            for (header, value) in OWN {
                let value =
                    if (way, header) == ("API", "cache-control") { "no-store" } else { value };
                assert_eq!(answer.header(header), Some(value), "by {way}");
            }
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "by {way}");
        }
    }
}

#[test]
fn headers_of_one_connection_stay_with_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    tenant.deploy("answers", guests::answers());
    for address in tenant.addresses().into_iter().skip(1) {
        let request = address
            .request("POST", "/echo")
            .header("connection", "keep-alive, x-hop")
            .header("keep-alive", "timeout=5")
            .header("x-hop", "mine alone")
            .header("proxy-authorization", "Basic x")
            .header("te", "trailers, deflate")
            .header("upgrade", "h2c");
        let seen = address.send(&request).expect(200).json();
        for gone in ["keep-alive", "x-hop", "proxy-authorization", "upgrade", "proxy-connection"] {
            assert!(seen["headers"][gone].is_null(), "{gone} at {}: {seen}", address.name);
        }
        let wanted = json!({ "status": 200, "headers": [["x-kept", "1"]], "body": "x" });
        let mut connection = Connection::open(address.to).unwrap();
        let answer = connection.call(&address.request("POST", "/answers").body(wanted.to_string()));
        assert_eq!(answer.header("x-kept"), Some("1"));
        assert_eq!(answer.header("keep-alive"), None);
    }
}

#[test]
fn who_forwarded_is_told_and_a_strangers_word_is_not_believed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let request = address
            .request("POST", "/echo")
            .header("x-forwarded-for", "203.0.113.9")
            .header("forwarded", "for=203.0.113.9;proto=https")
            .header("x-forwarded-proto", "https");
        let seen = address.send(&request).expect(200).json();
        assert!(!seen["headers"].to_string().contains("203.0.113.9"), "{}: {seen}", address.name);
        let authority = address.authority();
        for (name, told) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", authority.as_str()),
        ] {
            assert_eq!(seen["headers"][name], json!([told]), "{}: {seen}", address.name);
        }
    }
    let trusting = Host::with(&["--trusted-proxy", "127.0.0.0/8"]);
    let tenant = trusting.tenant("demo");
    tenant.deploy("echo", guests::echo());
    for address in tenant.addresses() {
        let request = address.request("POST", "/echo").header("x-forwarded-for", "203.0.113.9");
        let seen = address.send(&request).expect(200).json();
        let headers = &seen["headers"];
        let said = format!("{}: {seen}", address.name);
        assert_eq!(headers["x-forwarded-for"], json!(["203.0.113.9, 127.0.0.1"]), "{said}");
        assert_eq!(headers["x-forwarded-proto"], json!(["http"]), "{said}");
        assert_eq!(headers["x-forwarded-host"], json!([address.authority()]), "{said}");
        let request = address.request("POST", "/echo").header("x-forwarded-proto", "banana");
        let seen = address.send(&request).expect(200).json();
        assert_eq!(
            seen["headers"]["x-forwarded-proto"],
            json!(["http"]),
            "{}: {seen}",
            address.name
        );
    }
    // Even a proxy is believed in no header but those that it was said to set.
    let named = ["--trusted-header", "forwarded", "--trusted-header", "x-forwarded-port"];
    let other = Host::with(&[&["--trusted-proxy", "127.0.0.0/8"][..], &named].concat());
    let elsewhere = other.tenant("demo");
    elsewhere.deploy("echo", guests::echo());
    for (tenant, believed) in [
        (&tenant, ["x-forwarded-for", "x-forwarded-proto"]),
        (&elsewhere, ["forwarded", "x-forwarded-port"]),
    ] {
        for address in tenant.addresses() {
            let request = address.request("POST", "/echo");
            // What is no protocol is nobody's word.
            let word = |name: &str| if name == "x-forwarded-proto" { "https" } else { "told" };
            let request =
                FORWARDING.iter().fold(request, |told, name| told.header(name, word(name)));
            let seen = address.send(&request).expect(200).json();
            for name in FORWARDING {
                let is_told = seen["headers"][name].to_string().contains(word(name));
                assert_eq!(is_told, believed.contains(&name), "{name} at {}: {seen}", address.name);
            }
        }
    }
}

#[test]
fn addresses_of_nobody_are_not_found() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for request in [
        Request::new("POST", "/hello").header("host", "nobody.localhost"),
        Request::new("POST", "/t/nobody/hello"),
        Request::new("POST", "/t/-/hello"),
        Request::new("POST", "/t/../hello"),
        Request::new("POST", "/hello"),
        Request::new("POST", "/hello").header("host", "a.demo.localhost"),
    ] {
        let answer = host.send(&request);
        assert!(matches!(answer.status, 404 | 405), "{request:?}: {answer:?}");
        let (status, code) = (answer.status, answer.json()["code"].as_str().unwrap().to_owned());
        answer.expect_problem(status, &code);
    }
    // A name is not sensitive to case, and a port in it means nothing.
    for name in ["DEMO.localhost", "demo.LOCALHOST:1"] {
        let request = Request::new("POST", "/hello").header("host", name).body("{}");
        host.send(&request).expect(200);
    }
    let own_domain = Host::with(&["--domain", "apps.example.org"]);
    own_domain.tenant("demo");
    let request = Request::new("POST", "/hello").header("host", "demo.apps.example.org").body("{}");
    own_domain.send(&request).expect(200);
    drop(tenant);
}

#[test]
fn a_sleeping_tenant_is_woken_through_the_front_door() {
    let host = Host::with(&["--idle", "150ms"]);
    let tenant = host.tenant("demo");
    for address in tenant.addresses() {
        crate::processes::eventually("sleep", || {
            (tenant.state() == "asleep" && host.workers(&tenant).is_empty()).then_some(())
        });
        address.post("/hello", "{}").expect(200);
    }
}

#[test]
fn one_connection_serves_many_tenants_where_none_is_handed_over() {
    let host = Host::with(&["--handover", "never"]);
    let (red, blue) = (host.tenant("red"), host.tenant("blue"));
    red.deploy("one", guests::version_one());
    blue.deploy("one", guests::version_two());
    let mut connection = Connection::open(host.front).unwrap();
    for _ in 0..3 {
        for (tenant, text) in [(&red, "version one"), (&blue, "version two")] {
            for address in tenant.addresses().into_iter().skip(1) {
                let answer = connection.call(&address.request("POST", "/one"));
                assert_eq!(answer.expect(200).text(), text, "{}", address.name);
            }
        }
        connection.call(&Request::new("GET", "/healthz")).expect(200);
    }
}

#[test]
fn one_call_after_the_other_takes_one_link() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let [_, _, path] = tenant.addresses();
    let mut connection = Connection::open(path.to).unwrap();
    let mut call = || connection.call(&path.request("POST", "/one").body("{}")).expect(200);
    call();
    let worker = host.workers(&tenant)[0];
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{worker}/fd")).unwrap().flatten();
        let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let mut sockets: Vec<_> =
            open.filter(|to| to.to_string_lossy().starts_with("socket:")).collect();
        sockets.sort();
        sockets
    };
    let before = sockets();
    for _ in 0..20 {
        call();
    }
    assert_eq!(sockets(), before);
}
