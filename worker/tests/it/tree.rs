//! `hearth-worker tree` by itself, given what no primary would give it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hearth_wire::{Databases, TreeDone, TreeJob, TreeReply, TreeRequest, VERSION};
use rusqlite::Connection;
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

fn ask(request: &TreeRequest, fds: &[&dyn AsFd]) -> Option<TreeReply> {
    let (ours, theirs) = hearth_wire::pair().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hearth-worker"))
        .arg("tree")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .spawn()
        .unwrap();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    hearth_wire::send(&ours, request, &fds).unwrap();
    let reply = hearth_wire::recv(&ours).unwrap().map(|(reply, _)| reply);
    child.wait().unwrap();
    reply
}

fn perform(job: TreeJob, fds: &[&dyn AsFd]) -> Result<TreeDone, String> {
    perform_as(None, job, fds)
}

fn perform_as(uid: Option<u32>, job: TreeJob, fds: &[&dyn AsFd]) -> Result<TreeDone, String> {
    match ask(&TreeRequest { version: VERSION, uid, job }, fds) {
        Some(TreeReply::Done(done)) => Ok(done),
        Some(TreeReply::Failed { reason }) => Err(reason),
        None => panic!("it ended without a word"),
    }
}

fn done(files: u64, bytes: u64) -> TreeDone {
    TreeDone { files, bytes, ..TreeDone::default() }
}

/// What is in the pipe fits into it, so that nobody has to read at the same time.
fn unpack(into: &TempDir, tar: Builder<Vec<u8>>) -> Result<TreeDone, String> {
    let (theirs, mut ours) = std::io::pipe().unwrap();
    let bytes = tar.into_inner().unwrap();
    assert!(bytes.len() < 60_000);
    ours.write_all(&bytes).unwrap();
    drop(ours);
    perform(TreeJob::Unpack, &[&File::open(into.path()).unwrap(), &theirs])
}

fn add(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, content: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o7777);
    header.set_link_name("/etc").unwrap();
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn empty() -> Builder<Vec<u8>> {
    Builder::new(Vec::new())
}

