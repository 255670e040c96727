//! `hearth backup` and `hearth restore`: what a host has under load comes back on an empty
//! directory, and what is no whole backup leaves nothing.

mod claims;
mod damage;
mod state;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, hearth, run, upload};
use crate::http::Connection;
use crate::processes::{Beside, eventually};

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap()
}

/// What a tenant's functions keep, of which a host makes no more than the directory.
fn state(host: &Host, tenant: &str) -> PathBuf {
    host.data().join("tenants").join(tenant).join("state")
}

/// Makes a file the state's user's, as if that had put it there.
fn give(state: &Path, file: &Path) {
    let user = fs::metadata(state).unwrap().uid();
    chown(file, Some(user), Some(user)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn backup(host: &Host) -> PathBuf {
    let file = host.scratch().join("hearth.tar.zst");
    let said = host.command(ADMIN_TOKEN, &["backup", text(&file)]);
    assert_eq!(said.error(), "");
    assert!(said.done().contains("and checked"));
    file
}

#[track_caller]
fn restore(file: &Path) -> TempDir {
    let place = directory();
    let said =
        run(place.path(), &["restore", text(file), "--data", text(&place.path().join("data"))]);
    assert!(said.done().contains("hearth up --data"));
    place
}

/// What a backup has, by name, and each with its content.
fn members(file: &Path) -> Vec<(tar::Header, Vec<u8>)> {
    let unpacked = zstd::decode_all(fs::File::open(file).unwrap()).unwrap();
    let mut archive = tar::Archive::new(unpacked.as_slice());
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            std::io::copy(&mut entry, &mut content).unwrap();
            (entry.header().clone(), content)
        })
        .collect()
}

fn name(header: &tar::Header) -> String {
    String::from_utf8(header.path_bytes().into_owned()).unwrap()
}

const ASKED: [&str; 6] = [
    "/functions",
    "/generations",
    "/functions/one/versions",
    "/tokens",
    "/limits",
    "/functions/private",
];

