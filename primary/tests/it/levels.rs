//! What the levels of isolation promise, tried in each kind of process that has to do with what
//! strangers send, on kernels that seem to lack this or that wall.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use serde_json::json;

use crate::captive::{Came, Captive};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host};
use crate::jailed;
use crate::processes::descriptors;

const NOT_A_DIRECTORY: u64 = -100_i64 as u64;
const RW: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const PRIVATE: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const SHARED: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
const NO_FILE: u64 = u64::MAX;
/// As the C library asks for a thread.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// Ways of opening a file by its name, for reading, for writing, and to be made.
fn openings(path: u64) -> [(c_long, [u64; 6]); 5] {
    let [read, write, make] = [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_CREAT];
    let at = |flags: i32| [NOT_A_DIRECTORY, path, flags as u64, 0o600, 0, 0];
    let by_name = |flags: i32| [path, flags as u64, 0o600, 0, 0, 0];
    [
        (libc::SYS_openat, at(read)),
        (libc::SYS_openat, at(write)),
        (libc::SYS_openat, at(make)),
        (libc::SYS_open, by_name(read)),
        (libc::SYS_open, by_name(write)),
    ]
}

/// Levels, and which calls a kernel lacks where no more is to be had.
const KERNELS: [(&str, &str); 4] = [
    ("all", ""),
    ("no namespaces", "unshare"),
    ("no Landlock", "landlock_create_ruleset"),
    ("neither", "unshare,landlock_create_ruleset"),
];

/// Of whoever starts the host: root here, and no user of its own is given to them.
#[test]
fn a_compiler_opens_no_file_at_any_level() {
    let mut host = Host::start();
    host.tenant("demo");
    let (store, new) = (host.data().join("hearth.db"), host.data().join("new"));
    let token = host.scratch().join("admin-token");
    fs::write(&token, ADMIN_TOKEN).unwrap();
    host.kill();
    for (level, missing) in KERNELS {
        let compiler = jailed::compiler(missing);
        let captive = Captive::take(compiler.pid);
        for file in [store.as_path(), &token, &new, Path::new("/etc/passwd")] {
            let path = captive.place(0, format!("{}\0", file.display()).as_bytes());
            for (call, arguments) in openings(path) {
                let came = captive.call(call, arguments);
                assert_eq!(came, Came::Refused(Errno::ENOSYS), "{level}: {}", file.display());
            }
            let stat = captive.place(1_024, &[0; 256]);
            for (call, arguments) in [
                (libc::SYS_newfstatat, [NOT_A_DIRECTORY, path, stat, 0, 0, 0]),
                (libc::SYS_statx, [NOT_A_DIRECTORY, path, 0, 0x7ff, stat, 0]),
                (libc::SYS_readlink, [path, stat, 128, 0, 0, 0]),
            ] {
                let came = captive.call(call, arguments);
                assert_eq!(came, Came::Refused(Errno::ENOSYS), "{level}: {}", file.display());
            }
        }
    }
    assert!(!new.exists());
}

/// What it can open is below its own directory, where there is Landlock, whoever it runs as.
#[test]
fn a_tree_opens_nothing_beside_its_directory() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "token").unwrap();
    for (level, missing) in &KERNELS[..2] {
        let tree = jailed::tree(missing);
        let captive = Captive::take(tree.pid);
        let path = captive.place(0, format!("{}\0", secret.display()).as_bytes());
        for (call, arguments) in openings(path) {
            let came = captive.call(call, arguments);
            let is_kept_in = matches!(came, Came::Refused(Errno::EACCES | Errno::ENOENT))
                || came == Came::Forbidden;
            assert!(is_kept_in, "{level}: {call} {came:?}");
        }
        let came = captive.call(libc::SYS_unlinkat, [NOT_A_DIRECTORY, path, 0, 0, 0, 0]);
        assert!(matches!(came, Came::Refused(Errno::EACCES | Errno::ENOENT)), "{level}: {came:?}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "token");
}

/// However the host was started, and whatever it had open.
#[test]
fn a_jailed_process_has_no_descriptor_but_those_that_it_was_given() {
    let others = |pid: i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        // What is closed meanwhile was its own.
        let fds = fds.filter_map(|fd| fs::read_link(fd.path()).ok());
        fds.filter(|to| to.to_string_lossy().contains("passwd")).count()
    };
    let standard = |pid: i32| {
        let is = |number: u32| fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        [0, 1, 2].map(|number| is(number).to_string_lossy().into_owned())
    };
    let of_host = |pid: i32| {
        let [control, output, errors] = standard(pid);
        assert!(control.starts_with("socket:"), "{control}");
        assert_eq!(output, "/dev/null");
        assert!(errors.starts_with("pipe:"), "{errors}");
        let access = fs::read_to_string(format!("/proc/{pid}/fdinfo/2")).unwrap();
        let flags = access.lines().find_map(|line| line.strip_prefix("flags:\t")).unwrap();
        let access = i32::from_str_radix(flags, 8).unwrap() & libc::O_ACCMODE;
        assert_eq!(access, libc::O_WRONLY, "nothing is read there");
        assert_eq!(others(pid), 0, "{pid}");
    };
    let leaky = r#"exec 9</etc/passwd; exec "$0" "$@""#;
    let host = Host::wrapped(&["sh", "-c", leaky], &[]);
    let leaked = fs::read_link(format!("/proc/{}/fd/9", host.pid())).unwrap();
    assert_eq!(leaked, Path::new("/etc/passwd"), "the host itself");
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (zygote, worker) = (host.zygote().unwrap(), host.workers(&tenant)[0]);
    for pid in [zygote, worker] {
        of_host(pid);
    }
    // One pipe for each, which is nobody else's.
    assert_ne!(standard(zygote)[2], standard(worker)[2]);
    for jailed in [jailed::compiler(""), jailed::tree(""), jailed::trial()] {
        of_host(jailed.pid);
        assert!(descriptors(jailed.pid) <= 8, "{}", descriptors(jailed.pid));
    }
}