#[test]
fn what_is_packed_is_unpacked_and_removed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(from.path().join("state/deep/deeper")).unwrap();
    fs::write(from.path().join("state/deep/deeper/file"), "content").unwrap();
    fs::write(from.path().join("state/empty"), "").unwrap();
    fs::create_dir(from.path().join("other")).unwrap();
    let state = File::open(from.path().join("state")).unwrap();
    for (name, files, at) in [(Some("kept/state"), 5, "kept/state/"), (None, 4, "")] {
        fs::create_dir(to.path().join("kept")).unwrap();
        let (mut ours, theirs) = std::io::pipe().unwrap();
        let name = name.map(|name: &str| name.parse().unwrap());
        let job = TreeJob::Pack { name: name.clone(), databases: Databases::Files };
        let packed = perform(job, &[&state, &theirs]);
        drop(theirs);
        let all = Ok(done(files, 7));
        assert_eq!(packed, all, "{name:?}");
        let mut tar = Vec::new();
        ours.read_to_end(&mut tar).unwrap();

        let (theirs, mut ours) = std::io::pipe().unwrap();
        ours.write_all(&tar).unwrap();
        drop(ours);
        let into = File::open(to.path()).unwrap();
        assert_eq!(perform(TreeJob::Unpack, &[&into, &theirs]), all, "{name:?}");
        let file = to.path().join(format!("{at}deep/deeper/file"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "content");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(!to.path().join("other").exists());
        let measured = perform(TreeJob::Measure, &[&into]).unwrap();
        assert_eq!(measured.files, files + 1, "{name:?}");
        assert!((512..100_000).contains(&measured.bytes), "{measured:?}");
        let removed = perform(TreeJob::Remove, &[&into]).unwrap();
        assert_eq!(removed.files, files + 1, "{name:?}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }
}

/// Behind a tar's end there is more of it, which whoever writes it may write slowly.
#[test]
fn a_tar_is_taken_to_its_end() {
    let into = tempfile::tempdir().unwrap();
    let mut tar = empty();
    add(&mut tar, "one", EntryType::Regular, b"1");
    let bytes = tar.into_inner().unwrap();
    let (theirs, mut ours) = std::io::pipe().unwrap();
    let directory = File::open(into.path()).unwrap();
    let unpacking =
        std::thread::spawn(move || perform(TreeJob::Unpack, &[&directory, &OwnedFd::from(theirs)]));
    ours.write_all(&bytes).unwrap();
    let made = into.path().join("one");
    while !made.exists() {
        std::thread::yield_now();
    }
    let soon = Instant::now() + Duration::from_millis(100);
    while Instant::now() < soon {
        assert!(!unpacking.is_finished(), "there is more to come");
        std::thread::yield_now();
    }
    ours.write_all(&[0; 10_240]).expect("somebody reads it");
    drop(ours);
    assert_eq!(unpacking.join().unwrap(), Ok(done(1, 1)));
}

/// As the primary hands a directory over that it may not read itself.
fn place(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// A user of nobody's; only root can be another one.
const SOMEBODY: u32 = 54_321;

#[test]
fn it_is_done_as_the_user_it_is_for() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can become another user");
    }
    let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let own = |path: &Path, mode| {
        chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // What it has shut itself out of, it can open again.
    let deep = theirs.path().join("shut/deep");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "content").unwrap();
    fs::create_dir(theirs.path().join("not its own")).unwrap();
    own(&deep.join("file"), 0);
    own(&deep, 0o400);
    own(&theirs.path().join("shut"), 0o100);
    own(theirs.path(), 0);
    let (mut read, write) = std::io::pipe().unwrap();
    let job = TreeJob::Pack { name: None, databases: Databases::Files };
    let packed = perform_as(Some(SOMEBODY), job, &[&place(theirs.path()), &write]);
    drop(write);
    assert_eq!(packed, Ok(done(4, 7)));
    let mut tar = Vec::new();
    read.read_to_end(&mut tar).unwrap();
    let unpack = |to: &TempDir| {
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(&tar).unwrap();
        drop(write);
        perform_as(Some(SOMEBODY), TreeJob::Unpack, &[&place(to.path()), &read])
    };
    let refused = unpack(&ours).unwrap_err();
    assert!(refused.contains("cannot be made"), "{refused}");
    let home = tempfile::tempdir().unwrap();
    own(home.path(), 0o700);
    assert_eq!(unpack(&home).unwrap().files, 4);
    assert_eq!(fs::metadata(home.path().join("shut/deep/file")).unwrap().uid(), SOMEBODY);

    fs::write(ours.path().join("file"), "not its own").unwrap();
    fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o700)).unwrap();
    for job in [TreeJob::Remove, TreeJob::Measure] {
        let refused = perform_as(Some(SOMEBODY), job, &[&place(ours.path())]);
        assert!(refused.unwrap_err().contains("not permitted"));
    }
    assert_eq!(fs::read(ours.path().join("file")).unwrap(), b"not its own");
    let removed = perform_as(Some(SOMEBODY), TreeJob::Remove, &[&place(theirs.path())]);
    assert_eq!(removed.unwrap().files, 4);
    assert_eq!(fs::read_dir(theirs.path()).unwrap().count(), 0);
}

#[test]
fn directories_of_any_depth_are_removed() {
    let tree = tempfile::tempdir().unwrap();
    let mut at = place(tree.path());
    for _ in 0..3_000 {
        mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = openat(&at, "d", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    let measured = perform(TreeJob::Measure, &[&place(tree.path())]);
    assert!(measured.unwrap_err().contains("directories in each other"));
    let removed = perform(TreeJob::Remove, &[&place(tree.path())]).unwrap();
    assert_eq!(removed.files, 3_000);
    assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 0);
}

#[test]
fn what_leads_out_is_not_unpacked() {
    for (name, kind) in [
        ("../out", EntryType::Regular),
        ("/tmp/out", EntryType::Regular),
        ("state/../../out", EntryType::Regular),
        ("link/out", EntryType::Regular),
        ("out", EntryType::Symlink),
        ("out", EntryType::Link),
        ("out", EntryType::Char),
        ("out", EntryType::Fifo),
        ("out", EntryType::GNULongName),
    ] {
        let (outer, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outer.path(), to.path().join("link")).unwrap();
        let mut tar = empty();
        add(&mut tar, name, kind, b"");
        let refused = unpack(&to, tar).unwrap_err();
        assert!(!refused.is_empty());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 0, "{name}: {refused}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "{name}: {refused}");
    }
    // Nor over what is there.
    let to = tempfile::tempdir().unwrap();
    let mut tar = empty();
    add(&mut tar, "file", EntryType::Regular, b"one");
    add(&mut tar, "file", EntryType::Regular, b"two");
    assert!(unpack(&to, tar).unwrap_err().contains("file cannot be made"));
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"one");
}

