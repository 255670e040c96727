//! An operator's day: logs that cannot be written, logins that are damaged, environments that are
//! somebody else's, and what is printed to be run again.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, USER, hearth, run};
use crate::processes::{eventually, signal};

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Said by a shell in which `hearth` is the program, with the environment that commands have.
fn shell(host: &Host, token: &str, script: &str) -> std::process::Output {
    let program = hearth(host.scratch());
    let directory = Path::new(program.get_program()).parent().unwrap();
    let path = program.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env_clear();
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
        .env("PATH", format!("{}:{}", directory.display(), path.display()))
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", token)
        .current_dir(host.scratch())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let full = r#"exec "$0" "$@" 2>/dev/full"#;
    // The reader of a pipe has left before the host begins.
    let left = r#"exec 2> >(exec true); wait $!; exec "$0" "$@""#;
    for (shell, script) in [("sh", full), ("bash", left)] {
        for format in ["json", "text"] {
            let instead = format!(r#"[ "$it" = text ] && it={format}"#);
            let script =
                format!(r#"for it; do shift; {instead}; set -- "$@" "$it"; done; {script}"#);
            let mut host = Host::wrapped(&[shell, "-c", &script], &[]);
            let tenant = host.tenant("demo");
            tenant.deploy("echo", guests::echo());
            tenant.post("/echo", "a").expect(200);
            // What is worth a line: a worker that is killed.
            for pid in host.workers(&tenant) {
                signal(pid, Signal::SIGKILL);
            }
            eventually("an answer", || (tenant.post("/echo", "b").status == 200).then_some(()));
            host.send(&crate::http::Request::new("GET", "/readyz")).expect(200);
            assert_eq!(host.figure("hearth_worker_deaths_total{tenant=\"demo\"}"), 1);
            host.terminate();
            assert!(host.ended().success());
        }
    }
}

/// Its reader is there, and reads nothing, as a pager does or a terminal that was stopped.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&pipe)
        .unwrap();
    nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let script = format!(r#"exec "$0" "$@" 2>"{}""#, pipe.display());
    let mut host = Host::wrapped(&["sh", "-c", &script], &["--log-filter", "trace"]);
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    // Each of these has lines of some hundred bytes.
    for _ in 0..20 {
        host.send(&tenant.api("POST", "/worker/restart")).expect(200);
        tenant.post("/echo", "a").expect(200);
    }
    eventually("lines that were lost", || {
        (host.figure("hearth_log_lines_lost_total") > 0).then_some(())
    });
    let mut said = Vec::new();
    eventually("the log to go on", || {
        let mut piece = [0; 64 << 10];
        let taken = reader.read(&mut piece).unwrap_or(0);
        said.extend_from_slice(&piece[..taken]);
        String::from_utf8_lossy(&said).contains("the log lost lines").then_some(())
    });
    host.terminate();
    assert!(host.ended().success());
}

/// A command says why it failed by its status, where nobody can read why.
#[test]
fn a_command_whose_complaint_nobody_can_read_ends_as_it_would() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for (script, status) in [
        ("hearth versions nothing 2>/dev/full", 1),
        ("hearth versions ../nothing 2>/dev/full", 2),
        ("hearth sing 2>/dev/full", 2),
        ("hearth functions 2>&-", 0),
        ("hearth functions >/dev/full", 1),
        ("hearth functions >/dev/full 2>/dev/full", 1),
        ("hearth --help >/dev/full", 0),
        ("hearth-worker --version >/dev/full", 0),
        ("hearth-worker nonsense 2>/dev/full", 2),
        ("hearth-compile --version >/dev/full", 0),
    ] {
        let output = shell(&host, &tenant.token, script);
        assert_eq!(output.status.code(), Some(status), "{script}: {output:?}");
    }
}

#[test]
fn a_damaged_login_is_in_nobodys_way_who_says_all() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let home = host.scratch();
    let login = home.join(".config/hearth/login.json");
    fs::create_dir_all(login.parent().unwrap()).unwrap();
    let token = home.join("token");
    fs::write(&token, &tenant.token).unwrap();
    let (url, token) = (format!("http://{}", host.front), token.to_str().unwrap().to_owned());
    let make: [&dyn Fn(); 5] = [
        &|| fs::write(&login, "{\"url\":").unwrap(),
        &|| fs::write(&login, b"\xff\xfe").unwrap(),
        &|| fs::write(&login, "").unwrap(),
        &|| std::os::unix::fs::symlink("login.json", &login).unwrap(),
        &|| nix::unistd::mkfifo(&login, nix::sys::stat::Mode::S_IRUSR).unwrap(),
    ];
    for make in make {
        make();
        host.command(&tenant.token, &["functions"]).done();
        // Where something is left open it is said which file it is, and what to do.
        let said = run(home, &["functions"]).failed(2);
        assert!(said.contains("login.json") && said.contains("hearth login"), "{said}");
        let said = run(home, &["login", &url, "--token-file", &token]).done();
        assert!(said.contains("knows you as"), "{said}");
        run(home, &["functions"]).done();
        fs::remove_file(&login).unwrap();
    }
    // Without an address it is the usual one, which is said.
    fs::write(&login, "damaged").unwrap();
    let said = run(home, &["login", "--token-file", &token]).failed(1);
    assert!(said.contains("http://127.0.0.1:3400 cannot be reached"), "{said}");
}

