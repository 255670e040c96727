//! Real SQLite behind the complete seal, in children of this process that end by a forbidden call as
//! any worker would: as root with a user and an empty root of their own, as an ordinary user, and by
//! Landlock and the filter alone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{ForkResult, fork};
use rusqlite::Connection;
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::process::{ChildEnd, wait};
use crate::walls::{
    Cell, Seal, begin_worker, fence_lone_worker, fence_tree, fence_worker, fence_zygote, seal_tree,
};
use crate::{Slots, keep_only, leave, users};

const UID: u32 = 64_123;
const FILE_BYTES: u64 = 8 << 20;

/// How a worker comes to its walls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum As {
    /// A zygote's child of a user of its own.
    Tenant,
    /// The same of a zygote that is an ordinary user's.
    Ordinary,
    /// As who this is, with the host's root.
    Lone,
}

type Work = fn() -> Result<(), Box<dyn std::error::Error>>;

/// Whether this process has one heap, as a zygote and its workers have: a test thread of this harness
/// has another, for which the C library would open a file. Else the test is run by one that has.
fn has_one_heap(test: &str) -> bool {
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if std::env::var_os(TUNABLES).is_some() {
        return true;
    }
    let test = format!("files::tests::{test}");
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &test, "--nocapture"]);
    assert!(again.env(TUNABLES, "glibc.malloc.arena_max=1").status().unwrap().success());
    false
}

/// What a child does in the state directory behind its seal.
fn behind_the_seal(who: As, state: &Path, work: Work) -> ChildEnd {
    in_a_child(|| seal(who, state).and_then(|()| work()))
}

fn in_a_child(work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>) -> ChildEnd {
    // SAFETY: the child goes on with this thread alone; what others hold locked meanwhile (the test
    // harness's output) it does not touch.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => wait(child.as_raw()).unwrap(),
        ForkResult::Child => match work() {
            Ok(()) => leave(0),
            Err(error) => {
                say(&format!("{error}\n"));
                leave(1)
            }
        },
    }
}

fn say(text: &str) {
    // SAFETY: it is as long as is said.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Says which call it was that the walls forbid.
fn told(call: u32, _: &mut [u8]) -> usize {
    let mut text = *b"the call 000 is forbidden\n";
    for (place, digit) in [(9, call / 100 % 10), (10, call / 10 % 10), (11, call % 10)] {
        text[place] = b'0' + digit as u8;
    }
    // SAFETY: it is as long as is said.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    0
}

fn seal(who: As, state: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if who == As::Ordinary && users::can_change_user() {
        users::become_user(UID)?;
    }
    // Above all numbers that are given out.
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(state, place, Mode::empty())?;
    let state = rustix::io::fcntl_dupfd_cloexec(&opened, 900)?;
    drop(opened);
    keep_only(&BTreeSet::from([0, 1, 2, state.as_raw_fd()]))?;
    let slots = Slots::reserve()?;
    let standing = match who {
        As::Tenant | As::Ordinary => fence_zygote()?,
        As::Lone => fence_lone_worker()?,
    };
    let own = Seal::for_workers(standing.landlock.is_some())?;
    if !own.bears_state() {
        return Err("this kernel has no Landlock".into());
    }
    begin_worker();
    let null = || File::open("/dev/null").map(OwnedFd::from);
    let filled = slots.fill(Some(state), null()?, null()?)?;
    let uid = (who == As::Tenant).then_some(UID);
    fence_worker(Cell { uid, data_bytes: None }, None)?;
    own.close(Some(FILE_BYTES), told)?;
    std::mem::forget(filled);
    Ok(())
}

/// A directory that the worker may use.
fn state_of(who: As) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    if is_root && matches!(who, As::Tenant | As::Ordinary) {
        std::os::unix::fs::chown(&state, Some(UID), Some(UID)).unwrap();
    }
    directory
}

/// Of an ordinary user's tests only what it can be.
fn all() -> Vec<As> {
    match users::can_change_user() {
        true => vec![As::Tenant, As::Ordinary, As::Lone],
        false => vec![As::Ordinary, As::Lone],
    }
}

fn in_all(work: Work, look: impl Fn(&Path)) {
    for who in all() {
        let directory = state_of(who);
        let ended = behind_the_seal(who, &directory.path().join("state"), work);
        assert_eq!(ended, ChildEnd::Code(0), "{who:?}");
        look(&directory.path().join("state"));
    }
}

