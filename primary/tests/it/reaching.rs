//! The command line on its way to a host: through proxies, and to one whose certificate is of a
//! private authority.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::host::{Host, hearth, run, spare_port};
use crate::processes::eventually;

/// A proxy as most are: it reads requests, and gives connections to the ports of encrypted services
/// alone. What it was asked comes out.
fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let lines = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if client.read_line(&mut line).unwrap() <= 2 {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let Some(first) = head.first().cloned() else { continue };
            lines.lock().unwrap().extend(head.iter().cloned());
            let words: Vec<&str> = first.split(' ').collect();
            let Some((_, path)) =
                words[1].strip_prefix("http://").and_then(|it| it.split_once('/'))
            else {
                let _ = client
                    .get_mut()
                    .write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
                continue;
            };
            let mut request =
                format!("{} /{path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n", words[0]);
            for line in &head[1..] {
                let name = line.split(':').next().unwrap().to_lowercase();
                if !["host", "connection", "proxy-authorization"].contains(&name.as_str()) {
                    request += &format!("{line}\r\n");
                }
            }
            let mut host = TcpStream::connect(to).unwrap();
            host.write_all(format!("{request}\r\n").as_bytes()).unwrap();
            let mut answer = Vec::new();
            host.read_to_end(&mut answer).unwrap();
            let _ = client.get_mut().write_all(&answer);
        }
    });
    (at, asked)
}

#[test]
fn a_proxy_is_asked_for_other_machines_and_reads_what_is_not_encrypted() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let (proxy, asked) = proxy(host.front);
    let command = |url: &str, variables: &[(&str, &str)]| {
        let mut command = hearth(host.scratch());
        command.args(["functions"]).env("HEARTH_URL", url).env("HEARTH_TOKEN", &tenant.token);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let address = format!("http://user:secret@{proxy}");
    let port = host.front.port();
    let output = command(&format!("http://hearth.example:{port}"), &[("HTTP_PROXY", &address)]);
    assert!(output.status.success(), "{output:?}");
    let seen = std::mem::take(&mut *asked.lock().unwrap());
    let begin = format!("GET http://hearth.example:{port}/api/v1/");
    assert!(seen.iter().any(|line| line.starts_with(&begin)), "{seen:?}");
    assert!(!seen.iter().any(|line| line.starts_with("CONNECT")), "{seen:?}");
    assert!(
        seen.iter().any(|line| line == "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="),
        "{seen:?}"
    );

    // This machine itself, however that is spelt, is behind none.
    for name in
        ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "LocalHost", "0.0.0.0", "[::ffff:127.0.0.1]"]
    {
        let url = format!("http://{name}:{port}");
        for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            let output = command(&url, &[(variable, &address)]);
            assert!(output.status.success(), "{url}: {output:?}");
        }
    }
    assert_eq!(*asked.lock().unwrap(), Vec::<String>::new());
    // That of encrypted requests is not for plain ones, and a wrong one is named without its password.
    let output = command(&format!("http://127.1:{port}"), &[("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(output.status.success(), "{output:?}");
    let output = command("http://hearth.example", &[("HTTP_PROXY", "http://u:secret@/")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("HTTP_PROXY") && !said.contains("secret"), "{said}");
}

/// A server that speaks TLS before the host, with a certificate of its own authority.
struct Encrypted {
    child: std::process::Child,
    url: String,
    authority: String,
}

impl Drop for Encrypted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encrypted(host: &Host) -> Encrypted {
    let its = host.scratch().join("tls");
    fs::create_dir(&its).unwrap();
    let script = r#"set -e; cd "$0"
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=an authority" -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout key.pem -out request.pem
        printf 'subjectAltName=DNS:localhost\n' > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem
        cat cert.pem key.pem > both.pem"#;
    let made = Command::new("sh").args(["-c", script]).arg(&its).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = spare_port();
    let configuration = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         frontend f\n bind 127.0.0.1:{port} ssl crt {}\n default_backend b\n\
         backend b\n http-request set-header host {}\n server s {}\n",
        its.join("both.pem").display(),
        host.front,
        host.front
    );
    fs::write(its.join("configuration"), configuration).unwrap();
    let child = Command::new("haproxy").args(["-db", "-f"]).arg(its.join("configuration")).spawn();
    let child = child.or_else(|_| {
        Command::new("/usr/sbin/haproxy").args(["-db", "-f"]).arg(its.join("configuration")).spawn()
    });
    let served = Encrypted {
        child: child.unwrap(),
        url: format!("https://localhost:{port}"),
        authority: its.join("ca.pem").to_str().unwrap().to_owned(),
    };
    eventually("the server", || TcpStream::connect(("127.0.0.1", port)).ok());
    served
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let served = encrypted(&host);
    let command = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = hearth(host.scratch());
        command.args(arguments).env("HEARTH_URL", &served.url);
        command.env("HEARTH_TOKEN", &tenant.token).envs(variables.iter().copied());
        command.output().unwrap()
    };
    let stranger = command(&["functions"], &[]);
    let said = String::from_utf8_lossy(&stranger.stderr);
    assert!(!stranger.status.success() && said.contains("--ca-file FILE"), "{said}");
    let authority = served.authority.as_str();
    for (arguments, variables) in [
        (&["functions", "--ca-file", authority][..], &[][..]),
        (&["functions"], &[("HEARTH_CA_FILE", authority)]),
        (&["functions"], &[("SSL_CERT_FILE", authority)]),
    ] {
        let output = command(arguments, variables);
        assert!(output.status.success(), "{arguments:?} {variables:?}: {output:?}");
    }
    let output = command(&["functions", "--ca-file", "/nowhere"], &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere"), "{output:?}");

    // A login remembers it, and the address that it is for.
    let token = host.scratch().join("token");
    fs::write(&token, &tenant.token).unwrap();
    let token = token.to_str().unwrap();
    let said = run(host.scratch(), &["login", &served.url, "--token-file", token]).failed(1);
    assert!(said.contains("--ca-file FILE"), "{said}");
    run(host.scratch(), &["login", &served.url, "--token-file", token, "--ca-file", authority])
        .done();
    run(host.scratch(), &["functions"]).done();
}
