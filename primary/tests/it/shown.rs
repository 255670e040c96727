//! What strangers and tenants may have written, where an operator reads it: at a terminal of eighty
//! columns nothing of it is obeyed, and lines end between words. Row 28 of the matrix, for the
//! command line.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, hearth};
use crate::http::Request;
use crate::processes::eventually;
use crate::terminal::{Terminal, fits, is_harmless};

/// Clears the screen, colours it, rings, moves to the line's beginning, ends a line and a paragraph
/// as Unicode has it, turns the direction, and begins a sequence with one byte.
const HOSTILE: &str =
    "x\u{1b}[2J\u{1b}]0;owned\u{7}\u{1b}[31m\r\u{2028}\u{2029}\u{202e}\u{2066}\u{9b}31m\u{200f}y";

fn command(host: &Host, token: &str, arguments: &[&str]) -> Command {
    let mut command = hearth(host.scratch());
    command
        .args(arguments)
        .current_dir(host.scratch())
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", token)
        .env("TERM", "xterm-256color");
    command
}

#[track_caller]
fn shown(host: &Host, token: &str, arguments: &[&str]) -> String {
    let asked = arguments.join(" ");
    let (shown, _) = Terminal::run(&command(host, token, arguments)).finish();
    assert!(!shown.trim().is_empty(), "{asked} shows nothing");
    // A bar of progress is drawn here and removed again, by what a terminal obeys.
    is_harmless(&asked, &shown);
    shown
}

#[test]
fn row_28_what_strangers_wrote_is_obeyed_by_no_terminal() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let described = json!({ "description": HOSTILE });
    tenant.deploy_with("prints", guests::prints(), &described);
    tenant.deploy("traps", guests::traps());
    tenant.deploy("mirrors", guests::mirrors());
    tenant.post("/prints", HOSTILE).expect(204);
    tenant.post("/traps", HOSTILE).expect(500);
    let method = tenant.address().request("POST", "/prints").header("x-request-id", "r-1");
    tenant.address().send(&method.body(HOSTILE)).expect(204);
    // A token's name and a request's id come from outside, as far as they may.
    let name = json!({ "name": HOSTILE, "scope": "invoke" });
    let named = tenant.api("POST", "/tokens").json(&name).send(host.front);
    if named.status == 201 {
        let shown = shown(&host, &tenant.token, &["token", "list"]);
        assert!(shown.contains("\\u{1b}"), "{shown}");
    }

    let shown = |arguments: &[&str]| shown(&host, &tenant.token, arguments);
    for arguments in [
        &["functions"][..],
        &["options", "prints"],
        &["logs"],
        &["calls"],
        &["logs", "--json"],
        &["functions", "--json"],
    ] {
        shown(arguments);
    }
    let logged = shown(&["logs", "prints"]);
    for part in ["\\u{1b}[2J", "\\u{2028}", "\\u{2029}", "\\u{202e}", "\\u{9b}31m"] {
        assert!(logged.contains(part), "{part}: {logged}");
    }
    // The body of an answer, and what is said of one.
    let body = format!("{{\"a\":{}}}", json!(HOSTILE));
    shown(&["invoke", "mirrors", "-d", &body]);
    shown(&["invoke", "traps"]);
    // What was typed comes back in what is said of it.
    shown(&["versions", "no\u{2028}where"]);
    shown(&["token", "add", "x", "--scope", "\u{1b}[31mowner"]);
    shown(&["login", "no\u{1b}[2Jaddress"]);
    let file = host.scratch().join(format!("{}.wasm", HOSTILE.replace('/', "")));
    fs::write(&file, guests::echo()).unwrap();
    shown(&["upload", file.to_str().unwrap()]);
    shown(&["upload", &format!("{}/nothing.wasm", file.display())]);
}

/// As another program answers that calls itself Hearth.
#[test]
fn row_28_a_host_that_lies_is_obeyed_by_no_terminal() {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let place = tempfile::tempdir().unwrap();
    let answers = [
        ("401 Unauthorized", "application/problem+json", json!({ "detail": HOSTILE })),
        ("200 OK", "application/json", json!({ "name": HOSTILE, "scope": "owner", "tenant": "a" })),
        (
            "400 Bad Request",
            "application/problem+json",
            json!({
                "detail": HOSTILE, "code": HOSTILE, "request_id": HOSTILE,
            }),
        ),
        (
            "200 OK",
            "application/json",
            json!({ "lines": [{
            "id": 1, "time": "2026-01-02T03:04:05Z", "function": "/a", "version": 1,
            "request_id": HOSTILE, "stream": "stdout", "text": HOSTILE,
        }] }),
        ),
        ("200 OK", "application/json", json!({ "name": HOSTILE })),
    ];
    std::thread::spawn(move || {
        for (connection, (status, kind, body)) in
            listener.incoming().zip(answers.into_iter().cycle())
        {
            let mut connection = BufReader::new(connection.unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if connection.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
            }
            let body = body.to_string();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = connection.get_mut().write_all(format!("{head}{body}").as_bytes());
        }
    });
    for arguments in [&["logs"][..], &["token", "list"], &["functions"], &["login"], &["calls"]] {
        for _ in 0..4 {
            let mut command = hearth(place.path());
            command.args(["--tenant", "a"]).args(arguments);
            command.env("HEARTH_URL", format!("http://{at}")).env("HEARTH_TOKEN", "t");
            let mut terminal = Terminal::run(&command);
            if arguments == ["login"] {
                // What is typed before the question is thrown away.
                terminal.shows("Token for");
                eventually("it is hidden", || (!terminal.echoes()).then_some(()));
                terminal.type_in("token\n");
            }
            let (shown, _) = terminal.finish();
            is_harmless(&arguments.join(" "), &shown);
        }
    }
}