#[test]
fn what_links_lead_to_is_not_removed() {
    let (outer, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outer.path().join("file"), "stays").unwrap();
    symlink(outer.path(), tree.path().join("directory")).unwrap();
    symlink(outer.path().join("file"), tree.path().join("file")).unwrap();
    for number in 0..2_000 {
        fs::write(tree.path().join(format!("{number}")), "").unwrap();
    }
    let removed = perform(TreeJob::Remove, &[&File::open(tree.path()).unwrap()]).unwrap();
    assert_eq!(removed.files, 2_002);
    assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(outer.path().join("file")).unwrap(), "stays");
}

#[test]
fn another_version_or_other_descriptors_are_refused() {
    let tree = tempfile::tempdir().unwrap();
    let directory = File::open(tree.path()).unwrap();
    let other = TreeRequest { version: VERSION + 1, uid: None, job: TreeJob::Remove };
    let said = ask(&other, &[&directory]);
    assert!(matches!(said, Some(TreeReply::Failed { reason }) if reason.contains("version")));
    for (job, fds) in [
        (TreeJob::Remove, vec![]),
        (TreeJob::Remove, vec![&directory as &dyn AsFd, &directory]),
        (TreeJob::Unpack, vec![&directory as &dyn AsFd]),
    ] {
        assert!(perform(job, &fds).unwrap_err().contains("descriptors"));
    }
}

/// Packs a directory with its databases copied, of so many bytes each at most, and gives what came.
fn copied(directory: &Path, most_bytes: u64) -> (TreeDone, TempDir) {
    let (read, write) = std::io::pipe().unwrap();
    let unpacked = tempfile::tempdir().unwrap();
    let reading = {
        let to = unpacked.path().to_owned();
        std::thread::spawn(move || tar::Archive::new(read).unpack(to).unwrap())
    };
    let job = TreeJob::Pack { name: None, databases: Databases::Copied { most_bytes } };
    let packed = perform(job, &[&place(directory), &write]);
    drop(write);
    reading.join().unwrap();
    (packed.unwrap(), unpacked)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|it| it.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn database(path: &Path) -> Connection {
    let database = Connection::open(path).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL").unwrap();
    database.execute_batch("CREATE TABLE IF NOT EXISTS pairs (one, other)").unwrap();
    database
}

fn one<T: rusqlite::types::FromSql>(database: &Connection, sql: &str) -> T {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Two rows of each transaction, so that half of one would be seen.
#[test]
fn databases_are_copied_as_they_are_at_one_instant_whoever_writes() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("kv.db");
    let mut writer = database(&file);
    fs::write(tree.path().join("turn"), "").unwrap();
    fs::write(tree.path().join("notes"), "kept").unwrap();
    fs::create_dir(tree.path().join("inner")).unwrap();
    fs::write(tree.path().join("inner/deep.db"), "a plain file").unwrap();
    // As one is left behind that was ended between two steps.
    fs::write(tree.path().join("copy.new"), "half").unwrap();
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut written = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                let group = writer.transaction().unwrap();
                let mut row =
                    group.prepare("INSERT INTO pairs VALUES (?, randomblob(900))").unwrap();
                row.execute([written]).unwrap();
                row.execute([written]).unwrap();
                drop(row);
                group.commit().unwrap();
                written += 1;
            }
            (writer, written)
        }
    });
    let mut seen = 0;
    for _ in 0..6 {
        let (done, copy) = copied(tree.path(), 1 << 30);
        assert_eq!((done.left_out, done.unsound), (0, vec![]));
        assert_eq!(names(copy.path()), ["inner", "kv.db", "notes"]);
        let copy = Connection::open(copy.path().join("kv.db")).unwrap();
        assert_eq!(one::<String>(&copy, "PRAGMA integrity_check"), "ok");
        let halves =
            "SELECT count(*) FROM (SELECT one FROM pairs GROUP BY one HAVING count(*) != 2)";
        assert_eq!(one::<i64>(&copy, halves), 0);
        let count = one::<i64>(&copy, "SELECT count(*) FROM pairs");
        assert!(count >= seen, "{count} after {seen}");
        seen = count;
    }
    stop.store(true, Ordering::Relaxed);
    let (writer, written) = writing.join().unwrap();
    // All of it was only in the log, which is still there.
    let (_, copy) = copied(tree.path(), 1 << 30);
    let copy = Connection::open(copy.path().join("kv.db")).unwrap();
    assert_eq!(one::<i64>(&copy, "SELECT count(*) FROM pairs"), 2 * written);
    assert_eq!(one::<i64>(&writer, "SELECT count(*) FROM pairs"), 2 * written);
    assert_eq!(names(tree.path()), ["inner", "kv.db", "kv.db-shm", "kv.db-wal", "notes", "turn"]);
}

