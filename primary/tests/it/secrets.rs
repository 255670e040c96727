//! Secrets: functions alone read them, and nothing else that Hearth keeps, says or lists has one. The
//! key that seals them is one file, and what becomes of it is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::config::{change, read, reader};
use crate::host::{ADMIN_TOKEN, Host, Tenant, hearth, run};
use crate::processes::{descendants, eventually};
use crate::terminal::Terminal;

const SECRET: &str = "hunter2-the-secret-of-these-tests";

/// Whether a file below has it, in the clear.
fn holds(place: &Path, text: &str) -> Option<String> {
    for entry in fs::read_dir(place).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            if let Some(found) = holds(&path, text) {
                return Some(found);
            }
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Some(path.display().to_string());
            }
        }
    }
    None
}

fn key(host: &Host) -> std::path::PathBuf {
    host.data().join("secrets.key")
}

/// Sets one as a script does.
#[track_caller]
fn set(host: &Host, tenant: &Tenant, name: &str, value: &str) -> std::process::Output {
    let mut command = hearth(host.scratch());
    command
        .args(["secret", "set", name, "--tenant", &tenant.name])
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &tenant.token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn row_44_a_secret_is_nowhere_but_with_functions() {
    let mut host = Host::start();
    let tenant = reader(&host, "demo");
    let said = set(&host, &tenant, "API_KEY", &format!("{SECRET}\n"));
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "Set the secret API_KEY.\n");
    assert_eq!(read(&tenant, "API_KEY"), SECRET);
    assert_eq!(fs::metadata(key(&host)).unwrap().mode() & 0o7777, 0o600);
    // The function prints it, on both of its streams.
    let lines = eventually("lines", || {
        let lines = tenant.ask("/logs").to_string();
        (lines.matches("[secret]").count() >= 2).then_some(lines)
    });
    assert!(!lines.contains(SECRET), "{lines}");

    // Whatever can be asked, by whoever may ask for most.
    let document = host.send(&host.admin("GET", "")).text();
    let mut said = vec![document];
    for path in ["/secrets", "/config", "/logs", "/calls", "/worker", "/limits", "/functions"] {
        said.push(tenant.ask(path).to_string());
    }
    for path in ["/tenants", "/audit?limit=1000"] {
        said.push(host.send(&host.admin("GET", path)).expect(200).text());
    }
    said.push(host.send(&crate::http::Request::new("GET", "/metrics")).text());
    said.push(host.command(&tenant.token, &["secret", "list"]).done());
    said.push(host.command(&tenant.token, &["secret", "list", "--json"]).done());
    // And how it is refused.
    let long = json!({ "API_KEY": SECRET, "LONG": SECRET.repeat(1_000) });
    said.push(change(&host, &tenant, "secrets", &long).expect(400).text());
    said.push(change(&host, &tenant, "secrets", &json!({ "a b": SECRET })).expect(400).text());
    said.push(change(&host, &tenant, "config", &json!({ "API_KEY": SECRET })).expect(409).text());
    said.push(change(&host, &tenant, "secrets", &json!([SECRET])).expect(400).text());
    for text in &said {
        assert!(!text.contains(SECRET), "{text}");
    }
    let secrets = tenant.ask("/secrets");
    assert_eq!(secrets["secrets"][0]["name"], "API_KEY");
    assert_eq!(secrets["secrets"][0]["opens"], true);

    // Neither the host nor its workers leave a core, whatever collects them.
    let processes: Vec<i32> = descendants(host.pid()).into_iter().chain([host.pid()]).collect();
    for pid in processes {
        let Ok(limits) = fs::read_to_string(format!("/proc/{pid}/limits")) else { continue };
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let most: Vec<_> =
            core.split_whitespace().filter_map(|it| it.parse::<u64>().ok()).collect();
        assert!(most.iter().all(|most| *most <= 1) && most.len() == 2, "{core}");
    }
    assert_eq!(holds(host.scratch(), SECRET), None);
    host.kill_and_start_again();
    assert_eq!(read(&tenant, "API_KEY"), SECRET);
    assert_eq!(holds(host.scratch(), SECRET), None);
    assert!(!host.log().contains(SECRET));
}

