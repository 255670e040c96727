//! Pages of other origins, in a real browser and by the bytes that one sends and is sent.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host};
use crate::http::{Answer, Request};
use crate::processes::{descendants, signal};

/// From the browser's start to its report.
const BROWSER_DEADLINE: Duration = Duration::from_secs(60);

const APP: &str = "https://app.example";

/// What is said of origins, sorted; all other headers are somebody else's.
fn cors(answer: &Answer) -> Vec<(&str, &str)> {
    let ours = |name: &str| name == "vary" || name.starts_with("access-control-");
    let mut found: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    found.sort_unstable();
    found
}

const EXPOSED: (&str, &str) = (
    "access-control-expose-headers",
    "x-request-id, x-hearth-version, server-timing, retry-after, location",
);

fn preflight(address: &Address, path: &str, origin: &str) -> Request {
    address
        .request("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-mine")
}

#[test]
fn a_preflight_is_answered_at_every_door_and_starts_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let some = json!({"methods": ["GET", "POST"], "cors": [APP, "http://localhost:5173"], "auth": "invoke"});
    tenant.deploy_with("some", guests::prints(), &some);
    tenant.deploy_with("any", guests::prints(), &json!({"cors": "*"}));
    tenant.deploy("none", guests::prints());
    let mine = json!({"methods": ["OPTIONS", "POST"]});
    tenant.deploy_with("mine", guests::echo(), &mine);
    let both = json!({"methods": ["OPTIONS", "POST"], "cors": [APP]});
    tenant.deploy_with("both", guests::echo(), &both);
    let vary = ("vary", "origin, access-control-request-method, access-control-request-headers");
    let asked = ("access-control-allow-headers", "authorization,content-type,x-mine");
    let age = ("access-control-max-age", "7200");
    for address in tenant.addresses() {
        for origin in [APP, "http://localhost:5173"] {
            let answer = address.send(&preflight(&address, "/some", origin)).expect(204);
            let methods = ("access-control-allow-methods", "GET, POST");
            let origin = ("access-control-allow-origin", origin);
            assert_eq!(cors(&answer), [asked, methods, origin, age, vary], "{}", address.name);
            assert_eq!(answer.header("content-length"), None, "{:?}", answer.headers);
            assert_eq!(answer.header("content-type"), None, "{:?}", answer.headers);
            assert!(answer.header("x-request-id").is_some(), "{:?}", answer.headers);
        }
        let answer = address.send(&preflight(&address, "/any", "null")).expect(204);
        let methods = ("access-control-allow-methods", "POST");
        let any = ("access-control-allow-origin", "*");
        assert_eq!(cors(&answer), [asked, methods, any, age, vary], "{}", address.name);
        for stranger in ["https://evil.example", "https://app.example:444", "http://app.example"] {
            let answer = address.send(&preflight(&address, "/some", stranger)).expect(204);
            assert_eq!(cors(&answer), [vary], "{stranger} at {}", address.name);
        }
        // Without the option it is a method as any other.
        let answer = address.send(&preflight(&address, "/none", APP));
        assert_eq!(cors(&answer), [], "{}", address.name);
        answer.expect_problem(405, "method_not_allowed");
        let seen = address.send(&preflight(&address, "/mine", APP)).expect(200).json();
        assert_eq!(seen["headers"]["origin"], json!([APP]), "{}: {seen}", address.name);
        // With it, one that asks for no leave is the function's.
        address.send(&preflight(&address, "/both", APP)).expect(204);
        let plain = address.request("OPTIONS", "/both").header("origin", APP);
        let answer = address.send(&plain).expect(200);
        assert_eq!(answer.json()["method"], "Method::Options", "{}", address.name);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    }
    let address = tenant.address();
    let last = address.request("POST", "/any").header("x-request-id", "last").body("said\n");
    address.send(&last).expect(204);
    crate::processes::eventually("the one call's words", || {
        let lines = tenant.ask("/logs")["lines"].as_array().unwrap().clone();
        (lines.len() == 2).then_some(())
    });
}

