//! Directories that are not a host's, and data that another user, or a host with other rights, left.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, USER, hearth, install, run};
use crate::processes::eventually;

fn place() -> TempDir {
    tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A start that is to be refused: one that serves is ended, with another status.
fn start(home: &Path, data: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_hearth"), "up", "--listen", "127.0.0.1:0", "--data"]);
    command.arg(data).current_dir(home);
    command.env_clear().envs(hearth(home).get_envs().filter_map(|(name, it)| Some((name, it?))));
    command.output().unwrap()
}

/// Every file below, with what it holds.
fn files(root: &Path) -> Vec<(String, String)> {
    let (mut found, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push((text(&path).to_owned(), fs::read_to_string(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_directory_of_somebody_elses_is_refused_and_stays_as_it_is() {
    let place = place();
    let data = place.path().join("dd");
    for directory in ["tmp/sub", "modules", "tenants/x", "artifacts/q"] {
        let directory = data.join(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("file"), "somebody's").unwrap();
    }
    fs::write(data.join("lock"), "somebody's").unwrap();
    let before = files(&data);
    let refused = |what: &str| {
        let said = start(place.path(), &data);
        let error = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(1), "{what}: {error}");
        assert!(error.contains("is not empty (it has "), "{what}: {error}");
        let doctor = run(place.path(), &["doctor", "--json", "--data", text(&data)]);
        let doctor = doctor.failed_text(1);
        assert!(doctor.contains("is not empty (it has "), "{what}: {doctor}");
        let file = place.path().join("backup");
        fs::write(&file, "no backup").unwrap();
        let restore = run(place.path(), &["restore", text(&file), "--data", text(&data)]);
        let restore = restore.failed(1);
        assert!(restore.contains("is not empty (it has "), "{what}: {restore}");
    };
    refused("directories");
    assert_eq!(files(&data), before);

    // What a restore calls its half is no leave to remove what it never made.
    fs::create_dir(data.join("restoring")).unwrap();
    fs::write(data.join("restoring/file"), "somebody's").unwrap();
    let before = files(&data);
    let file = place.path().join("backup");
    let restore = run(place.path(), &["restore", text(&file), "--data", text(&data)]);
    assert!(restore.failed(1).contains("is not empty (it has "));
    assert_eq!(files(&data), before);
    fs::remove_dir_all(&data).unwrap();

    fs::create_dir(&data).unwrap();
    fs::write(data.join("lock"), "somebody's").unwrap();
    refused("a lock");
    assert_eq!(fs::read_to_string(data.join("lock")).unwrap(), "somebody's");
    fs::remove_file(data.join("lock")).unwrap();

    let db = rusqlite::Connection::open(data.join("hearth.db")).unwrap();
    db.execute_batch("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')")
        .unwrap();
    db.close().unwrap();
    let before = fs::read(data.join("hearth.db")).unwrap();
    fs::create_dir(data.join("tmp")).unwrap();
    fs::write(data.join("tmp/file"), "somebody's").unwrap();
    let said = start(place.path(), &data);
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(error.contains("hearth.db was not made by Hearth"), "{error}");
    assert_eq!(fs::read(data.join("hearth.db")).unwrap(), before);
    assert_eq!(fs::read_to_string(data.join("tmp/file")).unwrap(), "somebody's");
}

#[test]
fn a_file_in_the_place_of_the_data_is_said_to_be_one() {
    let place = place();
    let file = place.path().join("file");
    fs::write(&file, "x").unwrap();
    let said = run(place.path(), &["doctor", "--data", text(&file)]).failed_text(1);
    assert!(said.contains("is not a directory"), "{said}");
    let said = start(place.path(), &file);
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(error.contains("is not a directory"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
}

/// Who the tenant's worker is to the kernel.
fn uid(host: &Host, tenant: &Tenant) -> u32 {
    tenant.post("/one", "").expect(200);
    let worker = host.workers(tenant)[0];
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    uid.split('\t').next().unwrap().parse().unwrap()
}

fn give_all(host: &Host, to: u32) {
    let given = Command::new("chown").arg("-R").arg(to.to_string()).arg(host.data()).status();
    assert!(given.unwrap().success());
    chown(host.scratch(), Some(to), None).unwrap();
}

fn user_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

/// As somebody else, and as root without the rights that it takes.
#[test]
fn tenants_with_users_are_served_by_a_host_that_can_give_none_and_have_theirs_back_later() {
    let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
    let somebody = ["setpriv", &user[0], &user[1], "--clear-groups"];
    let without_id = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"];
    let without_any = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];

    let mut host = Host::of(install);
    let (demo, other) = (host.tenant("demo"), host.tenant("other"));
    for tenant in [&demo, &other] {
        tenant.deploy("one", guests::version_one());
    }
    let given = uid(&host, &demo);
    assert_ne!(given, 0);
    let state = host.data().join("tenants/demo/state");
    assert_eq!(user_of(&state), given);

    for (wrapper, own) in [(&somebody[..], USER), (&without_id[..], 0), (&without_any[..], 0)] {
        host.kill_and_wait();
        // As root has it, and as who follows the advice.
        if own != 0 {
            give_all(&host, own);
        }
        host.is_started_by(wrapper);
        host.start_again();
        assert_eq!(uid(&host, &demo), own, "{wrapper:?}");
        assert_eq!(user_of(&state), own, "{wrapper:?}");
        demo.deploy("two", guests::version_two());
        host.command(ADMIN_TOKEN, &["backup", text(&host.scratch().join("backup"))]).done();

        // And back: each has its own again.
        host.kill_and_wait();
        if own != 0 {
            give_all(&host, 0);
        }
        host.is_started_by(&[]);
        host.start_again();
        assert_eq!(uid(&host, &demo), given, "{wrapper:?}");
        assert_eq!(user_of(&state), given, "{wrapper:?}");
        uid(&host, &other);
    }

    // What is in one is that user's: told, with the way out, and nobody else is kept from service.
    let kept = state.join("kept");
    fs::write(&kept, "the tenant's").unwrap();
    chown(&kept, Some(given), Some(given)).unwrap();
    host.kill_and_wait();
    host.is_started_by(&without_any);
    host.start_again();
    other.post("/one", "").expect(200);
    demo.post("/one", "").expect_problem(503, "worker_unavailable");
    let advice = format!("chown -R 0 {}", state.display());
    eventually("the advice in the log", || host.log().contains(&advice).then_some(()));
    let doctor = Command::new("setpriv")
        .args(&without_any[1..])
        .args([env!("CARGO_BIN_EXE_hearth"), "doctor", "--data", text(&host.data())])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&doctor.stdout).replace('\n', " ");
    assert!(told.contains("tenants that cannot be served here: 1"), "{told}");
    host.kill_and_wait();
    host.is_started_by(&[]);
    host.start_again();
    assert_eq!(uid(&host, &demo), given);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "the tenant's");
}

/// As the guide says to test a backup: beside the host that it is of.
#[test]
fn a_copy_beside_the_host_says_whose_ports_are_taken_and_sends_nobody_there() {
    let host = Host::start();
    let demo = host.tenant("demo");
    let file = host.scratch().join("backup");
    host.command(ADMIN_TOKEN, &["backup", text(&file)]).done();
    let place = place();
    let data = place.path().join("data");
    let restore = ["restore", text(&file), "--data", text(&data)];
    let said = run(place.path(), &[&restore[..], &["--tenant", "demo"]].concat()).failed(2);
    assert!(said.contains("--tenant without --data") && !data.exists(), "{said}");
    run(place.path(), &restore).done();

    let copy = Host::on(place, &host);
    // It says that it serves before it greets, which it does in one go.
    let greets = || Some(copy.log()).filter(|log| log.contains("no port    2 of them"));
    let log = eventually("its greeting", greets);
    assert!(!log.contains("try  ") && !log.contains(&format!(":{}/hello", demo.port)), "{log}");
    let demo = demo.on(&copy);
    for address in &demo.addresses()[1..] {
        let refused = address.post("/hello", "{}").expect_problem(503, "worker_unavailable");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("its own port is used by another program"), "{detail}");
        assert!(!detail.contains(&demo.port.to_string()), "{detail}");
    }
    let request = demo.api("POST", "/functions/hello/invoke").body("{}");
    let refused = copy.send(&request).expect_problem(503, "worker_unavailable");
    refused.expect_detail(&format!("port {} is used by another program; free it", demo.port));
    drop(host);
    copy.command(ADMIN_TOKEN, &["worker", "start", "--tenant", "demo"]).done();
    demo.post("/hello", "{}").expect(200);
}