#[test]
fn the_environment_of_another_service_is_none_of_the_hosts() {
    let service = [
        "HEARTH_WEB_SERVICE_HOST=10.0.0.1",
        "HEARTH_WEB_SERVICE_PORT=80",
        "HEARTH_WEB_SERVICE_PORT_HTTP=80",
        "HEARTH_WEB_PORT=tcp://10.0.0.1:80",
        "HEARTH_WEB_PORT_80_TCP=tcp://10.0.0.1:80",
        "HEARTH_WEB_PORT_80_TCP_PROTO=tcp",
        "HEARTH_WEB_PORT_80_TCP_PORT=80",
        "HEARTH_WEB_PORT_80_TCP_ADDR=10.0.0.1",
    ];
    let host = Host::wrapped(&[&["env"][..], &service].concat(), &[]);
    host.tenant("demo");
    for (wrong, meant) in [
        ("HEARTH_IDEL=60s", "did you mean `HEARTH_IDLE`?"),
        ("HEARTH_PORT=3400", "known settings: HEARTH_DATA, "),
        ("HEARTH_TENANT_PORT=3411-3420", "did you mean `HEARTH_TENANT_PORTS`?"),
    ] {
        let (name, value) = wrong.split_once('=').unwrap();
        let data = host.scratch().join("other");
        let output = hearth(host.scratch())
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(&data)
            .env(name, value)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("unknown setting `{name}`; {meant}")), "{said}");
        assert!(!data.exists(), "{said}");
    }
}

#[test]
fn a_file_of_settings_may_have_sections_and_its_mistakes_are_named() {
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let file = place.path().join("hearth.toml");
    let run = |command: &str, text: &str, more: &[&str]| {
        fs::write(&file, text).unwrap();
        let mut host = hearth(place.path());
        host.args([command, "--json", "--data"]).arg(place.path().join("data"));
        let output = host.arg("--config").arg(&file).args(more).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), said)
    };
    let text = "idle = \"3m\"\n[tenants]\nrest = \"2days\"\n[log]\nformat = \"json\"\n";
    let (_, said) = run("doctor", text, &[]);
    for part in ["idle=3m", "rest=2days", "log=json"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (text, more, wrong) in [
        ("[tenant]\n", &[][..], "unknown section `tenant` in "),
        ("[tenants]\nbnid = \"::1\"\n", &[], "did you mean `tenants.bind`?"),
        ("idle = \"3m\"\n[tenants]\nidle = \"3m\"\n", &[], "are two names of one setting"),
        ("[tenants]\nidle = 3\n", &[], "`tenants.idle` (in "),
        ("", &["--idel", "3m"], "--idle"),
    ] {
        let (status, said) = run("up", text, more);
        let joined = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(status, Some(2), "{text}: {said}");
        assert!(joined.contains(wrong), "{text}: {said}");
    }
    assert!(!place.path().join("data").exists());
}

/// A line so slow that the host gives the upload up: what stands between takes a part of it, and
/// then passes on what the host says.
#[test]
fn an_upload_that_was_too_slow_is_told_so() {
    let host = Host::with(&["--upload-time", "2s"]);
    let tenant = host.tenant("demo");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let line = listener.local_addr().unwrap();
    let front = host.front;
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut host = TcpStream::connect(front).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), host.try_clone().unwrap());
            // A little at first, and then nothing any more.
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                let mut left = 64 << 10;
                while left > 0 {
                    let Ok(count @ 1..) = from.read(&mut bytes) else { return };
                    left -= count.min(left);
                    if to.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut host, &mut client);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    });
    let file = host.scratch().join("large.wasm");
    let random: Vec<u8> =
        (0..12_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(&file, random).unwrap();
    let output = hearth(host.scratch())
        .args(["upload", file.to_str().unwrap()])
        .env("HEARTH_URL", format!("http://{line}"))
        .env("HEARTH_TOKEN", &tenant.token)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("request_timeout") && said.contains("2s"), "{said}");
}