#[test]
fn a_host_under_load_comes_back_on_an_empty_directory() {
    let mut host = Host::start();
    let (demo, busy) = (host.tenant("demo"), host.tenant("busy"));
    demo.deploy("one", guests::version_one());
    demo.deploy("one", guests::version_two());
    demo.rollback("/one", 1);
    demo.deploy_with("private", guests::echo(), &json!({ "auth": "invoke" }));
    demo.deploy("prints", guests::prints());
    let limits = json!({ "limits": { "functions": 20 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    let invoke = demo.token("invoke");
    demo.post("/prints", "a line").expect(204);
    let lines = |tenant: &Tenant| tenant.ask("/logs?path=/prints&limit=2");
    eventually("lines", || (!lines(&demo)["lines"].as_array().unwrap().is_empty()).then_some(()));

    busy.deploy("one", guests::version_one());
    let uploads = Beside::run({
        let (busy, mut at) = (busy.clone(), 0);
        move |done| {
            let module = [guests::version_two(), guests::version_one()][at % 2];
            at += 1;
            let request = busy.address().request("POST", "/$upload").bearer(&busy.token);
            let answer = upload(request, &[("one.wasm", module)], None).send(busy.address().to);
            done.insert(answer.expect(200).json()["generation"].as_u64().unwrap());
        }
    });
    let calls = Beside::run({
        let demo = demo.clone();
        move |statuses| {
            statuses.insert(demo.post("/one", "").status);
        }
    });
    eventually("uploads", || (uploads.seen().len() >= 2).then_some(()));
    let before = uploads.seen().last().copied().unwrap();
    let file = backup(&host);
    let after = uploads.stop().last().copied().unwrap() + 1;
    assert_eq!(calls.stop(), BTreeSet::from([200]), "no call noticed");
    let asked: Vec<_> = ASKED.map(|path| (path, demo.ask(path))).into();
    let told = lines(&demo);
    host.kill_and_wait();

    let names: Vec<_> = members(&file).iter().map(|(header, _)| name(header)).collect();
    assert_eq!((&*names[0], &*names[1]), ("backup.json", "hearth.db"));
    assert_eq!(names.last().unwrap(), "manifest.json");
    let known = [
        "backup.json",
        "hearth.db",
        "modules/",
        "tenants/demo/logs",
        "tenants/demo/state",
        "tenants/busy/logs",
        "tenants/busy/state",
        "tenants/home/state",
        "manifest.json",
    ];
    for name in &names {
        assert!(known.iter().any(|known| name.starts_with(known)), "{name}");
    }

    let host = Host::on(restore(&file), &host);
    let (demo, busy) = (demo.on(&host), busy.on(&host));
    for (path, answer) in asked {
        let now = demo.ask(path);
        match path {
            // What it uses now is another matter.
            "/limits" => assert!(now.to_string().contains(r#""functions""#), "{now}"),
            _ => assert_eq!(now, answer, "{path}"),
        }
    }
    assert_eq!(lines(&demo), told);
    for address in demo.addresses() {
        assert_eq!(address.post("/one", "").expect(200).text(), "version one", "{}", address.name);
        address.post("/private", "").expect_problem(401, "unauthenticated");
        address.send(&address.request("POST", "/private").bearer(&invoke)).expect(200);
        address.post("/hello", "{}").expect(200);
    }
    demo.rollback("/one", 2);
    assert_eq!(demo.post("/one", "").expect(200).text(), "version two");
    assert_eq!(demo.deploy("one", guests::echo())["functions"][0]["version"], 3);

    // One of the instants between the backup's begin and its end.
    let current = busy.ask("/generations")["generations"][0]["generation"].as_u64().unwrap();
    assert!((before..=after).contains(&current), "{before} {current} {after}");
    let said = busy.post("/one", "").expect(200);
    let version = busy.ask("/functions/one")["version"].as_u64().unwrap();
    assert_eq!(said.text(), if version % 2 == 1 { "version one" } else { "version two" });
    for version in busy.ask("/functions/one/versions")["versions"].as_array().unwrap() {
        busy.rollback("/one", version["version"].as_u64().unwrap());
        busy.post("/one", "").expect(200);
    }
}

#[test]
fn what_vouches_for_artifacts_stays_at_home() {
    let host = Host::start();
    host.tenant("demo").deploy("one", guests::version_one());
    let file = backup(&host);
    let members = members(&file);
    let (_, database) = members.iter().find(|(header, _)| name(header) == "hearth.db").unwrap();
    let copy = host.scratch().join("copy.db");
    fs::write(&copy, database).unwrap();
    let copy = rusqlite::Connection::open(copy).unwrap();
    let count = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM artifacts"), 0);
    assert_eq!(count("SELECT count(*) FROM host"), 0);
    assert_eq!(count("SELECT count(*) FROM tenants"), 2);
    let store = rusqlite::Connection::open(host.data().join("hearth.db")).unwrap();
    let key: Vec<u8> =
        store.query_row("SELECT value FROM host WHERE key = 'key'", [], |row| row.get(0)).unwrap();
    for (header, content) in &members {
        let found = content.windows(key.len()).any(|window| window == key);
        assert!(!found, "{} has the host's key", name(header));
    }
}

#[test]
fn it_is_for_the_admin_and_one_at_a_time() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let request = host.admin("GET", "/backup");
    let owner = crate::http::Request::new("GET", "/api/v1/backup");
    host.send(&owner.clone().bearer(&tenant.token)).expect_problem(403, "forbidden");
    host.send(&owner).expect_problem(401, "unauthenticated");

    // More than what fits between the two of them, so that it is not over before it is read.
    let mut large = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(64 << 20).read_to_end(&mut large).unwrap();
    let state = state(&host, "demo");
    fs::write(state.join("large"), large).unwrap();
    give(&state, &state.join("large"));
    let mut slow = Connection::open(host.front).unwrap();
    slow.send(&request.bytes(&host.front.to_string())).unwrap();
    assert_eq!(slow.head().unwrap().status, 200);
    host.send(&request).expect_problem(409, "conflict");
    tenant.deploy("one", guests::version_one());
    drop(slow);
    // Whoever leaves makes room for the next.
    eventually("the next one", || (host.send(&request).status == 200).then_some(()));
    assert!(host.figure(r#"hearth_backups_total{outcome="failed"}"#) >= 1);
    let left = || fs::read_dir(host.data().join("tmp")).unwrap().count();
    eventually("nothing left of any of them", || (left() == 0).then_some(()));
}

#[test]
fn what_is_no_regular_file_is_written_to_and_stays_what_it_is() {
    use std::os::unix::fs::FileTypeExt;
    let host = Host::start();
    host.tenant("demo");
    let at = |name: &str| host.scratch().join(name);
    let made = |file: &Path| {
        let said = host.command(ADMIN_TOKEN, &["backup", text(file)]).done();
        assert!(said.contains("and checked"), "{said}");
    };
    fs::create_dir(at("far")).unwrap();
    fs::write(at("far/kept"), "the one before").unwrap();
    symlink("far/kept", at("link")).unwrap();
    made(&at("link"));
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("far/kept"));
    assert_eq!(name(&members(&at("far/kept"))[0].0), "backup.json");
    assert_eq!(fs::read_dir(at("far")).unwrap().count(), 1);

    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reading = std::thread::spawn({
        let pipe = at("pipe");
        move || fs::read(pipe).unwrap()
    });
    made(&at("pipe"));
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    fs::write(at("piped"), reading.join().unwrap()).unwrap();
    assert_eq!(name(&members(&at("piped"))[0].0), "backup.json");

    symlink("nowhere", at("dangling")).unwrap();
    let said = host.command(ADMIN_TOKEN, &["backup", text(&at("dangling"))]).failed(1);
    assert!(said.contains("a link that leads nowhere"), "{said}");
    // Not the machine's own: whoever breaks this must not break that.
    let mode = nix::sys::stat::Mode::S_IRWXU;
    let null = nix::sys::stat::makedev(1, 3);
    let made_one = nix::sys::stat::mknod(&at("null"), nix::sys::stat::SFlag::S_IFCHR, mode, null);
    if made_one.is_err() || fs::write(at("null"), "").is_err() {
        return eprintln!("skipped the rest: no device can be made here");
    }
    made(&at("null"));
    assert!(fs::symlink_metadata(at("null")).unwrap().file_type().is_char_device());
}

#[test]
fn a_backup_that_is_killed_leaves_nothing_and_what_was_there() {
    let host = Host::start();
    host.tenant("demo");
    let place = directory();
    let file = place.path().join("hearth.tar.zst");
    fs::write(&file, "the one before").unwrap();
    for signal in ["-TERM", "-INT", "-KILL"] {
        // It waits for the host, which stands still.
        crate::processes::signal(host.pid(), nix::sys::signal::Signal::SIGSTOP);
        let mut command = hearth(host.scratch());
        command.args(["backup", text(&file)]).env("HEARTH_TOKEN", ADMIN_TOKEN);
        command.env("HEARTH_URL", format!("http://{}", host.front));
        let mut making = command.spawn().unwrap();
        let fds = format!("/proc/{}/fd", making.id());
        eventually("a file of its own", || {
            let mut open = fs::read_dir(&fds).ok()?.flatten();
            open.find(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.starts_with(place.path())))
        });
        let pid = making.id().to_string();
        std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(!making.wait().unwrap().success());
        crate::processes::signal(host.pid(), nix::sys::signal::Signal::SIGCONT);
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{signal}: {left:?}");
        assert_eq!(fs::read(&file).unwrap(), b"the one before", "{signal}");
    }
    // The host makes one for each of the three first, though nobody reads it.
    eventually("its turn", || {
        let said = host.command(ADMIN_TOKEN, &["backup", text(&file)]);
        said.text().contains("and checked").then_some(())
    });
    assert_eq!(name(&members(&file)[0].0), "backup.json");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn what_somebody_planted_is_not_followed() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let outside = host.scratch().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "do not tell").unwrap();
    let state = state(&host, "demo");
    fs::create_dir(state.join("deep")).unwrap();
    fs::write(state.join("deep/own"), "its own").unwrap();
    for own in ["deep", "deep/own"] {
        give(&state, &state.join(own));
    }
    symlink(&outside, state.join("directory")).unwrap();
    symlink(outside.join("secret"), state.join("file")).unwrap();
    fs::hard_link(outside.join("secret"), state.join("hard")).unwrap();
    nix::unistd::mkfifo(&state.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(state.join("a\nb"), "odd").unwrap();

    let file = host.scratch().join("hearth.tar.zst");
    let said = host.command(ADMIN_TOKEN, &["backup", text(&file)]);
    assert!(said.error().contains("5 files of the tenant demo"), "{}", said.error());
    said.done();
    let members = members(&file);
    assert!(!members.iter().any(|(_, content)| content == b"do not tell"));
    let own = members.iter().find(|(header, _)| name(header) == "tenants/demo/state/deep/own");
    assert_eq!(own.unwrap().1, b"its own");

    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    assert!(!host.data().join("tenants/demo").exists());
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"do not tell");
    host.kill_and_wait();
    let place = restore(&file);
    assert_eq!(
        fs::read(place.path().join("data/tenants/demo/state/deep/own")).unwrap(),
        b"its own"
    );
}

/// The rights that the service's unit leaves the host: none of them opens another user's files.
fn rights() -> String {
    let unit = include_str!("../../../ops/service/hearth.service");
    let rights = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = rights.unwrap().to_lowercase();
    names
        .split(' ')
        .fold("-all".to_owned(), |all, name| format!("{all},+{}", &name["cap_".len()..]))
}

#[test]
fn a_tenants_state_is_its_users_and_the_host_reads_it_as_nobody_else() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root has users to give");
    }
    let rights = rights();
    let wrapper = ["setpriv", "--bounding-set", &rights, "--inh-caps", "-all"];
    let mut host = Host::wrapped(&wrapper, &[]);
    let (demo, other) = (host.tenant("demo"), host.tenant("other"));
    demo.deploy("one", guests::version_one());
    let user = |host: &Host, tenant: &str| {
        let found = fs::metadata(state(host, tenant)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, found.gid()), "{tenant}");
        found.uid()
    };
    assert_ne!(user(&host, "demo"), 0);
    assert_ne!(user(&host, "demo"), user(&host, "other"));

    let disk = |tenant: &Tenant| {
        let limits = tenant.ask("/limits");
        let all = limits["limits"].as_array().unwrap();
        let disk = all.iter().find(|limit| limit["name"] == "disk_bytes").unwrap();
        disk["used"].as_u64().unwrap()
    };
    let before = disk(&demo);
    let home = state(&host, "demo");
    fs::create_dir(home.join("deep")).unwrap();
    fs::write(home.join("deep/own"), vec![b'x'; 200_000]).unwrap();
    for own in ["deep", "deep/own"] {
        give(&home, &home.join(own));
        fs::set_permissions(home.join(own), fs::Permissions::from_mode(0o0)).unwrap();
    }
    assert!(disk(&demo) >= before + 200_000, "{} {before}", disk(&demo));
    let file = backup(&host);
    let own = |file: &Path| {
        let members = members(file);
        let own = members.iter().find(|(header, _)| name(header).ends_with("/state/deep/own"));
        own.map(|(_, content)| content.len())
    };
    assert_eq!(own(&file), Some(200_000));

    // Into the host that serves, with all that was there before it gone.
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    assert!(!host.data().join("tenants/demo").exists());
    host.command(ADMIN_TOKEN, &["restore", text(&file)]).done();
    let is_back = |host: &Host, demo: &Tenant| {
        assert_eq!(demo.post("/one", "").expect(200).text(), "version one");
        let owned = fs::metadata(state(host, "demo").join("deep/own")).unwrap();
        assert_eq!((owned.len(), owned.uid()), (200_000, user(host, "demo")));
        assert_ne!(owned.uid(), 0);
        assert_ne!(user(host, "demo"), user(host, "other"));
        assert_eq!(own(&backup(host)), Some(200_000));
    };
    is_back(&host, &demo);
    // And onto an empty directory.
    host.kill_and_wait();
    let host = Host::on(restore(&file), &host);
    other.on(&host).post("/hello", "{}").expect(200);
    is_back(&host, &demo.on(&host));
    let after = disk(&demo.on(&host));
    // Its logs have grown by what was done meanwhile.
    assert!(after.abs_diff(before + 204_800) < 100_000, "{after} {before}");
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    assert!(!host.data().join("tenants/demo").exists());
}

