//! The walls around workers: which stand, what the host says of them, and what the kernel says.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::jailed::without;
use crate::processes::{eventually, is_alive};

/// What `hearth` says with these arguments on a kernel that lacks these calls.
fn hearth_without(calls: &str, arguments: &[&str]) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(without());
    command.args([calls, env!("CARGO_BIN_EXE_hearth")]).args(arguments);
    command.current_dir(scratch.path()).env_clear().env("HOME", scratch.path());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).output().unwrap()
}

fn status(pid: i32) -> BTreeMap<String, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    status.lines().filter_map(pair).collect()
}

/// What each descriptor is.
fn descriptors(pid: i32) -> BTreeMap<u32, String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let pair = |fd: fs::DirEntry| {
        let number = fd.file_name().to_str()?.parse().ok()?;
        let to = fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned();
        Some((number, to.split(":[").next()?.to_owned()))
    };
    fds.filter_map(pair).collect()
}

#[test]
fn a_worker_has_no_right_that_it_does_not_need() {
    let host = Host::start();
    let [one, two] = ["one", "two"].map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        tenant
    });
    assert_eq!(one.ask("/worker")["isolation"], "A");
    assert_eq!(host.figure(r#"hearth_isolation{level="A"}"#), 1);
    let workers = [&one, &two].map(|tenant| host.workers(tenant)[0]);
    let mut users = Vec::new();
    for worker in workers {
        let status = status(worker);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let held = u64::from_str_radix(&status[set], 16).unwrap();
            // What a zygote gives users with cannot be had without a program that is run.
            let most = if set == "CapBnd" { 0xc0 } else { 0 };
            assert_eq!(held & !most, 0, "{set}");
        }
        assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("2", "1"));
        assert_eq!(status["Groups"], "");
        let ids: Vec<&str> = status["Uid"].split('\t').collect();
        assert!(ids.iter().all(|id| *id == ids[0]) && ids[0] != "0", "{ids:?}");
        assert_eq!(status["Gid"], status["Uid"]);
        users.push(ids[0].to_owned());

        let mut kinds = descriptors(worker);
        let standard = [0, 1, 2, 3, 4].map(|number| kinds.remove(&number).unwrap());
        assert_eq!(standard[0], "socket", "the control socket");
        assert_eq!(standard[1], "/dev/null");
        assert_eq!(standard[2], "pipe", "what it says of its own mistakes");
        assert!(standard[3].ends_with("/state"), "its own state: {}", standard[3]);
        assert_eq!(standard[4], "socket", "the listener");
        for (number, kind) in kinds {
            let known = ["socket", "anon_inode", "/dev/null"].contains(&kind.as_str())
                || kind.ends_with("/pagemap")
                // What its functions' first memory is copied from, page by page.
                || kind.ends_with(".cwasm");
            assert!(known, "{number}: {kind}");
        }
    }
    assert_ne!(users[0], users[1]);
}

#[test]
fn a_user_is_kept_by_its_tenant() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let user = status(host.workers(&tenant)[0])["Uid"].clone();
    host.kill_and_start_again();
    host.tenant("other").post("/hello", "{}").expect(200);
    tenant.post("/hello", "{}").expect(200);
    assert_eq!(status(host.workers(&tenant)[0])["Uid"], user);
}

#[test]
fn namespaces_are_the_zygotes_and_empty() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let worker = host.workers(&tenant)[0];
    for kind in ["net", "mnt", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(worker), of(host.zygote().unwrap()), "{kind}");
        assert_ne!(of(worker), of(host.pid()), "{kind}");
    }
    let root: Vec<_> = fs::read_dir(format!("/proc/{worker}/root")).unwrap().flatten().collect();
    let names: Vec<_> = root.iter().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name == "proc" || name == "dev"), "{names:?}");
    let links = fs::read_to_string(format!("/proc/{worker}/net/dev")).unwrap();
    let links: Vec<_> = links.lines().skip(2).map(|line| line.trim().split(':').next()).collect();
    assert!(links.iter().all(|link| *link != Some("eth0")), "{links:?}");
}

#[test]
fn an_ordinary_user_reaches_level_b_and_everything_works() {
    let host = Host::as_user();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    for address in tenant.addresses() {
        assert_eq!(address.post("/one", "").expect(200).text(), "version one", "{}", address.name);
    }
    assert_eq!(tenant.ask("/worker")["isolation"], "B");
    let status = status(host.workers(&tenant)[0]);
    assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("2", "1"));
    assert_eq!(status["CapEff"], "0000000000000000");
    let said = host.log();
    assert!(said.contains("isolation  B: namespaces, Landlock, system call filter"), "{said}");
    assert!(said.contains("no uids: the host does not run as root"), "{said}");
    assert!(said.contains("→ Delegate=cpu memory pids"), "{said}");
}