#[test]
fn root_does_not_take_a_users_directory_away() {
    if !is_root() {
        return eprintln!("skipped: only root can do harm here");
    }
    let mut host = Host::as_user();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    host.kill_and_wait();
    let data = host.data();
    let files = || {
        let mut found = Vec::new();
        let mut left = vec![data.clone()];
        while let Some(path) = left.pop() {
            found.push((path.clone(), fs::symlink_metadata(&path).unwrap().uid()));
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found.sort();
        found
    };
    let before = files();
    let path = data.to_str().unwrap();
    let said = run(host.scratch(), &["up", "--listen", "127.0.0.1:0", "--data", path]).failed(1);
    assert!(said.contains("hearth.db belongs to the user id 1500"), "{said}");
    assert!(said.contains(path) && said.contains("setpriv --reuid 1500"), "{said}");
    let doctor = run(host.scratch(), &["doctor", "--data", path]).text();
    assert!(doctor.contains("belongs to the user id 1500"), "{doctor}");
    assert_eq!(files(), before);
    host.start_again();
    assert_eq!(tenant.on(&host).post("/one", "").expect(200).text(), "version one");

    // Nor does a restore make files in it that its user cannot open.
    let file = host.scratch().join("backup");
    host.command(ADMIN_TOKEN, &["backup", file.to_str().unwrap()]).done();
    let empty = host.scratch().join("empty");
    fs::create_dir(&empty).unwrap();
    chown(&empty, Some(USER), Some(USER)).unwrap();
    let arguments = ["restore", file.to_str().unwrap(), "--data", empty.to_str().unwrap()];
    let said = run(host.scratch(), &arguments).failed(1);
    assert!(said.contains("belongs to the user id 1500"), "{said}");
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

/// Where a start fails for want of a right, it says for which file.
#[test]
fn a_start_names_the_file_that_it_cannot_have() {
    if !is_root() {
        return eprintln!("skipped: only root can take files away");
    }
    let mut host = Host::as_user();
    host.tenant("demo");
    host.kill_and_wait();
    for name in ["lock", "hearth.db", "artifacts", "modules", "tenants", "tmp"] {
        let path = host.data().join(name);
        if !path.exists() {
            continue;
        }
        let before = fs::metadata(&path).unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let said = host.try_start_again().err();
        chown(&path, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&path, before.permissions()).unwrap();
        let said = said.unwrap_or_else(|| panic!("it started without {name}"));
        let last = said.lines().rev().find(|line| line.starts_with("hearth: ")).unwrap_or(&said);
        assert!(last.contains(path.to_str().unwrap()), "{name}: {last}");
        assert!(last.contains(&format!("chown -R {USER} ")) || last.contains("setpriv --reuid 0"));
    }
    host.start_again();
}

/// Rights that it takes to give tenants user ids, one at a time, and a namespace without such ids.
#[test]
fn a_start_without_user_ids_for_tenants_serves_and_says_what_is_missing() {
    if !is_root() {
        return eprintln!("skipped: only root has rights to lack");
    }
    let without = |right: &'static str| ["setpriv", right, "--"].map(str::to_owned).to_vec();
    let mut ways = vec![
        (without("--bounding-set=-chown"), "CAP_CHOWN"),
        (without("--bounding-set=-setuid"), "CAP_SETUID"),
    ];
    let namespace = ["unshare", "--user", "--map-root-user", "--"];
    let can = Command::new(namespace[0]).args(&namespace[1..]).arg("true").output();
    match can {
        Ok(output) if output.status.success() => {
            ways.push((
                namespace.map(str::to_owned).to_vec(),
                "has not all of the ids 1900000000-",
            ));
        }
        _ => eprintln!("skipped: there are no user namespaces here"),
    }
    for (wrapper, missing) in ways {
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let host = Host::wrapped(&wrapper, &[]);
        let tenant = host.tenant("demo");
        tenant.deploy("echo", guests::echo());
        tenant.post("/echo", "a").expect(200);
        let shown = host.command(ADMIN_TOKEN, &["--json", "tenant", "show", "demo"]).json();
        assert_ne!(shown["worker"]["isolation"], "A", "{shown}");
        eventually("the greeting", || host.log().contains("no uids: ").then_some(()));
        let log = host.log();
        let line = log.lines().find(|line| line.contains("no uids: ")).unwrap();
        assert!(line.contains(missing), "{line}");
    }
}

#[test]
fn what_was_printed_can_be_run() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let upload = |name: &str, module: &[u8], options: &serde_json::Value| {
        let file = host.scratch().join(format!("{name}.wasm"));
        fs::write(&file, module).unwrap();
        let options = options.to_string();
        let arguments = ["upload", file.to_str().unwrap(), "--options", &options];
        host.command(&tenant.token, &arguments).done()
    };
    let body = json!({ "type": "object", "required": ["name", "count"], "properties": {
        "name": { "type": "string", "minLength": 6 },
        "count": { "type": "integer", "minimum": 3 },
    } });
    let query = json!({ "required": ["page"], "properties": { "page": { "type": "integer", "minimum": 2 } } });
    for (name, module, options) in [
        ("plain", guests::echo(), json!({})),
        ("checked", guests::echo(), json!({ "schema": { "body": body } })),
        ("private", guests::echo(), json!({ "auth": "invoke", "schema": { "body": body } })),
        (
            "asked",
            guests::echo(),
            json!({ "methods": ["GET"], "schema": { "querystring": query } }),
        ),
        ("put", guests::echo(), json!({ "methods": ["PUT"], "schema": { "body": body } })),
    ] {
        let said = upload(name, module, &options);
        let command = said.lines().find(|line| line.starts_with("  ")).unwrap();
        let command = command.replace("  curl ", "curl --silent --show-error --fail-with-body ");
        let output = shell(&host, &tenant.token, &command);
        assert!(output.status.success(), "{said}{command}: {output:?}");
    }
}

#[test]
fn what_a_call_wrote_is_there_when_it_is_answered() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    for at in 0..20 {
        let text = format!("line {at} of them");
        let id = format!("call-{at}");
        let request = tenant.address().request("POST", "/prints").header("x-request-id", &id);
        tenant.address().send(&request.body(format!("{text}\n"))).expect(204);
        let lines = tenant.ask(&format!("/logs?request_id={id}&stream=stdout"));
        assert_eq!(lines["lines"][0]["text"], text, "{lines}");
    }
    // And the call itself, once it has come to its end.
    tenant.post("/prints", "the last\n").expect(204);
    let said = host.command(&tenant.token, &["logs", "prints"]).done();
    assert!(said.contains("the last"), "{said}");
}

