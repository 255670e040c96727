//! Answers with what it finds of the machine around it.

use std::io::Read;
use std::net::{TcpStream, UdpSocket};

use serde_json::json;
use wasip2::cli::environment;
use wasip2::filesystem::preopens;

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    let mut stdin = Vec::new();
    let stdin_ended = std::io::stdin().read_to_end(&mut stdin).is_ok();
    testing::respond_json(
        out,
        &json!({
            "environment": environment::get_environment(),
            "arguments": environment::get_arguments(),
            "stdin": stdin,
            "stdin_ended": stdin_ended,
            "directories": preopens::get_directories().len(),
            "root": std::fs::read_dir("/").is_ok(),
            "passwd": std::fs::read("/etc/passwd").is_ok(),
            "tcp": TcpStream::connect("127.0.0.1:22").err().map(|e| format!("{:?}", e.kind())),
            "udp": UdpSocket::bind("127.0.0.1:0").err().map(|e| format!("{:?}", e.kind())),
        }),
    );
}