/// As much as is given to it, in whatever way it is asked for; the rest is refused by the kernel,
/// or forbidden.
#[test]
fn row_03_without_cgroups_memory_of_every_kind_counts() {
    const MIB: u64 = 1 << 20;
    let host = Host::as_user();
    let tenant = host.tenant("demo");
    let limits = json!({ "limits": { "total_memory_mb": 64 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    tenant.deploy("one", guests::version_one());
    tenant.post("/one", "").expect(200);
    let worker = host.workers(&tenant)[0];
    let captive = Captive::take(worker);
    let ask = |length: u64, protection: u64, flags: u64| {
        captive.call(libc::SYS_mmap, [0, length, protection, flags, NO_FILE, 0])
    };
    for (kind, protection, flags) in [
        ("shared", RW, SHARED),
        ("a stack that grows", RW, PRIVATE | libc::MAP_GROWSDOWN as u64),
        ("huge pages", RW, PRIVATE | libc::MAP_HUGETLB as u64),
        ("read only, which costs its tables", 1, PRIVATE),
    ] {
        assert_eq!(ask(MIB, protection, flags), Came::Forbidden, "{kind}");
    }
    let mut had = 0;
    let refused = loop {
        match ask(MIB, RW, PRIVATE) {
            Came::Through(_) => had += 1,
            refused => break refused,
        }
        assert!(had <= 64, "it has {had} MiB more");
    };
    assert_eq!(refused, Came::Refused(Errno::ENOMEM));
    assert!(had > 16, "{had}");
    // Nor can what is reserved, and not accessible, be made so.
    let Came::Through(reserved) = ask(256 * MIB, 0, PRIVATE) else { panic!("no reservation") };
    let opened = captive.call(libc::SYS_mprotect, [reserved as u64, 256 * MIB, RW, 0, 0, 0]);
    assert_eq!(opened, Came::Refused(Errno::ENOMEM));
    let read = captive.call(libc::SYS_mprotect, [reserved as u64, 256 * MIB, 1, 0, 0, 0]);
    assert_eq!(read, Came::Forbidden);
}

/// A worker's threads are counted with its tenant's own, or it has what it started with.
#[test]
fn one_worker_does_not_take_all_of_the_users_threads() {
    let processes = |pid: i32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max processes")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    };
    let root = Host::start();
    let tenant = root.tenant("demo");
    tenant.deploy("one", guests::version_one());
    assert_eq!(processes(root.workers(&tenant)[0]), "512");
    drop(root);

    let host = Host::as_user();
    let tenant = host.tenant("demo");
    tenant.deploy("schemas", guests::declares_schemas());
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant)[0];
    assert_eq!(processes(worker), "0");
    let captive = Captive::take(worker);
    for _ in 0..3 {
        let came = captive.call(libc::SYS_clone, [THREAD, 0, 0, 0, 0, 0]);
        assert_eq!(came, Came::Refused(Errno::EAGAIN));
    }
    // Nor does it get the right to more.
    let more = captive.place(0, &[64_u64.to_le_bytes(), 64_u64.to_le_bytes()].concat());
    let processes = u64::from(libc::RLIMIT_NPROC);
    let came = captive.call(libc::SYS_prlimit64, [0, processes, more, 0, 0, 0]);
    assert_eq!(came, Came::Refused(Errno::EPERM));
    drop(captive);
    // What is done beside the calls is done by threads that were there before.
    let long = json!({ "declared": "x".repeat(300_000) }).to_string();
    for _ in 0..8 {
        tenant.post("/schemas", &long).expect(200);
    }
    assert_eq!(host.workers(&tenant), [worker]);

    for jailed in [jailed::compiler(""), jailed::tree("")] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", jailed.pid)).unwrap();
        assert!(limits.lines().any(|line| {
            let mut words = line.split_whitespace();
            line.starts_with("Max processes") && words.nth(3) == Some("0")
        }));
    }
}

/// The compiler of a host that somebody bounded: an allocation that fails, in the midst of its work.
#[test]
fn a_compiler_without_memory_is_the_modules_fault() {
    let host = Host::of(|directory| {
        let programs = directory.join("programs");
        fs::create_dir(&programs).unwrap();
        for name in ["hearth", "hearth-worker"] {
            let program = jailed::program(name);
            if fs::hard_link(&program, programs.join(name)).is_err() {
                fs::copy(&program, programs.join(name)).unwrap();
            }
        }
        let compiler = jailed::program("hearth-compile");
        let script = programs.join("hearth-compile");
        let after = directory.join("short");
        let text = format!(
            "#!/bin/sh\nif test -e {}; then ulimit -d $(cat {}); fi\nexec {} \"$@\"\n",
            after.display(),
            after.display(),
            compiler.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        programs.join("hearth")
    });
    let tenant = host.tenant("demo");
    let mut refused = 0;
    // From next to nothing to nearly enough: it ends in another place each time.
    for kibibytes in [6_000, 12_000, 18_000, 24_000] {
        fs::write(host.scratch().join("short"), kibibytes.to_string()).unwrap();
        let name = format!("one-{kibibytes}");
        let file = format!("{name}.wasm");
        let answer = tenant.upload(&[(&file, guests::version_two())], None);
        if answer.status == 200 {
            continue;
        }
        answer.expect_problem(400, "invalid_module").expect_detail("more time or memory");
        refused += 1;
    }
    assert!(refused > 0, "it had enough each time");
    fs::remove_file(host.scratch().join("short")).unwrap();
    tenant.deploy("one", guests::version_two());
}
