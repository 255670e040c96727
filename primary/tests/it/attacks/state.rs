//! A native attacker in a worker that has a state: its own files are its own, and there is nothing else
//! that it opens, makes, removes or learns the name of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_long};

use super::{LISTENER, NO_SPARES, NOBODY, RX};
use crate::captive::{Came, Captive};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host};
use crate::jailed::without;

/// The number of its directory.
pub const STATE: u64 = 3;
const NOWHERE: u64 = libc::AT_FDCWD as u64;
const READ: u64 = (libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
const WRITE: u64 = READ | libc::O_RDWR as u64;
const MAKE: u64 = WRITE | libc::O_CREAT as u64;
const SHARED: u64 = libc::MAP_SHARED as u64;
const RW: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const LENGTH: u64 = 16 << 10;

/// What an attacker can point at.
struct Place {
    /// A file of its own, by its name and open.
    own: u64,
    file: u64,
    new: u64,
    /// Room for what it would be told.
    room: u64,
}

type Attack = (&'static str, c_long, fn(&Place) -> [u64; 6]);

/// Never made, whatever it is tried on.
const FORBIDDEN: &[Attack] = &[
    ("from nowhere", libc::SYS_openat, |at| [NOWHERE, at.own, READ, 0, 0, 0]),
    ("by the listener", libc::SYS_openat, |at| [LISTENER, at.own, READ, 0, 0, 0]),
    ("by the file itself", libc::SYS_openat, |at| [at.file, at.own, READ, 0, 0, 0]),
    ("as a place", libc::SYS_openat, |at| [STATE, at.own, READ | libc::O_PATH as u64, 0, 0, 0]),
    ("by its older name", libc::SYS_open, |at| [at.own, READ, 0, 0, 0, 0]),
    ("anew", libc::SYS_openat2, |at| [STATE, at.own, at.room, 24, 0, 0]),
    ("what is elsewhere", libc::SYS_newfstatat, |at| [NOWHERE, at.own, at.room, 0, 0, 0]),
    ("the same in another way", libc::SYS_statx, |at| [STATE, at.own, 0, 0x7ff, at.room, 0]),
    ("whether it may", libc::SYS_faccessat, |at| [STATE, at.own, 4, 0, 0, 0]),
    ("where a link leads", libc::SYS_readlinkat, |at| [STATE, at.own, at.room, 64, 0, 0]),
    ("what is there", libc::SYS_getdents64, |at| [STATE, at.room, 256, 0, 0, 0]),
    ("a link", libc::SYS_linkat, |at| [STATE, at.own, STATE, at.new, 0, 0]),
    ("a symbolic link", libc::SYS_symlinkat, |at| [at.own, STATE, at.new, 0, 0, 0]),
    ("another name", libc::SYS_renameat, |at| [STATE, at.own, STATE, at.new, 0, 0]),
    ("the same with flags", libc::SYS_renameat2, |at| [STATE, at.own, STATE, at.new, 2, 0]),
    ("a directory", libc::SYS_mkdirat, |at| [STATE, at.new, 0o700, 0, 0, 0]),
    ("a pipe with a name", libc::SYS_mknodat, |at| [STATE, at.new, 0o10_600, 0, 0, 0]),
    ("nothing elsewhere", libc::SYS_unlinkat, |at| [NOWHERE, at.own, 0, 0, 0, 0]),
    ("other rights", libc::SYS_fchmodat, |at| [STATE, at.own, 0o4_777, 0, 0, 0]),
    ("other rights of what is open", libc::SYS_fchmod, |at| [at.file, 0o4_777, 0, 0, 0, 0]),
    ("another owner", libc::SYS_fchownat, |at| [STATE, at.own, 0, 0, 0, 0]),
    ("the same of what is open", libc::SYS_fchown, |at| [at.file, 0, 0, 0, 0, 0]),
    ("other times", libc::SYS_utimensat, |at| [STATE, at.own, 0, 0, 0, 0]),
    ("attributes", libc::SYS_fsetxattr, |at| [at.file, at.own, at.room, 4, 0, 0]),
    ("room in advance", libc::SYS_fallocate, |at| [at.file, 0, 0, 1 << 40, 0, 0]),
    ("cutting by name", libc::SYS_truncate, |at| [at.own, 0, 0, 0, 0, 0]),
    ("its flags", libc::SYS_fcntl, |at| [at.file, libc::F_SETFL as u64, 0, 0, 0, 0]),
    ("a lease", libc::SYS_fcntl, |at| [at.file, libc::F_SETLEASE as u64, 0, 0, 0, 0]),
    ("seals", libc::SYS_fcntl, |at| [at.file, libc::F_ADD_SEALS as u64, 0, 0, 0, 0]),
    ("who hears of it", libc::SYS_fcntl, |_| [STATE, libc::F_NOTIFY as u64, 1, 0, 0, 0]),
    ("a copy", libc::SYS_fcntl, |_| [STATE, libc::F_DUPFD as u64, 0, 0, 0, 0]),
    ("its number", libc::SYS_close, |_| [STATE, 0, 0, 0, 0, 0]),
    ("another file there", libc::SYS_dup2, |at| [at.file, STATE, 0, 0, 0, 0]),
    ("the same anew", libc::SYS_dup3, |at| [at.file, STATE, 0, 0, 0, 0]),
    ("code", libc::SYS_mmap, |at| [0, 4_096, RX, SHARED, at.file, 0]),
    ("code of its own", libc::SYS_mmap, |at| [0, 4_096, RX, libc::MAP_PRIVATE as u64, at.file, 0]),
    ("memory that is only read", libc::SYS_mmap, |at| [0, 4_096, 1, SHARED, at.file, 0]),
    ("memory that nobody counts", libc::SYS_mmap, |_| {
        [0, 4_096, RW, SHARED | libc::MAP_ANONYMOUS as u64, NOBODY, 0]
    }),
    ("huge pages of it", libc::SYS_mmap, |at| {
        [0, 4_096, RW, SHARED | libc::MAP_HUGETLB as u64, at.file, 0]
    }),
    ("a room for larger files", libc::SYS_prlimit64, |at| [0, 1, at.room, 0, 0, 0]),
];

/// What SQLite does to files of its own.
fn uses_its_own(captive: &Captive, own: u64) -> u64 {
    let through = |name: &str, came| match came {
        Came::Through(result) => result as u64,
        other => panic!("{name}: {other:?}"),
    };
    let room = captive.place(1_024, &[0; 256]);
    let file = through("open", captive.call(libc::SYS_openat, [STATE, own, MAKE, 0o600, 0, 0]));
    through("size", captive.call(libc::SYS_ftruncate, [file, LENGTH, 0, 0, 0, 0]));
    through("write", captive.call(libc::SYS_pwrite64, [file, own, 4, 100, 0, 0]));
    through("read", captive.call(libc::SYS_pread64, [file, room, 4, 100, 0, 0]));
    through("sync", captive.call(libc::SYS_fsync, [file, 0, 0, 0, 0, 0]));
    through("look", captive.call(libc::SYS_fstat, [file, room, 0, 0, 0, 0]));
    through("look by name", captive.call(libc::SYS_newfstatat, [STATE, own, room, 0x100, 0, 0]));
    let index = captive.call(libc::SYS_mmap, [0, LENGTH, RW, SHARED, file, 0]);
    let index = through("index", index);
    through("no index", captive.call(libc::SYS_munmap, [index, LENGTH, 0, 0, 0, 0]));
    // A whole file, for reading.
    let lock = captive.place(1_024, &[0; 32]);
    for command in [libc::F_GETLK, libc::F_SETLK, libc::F_OFD_SETLKW] {
        through("lock", captive.call(libc::SYS_fcntl, [file, command as u64, lock, 0, 0, 0]));
    }
    file
}

/// Has a neighbour whose file would serve, and a host with secrets.
fn attack(host: &Host, is_level_c: bool) {
    let [tenant, neighbour] = ["demo", "beside"].map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        tenant
    });
    let tenants = host.data().join("tenants");
    let theirs = tenants.join("beside/state/kv.db");
    let token = host.scratch().join("admin-token");
    for (path, text) in [(&theirs, "theirs"), (&token, ADMIN_TOKEN)] {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    }
    let own_state = tenants.join("demo/state");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&own_state).unwrap());
    // A link that somebody would follow.
    let link = own_state.join("link");
    std::os::unix::fs::symlink(&theirs, &link).unwrap();
    let _ = std::os::unix::fs::lchown(&link, Some(owner), Some(owner));

    let worker = host.workers(&tenant)[0];
    let captive = Captive::take(worker);
    let own = captive.place(0, b"kv.db\0");
    let file = uses_its_own(&captive, own);
    let at = Place {
        own,
        file,
        new: captive.place(64, b"new\0"),
        room: captive.place(1_024, &[0; 512]),
    };
    for (name, call, arguments) in FORBIDDEN {
        assert_eq!(captive.call(*call, arguments(&at)), Came::Forbidden, "{name}");
    }
    let store = host.data().join("hearth.db");
    let secrets = [&theirs, &token, &store, Path::new("/etc/passwd"), Path::new("/proc/1/environ")];
    let relative =
        ["..", "../../beside/state/kv.db", "../../../hearth.db", "link", "/", "/proc/self/status"];
    let paths = secrets.iter().map(|path| path.to_str().unwrap()).chain(relative);
    for path in paths {
        let named = captive.place(256, format!("{path}\0").as_bytes());
        for flags in [READ, WRITE, MAKE] {
            let came = captive.call(libc::SYS_openat, [STATE, named, flags, 0o600, 0, 0]);
            assert!(matches!(came, Came::Refused(_)), "{path} with {flags:o}: {came:?}");
        }
        if path != "link" {
            let came = captive.call(libc::SYS_unlinkat, [STATE, named, 0, 0, 0, 0]);
            assert!(matches!(came, Came::Refused(_)), "{path}: {came:?}");
        }
    }
    for path in [theirs.with_file_name("new"), host.scratch().join("new"), "/tmp/new".into()] {
        let named = captive.place(256, format!("{}\0", path.display()).as_bytes());
        let came = captive.call(libc::SYS_openat, [STATE, named, MAKE, 0o600, 0, 0]);
        assert!(matches!(came, Came::Refused(_)), "{}: {came:?}", path.display());
        assert!(!path.starts_with(host.data()) || !path.exists());
    }
    // Of another tenant there is not even a name, nor a size.
    let named = captive.place(256, format!("{}\0", theirs.display()).as_bytes());
    let came = captive.call(libc::SYS_newfstatat, [STATE, named, at.room, 0, 0, 0]);
    let wanted = if is_level_c { Errno::EACCES } else { Errno::ENOENT };
    assert_eq!(came, Came::Refused(wanted));
    assert!(matches!(captive.call(libc::SYS_unlinkat, [STATE, own, 0, 0, 0, 0]), Came::Through(0)));
    assert!(matches!(captive.call(libc::SYS_close, [file, 0, 0, 0, 0, 0]), Came::Through(0)));
    drop(captive);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    assert_eq!(fs::read_to_string(&token).unwrap(), ADMIN_TOKEN);
    tenant.post("/one", "").expect(200);
    neighbour.post("/one", "").expect(200);
    assert_eq!(host.workers(&tenant), [worker]);
}