#[test]
fn a_state_on_its_way_to_its_user_is_whole_wherever_the_host_dies() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root has users to give");
    }
    let points = directory();
    let mut host = Host::with(&["--fail-points", text(points.path())]);
    let demo = host.tenant("demo");
    let home = state(&host, "demo");
    fs::write(home.join("own"), "its own").unwrap();
    give(&home, &home.join("own"));
    let file = backup(&host);
    host.kill_and_wait();
    let mut kills = 0;
    loop {
        let mut host = Host::on(restore(&file), &host);
        fs::write(points.path().join("reached"), "").unwrap();
        let armed = format!("TenantState {} kill", kills + 1);
        fs::write(points.path().join("armed"), armed).unwrap();
        let demo = demo.on(&host);
        let call = crate::http::Request::new("POST", "/hello").body("{}");
        let lived = call.try_send((std::net::Ipv4Addr::LOCALHOST, demo.port).into()).is_ok();
        fs::write(points.path().join("armed"), "").unwrap();
        if !lived {
            host.ended();
            host.start_again();
            kills += 1;
        }
        demo.post("/hello", "{}").expect(200);
        let own = state(&host, "demo").join("own");
        assert_eq!(fs::read(&own).unwrap(), b"its own", "after {kills}");
        assert_ne!(fs::metadata(&own).unwrap().uid(), 0, "after {kills}");
        if lived {
            break;
        }
    }
    assert_eq!(kills, 3, "made durable, exchanged, and that made durable");
}