/// A guest that keeps its worker from answering keeps nobody from reading the log.
#[test]
fn a_worker_that_does_not_report_holds_up_no_reader() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    tenant.post("/prints", "before\n").expect(204);
    let worker = host.workers(&tenant)[0];
    signal(worker, Signal::SIGSTOP);
    let mut readers = Vec::new();
    for _ in 0..40 {
        let (tenant, front) = (tenant.clone(), host.front);
        readers.push(std::thread::spawn(move || {
            tenant.api("GET", "/logs").send(front).expect(200).json()["lines"].clone()
        }));
    }
    readers.into_iter().for_each(|reader| {
        reader.join().unwrap();
    });
    signal(worker, Signal::SIGCONT);
    tenant.post("/prints", "after\n").expect(204);
    assert_eq!(host.workers(&tenant), [worker], "it was not ended for it");
    let lines = tenant.ask("/logs?stream=stdout").to_string();
    assert!(lines.contains("before") && lines.contains("after"), "{lines}");
}

#[test]
fn what_there_is_not_is_said() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let hearth = |arguments: &[&str]| host.command(&tenant.token, arguments);
    for arguments in [
        &["logs", "nope"][..],
        &["logs", "-f", "nope"],
        &["logs", "nope", "--json"],
        &["calls", "nope"],
        &["calls", "-f", "nope"],
        &["options", "nope"],
        &["versions", "nope"],
        &["rollback", "nope"],
        &["rm", "nope", "--yes"],
        &["token", "rm", "999", "--yes"],
    ] {
        let said = hearth(arguments).failed(1);
        assert!(
            said.contains("no such") || said.contains("nope") || said.contains("no token 999"),
            "{arguments:?}: {said}"
        );
    }
    for arguments in
        [&["logs", "hello"][..], &["logs"], &["calls", "hello"], &["logs", "--request-id", "x"]]
    {
        let said = hearth(arguments).done();
        assert!(said.starts_with("There is no "), "{arguments:?}: {said}");
    }
    // What was removed has what it wrote.
    tenant.deploy("prints", guests::prints());
    tenant.post("/prints", "once").expect(204);
    hearth(&["rm", "prints", "--yes"]).done();
    assert!(hearth(&["logs", "prints"]).done().contains("once"));
}