#[test]
fn row_25_a_worker_with_state_has_its_own_and_nothing_else() {
    attack(&Host::start(), false);
    attack(&Host::with(NO_SPARES), false);
}

#[test]
fn row_25_the_same_of_an_ordinary_users_host() {
    attack(&Host::as_user(), false);
}

#[test]
fn row_25_the_same_where_the_root_is_the_hosts() {
    attack(&Host::wrapped(&[&without(), "unshare"], &[]), true);
}

/// Whatever it would open: nothing of a path can be seen in a filter.
#[test]
fn row_25_without_landlock_a_worker_has_no_file_at_all() {
    let host = Host::wrapped(&[&without(), "landlock_create_ruleset"], &[]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let state = host.data().join("tenants/demo/state");
    let theirs = state.join("kv.db");
    fs::write(&theirs, "kept").unwrap();
    chown(&theirs, Some(0), Some(0)).unwrap();
    let captive = Captive::take(host.workers(&tenant)[0]);
    for path in ["kv.db", theirs.to_str().unwrap(), "/etc/passwd", "."] {
        let named = captive.place(0, format!("{path}\0").as_bytes());
        for (call, arguments) in [
            (libc::SYS_openat, [STATE, named, READ, 0, 0, 0]),
            (libc::SYS_newfstatat, [STATE, named, named, 0x100, 0, 0]),
            (libc::SYS_unlinkat, [STATE, named, 0, 0, 0, 0]),
            (libc::SYS_ftruncate, [STATE, 0, 0, 0, 0, 0]),
            (libc::SYS_pwrite64, [STATE, named, 4, 0, 0, 0]),
            (libc::SYS_fsync, [STATE, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(captive.call(call, arguments), Came::Forbidden, "{call} {path}");
        }
    }
}