#[test]
fn answers_say_who_may_read_them_and_problems_do_too() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let options = |more: Value| {
        let mut options = json!({"cors": [APP]});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options
    };
    tenant.deploy_with("some", guests::answers(), &options(json!({})));
    let checked = json!({"schema": {"body": {"type": "object"}}, "max_body": 100});
    tenant.deploy_with("checked", guests::answers(), &options(checked));
    tenant.deploy_with("private", guests::answers(), &options(json!({"auth": "invoke"})));
    tenant.deploy_with("traps", guests::traps(), &options(json!({})));
    tenant.deploy_with("any", guests::answers(), &json!({"cors": "*"}));
    tenant.deploy("none", guests::answers());
    let origin = ("access-control-allow-origin", APP);
    let vary = ("vary", "origin");
    let own = json!({
        "status": 200,
        "headers": [
            ["access-control-allow-origin", "https://mine.example"],
            ["access-control-allow-credentials", "true"],
            ["access-control-expose-headers", "x-mine"],
            ["vary", "accept"],
        ],
    });
    let plain = json!({ "status": 200, "headers": [] }).to_string();
    for address in tenant.addresses() {
        let from = |path: &str, from: &str, body: &str| {
            address.send(&address.request("POST", path).header("origin", from).body(body))
        };
        assert_eq!(cors(&from("/some", APP, &plain).expect(200)), [origin, EXPOSED, vary]);
        assert_eq!(cors(&from("/some", "https://evil.example", &plain).expect(200)), [vary]);
        assert_eq!(cors(&address.post("/some", &plain).expect(200)), [vary], "{}", address.name);
        let any = ("access-control-allow-origin", "*");
        assert_eq!(cors(&from("/any", "null", &plain).expect(200)), [any, EXPOSED, vary]);
        assert_eq!(cors(&from("/none", APP, &plain).expect(200)), [], "{}", address.name);

        let refused = from("/checked", APP, "[]").expect_problem(400, "schema_violation");
        assert_eq!(cors(&refused), [origin, EXPOSED, vary], "{}", address.name);
        let refused = from("/checked", APP, &"x".repeat(101)).expect_problem(413, "too_large");
        assert_eq!(cors(&refused), [origin, EXPOSED, vary], "{}", address.name);
        let refused = from("/private", APP, &plain).expect_problem(401, "unauthenticated");
        assert_eq!(cors(&refused), [origin, EXPOSED, vary], "{}", address.name);
        let refused = from("/traps", APP, "").expect_problem(500, "function_trapped");
        assert_eq!(cors(&refused), [origin, EXPOSED, vary], "{}", address.name);
        let refused = address.send(&address.request("DELETE", "/some").header("origin", APP));
        assert_eq!(cors(&refused), [origin, EXPOSED, vary], "{}", address.name);
        refused.expect_problem(405, "method_not_allowed");
        assert_eq!(cors(&from("/nix", APP, "").expect_problem(404, "not_found")), []);

        // What a function says of it by itself passes, unless the option says something.
        let accept = ("vary", "accept");
        let exposed = ("access-control-expose-headers", "x-mine");
        let passed = from("/none", APP, &own.to_string()).expect(200);
        assert_eq!(
            cors(&passed),
            [
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-origin", "https://mine.example"),
                exposed,
                accept,
            ],
            "{}",
            address.name
        );
        let replaced = from("/some", APP, &own.to_string()).expect(200);
        assert_eq!(cors(&replaced), [origin, exposed, EXPOSED, accept, vary], "{}", address.name);
        let replaced = from("/some", "https://mine.example", &own.to_string()).expect(200);
        assert_eq!(cors(&replaced), [exposed, accept, vary], "{}", address.name);
    }
}

#[test]
fn a_browser_lets_pages_call_what_the_option_allows_and_nothing_else() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let page = listener.local_addr().unwrap();
    let origin = format!("http://{page}");
    let methods = json!(["GET", "POST"]);
    let listed = |more: Value| {
        let mut options = json!({"methods": methods, "cors": [origin]});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options
    };
    tenant.deploy_with("listed", guests::echo(), &listed(json!({})));
    tenant.deploy_with("private", guests::echo(), &listed(json!({"auth": "invoke"})));
    let body = json!({"schema": {"body": {"type": "object"}}});
    tenant.deploy_with("checked", guests::echo(), &listed(body));
    tenant.deploy_with("any", guests::echo(), &json!({"methods": methods, "cors": "*"}));
    let other = json!({"methods": methods, "cors": [APP]});
    tenant.deploy_with("other", guests::echo(), &other);
    tenant.deploy_with("none", guests::echo(), &json!({"methods": methods}));
    let token = tenant.token("invoke");

    // A browser asks for leave before it sends these.
    let post = |body: &str| {
        let headers = json!({
            "content-type": "application/json",
            "authorization": format!("Bearer {token}"),
            "x-request-id": "from-a-page",
        });
        json!({"method": "POST", "headers": headers, "body": body})
    };
    let cookies = json!({"credentials": "include"});
    let urls = [
        format!("http://127.0.0.1:{}", tenant.port),
        format!("http://demo.localhost:{}", host.front.port()),
        format!("http://{}/t/demo", host.front),
    ];
    let mut calls = Vec::new();
    for (at, url) in urls.iter().enumerate() {
        for (name, path, init) in [
            ("listed post", "/listed", post("{\"a\":1}")),
            ("listed get", "/listed?q=1", json!({})),
            ("private post", "/private", post("{}")),
            ("private get", "/private", json!({})),
            ("checked", "/checked", post("[]")),
            ("any post", "/any", post("{}")),
            ("any get", "/any", json!({})),
            ("any with cookies", "/any", cookies.clone()),
            ("listed with cookies", "/listed", cookies.clone()),
            ("other post", "/other", post("{}")),
            ("other get", "/other", json!({})),
            ("none post", "/none", post("{}")),
            ("none get", "/none", json!({})),
            ("missing", "/nix", json!({})),
        ] {
            let name = format!("{at} {name}");
            calls.push(json!({"name": name, "url": format!("{url}{path}"), "init": init}));
        }
    }
    let seen = in_a_browser(host.scratch(), listener, &Value::Array(calls));

    for (at, address) in tenant.addresses().iter().enumerate() {
        let of = |name: &str| &seen[format!("{at} {name}")];
        for name in ["listed post", "listed get", "private post", "any post", "any get"] {
            let it = of(name);
            assert_eq!(it["status"], 200, "{name} at {}: {it}", address.name);
            let said: Value = serde_json::from_str(it["body"].as_str().unwrap()).unwrap();
            let method = if name.ends_with("post") { "Method::Post" } else { "Method::Get" };
            assert_eq!(said["method"], method, "{name} at {}", address.name);
            assert_eq!(said["headers"]["origin"], json!([origin]), "{name} at {}", address.name);
            for header in ["x-request-id", "x-hearth-version", "server-timing"] {
                assert!(it["headers"][header].is_string(), "{name} at {}: {it}", address.name);
            }
        }
        assert_eq!(of("listed post")["headers"]["x-request-id"], "from-a-page");
        for (name, status, code) in
            [("checked", 400, "schema_violation"), ("private get", 401, "unauthenticated")]
        {
            let it = of(name);
            assert_eq!(it["status"], status, "{name} at {}: {it}", address.name);
            let problem: Value = serde_json::from_str(it["body"].as_str().unwrap()).unwrap();
            assert_eq!(problem["code"], code, "{name} at {}: {it}", address.name);
        }
        for name in [
            "any with cookies",
            "listed with cookies",
            "other post",
            "other get",
            "none post",
            "none get",
            "missing",
        ] {
            assert_eq!(*of(name), json!({"error": "TypeError"}), "{name} at {}", address.name);
        }
    }
}