/// What came with Linux 6.4 and 6.7: Debian 12 and Ubuntu 22.04 have neither.
#[test]
fn on_an_older_kernel_a_worker_needs_nothing_more() {
    let host = Host::wrapped(&[&without(), "auxv,pagemap_scan"], &[]);
    let tenant = host.tenant("demo");
    for version in [guests::version_one(), guests::version_two()] {
        tenant.deploy("one", version);
        for address in tenant.addresses() {
            address.post("/one", "").expect(200);
        }
    }
    assert_eq!(tenant.ask("/worker")["isolation"], "A");
    let log = host.log();
    assert!(log.contains("the kernel has no PAGEMAP_SCAN"), "{log}");
    assert!(!log.contains("sandbox violation"), "{log}");
}

#[test]
fn row_47_without_a_wall_the_level_falls_and_is_said() {
    for (calls, level, said) in [
        ("unshare", "C", "no namespaces: namespaces cannot be made"),
        ("landlock_create_ruleset", "D", "no landlock: the kernel has none"),
        ("fsopen", "C", "no namespaces: an empty root cannot be mounted"),
    ] {
        let host = Host::wrapped(&[&without(), calls], &[]);
        let tenant = host.tenant("demo");
        tenant.post("/hello", "{}").expect(200);
        assert_eq!(tenant.ask("/worker")["isolation"], level, "{calls}");
        assert_eq!(host.figure(&format!("hearth_isolation{{level=\"{level}\"}}")), 1);
        let log = host.log();
        assert!(log.contains(&format!("isolation  {level}: ")) && log.contains(said), "{log}");
    }
}

#[test]
fn row_47_below_what_is_asked_for_nothing_starts() {
    for (calls, least, level) in
        [("unshare", "B", "C"), ("landlock_create_ruleset", "C", "D"), ("unshare", "A", "C")]
    {
        let output =
            hearth_without(calls, &["up", "--listen", "127.0.0.1:0", "--isolation", least]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        let said = format!("isolation reaches level {level} here, and {least} is asked for");
        assert!(error.contains(&said) && error.contains('→'), "{error}");
    }
    // Without a filter there is no level at all.
    let output = hearth_without("seccomp", &["up", "--listen", "127.0.0.1:0"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("a filter could not be set up"), "{error}");
}

#[test]
fn row_03_without_cgroups_each_worker_has_so_much_memory() {
    let host = Host::as_user();
    let tenant = host.tenant("demo");
    tenant.deploy_with("eats", guests::eats_memory(), &json!({ "memory_mb": 200 }));
    tenant.post("/eats?mb=100", "").expect(200);
    let limits = json!({ "limits": { "total_memory_mb": 64 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    let status = tenant.post("/eats?mb=150", "").status;
    assert!(status >= 500, "{status}: it has more than its tenant may have");
    assert_eq!(tenant.post("/eats?mb=10", "").expect(200).text(), "10");
}

#[test]
fn doctor_tells_the_same() {
    let output = hearth_without("unshare", &["doctor", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = |name: &str| {
        let checks = said["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == name).unwrap();
        (check["level"].as_str().unwrap(), check["found"].as_str().unwrap())
    };
    assert_eq!(found("isolation").0, "ok");
    assert!(found("isolation").1.starts_with("level C: "), "{said}");
    assert_eq!(found("namespaces").0, "warn");
    assert_eq!(found("landlock").0, "ok");
    assert_eq!(found("system calls").0, "ok");
}

#[test]
fn row_03_a_tenant_has_so_much_memory_in_all_and_a_kill_for_it_is_told() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("eats", guests::eats_memory(), &json!({ "memory_mb": 200 }));
    assert_eq!(tenant.post("/eats?mb=100", "").expect(200).text(), "100");
    let limits = json!({ "limits": { "total_memory_mb": 64 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    let worker = host.workers(&tenant)[0];
    let groups = fs::read_to_string(format!("/proc/{worker}/cgroup")).unwrap();
    assert!(groups.contains("hearth-"), "{groups}");

    let call = tenant.address().request("POST", "/eats?mb=150");
    assert!(call.try_send(tenant.address().to).is_err(), "it has more than its tenant may have");
    eventually("its end", || (!is_alive(worker)).then_some(()));
    let counted = r#"hearth_out_of_memory_total{tenant="demo"}"#;
    eventually("the count", || (host.figure(counted) == 1).then_some(()));
    let reason = tenant.ask("/worker")["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("out of memory: its processes had all of the 64 MiB"), "{reason}");
    assert_eq!(tenant.post("/eats?mb=10", "").expect(200).text(), "10");
}
