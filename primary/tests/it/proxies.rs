//! The proxies that operators put before Hearth, as Debian has them, each with the configuration
//! that `docs/operating.md` gives for it: what is changed of that text is where the proxy listens,
//! that it does so without TLS, and where Hearth is. All that a proxy writes is in the test's
//! directory, and it ends with the test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, spare_port};
use crate::http::{Connection, FORWARDING, Request};
use crate::processes::eventually;

/// The document with the configurations.
const OPERATING: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md"));
/// Where Hearth is in it.
const HEARTH: &str = "127.0.0.1:3400";
/// Below which tenants have their names in it.
pub const DOMAIN: &str = "apps.example.org";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
    Caddy,
    Apache,
}

pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
    /// What it logs, on its standard error or to a file of its own.
    logs: [PathBuf; 2],
}

impl Proxy {
    pub fn start(kind: Kind, directory: &Path, hearth: SocketAddr) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spare_port()));
        let its = directory.join(kind.name());
        fs::create_dir(&its).unwrap();
        let file = its.join("configuration");
        fs::write(&file, kind.configuration(&its, address, hearth)).unwrap();
        let said = its.join("said");
        let mut child = kind
            .command(&its, &file)
            .env("HOME", &its)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        eventually(kind.name(), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{}: {status}: {}", kind.name(), fs::read_to_string(&said).unwrap());
            }
            TcpStream::connect(address).ok()
        });
        Self { child, address, logs: [said, its.join("error.log")] }
    }

    /// What it logged, for whoever looks for the cause of a failure.
    pub fn said(&self) -> String {
        self.logs.iter().filter_map(|log| fs::read_to_string(log).ok()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Caddy, Self::Apache];

    /// Also of its package, its program, and its configuration in the document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apache => "apache2",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }

    /// In one process, which is the test's child and ends with it.
    fn command(self, its: &Path, file: &Path) -> Command {
        let mut command = Command::new(program(self.name()));
        match self {
            Self::Nginx => {
                command.arg("-p").arg(its).arg("-e").arg(its.join("error.log")).arg("-c").arg(file)
            }
            Self::Haproxy => command.arg("-db").arg("-f").arg(file),
            Self::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
            Self::Apache => command.arg("-X").arg("-f").arg(file),
        };
        command
    }

    fn configuration(self, its: &Path, address: SocketAddr, hearth: SocketAddr) -> String {
        let its = its.display();
        let mut text = documented(self.name());
        change(&mut text, HEARTH, &hearth.to_string());
        match self {
            Self::Nginx => {
                change(&mut text, "listen 443 ssl;", &format!("listen {address};"));
                drop_lines(&mut text, "ssl_certificate");
                let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                    .iter()
                    .map(|what| format!("{what}_temp_path {its}/{what};\n"))
                    .collect();
                format!(
                    "daemon off;\nmaster_process off;\npid {its}/pid;\n\
                     error_log {its}/error.log;\nevents {{ worker_connections 1024; }}\n\
                     http {{\naccess_log off;\n{temporary}{text}}}\n"
                )
            }
            Self::Haproxy => {
                let bind = "bind :443 ssl crt /etc/haproxy/apps.example.org.pem";
                change(&mut text, bind, &format!("bind {address}"));
                format!("global\n    maxconn 1000\n{text}")
            }
            Self::Apache => {
                change(&mut text, "<VirtualHost *:443>", &format!("<VirtualHost {address}>"));
                drop_lines(&mut text, "SSL");
                let modules: String =
                    ["mpm_event", "authz_core", "env", "headers", "proxy", "proxy_http"]
                        .iter()
                        .map(|name| {
                            format!(
                                "LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
                            )
                        })
                        .collect();
                format!(
                    "ServerRoot {its}\nDefaultRuntimeDir {its}\nPidFile {its}/pid\n\
                     ErrorLog {its}/error.log\nUser www-data\nGroup www-data\n{modules}\
                     Listen {address}\n{text}"
                )
            }
            Self::Caddy => {
                let site = format!("{DOMAIN}, *.{DOMAIN} {{");
                let port = address.port();
                let ip = address.ip();
                let here = format!(
                    "http://{DOMAIN}:{port}, http://*.{DOMAIN}:{port}, http://{ip}:{port} {{"
                );
                change(&mut text, &site, &here);
                drop_lines(&mut text, "tls ");
                format!(
                    "{{\n admin off\n auto_https off\n default_bind {}\n storage file_system {its}\n}}\n{text}",
                    address.ip()
                )
            }
        }
    }
}

/// What the document gives for this proxy.
fn documented(name: &str) -> String {
    let begin = format!("```{name}\n");
    let (_, rest) = OPERATING.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once("```").expect("what begins ends").0.to_owned()
}

fn change(text: &mut String, from: &str, to: &str) {
    assert_eq!(text.matches(from).count(), 1, "{from:?} is once in {text}");
    *text = text.replace(from, to);
}

fn drop_lines(text: &mut String, with: &str) {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(with));
    *text = lines.map(|line| format!("{line}\n")).collect();
}

/// Installs it where it is missing, which needs root and Debian.
fn program(name: &str) -> PathBuf {
    // One after the other: so does the package manager.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    found(name).unwrap_or_else(|| {
        install(name);
        found(name).unwrap_or_else(|| {
            panic!("these tests need {name}; install it with `apt-get install {name}`")
        })
    })
}

fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Not everybody has it on the path.
    directories.push("/usr/sbin".into());
    directories.into_iter().map(|directory| directory.join(name)).find(|file| file.is_file())
}

fn install(name: &str) {
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").is_file() {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("/usr/bin/apt-get");
        // In that runlevel no service is started: the program is wanted, not the server.
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        apt.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|done| done.success())
    };
    let install = ["install", "-y", "--no-install-recommends", name];
    let _ = apt(&install) || (apt(&["update"]) && apt(&install));
}

/// What a stranger says of where it comes from ends at the proxy, or else here; and what the
/// document promises of each of them is so.
#[test]
fn each_proxy_of_the_guide_leads_to_tenants_and_the_api_and_passes_no_strangers_word() {
    const FORGED: &str = "forged-203.0.113.9";
    let host = Host::with(&["--trusted-proxy", "127.0.0.1/32", "--domain", DOMAIN]);
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    tenant.deploy("streams", guests::streams());
    for kind in Kind::ALL {
        let proxy = Proxy::start(kind, host.scratch(), host.front);
        let named = |method: &str, path: &str, name: &str| {
            Request::new(method, path).header("host", &format!("{name}{DOMAIN}"))
        };
        let request = named("POST", "/echo", "demo.");
        let request = FORWARDING.iter().fold(request, |request, name| request.header(name, FORGED));
        let mut kept = Connection::open(proxy.address).unwrap();
        let seen = kept.call(&request.body("a body")).expect(200).json();
        let said = format!("{kind:?}: {seen}");
        assert!(!seen.to_string().contains(FORGED), "{said}");
        let headers = &seen["headers"];
        assert_eq!(headers["x-forwarded-for"], json!(["127.0.0.1, 127.0.0.1"]), "{said}");
        let name = format!("demo.{DOMAIN}");
        assert_eq!(headers["x-forwarded-host"], json!([name]), "{said}");
        // Without TLS here, which Caddy alone looks at: the others say what they are configured to.
        let scheme = if kind == Kind::Caddy { "http" } else { "https" };
        assert_eq!(headers["x-forwarded-proto"], json!([scheme]), "{said}");
        for word in FORWARDING {
            let may = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"].contains(&word);
            assert!(may || headers[word].is_null(), "{word}: {said}");
        }
        assert_eq!((&seen["body"], &seen["bytes"]), (&json!("a body"), &json!(6)), "{said}");
        // One connection, many tenants, and the API among them.
        for _ in 0..3 {
            let api = named("GET", "/api/v1/whoami", "").bearer(ADMIN_TOKEN);
            assert_eq!(kept.call(&api).expect(200).json()["scope"], "admin", "{kind:?}");
            let home = named("POST", "/hello", "home.").body("{}");
            kept.call(&home).expect(200);
        }
        // What has no length, either way.
        let chunked = named("POST", "/echo", "demo.").header("transfer-encoding", "chunked");
        let chunked = chunked.body("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(kept.call(&chunked).expect(200).json()["body"], "hello", "{kind:?}");
        let files = [("echo.wasm", guests::echo())];
        let upload = crate::host::upload(named("POST", "/$upload", "demo."), &files, None);
        kept.call(&upload.bearer(&tenant.token)).expect(200);
        let admin = named("POST", "/echo", "demo.").bearer(ADMIN_TOKEN);
        kept.call(&admin).expect_problem(403, "forbidden");
        // A name that is nobody's: Caddy has no site for it, and asks nobody.
        if kind != Kind::Caddy {
            let evil = Request::new("GET", "/api/v1/whoami").header("host", "evil.example");
            evil.send(proxy.address).expect_problem(421, "misdirected");
        }
    }
}

/// Its answer comes from behind the proxy, be it that or a refusal.
#[test]
fn the_command_line_uploads_through_each_proxy() {
    let host = Host::with(&["--trusted-proxy", "127.0.0.1/32", "--domain", DOMAIN]);
    let tenant = host.tenant("demo");
    // More than any of them keeps before it sends it on.
    let large: Vec<u8> =
        (0..4_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for kind in Kind::ALL {
        let proxy = Proxy::start(kind, host.scratch(), host.front);
        let url = format!("http://{}", proxy.address);
        let name = kind.name();
        let file = host.scratch().join(format!("{name}.wasm"));
        fs::write(&file, guests::echo()).unwrap();
        let file = file.to_str().unwrap();
        let said = host.command(&tenant.token, &["upload", file, "--url", &url]).done();
        assert!(said.contains(&format!("/{name} is at version 1")), "{kind:?}: {said}");
        let called = host.command(&tenant.token, &["invoke", name, "-d", "1", "--url", &url]);
        assert_eq!(called.json()["body"], "1", "{kind:?}");
        let said = host.command("hearth_wrong", &["upload", file, "--url", &url]).failed(1);
        assert!(said.contains("this token is not known here"), "{kind:?}: {said}");
        let broken = host.scratch().join("broken.wasm");
        fs::write(&broken, &large).unwrap();
        let broken = broken.to_str().unwrap();
        let said = host.command(&tenant.token, &["upload", broken, "--url", &url]).failed(1);
        assert!(said.contains("broken.wasm"), "{kind:?}: {said}");
    }
}