#[test]
fn a_tree_without_a_tenant_is_removed_at_the_next_start() {
    let mut host = Host::start();
    let stranger = host.data().join("tenants/gone/state/deep");
    fs::create_dir_all(&stranger).unwrap();
    symlink(host.scratch(), stranger.join("link")).unwrap();
    host.kill_and_start_again();
    assert!(!host.data().join("tenants/gone").exists());
    assert!(host.scratch().join("log").exists());
}

#[test]
fn only_an_empty_directory_that_nobody_has_is_filled() {
    let host = Host::start();
    let file = backup(&host);
    let into = |data: &Path| run(host.scratch(), &["restore", text(&file), "--data", text(data)]);
    let said = into(&host.data()).failed(1);
    assert!(said.contains("another hearth runs on"), "{said}");
    let full = host.scratch().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "").unwrap();
    let said = into(&full).failed(1);
    assert!(said.contains("is not empty") && said.contains("mine"), "{said}");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    let said =
        run(host.scratch(), &["restore", "/nowhere/at-all", "--data", text(&full)]).failed(1);
    assert!(said.contains("/nowhere/at-all"), "{said}");
}

#[test]
fn a_restore_that_was_killed_starts_nothing_and_is_done_again() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let file = backup(&host);
    host.kill_and_wait();
    let bytes = fs::read(&file).unwrap();
    let place = directory();
    let (data, fifo) = (place.path().join("data"), place.path().join("fifo"));
    let (data_text, mut seen) = (text(&data).to_owned(), BTreeSet::new());
    // At another place each time, from the first bytes to the last.
    for part in [1, 3, 7, 10] {
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut command = hearth(place.path());
        let mut restoring =
            command.args(["restore", text(&fifo), "--data", &data_text]).spawn().unwrap();
        let mut pipe = fs::OpenOptions::new().write(true).open(&fifo).unwrap();
        pipe.write_all(&bytes[..bytes.len() * part / 11]).unwrap();
        pipe.flush().unwrap();
        eventually("half a restore", || data.join("restoring").exists().then_some(()));
        restoring.kill().unwrap();
        restoring.wait().unwrap();
        drop(pipe);
        fs::remove_file(&fifo).unwrap();
        seen.insert(data.join("restoring/hearth.db").exists());

        let said = run(place.path(), &["up", "--data", &data_text, "--listen", "127.0.0.1:0"]);
        let said = said.failed(1);
        assert!(said.contains("hearth restore FILE --data"), "{said}");
    }
    // As if it had been killed when all but the last step was done.
    run(place.path(), &["restore", text(&file), "--data", &data_text]).done();
    fs::create_dir(data.join("restoring")).unwrap();
    let said = run(place.path(), &["up", "--data", &data_text, "--listen", "127.0.0.1:0"]);
    assert!(said.failed(1).contains("did not end"));
    run(place.path(), &["restore", text(&file), "--data", &data_text]).done();

    let host = Host::on(place, &host);
    assert_eq!(tenant.on(&host).post("/one", "").expect(200).text(), "version one");
}