/// What a page saw of these calls, each of them `{name, url, init}`, by their names.
fn in_a_browser(directory: &Path, listener: TcpListener, calls: &Value) -> Value {
    let page = page(calls);
    let url = format!("http://{}/page", listener.local_addr().unwrap());
    let (report, reported) = channel();
    std::thread::spawn(move || serve(&listener, &page, &report));
    let browser = Browser::start(directory, &url);
    browser.waits_for(&reported)
}

fn page(calls: &Value) -> String {
    format!(
        r#"<!doctype html>
        <title>A page of another origin</title>
        <script type="module">
            const seen = {{}};
            for (const {{ name, url, init }} of {calls}) {{
                try {{
                    const answer = await fetch(url, init);
                    const headers = Object.fromEntries(answer.headers);
                    seen[name] = {{ status: answer.status, headers, body: await answer.text() }};
                }} catch (error) {{
                    seen[name] = {{ error: error.name }};
                }}
            }}
            await fetch("/report", {{ method: "POST", body: JSON.stringify(seen) }});
        </script>"#
    )
}

/// The page's own server, until the page has reported.
fn serve(listener: &TcpListener, page: &str, report: &Sender<Value>) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // A browser opens connections that it may never use.
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let Some((target, body)) = request(&stream) else { continue };
        let (status, answer) = match &*target {
            "/page" => ("200 OK", page),
            "/report" => ("204 No Content", ""),
            _ => ("404 Not Found", ""),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        // The browser may be gone already.
        let _ = stream.write_all(format!("{head}{answer}").as_bytes());
        if target == "/report" {
            let _ = report.send(serde_json::from_slice(&body).unwrap());
            return;
        }
    }
}

/// Target and body of one request.
fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((target, body))
}

/// Chromium without a window, with everything that it writes in the test's directory.
struct Browser {
    child: Child,
    said: PathBuf,
}

impl Browser {
    fn start(directory: &Path, url: &str) -> Self {
        let its = directory.join("chromium");
        fs::create_dir(&its).unwrap();
        let said = its.join("said");
        let mut command = Command::new(program());
        command.args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--no-proxy-server",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        command.arg(format!("--user-data-dir={}", its.display())).arg(url);
        command.env("HOME", &its).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&said).unwrap()).process_group(0).spawn().unwrap();
        Self { child, said }
    }

    #[track_caller]
    fn waits_for(&self, reported: &Receiver<Value>) -> Value {
        reported.recv_timeout(BROWSER_DEADLINE).unwrap_or_else(|e| {
            panic!("the page did not report: {e}\n{}", fs::read_to_string(&self.said).unwrap())
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        for pid in descendants(pid).into_iter().chain([pid]) {
            signal(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Installs it where it is missing, which needs root and Debian.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        found().unwrap_or_else(|| {
            install();
            found().expect("this test needs Chromium; install it with `apt-get install chromium`")
        })
    })
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|file| file.is_file())
}

fn install() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").is_file() {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("/usr/bin/apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|done| done.success())
    };
    let install = ["install", "-y", "--no-install-recommends", "chromium"];
    let _ = apt(&install) || (apt(&["update"]) && apt(&install));
}