#[test]
fn two_tenants_with_the_same_names_never_meet() {
    let host = Host::start();
    let [one, two] = ["one", "two"].map(|name| reader(&host, name));
    let three = reader(&host, "three");
    for (tenant, value) in [(&one, "the secret of one"), (&two, "the secret of two")] {
        change(&host, tenant, "secrets", &json!({ "KEY": value })).expect(200);
        change(&host, tenant, "config", &json!({ "region": value })).expect(200);
    }
    for (tenant, value) in [(&one, "the secret of one"), (&two, "the secret of two")] {
        assert_eq!((read(tenant, "KEY"), read(tenant, "region")), (json!(value), json!(value)));
    }
    assert_eq!(read(&three, "KEY"), Value::Null);
    // Who takes another's rows for its own finds that they do not open.
    let db = rusqlite::Connection::open(host.data().join("hearth.db")).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db.execute(
        "UPDATE settings SET sealed = (SELECT sealed FROM settings JOIN tenants ON tenants.id = tenant
             WHERE tenants.name = 'two' AND sealed IS NOT NULL)
         WHERE tenant = (SELECT id FROM tenants WHERE name = 'one') AND sealed IS NOT NULL",
        [],
    )
    .unwrap();
    host.send(&one.api("POST", "/worker/stop")).expect(200);
    one.post("/reads?name=KEY", "").expect_problem(503, "worker_unavailable");
    assert_eq!(read(&two, "KEY"), "the secret of two");
    // A tenant that is made anew under an old name has nothing of the old one's.
    host.send(&host.admin("DELETE", "/tenants/two")).expect(204);
    let two = reader(&host, "two");
    assert_eq!((read(&two, "KEY"), read(&two, "region")), (Value::Null, Value::Null));
}

#[test]
fn a_lost_or_wrong_key_is_named_and_who_needs_none_is_served() {
    let mut host = Host::start();
    let (sealed, plain) = (reader(&host, "sealed"), reader(&host, "plain"));
    change(&host, &sealed, "secrets", &json!({ "KEY": SECRET, "MORE": "more-secret" })).expect(200);
    change(&host, &plain, "config", &json!({ "region": "eu" })).expect(200);
    let away = host.scratch().join("away");
    fs::copy(key(&host), &away).unwrap();
    fs::remove_file(key(&host)).unwrap();
    let data = host.data();
    let doctor = |host: &Host| {
        let said = host.command(ADMIN_TOKEN, &["doctor", "--data", data.to_str().unwrap()]);
        said.text()
    };
    for put in [None, Some("A".repeat(43) + "="), Some("this is no key".to_owned())] {
        host.kill_and_wait();
        match &put {
            Some(text) => fs::write(key(&host), text).unwrap(),
            None => assert!(!key(&host).exists()),
        }
        host.start_again();
        let log = host.log();
        assert!(log.contains("the key that seals secrets cannot be used"), "{log}");
        assert!(log.contains("tenants are not served") && log.contains("sealed"), "{log}");
        assert!(doctor(&host).contains("secrets key"), "{}", doctor(&host));
        assert_eq!(read(&plain, "region"), "eu");
        for address in sealed.addresses() {
            let refused = address.post("/reads?name=KEY", "");
            let refused = refused.expect_problem(503, "worker_unavailable");
            refused.expect_detail("its secrets cannot be opened");
        }
        assert_eq!(sealed.state(), "barred");
        assert_eq!(sealed.ask("/secrets")["secrets"][0]["opens"], false);
        let refused = change(&host, &plain, "secrets", &json!({ "KEY": "x" }));
        refused.expect_problem(503, "worker_unavailable").expect_detail("no secret can be set");
        let refused = host.send(&host.admin("POST", "/secrets/rekey"));
        refused.expect_problem(409, "conflict").expect_detail("sealed");
    }
    // With the right one in its place again, all is as it was.
    host.kill_and_wait();
    fs::copy(&away, key(&host)).unwrap();
    host.start_again();
    assert_eq!(read(&sealed, "KEY"), SECRET);
    assert_eq!(read(&sealed, "MORE"), "more-secret");
}

#[test]
fn a_key_that_is_gone_for_good_takes_its_secrets_and_nothing_else() {
    let mut host = Host::start();
    let (sealed, plain) = (reader(&host, "sealed"), reader(&host, "plain"));
    change(&host, &sealed, "secrets", &json!({ "KEY": SECRET })).expect(200);
    change(&host, &sealed, "config", &json!({ "region": "eu" })).expect(200);
    host.kill_and_wait();
    fs::remove_file(key(&host)).unwrap();
    host.start_again();
    sealed.post("/reads?name=KEY", "").expect_problem(503, "worker_unavailable");
    let forget = &["secret", "rekey", "--forget"][..];
    assert!(host.command(ADMIN_TOKEN, forget).failed(2).contains("--yes"));
    let said = host.command(ADMIN_TOKEN, &[forget, &["--yes"]].concat()).done();
    assert!(said.contains("Forgot secrets of the tenant sealed"), "{said}");
    assert_eq!((read(&sealed, "KEY"), read(&sealed, "region")), (Value::Null, json!("eu")));
    assert_eq!(read(&plain, "KEY"), Value::Null);
    change(&host, &sealed, "secrets", &json!({ "KEY": "again-secret" })).expect(200);
    host.kill_and_start_again();
    assert_eq!(read(&sealed, "KEY"), "again-secret");
}