/// Where this user may mount nothing, not even in a namespace of its own, there is no disk of a
/// certain size to be had.
#[test]
fn a_full_disk_ends_a_restore_and_leaves_nothing() {
    let host = Host::start();
    host.tenant("demo").deploy("one", guests::version_one());
    let file = backup(&host);
    let whole: usize = members(&file).iter().map(|(_, content)| content.len()).sum();
    let disk = host.scratch().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = r#"mount -t tmpfs -o size="$3" none "$1" || exit 77
        "$0" restore "$2" --data "$1/data"; echo "status $?"; ls -A "$1""#;
    // Full at the store, at the modules.
    for size in [whole / 8, whole / 2] {
        let mut unshare = std::process::Command::new("unshare");
        let program = hearth(host.scratch());
        unshare.args(["-rm", "sh", "-c", script]).arg(program.get_program());
        unshare.arg(&disk).arg(&file).arg(size.to_string());
        let Ok(output) = unshare.output() else { return eprintln!("skipped: there is no unshare") };
        let said = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(77) || error.contains("unshare:") {
            return eprintln!("skipped: nothing can be mounted here: {error}");
        }
        assert_eq!(said, "status 1\n", "{error}");
        let told = ["No space left on device", "the host's disk is full"];
        assert!(told.iter().any(|told| error.contains(told)), "{error}");
    }
}

