//! What a jailed process says on standard error: read, bounded, named and escaped, whatever it is.

use std::fs;

use nix::errno::Errno;
use nix::libc;

use crate::captive::{Came, Captive};
use crate::guests;
use crate::host::Host;
use crate::processes::{eventually, is_alive, signal};

const ERRORS: u64 = 2;

#[test]
fn native_code_forges_no_line_of_the_hosts_log() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant)[0];
    let captive = Captive::take(worker);
    let forged = "\u{1b}[2J2026-01-01T00:00:00Z  INFO hearth: all is well\u{2028}tenant=other\n";
    let at = captive.place(0, forged.as_bytes());
    let came = captive.call(libc::SYS_write, [ERRORS, at, forged.len() as u64, 0, 0, 0]);
    assert_eq!(came, Came::Through(forged.len() as i64));
    // What an operator types at the host's terminal is not to be had.
    let came = captive.call(libc::SYS_read, [ERRORS, at, 8, 0, 0, 0]);
    assert_eq!(came, Came::Refused(Errno::EBADF));
    drop(captive);
    let line = eventually("the line", || {
        let log = host.log();
        log.lines().find(|line| line.contains("all is well")).map(str::to_owned)
    });
    for part in ["WARN", "a jailed process says", "tenant=demo", r#"process="worker""#] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let quoted =
        r#"said="\u{1b}[2J2026-01-01T00:00:00Z  INFO hearth: all is well\u{2028}tenant=other""#;
    assert!(line.ends_with(quoted), "{line}");
    assert!(!host.log().contains(['\u{1b}', '\u{2028}']));
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn a_flood_of_words_is_bounded_and_counted() {
    let host = Host::start();
    let [tenant, neighbour] = ["demo", "beside"].map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        tenant
    });
    let before = host.log().len();
    let worker = host.workers(&tenant)[0];
    let captive = Captive::take(worker);
    let line = b"forged\n".repeat(512);
    let at = captive.place(0, &line[..3_072]);
    for _ in 0..256 {
        captive.call(libc::SYS_write, [ERRORS, at, 3_072, 0, 0, 0]);
    }
    drop(captive);
    eventually("the first of it", || host.log().contains("forged").then_some(()));
    assert_eq!(neighbour.post("/one", "").expect(200).text(), "version one");
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    let grown = host.log().len() - before;
    assert!(grown < 32 << 10, "{grown} bytes of 786,432");
    // It is known whose words they are, and the neighbour has a pipe of its own.
    let pipe = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/2")).unwrap();
    assert_ne!(pipe(worker), pipe(host.workers(&neighbour)[0]));
}

/// What it says with its last breath is heard, though it has no end of a line.
#[test]
fn last_words_are_told_with_whose_they_are() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant)[0];
    let captive = Captive::take(worker);
    let at = captive.place(0, b"goodbye");
    captive.call(libc::SYS_write, [ERRORS, at, 7, 0, 0, 0]);
    drop(captive);
    signal(worker, nix::sys::signal::Signal::SIGKILL);
    eventually("its end", || (!is_alive(worker)).then_some(()));
    eventually("its last words", || {
        let log = host.log();
        let line = log.lines().find(|line| line.contains(r#"said="goodbye""#))?;
        line.contains("tenant=demo").then_some(())
    });
}

/// A program that cannot be one of ours says so to whoever started the host.
#[test]
fn what_a_zygote_says_is_told_where_no_host_starts() {
    let directory = tempfile::tempdir().unwrap();
    let programs = directory.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["hearth", "hearth-compile"] {
        fs::copy(crate::jailed::program(name), programs.join(name)).unwrap();
    }
    let worker = programs.join("hearth-worker");
    fs::write(&worker, "#!/bin/sh\nprintf 'no such \\033[2J library' >&2\nexit 127\n").unwrap();
    fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for arguments in [&["up", "--listen", "127.0.0.1:0", "--log", "text"][..], &["doctor"]] {
        let output = std::process::Command::new(programs.join("hearth"))
            .args(arguments)
            .env_clear()
            .env("HOME", directory.path())
            .current_dir(directory.path())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(r#""no such \u{1b}[2J library""#), "{arguments:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
}