#[test]
fn the_same_module_again_is_no_version_to_go_back_from() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let file = host.scratch().join("greet.wasm");
    let upload = |module: &[u8]| {
        fs::write(&file, module).unwrap();
        host.command(&tenant.token, &["upload", file.to_str().unwrap()]).done()
    };
    upload(guests::version_one());
    let said = upload(guests::version_one());
    assert!(said.contains("as it was"), "{said}");
    let said = host.command(&tenant.token, &["rollback", "greet"]).failed(1);
    assert!(said.contains("greet") && said.contains("version"), "{said}");
    upload(guests::version_two());
    host.command(&tenant.token, &["rollback", "greet"]).done();
    assert_eq!(tenant.post("/greet", "").expect(200).text(), "version one");
    host.command(&tenant.token, &["rollback", "greet", "2"]).done();
    assert_eq!(tenant.post("/greet", "").expect(200).text(), "version two");
}

#[test]
fn doctor_judges_the_settings_that_it_is_given() {
    let host = Host::start();
    let home = host.scratch();
    let checks = |arguments: &[&str]| {
        let text = run(home, &[&["doctor", "--json"], arguments].concat()).text();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["checks"].clone()
    };
    let of = |checks: &serde_json::Value, name: &str| -> Vec<(String, String)> {
        let all = checks.as_array().unwrap().iter().filter(|check| check["check"] == name);
        let text = |check: &serde_json::Value, key: &str| check[key].as_str().unwrap().to_owned();
        all.map(|check| (text(check, "level"), text(check, "found"))).collect()
    };
    // The host is looked for where the settings say that it is.
    let front = host.front.to_string();
    let found = of(&checks(&["--listen", &front]), "host");
    assert_eq!(found, [("ok".to_owned(), format!("Hearth answers at http://{front}"))]);
    let settings = home.join("settings.toml");
    fs::write(&settings, format!("listen = \"{front}\"\n")).unwrap();
    let found = of(&checks(&["--config", settings.to_str().unwrap()]), "host");
    assert!(found[0].1.contains(&front), "{found:?}");
    let found = of(&checks(&["--listen", &front]), "listen");
    assert_eq!(found[0].0, "ok", "{found:?}");
    // Another program has the address.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    std::thread::spawn({
        let taken = taken.try_clone().unwrap();
        move || taken.incoming().for_each(drop)
    });
    let found = checks(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(of(&found, "listen")[0].0, "fail", "{found}");
    let found = of(&checks(&["--tenant-bind", "192.0.2.1"]), "tenant-bind");
    assert_eq!(found[0].0, "fail", "{found:?}");
    let found = of(&checks(&["--admin-token-file", "/nowhere/token"]), "admin token");
    assert!(found[0].0 == "fail" && found[0].1.contains("/nowhere/token"), "{found:?}");
    let found = of(&checks(&["--data", "/proc/nowhere"]), "disk");
    assert!(found[0].1.contains("/proc"), "{found:?}");
    // A level that is asked for is one that must be reached, with the ids that are given.
    if is_root() {
        let found = checks(&["--isolation", "A"]);
        let reached = of(&found, "uids")[0].0 == "ok" && of(&found, "cgroups")[0].0 == "ok";
        let failed = of(&found, "isolation").iter().any(|(level, _)| level == "fail");
        assert_ne!(reached, failed, "{found}");
    }
}

#[test]
fn a_unit_for_a_home_with_blanks_and_signs() {
    let place = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let home = place.path().join("a home, 100% \"mine\" $HOME");
    fs::create_dir(&home).unwrap();
    let root = place.path().join("root");
    let said = run(&home, &["install", "--user", "--root", root.to_str().unwrap()]).done();
    let within = root.join(home.strip_prefix("/").unwrap());
    let unit = within.join(".config/systemd/user/hearth.service");
    let written = fs::read_to_string(&unit).unwrap();
    let start = written.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
    let expected = r#"/a home, 100%% \"mine\" $$HOME/.config/hearth/hearth.toml""#;
    assert!(start.ends_with(expected), "{start}");
    // The command that is printed to sign in is one of a shell.
    let command = said.lines().find(|line| line.contains("hearth login")).unwrap();
    let words = Command::new("sh")
        .args(["-c", &format!("set -- {}; printf '%s' \"$4\"", command.trim())])
        .output()
        .unwrap();
    let token = String::from_utf8(words.stdout).unwrap();
    assert_eq!(Path::new(&token), home.join(".config/hearth/admin-token"), "{command}");
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: systemd-analyze is not installed");
    }
    let copy = place.path().join("hearth.service");
    fs::copy(&unit, &copy).unwrap();
    let checked = Command::new("systemd-analyze").arg("verify").arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    let wrong = said.lines().filter(|line| {
        line.contains("hearth.service")
            && !line.contains("RestartSteps")
            && !line.contains("RestartMaxDelaySec")
    });
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&str>::new());
}