/// As the service of a tenant's state has it: see `worker/src/state`.
fn opened(name: &str) -> rusqlite::Result<Connection> {
    let database = Connection::open(name)?;
    database.execute_batch(
        "PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
    )?;
    Ok(database)
}

fn use_sqlite() -> Result<(), Box<dyn std::error::Error>> {
    confine()?;
    confine()?;
    let used = std::thread::spawn(|| -> rusqlite::Result<(i64, i64, bool)> {
        let mut writer = opened("kv.db")?;
        writer.execute_batch("CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB)")?;
        let reader = opened("kv.db")?;
        for round in 0..3 {
            let group = writer.transaction()?;
            for key in 0..200 {
                group.execute(
                    "INSERT INTO entries VALUES (?1, randomblob(4000))",
                    [format!("{round}-{key}")],
                )?;
            }
            group.commit()?;
            // Sorted by what has no index, which would go to a temporary file.
            let largest = "SELECT key FROM entries ORDER BY value DESC LIMIT 1";
            reader.query_row(largest, [], |row| row.get::<_, String>(0))?;
        }
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        writer.execute("DELETE FROM entries WHERE key LIKE '1-%'", [])?;
        writer.execute_batch("PRAGMA incremental_vacuum; VACUUM; PRAGMA optimize;")?;
        let count = |of: &Connection| {
            of.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0))
        };
        let local = "SELECT datetime(1700000000, 'unixepoch') = datetime(1700000000, 'unixepoch', 'localtime')";
        let local = reader.query_row(local, [], |row| row.get(0))?;
        let counts = (count(&writer)?, count(&reader)?, local);
        drop((writer, reader));
        // As a rollback journal, which is written before a database has a WAL.
        let plain = Connection::open("1.db")?;
        plain.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1); DROP TABLE a;")?;
        Ok(counts)
    });
    let (written, read, local) = used.join().map_err(|_| "the thread panicked")??;
    if (written, read) != (400, 400) || !local {
        return Err(format!("{written} {read} {local}").into());
    }
    Ok(())
}

#[test]
fn sqlite_works_behind_the_seal() {
    if !has_one_heap("sqlite_works_behind_the_seal") {
        return;
    }
    in_all(use_sqlite, |state| {
        let files = fs::read_dir(state).unwrap().flatten().map(|file| {
            let mode = file.metadata().unwrap().mode() & 0o777;
            (file.file_name().to_string_lossy().into_owned(), mode)
        });
        let files: BTreeSet<_> = files.collect();
        assert!(files.iter().all(|(_, mode)| *mode == 0o600), "{files:?}");
        assert!(files.iter().any(|(name, _)| name == "kv.db"), "{files:?}");
        let database = Connection::open(state.join("kv.db")).unwrap();
        let sound: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    });
}

fn use_files() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    let mut turn = open("turn")?;
    lock(&turn)?;
    turn.write_all(b"mine")?;
    turn.sync_all()?;
    let mut read = [0; 4];
    turn.read_exact_at(&mut read, 0)?;
    if (bytes_of(&turn)?, bytes("turn")?, bytes("none")?, &read) != (4, 4, 0, b"mine") {
        return Err("another file than was written".into());
    }
    unlock(&turn)?;
    remove("turn")?;
    if remove("turn").is_ok() || bytes("turn")? != 0 {
        return Err("it is still there".into());
    }
    // A larger one than there is room for is an error, and no end of the process.
    let large = open("large")?;
    match large.set_len(FILE_BYTES + 1) {
        Err(error) if error.raw_os_error() == Some(libc::EFBIG) => {}
        other => return Err(format!("{other:?}").into()),
    }
    large.write_all_at(b"last", FILE_BYTES - 4)?;
    if large.write_all_at(b"more", FILE_BYTES).is_ok() {
        return Err("it is larger than it may be".into());
    }
    Ok(())
}

#[test]
fn files_are_opened_locked_measured_and_removed_behind_the_seal() {
    if !has_one_heap("files_are_opened_locked_measured_and_removed_behind_the_seal") {
        return;
    }
    in_all(use_files, |state| assert_eq!(fs::read_dir(state).unwrap().count(), 1));
}

