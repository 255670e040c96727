//! The proxies that operators put before Hearth, as Debian has them, each with the configuration
//! that `docs/operating.md` gives for it: what is changed of that text is where the proxy listens,
//! that it does so without TLS, and where Hearth is. All that a proxy writes is in the test's
//! directory, and it ends with the test.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::host::spare_port;
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
}

pub struct Proxy {
    child: Child,
    pub address: SocketAddr,
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
        Self { child, address }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Caddy];

    /// Also of its package, its program, and its configuration in the document.
    pub fn name(self) -> &'static str {
        match self {
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
            Self::Caddy => {
                let site = format!("*.{DOMAIN} {{");
                change(&mut text, &site, &format!("http://*.{DOMAIN}:{} {{", address.port()));
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