#[test]
fn a_database_that_nobody_has_open_keeps_its_log() {
    let tree = tempfile::tempdir().unwrap();
    let file = tree.path().join("1.db");
    let writer = database(&file);
    writer
        .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    writer.execute_batch("INSERT INTO pairs VALUES (1, 2)").unwrap();
    drop(writer);
    let before = fs::metadata(tree.path().join("1.db-wal")).unwrap().len();
    assert!(before > 0);
    let (done, copy) = copied(tree.path(), 1 << 30);
    assert_eq!(done.unsound, []);
    let copy = Connection::open(copy.path().join("1.db")).unwrap();
    assert_eq!(one::<i64>(&copy, "SELECT one FROM pairs"), 1);
    assert_eq!(fs::metadata(tree.path().join("1.db-wal")).unwrap().len(), before);
}

#[test]
fn a_damaged_database_is_said_and_takes_no_other_with_it() {
    let tree = tempfile::tempdir().unwrap();
    for name in ["1.db", "torn.db", "whole.db"] {
        let database = database(&tree.path().join(name));
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
             INSERT INTO pairs SELECT i, randomblob(400) FROM n";
        database.execute_batch(rows).unwrap();
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(database);
    }
    fs::write(tree.path().join("1.db"), vec![b'x'; 9_000]).unwrap();
    let torn = tree.path().join("torn.db");
    let mut bytes = fs::read(&torn).unwrap();
    bytes[8_192..16_384].fill(0xff);
    fs::write(&torn, bytes).unwrap();
    symlink("/etc/passwd", tree.path().join("link.db")).unwrap();
    let (done, copy) = copied(tree.path(), 1 << 30);
    let said: Vec<_> = done.unsound.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(said.len(), 2, "{:?}", done.unsound);
    let of = |name: &str| done.unsound.iter().find(|it| it.name == name).unwrap().reason.clone();
    assert!(of("1.db").contains("not in the backup"), "{}", of("1.db"));
    assert!(of("torn.db").contains("as it is"), "{}", of("torn.db"));
    assert_eq!(done.left_out, 1, "the link");
    assert_eq!(names(copy.path()), ["torn.db", "whole.db"]);
    let whole = Connection::open(copy.path().join("whole.db")).unwrap();
    assert_eq!(one::<i64>(&whole, "SELECT count(*) FROM pairs"), 400);
}

/// Of a file that says it is large and takes next to nothing, a copy would take all.
#[test]
fn a_copy_is_no_larger_than_it_may_be() {
    let tree = tempfile::tempdir().unwrap();
    drop(database(&tree.path().join("kv.db")));
    let file = File::options().write(true).open(tree.path().join("kv.db")).unwrap();
    file.set_len(1 << 33).unwrap();
    // Its head has it that long as well, in pages; the rest is a hole, which takes no room.
    file.write_all_at(&(1_u32 << 21).to_be_bytes(), 28).unwrap();
    let (done, copy) = copied(tree.path(), 1 << 20);
    assert!(names(copy.path()).is_empty());
    assert_eq!(done.unsound.len(), 1);
    assert!(done.unsound[0].reason.contains("not in the backup"), "{:?}", done.unsound);
    assert_eq!(names(tree.path()).iter().filter(|it| it.starts_with("copy")).count(), 0);
}
