//! A proxy before Hearth, as operators have one: nginx, with a configuration of the test's own and
//! everything that it writes in the test's directory.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::host::spare_port;
use crate::processes::eventually;

pub struct Nginx {
    child: Child,
    pub address: SocketAddr,
}

impl Nginx {
    /// Passes on to `upstream`, over a few kept connections. What names one of
    /// `sites` is passed on in the name that stands beside it.
    pub fn start(directory: &Path, upstream: SocketAddr, sites: &[(&str, &str)]) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spare_port()));
        let its = directory.join("nginx");
        fs::create_dir(&its).unwrap();
        let file = its.join("nginx.conf");
        fs::write(&file, configuration(&its, address, upstream, sites)).unwrap();
        let said = File::create(its.join("said")).unwrap();
        let mut child = Command::new(program())
            .arg("-p")
            .arg(&its)
            .arg("-e")
            .arg(its.join("error.log"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        eventually("nginx", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("nginx: {status}: {}", fs::read_to_string(its.join("said")).unwrap());
            }
            TcpStream::connect(address).ok()
        });
        Self { child, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(
    its: &Path,
    address: SocketAddr,
    upstream: SocketAddr,
    sites: &[(&str, &str)],
) -> String {
    let its = its.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {its}/{what};\n"))
        .collect();
    let servers: String = sites
        .iter()
        .map(|(name, host)| {
            format!(
                r#"server {{
                    listen {address};
                    server_name {name};
                    location / {{
                        proxy_pass http://hearth;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_set_header Host {host};
                        proxy_request_buffering off;
                        proxy_buffering off;
                    }}
                }}
                "#
            )
        })
        .collect();
    // In one process, which is the test's child and ends with it.
    format!(
        "daemon off;
        master_process off;
        pid {its}/pid;
        error_log {its}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            {temporary}
            upstream hearth {{ server {upstream}; keepalive 8; }}
            {servers}
        }}"
    )
}

/// Installs it where it is missing, which needs root and Debian.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        found().unwrap_or_else(|| {
            install();
            found().expect("these tests need nginx; install it with `apt-get install nginx`")
        })
    })
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Not everybody has it on the path.
    directories.push("/usr/sbin".into());
    directories.into_iter().map(|directory| directory.join("nginx")).find(|file| file.is_file())
}

fn install() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").is_file() {
        return;
    }
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("/usr/bin/apt-get");
        // In that runlevel no service is started: the program is wanted, not the server.
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        apt.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|done| done.success())
    };
    let install = ["install", "-y", "--no-install-recommends", "nginx"];
    let _ = apt(&install) || (apt(&["update"]) && apt(&install));
}