/// A file that would serve for each attempt is there: beside the directory, and through a link in it.
fn escape() -> Result<(), Box<dyn std::error::Error>> {
    confine()?;
    for name in ["../beside", "/etc/passwd", "..", ".", "", "/", "a/b", "/proc/self/status"] {
        if open(name).is_ok() || remove(name).is_ok() || bytes(name).is_ok_and(|found| found > 0) {
            return Err(format!("{name:?} was come to by name").into());
        }
    }
    if open("link").is_ok()
        || Connection::open("link").is_ok_and(|it| it.execute_batch("CREATE TABLE a (b)").is_ok())
    {
        return Err("a link was followed".into());
    }
    let at = |path: &CStr, flags: c_int| {
        // SAFETY: the path ends with a zero.
        unsafe { libc::openat(STATE, path.as_ptr(), flags | ALWAYS, 0o600) }
    };
    for path in [c"../beside", c"/etc/passwd", c"/proc/self/exe", c"/proc/self/status", c".."] {
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR | libc::O_CREAT] {
            if at(path, flags) >= 0 {
                return Err(format!("{path:?} was opened with {flags:o}").into());
            }
        }
    }
    for path in [c"../made", c"/tmp/made-by-a-sealed-worker", c"/made"] {
        if at(path, libc::O_RDWR | libc::O_CREAT) >= 0 {
            return Err(format!("{path:?} was made").into());
        }
    }
    for (path, flags) in [(c"../beside", 0), (c"inner", libc::AT_REMOVEDIR)] {
        // SAFETY: the path ends with a zero.
        if unsafe { libc::unlinkat(STATE, path.as_ptr(), flags) } == 0 {
            return Err(format!("{path:?} was removed").into());
        }
    }
    Ok(())
}

#[test]
fn nothing_beside_the_state_directory_is_opened_made_or_removed() {
    if !has_one_heap("nothing_beside_the_state_directory_is_opened_made_or_removed") {
        return;
    }
    for who in all() {
        let directory = state_of(who);
        let (state, beside) = (directory.path().join("state"), directory.path().join("beside"));
        fs::write(&beside, "secret").unwrap();
        fs::set_permissions(&beside, PermissionsExt::from_mode(0o666)).unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&beside, state.join("link")).unwrap();
        fs::create_dir(state.join("inner")).unwrap();
        assert_eq!(behind_the_seal(who, &state, escape), ChildEnd::Code(0), "{who:?}");
        assert_eq!(fs::read_to_string(&beside).unwrap(), "secret");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}

/// Each of these ends the worker that tries it.
#[test]
fn no_other_call_on_the_state_directory_is_let_through() {
    if !has_one_heap("no_other_call_on_the_state_directory_is_let_through") {
        return;
    }
    const VIOLATION: ChildEnd = ChildEnd::Code(crate::EXIT_VIOLATION as i32);
    fn call(number: libc::c_long, arguments: [usize; 5]) -> Result<(), Box<dyn std::error::Error>> {
        let [a, b, c, d, e] = arguments;
        // SAFETY: the pointers among these are of names that end with a zero, or are not looked at.
        let result = unsafe { libc::syscall(number, a, b, c, d, e) };
        Err(format!("{number} came to {result}").into())
    }
    const HERE: usize = STATE as usize;
    const NAME: *const c_char = c"kv.db".as_ptr();
    let tried: [(&str, Work); 12] = [
        ("link", || call(libc::SYS_linkat, [HERE, NAME as usize, HERE, c"a".as_ptr() as usize, 0])),
        ("rename", || call(libc::SYS_renameat, [HERE, NAME as usize, HERE, NAME as usize, 0])),
        ("symlink", || {
            call(libc::SYS_symlinkat, [NAME as usize, HERE, c"a".as_ptr() as usize, 0, 0])
        }),
        ("mkdir", || call(libc::SYS_mkdirat, [HERE, NAME as usize, 0o700, 0, 0])),
        ("mknod", || call(libc::SYS_mknodat, [HERE, NAME as usize, 0o10_600, 0, 0])),
        ("chmod", || call(libc::SYS_fchmodat, [HERE, NAME as usize, 0o666, 0, 0])),
        ("another directory", || {
            let nowhere = libc::AT_FDCWD as usize;
            call(libc::SYS_openat, [nowhere, NAME as usize, ALWAYS as usize, 0, 0])
        }),
        ("a place", || {
            let place = (libc::O_PATH | ALWAYS) as usize;
            call(libc::SYS_openat, [HERE, NAME as usize, place, 0, 0])
        }),
        ("flags", || call(libc::SYS_fcntl, [1, libc::F_SETFL as usize, 0, 0, 0])),
        ("a lease", || call(libc::SYS_fcntl, [1, libc::F_SETLEASE as usize, 0, 0, 0])),
        ("its number", || call(libc::SYS_close, [HERE, 0, 0, 0, 0])),
        ("code", || {
            let file = open("kv.db")?;
            let access = (libc::PROT_READ | libc::PROT_EXEC) as usize;
            let shared = libc::MAP_SHARED as usize;
            call(libc::SYS_mmap, [0, 4_096, access, shared, file.as_raw_fd() as usize])
        }),
    ];
    let who = all()[0];
    for (name, work) in tried {
        let directory = state_of(who);
        let ended = behind_the_seal(who, &directory.path().join("state"), work);
        assert_eq!(ended, VIOLATION, "{name}");
    }
}