#[test]
fn tenants_come_back_into_a_host_that_serves() {
    let mut host = Host::start();
    let (demo, other) = (host.tenant("demo"), host.tenant("other"));
    demo.deploy("one", guests::version_one());
    demo.deploy("one", guests::version_two());
    let invoke = demo.token("invoke");
    let file = backup(&host);
    let calls = Beside::run({
        let other = other.clone();
        move |statuses| {
            statuses.insert(other.post("/hello", "{}").status);
        }
    });
    let tokens = demo.ask("/tokens");
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    let restore = |arguments: &[&str]| {
        host.command(ADMIN_TOKEN, &[&["restore", text(&file)], arguments].concat())
    };
    let said = restore(&[]).done();
    assert!(said.contains("Restored the tenant demo"), "{said}");
    assert!(said.contains("The tenant other is there, and stays as it is"), "{said}");
    assert_eq!(demo.post("/one", "").expect(200).text(), "version two");
    demo.rollback("/one", 1);
    assert_eq!(demo.post("/one", "").expect(200).text(), "version one");
    let (now, names) = (demo.ask("/tokens"), |list: &serde_json::Value| {
        let tokens = list["tokens"].as_array().unwrap().clone();
        tokens.iter().map(|token| token["name"].to_string()).collect::<Vec<_>>()
    });
    assert_eq!(names(&now), names(&tokens));
    demo.deploy_with("private", guests::echo(), &json!({ "auth": "invoke" }));
    let address = demo.address();
    address.send(&address.request("POST", "/private").bearer(&invoke)).expect(200);

    // What is there is not changed, what is not in it cannot come.
    let said = restore(&["--tenant", "demo"]).failed(1);
    assert!(said.contains("there is a tenant demo already"), "{said}");
    let said = restore(&["--tenant", "nobody"]).failed(1);
    assert!(said.contains("the backup has no tenant nobody"), "{said}");
    assert_eq!(demo.post("/one", "").expect(200).text(), "version one");
    let said = host.command(&demo.token, &["restore", text(&file)]).failed(1);
    assert!(said.contains("admin"), "{said}");

    // Another program has its port meanwhile.
    host.send(&host.admin("DELETE", "/tenants/demo")).expect(204);
    let squatter = std::net::TcpListener::bind(("127.0.0.1", demo.port)).unwrap();
    let cut = host.scratch().join("cut");
    let whole = fs::read(&file).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let said = host.command(ADMIN_TOKEN, &["restore", text(&cut)]).failed(1);
    assert!(said.contains("the transfer was cut off"), "{said}");
    host.send(&host.admin("GET", "/tenants/demo")).expect(404);
    let made = restore(&["--tenant", "demo", "--json"]).json();
    let port = made["restored"][0]["port"].as_u64().unwrap();
    assert_ne!(port, u64::from(demo.port));
    let mut demo = demo.clone();
    demo.port = port.try_into().unwrap();
    assert_eq!(demo.post("/one", "").expect(200).text(), "version two");
    drop(squatter);
    assert_eq!(calls.stop(), BTreeSet::from([200]), "no neighbour noticed");
    host.kill_and_start_again();
    assert_eq!(demo.post("/one", "").expect(200).text(), "version two");
    assert_eq!(fs::read_dir(host.data().join("tmp")).unwrap().count(), 0);
}