/// Its owner cannot mend the key, and need not: secrets that are set again are sealed with this one.
#[test]
fn an_owner_sets_secrets_again_that_nobody_can_open() {
    let mut host = Host::start();
    let tenant = reader(&host, "demo");
    change(&host, &tenant, "secrets", &json!({ "ONE": SECRET, "TWO": SECRET })).expect(200);
    // Sealed by another host's key, as a hand in the store would leave it.
    host.kill_and_wait();
    let db = rusqlite::Connection::open(host.data().join("hearth.db")).unwrap();
    db.execute("UPDATE settings SET sealed = randomblob(60)", []).unwrap();
    drop(db);
    host.start_again();
    tenant.post("/reads?name=ONE", "").expect_problem(503, "worker_unavailable");
    let first =
        change(&host, &tenant, "secrets", &json!({ "ONE": "one-again" })).expect(200).json();
    assert!(first["unserved"].as_str().unwrap().contains("TWO"), "{first}");
    tenant.post("/reads?name=ONE", "").expect_problem(503, "worker_unavailable");
    let second = change(&host, &tenant, "secrets", &json!({ "TWO": null })).expect(200).json();
    assert_eq!(second["unserved"], Value::Null);
    assert_eq!((read(&tenant, "ONE"), read(&tenant, "TWO")), (json!("one-again"), Value::Null));
}

#[test]
fn a_new_key_interrupts_nobody_and_lasts() {
    let mut host = Host::start();
    let tenants = ["one", "two", "three"].map(|name| reader(&host, name));
    for tenant in &tenants {
        let value = format!("{SECRET} of {}", tenant.name);
        change(&host, tenant, "secrets", &json!({ "KEY": value })).expect(200);
    }
    let workers: Vec<_> = tenants.iter().map(|tenant| host.workers(tenant)).collect();
    let before = fs::read(key(&host)).unwrap();
    let said = host.command(ADMIN_TOKEN, &["secret", "rekey"]).done();
    assert_eq!(said, "Made a new key, and sealed 3 secrets with it.\n");
    assert_ne!(fs::read(key(&host)).unwrap(), before);
    assert!(!host.data().join("secrets.key.new").exists());
    assert_eq!(tenants.iter().map(|it| host.workers(it)).collect::<Vec<_>>(), workers);
    host.kill_and_start_again();
    for tenant in &tenants {
        assert_eq!(read(tenant, "KEY"), format!("{SECRET} of {}", tenant.name));
    }
    let audit = host.send(&host.admin("GET", "/audit?action=host.rekey")).expect(200).json();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1);
    assert_eq!(audit["entries"][0]["after"], json!({ "secrets": 3 }));
    // The old one opens nothing any more.
    host.kill_and_wait();
    fs::write(key(&host), before).unwrap();
    host.start_again();
    tenants[0].post("/reads?name=KEY", "").expect_problem(503, "worker_unavailable");
}

#[test]
fn an_operators_own_key_is_used_where_it_lies() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("operators.key");
    let mut host = Host::with(&["--secrets-key", file.to_str().unwrap()]);
    let tenant = reader(&host, "demo");
    assert!(!file.exists(), "it is made with the first secret");
    change(&host, &tenant, "secrets", &json!({ "KEY": SECRET })).expect(200);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    assert!(!key(&host).exists());
    host.command(ADMIN_TOKEN, &["secret", "rekey"]).done();
    host.kill_and_start_again();
    assert_eq!(read(&tenant, "KEY"), SECRET);
}