/// As what packs a tenant's files does it: with nothing but SQLite's own calls on its directory.
fn copy_database(uid: Option<u32>, state: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(state, place, Mode::empty())?;
    let kept = rustix::io::fcntl_dupfd_cloexec(&opened, 900)?;
    drop(opened);
    keep_only(&BTreeSet::from([0, 1, 2, kept.as_raw_fd()]))?;
    let directory = rustix::io::fcntl_dupfd_cloexec(&kept, STATE)?;
    if directory.as_raw_fd() != STATE {
        return Err("the directory has another number".into());
    }
    drop(kept);
    let directory = std::mem::ManuallyDrop::new(directory);
    crate::filters::report_with(told)?;
    fence_tree(uid, directory.as_fd())?;
    seal_tree(FILE_BYTES)?;
    confine()?;
    let copy = open("copy.new")?;
    let source = Connection::open("kv.db")?;
    let close = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    source.set_db_config(close, true)?;
    let mut target = Connection::open("copy.new")?;
    let checker = Connection::open("copy.new")?;
    remove("copy.new")?;
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let step = rusqlite::backup::Backup::new(&source, &mut target)?.step(-1)?;
    drop((source, target));
    // Without a name it can have no log.
    std::os::unix::fs::FileExt::write_all_at(&copy, &[1, 1], 18)?;
    let sound: String = checker.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    drop(checker);
    if step != rusqlite::backup::StepResult::Done || sound != "ok" || bytes_of(&copy)? < 100_000 {
        return Err(format!("{step:?} {sound} {}", bytes_of(&copy)?).into());
    }
    Ok(())
}

#[test]
fn a_database_is_copied_behind_the_seal_of_what_packs_files() {
    if !has_one_heap("a_database_is_copied_behind_the_seal_of_what_packs_files") {
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    for uid in [None, is_root.then_some(UID)] {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        // By a process of its own: what SQLite knows of open files would be the child's, too.
        let written = in_a_child(|| {
            let writer = Connection::open(state.join("kv.db"))?;
            let close = rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            writer.set_db_config(close, true)?;
            writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE a (b)")?;
            Ok(writer.execute_batch("INSERT INTO a VALUES (randomblob(200000))")?)
        });
        assert_eq!(written, ChildEnd::Code(0));
        for file in [state.clone()]
            .into_iter()
            .chain(fs::read_dir(&state).unwrap().flatten().map(|file| file.path()))
        {
            std::os::unix::fs::chown(&file, uid, uid).unwrap();
        }
        let ended = in_a_child(|| copy_database(uid, &state));
        assert_eq!(ended, ChildEnd::Code(0), "as {uid:?}");
        let names = fs::read_dir(&state).unwrap().flatten().map(|it| it.file_name());
        let names: BTreeSet<_> = names.map(|it| it.into_string().unwrap()).collect();
        assert_eq!(names, ["kv.db", "kv.db-shm", "kv.db-wal"].map(str::to_owned).into());
    }
}

/// Which of two open files has the turn: closing another one of the same file leaves it.
#[test]
fn a_turn_is_of_what_was_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turn");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let (one, two) = (open().unwrap(), open().unwrap());
    lock(&one).unwrap();
    drop(open().unwrap());
    let (told, heard) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        lock(&two).unwrap();
        told.send(()).unwrap();
    });
    assert!(heard.recv_timeout(std::time::Duration::from_millis(50)).is_err());
    unlock(&one).unwrap();
    heard.recv().unwrap();
    waiting.join().unwrap();
    assert!(one.as_fd().as_raw_fd() >= 0);
}
