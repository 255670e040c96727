//! A machine whose calendar stands before 1970, or comes to stand there while the host serves. The
//! host, its zygote and its workers see a calendar of their own, by a library that is loaded before
//! theirs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host};

/// Takes 63 years from the calendar, and from nothing else, as long as the first byte of the file
/// is not zero.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile char *is_early;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("EARLY");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, 1, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) is_early = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    long failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME && is_early && *is_early) time->tv_sec -= 2000000000;
    return (int)failed;
}
"#;

struct Calendar {
    file: PathBuf,
}

impl Calendar {
    /// Beside programs whose calendar it is; tells which of them is the host's.
    fn within(directory: &Path) -> (Self, PathBuf) {
        let source = directory.join("early.c");
        let library = directory.join("early.so");
        fs::write(&source, LIBRARY).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        assert!(compiler.status().unwrap().success());
        let file = directory.join("early");
        fs::write(&file, [0]).unwrap();
        let real = Path::new(env!("CARGO_BIN_EXE_hearth"));
        let programs = directory.join("programs");
        fs::create_dir(&programs).unwrap();
        for name in ["hearth", "hearth-compile"] {
            let (from, to) = (real.with_file_name(name), programs.join(name));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(from, to).map(drop)).unwrap();
        }
        let begun = |at: &Path, program: &Path| {
            let script = format!(
                "#!/bin/sh\nexport EARLY='{}' LD_PRELOAD='{}'\nexec '{}' \"$@\"\n",
                file.display(),
                library.display(),
                program.display(),
            );
            fs::write(at, script).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        };
        begun(&programs.join("hearth-worker"), &real.with_file_name("hearth-worker"));
        let host = directory.join("hearth");
        begun(&host, &programs.join("hearth"));
        (Self { file }, host)
    }

    fn is_early(&self, early: bool) {
        // In place: the programs look into it all the while.
        let mut file = File::options().write(true).open(&self.file).unwrap();
        file.write_all(&[u8::from(early)]).unwrap();
    }
}

#[test]
fn a_start_with_a_calendar_that_cannot_be_right_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (calendar, program) = Calendar::within(scratch.path());
    calendar.is_early(true);
    let data = scratch.path().join("data");
    // Else one that starts would never end.
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(program)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let output = command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("this machine's clock says 19") && said.contains("set it"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(!data.exists(), "nothing was to be made");
}

#[test]
fn a_calendar_that_jumps_before_1970_ends_nothing() {
    let mut calendar = None;
    let host = Host::of(|directory| {
        let (made, program) = Calendar::within(directory);
        calendar = Some(made);
        program
    });
    let calendar = calendar.unwrap();
    let [awake, asleep] = ["awake", "asleep"].map(|name| host.tenant(name));
    awake.deploy("one", guests::version_one());
    calendar.is_early(true);
    // More than one answer of each thread's, from one that serves already and from a new one.
    for round in 0..30 {
        for tenant in [&awake, &asleep] {
            for address in tenant.addresses() {
                address.post("/hello", "{}").expect(200);
            }
            tenant.ask("/worker");
            tenant.ask("/logs");
        }
        host.send(&host.admin("GET", "/tenants")).expect(200);
        if round % 10 == 0 {
            for tenant in [&awake, &asleep] {
                host.send(&tenant.api("POST", "/worker/stop"));
            }
        }
    }
    // Everything that asks what time it is.
    awake.deploy("two", guests::version_two());
    assert_eq!(awake.post("/two", "").expect(200).text(), "version two");
    awake.token("invoke");
    host.tenant("born-before").post("/hello", "{}").expect(200);
    let saved = host.scratch().join("saved");
    host.command(ADMIN_TOKEN, &["backup", saved.to_str().unwrap()]).done();
    host.send(&host.admin("DELETE", "/tenants/asleep")).expect(204);
    calendar.is_early(false);
    for address in awake.addresses() {
        let answer = address.post("/hello", "{}").expect(200);
        assert!(answer.header("date").is_some());
    }
    let log = host.log();
    assert!(!log.contains("panicked"), "{log}");
}