/// The version and the names in an archive are whatever somebody wrote there.
#[test]
fn row_28_an_archive_that_lies_is_obeyed_by_no_terminal() {
    let place = tempfile::tempdir().unwrap();
    let archive = |name: &str, content: &Value| {
        let content = content.to_string();
        let mut tar = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    };
    let head = json!({ "format": 99, "hearth": HOSTILE, "made_at": "2026-01-02T03:04:05Z" });
    for (at, bytes) in
        [archive("backup.json", &head), archive("\u{2028}x", &head)].iter().enumerate()
    {
        let file = place.path().join(format!("{at}.tar.zst"));
        fs::write(&file, bytes).unwrap();
        let mut command = hearth(place.path());
        command.arg("restore").arg(&file).arg("--data").arg(place.path().join("data"));
        let (shown, status) = Terminal::run(&command).finish();
        let error = shown.rsplit("hearth: ").next().unwrap();
        is_harmless("restore", error);
        assert!(!status.success(), "{shown}");
        // Of what is none, nothing is told.
        assert!(error.contains("backup"), "{error}");
    }
}

#[test]
fn tables_and_log_lines_fit_a_terminal_of_eighty_columns() {
    let host = Host::start();
    let tenant = host.tenant("a-tenant-with-a-rather-long-name");
    let described = "A function of whose purpose a good deal can be said, in several words.";
    let described = json!({ "description": described, "methods": ["GET", "POST", "PUT"] });
    tenant.deploy_with("a-function-with-a-name", guests::prints(), &described);
    let words = "one word and another, and then some more of them, until the line is far too long for it all to stand in eighty columns";
    let address = tenant.address();
    let request = address.request("POST", "/a-function-with-a-name").body(words);
    address.send(&request).expect(204);
    for (token, arguments) in [
        (&*tenant.token, &["functions"][..]),
        (&tenant.token, &["versions", "a-function-with-a-name"]),
        (&tenant.token, &["logs"]),
        (&tenant.token, &["calls"]),
        (&tenant.token, &["limits"]),
        (&tenant.token, &["worker", "list"]),
        (&tenant.token, &["token", "list"]),
        (&tenant.token, &["rollback", "a-function-with-a-name"]),
        (&tenant.token, &["logs", "nope"]),
        (ADMIN_TOKEN, &["tenant", "list"]),
        (ADMIN_TOKEN, &["tenant", "show", "a-tenant-with-a-rather-long-name"]),
        (ADMIN_TOKEN, &["doctor"]),
        (ADMIN_TOKEN, &["up", "--help"]),
        (ADMIN_TOKEN, &["install", "--help"]),
        (ADMIN_TOKEN, &["--help"]),
        (ADMIN_TOKEN, &["sing"]),
        (ADMIN_TOKEN, &["up", "--idle", "never"]),
    ] {
        let shown = shown(&host, token, arguments);
        // A path that is longer than all of it is the only word that is broken.
        let lines =
            shown.lines().filter(|line| !line.trim_start().contains('/') || line.contains(' '));
        fits(&arguments.join(" "), &lines.collect::<Vec<_>>().join("\n"));
    }
    let logged = shown(&host, &tenant.token, &["logs"]);
    let joined = logged.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(joined.contains(words), "{logged}");
    let listed = shown(&host, &tenant.token, &["functions"]);
    assert!(listed.contains("GET,POST,PUT"), "{listed}");
}

/// The host's own log too, and what it says when it serves.
#[test]
fn a_host_at_a_terminal_fits_it() {
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let mut command = hearth(place.path());
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(place.path().join("data"));
    let first = crate::host::spare_port();
    command.args(["--tenant-ports", &format!("{first}-{}", first + 1), "--log", "text"]);
    command.env("TERM", "xterm-256color");
    let mut terminal = Terminal::run(&command);
    terminal.shows("/hello");
    let said = terminal.shown();
    terminal.type_in("\u{3}");
    terminal.ended();
    let plain = without_colours(&said);
    fits("up", &plain.lines().filter(|line| line.contains(' ')).collect::<Vec<_>>().join("\n"));
    is_harmless("up", &plain);
    let exported = |name: &str| {
        let line = plain.lines().map(str::trim).find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{plain}")).to_owned()
    };
    assert!(exported("export HEARTH_URL=").ends_with(|c: char| c.is_ascii_digit()));
    assert!(exported("export HEARTH_TOKEN=hearth_").len() > 60);
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[test]
fn an_id_from_afar_is_not_obeyed_either() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    let request = Request::new("POST", "/echo").header("x-request-id", "\u{2028}");
    tenant.address().send(&request);
    shown(&host, &tenant.token, &["calls"]);
}