#[test]
fn a_backup_has_secrets_sealed_and_says_so_and_a_restore_takes_the_key() {
    let mut host = Host::start();
    let tenant = reader(&host, "demo");
    change(&host, &tenant, "secrets", &json!({ "KEY": SECRET })).expect(200);
    change(&host, &tenant, "config", &json!({ "region": "eu" })).expect(200);
    let file = host.scratch().join("hearth.tar.zst");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let said = host.command(ADMIN_TOKEN, &["backup", &text(&file)]);
    let told = said.error();
    assert!(told.contains("secrets in the backup: 1, as they are sealed"), "{told}");
    said.done();
    let unpacked = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let own = fs::read_to_string(key(&host)).unwrap();
    for text in [SECRET, own.trim()] {
        assert!(!unpacked.windows(text.len()).any(|window| window == text.as_bytes()));
    }

    // Into a directory: without the key, with another, with the right one.
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let data = text(&place.path().join("data"));
    let said = run(place.path(), &["restore", &text(&file), "--data", &data]);
    let told = said.error();
    assert!(told.contains("the key that opens them is not"), "{told}");
    said.done();
    fs::remove_dir_all(&data).unwrap();
    let wrong = place.path().join("wrong.key");
    fs::write(&wrong, "A".repeat(43) + "=").unwrap();
    let keyed = |key: &Path| {
        run(place.path(), &["restore", &text(&file), "--data", &data, "--secrets-key", &text(key)])
    };
    let refused = keyed(&wrong).failed(1);
    assert!(refused.contains("does not open the backup's secrets"), "{refused}");
    assert!(!Path::new(&data).exists(), "nothing is left of it");
    let said = keyed(&key(&host));
    assert_eq!(said.error(), "");
    said.done();
    // Their ports are the same.
    host.kill_and_wait();
    let again = Host::on(place, &host);
    let restored = tenant.on(&again);
    assert_eq!((read(&restored, "KEY"), read(&restored, "region")), (json!(SECRET), json!("eu")));

    // Into a host that serves and has a key of its own.
    let other = Host::start();
    let restore = |arguments: &[&str]| {
        other.command(ADMIN_TOKEN, &[&["restore", &text(&file)], arguments].concat())
    };
    let refused = restore(&[]).failed(1);
    assert!(refused.contains("--secrets-key FILE") && refused.contains("demo"), "{refused}");
    assert!(restore(&["--secrets-key", &text(&wrong)]).failed(1).contains("--secrets-key"));
    restore(&["--secrets-key", &text(&key(&host))]).done();
    let port = other.send(&other.admin("GET", "/tenants/demo")).expect(200).json()["port"].as_u64();
    let there = Tenant::known(&other, "demo", port.unwrap() as u16, &tenant.token);
    assert_eq!((read(&there, "KEY"), read(&there, "region")), (json!(SECRET), json!("eu")));
    assert_eq!(there.ask("/secrets")["secrets"][0]["opens"], true, "by this host's own key");
    // And where that key is lost, without them.
    other.send(&other.admin("DELETE", "/tenants/demo")).expect(204);
    restore(&["--without-secrets"]).done();
    let port = other.send(&other.admin("GET", "/tenants/demo")).expect(200).json()["port"].as_u64();
    let there = Tenant::known(&other, "demo", port.unwrap() as u16, &tenant.token);
    assert_eq!((read(&there, "KEY"), read(&there, "region")), (Value::Null, json!("eu")));
}

#[test]
fn what_is_typed_is_not_shown_and_what_is_no_secret_is_refused() {
    let host = Host::start();
    let tenant = reader(&host, "demo");
    let mut command = hearth(host.scratch());
    command
        .args(["secret", "set", "API_KEY"])
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &tenant.token);
    let mut terminal = Terminal::run(&command);
    terminal.shows("Value of API_KEY: ");
    eventually("what is typed to be hidden", || (!terminal.echoes()).then_some(()));
    terminal.type_in(&format!("{SECRET}\n"));
    let (shown, status) = terminal.finish();
    assert!(status.success() && shown.contains("Set the secret API_KEY."), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(read(&tenant, "API_KEY"), SECRET);

    for (value, code, said) in [
        ("", 2, "there is no value for KEY"),
        ("\n", 2, "there is no value for KEY"),
        (&"x".repeat((16 << 10) + 1), 2, "above 16 KiB"),
    ] {
        let refused = set(&host, &tenant, "KEY", value);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(said), "{refused:?}");
    }
    let lines = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END KEY-----\n";
    assert!(set(&host, &tenant, "TLS_KEY", lines).status.success());
    assert_eq!(read(&tenant, "TLS_KEY"), lines.trim_end());
    let log = eventually("lines", || {
        let lines = tenant.ask("/logs").to_string();
        lines.contains("was found").then_some(lines)
    });
    assert!(!log.contains("MIIEvQIBADANBgkq"), "{log}");
    let rm = |arguments: &[&str]| {
        host.command(&tenant.token, &[&["secret", "rm", "API_KEY"], arguments].concat())
    };
    assert!(rm(&[]).failed(2).contains("say --yes"));
    assert_eq!(rm(&["--yes"]).done(), "Removed the secret API_KEY.\n");
    assert_eq!(read(&tenant, "API_KEY"), Value::Null);
    assert!(rm(&["--yes"]).failed(1).contains("there is no secret API_KEY"));
}
