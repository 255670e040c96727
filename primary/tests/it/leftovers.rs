//! What is left when something does not end, or cannot be removed: processes of a host that was
//! killed, cgroups, files of a tenant that was removed, user ids that are all given. It is ended,
//! or told, and everybody else is served. And who is ended first where memory is short.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{Beside, command_line, descendants, eventually, holders, is_alive, signal};

/// All cgroups whose names are of this host's data directory.
pub fn groups(host: &Host) -> Vec<PathBuf> {
    let data = fs::metadata(host.data()).unwrap();
    let prefix = format!("hearth-{:x}-{:x}-", data.dev(), data.ino());
    let (mut found, mut places) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    found.push(entry.path());
                }
                places.push(entry.path());
            }
        }
    }
    found
}

/// A worker that somebody has taken over does not end with its host: here it is stopped, which is
/// as bad, since it holds the port and looks at nothing.
#[test]
fn a_worker_that_outlives_its_host_is_ended_by_the_next_one() {
    for mut host in [Host::start(), Host::as_user()] {
        // Another host of the same machine, with the same user ids, of which nothing may be ended.
        let other = Host::start();
        let bystander = other.tenant("demo");
        bystander.deploy("slow", guests::slow());
        let mut call = bystander.open();
        call.send(&bystander.address().request("POST", "/slow?ms=8000").bytes("demo")).unwrap();
        let spared = other.workers(&bystander);
        let [one, two] = ["one", "two"].map(|name| {
            let tenant = host.tenant(name);
            tenant.deploy("one", guests::version_one());
            tenant
        });
        // And once more over the first one's successor, which is another session.
        for _ in 0..2 {
            one.post("/one", "").expect(200);
            two.post("/one", "").expect(200);
            let taken = [host.workers(&one)[0], host.workers(&two)[0]];
            for pid in taken {
                signal(pid, Signal::SIGSTOP);
            }
            let zygote = host.zygote().unwrap();
            host.kill();
            eventually("the zygote's end", || (!is_alive(zygote)).then_some(()));
            assert!(taken.iter().all(|pid| is_alive(*pid)), "they were to stay");
            assert_eq!(holders(one.port, &taken).len(), 1);
            host.start_again();
            for tenant in [&one, &two] {
                for address in tenant.addresses() {
                    assert_eq!(address.post("/one", "").expect(200).text(), "version one");
                }
                assert_eq!(tenant.state(), "ready");
            }
            assert!(taken.iter().all(|pid| !is_alive(*pid)));
        }
        assert!(spared.iter().all(|pid| is_alive(*pid)));
        call.answer("POST").expect(200);
        assert_eq!(other.workers(&bystander), spared);
    }
}

#[test]
fn a_host_that_is_killed_over_and_over_leaves_no_pile_of_cgroups() {
    let mut host = Host::start();
    let tenants = ["one", "two", "three"].map(|name| host.tenant(name));
    let call = |tenants: &[Tenant]| {
        for tenant in tenants {
            tenant.post("/hello", "{}").expect(200);
        }
    };
    call(&tenants);
    let usual = groups(&host).len();
    if usual == 0 {
        // Without cgroups there are none to be left.
        return;
    }
    // Of tenants that are no more, and in another place, where an earlier host was started.
    let roots: BTreeSet<PathBuf> =
        groups(&host).iter().map(|group| group.parent().unwrap().to_owned()).collect();
    let name = groups(&host)[0].file_name().unwrap().to_str().unwrap().to_owned();
    let prefix = &name[..name.match_indices('-').nth(2).unwrap().0 + 1];
    let mut elsewhere = Vec::new();
    for root in &roots {
        let place = root.join(format!("elsewhere-{}", host.pid()));
        fs::create_dir(&place).unwrap();
        for number in 0..50 {
            fs::create_dir(root.join(format!("{prefix}gone-{number}"))).unwrap();
            fs::create_dir(place.join(format!("{prefix}gone-{number}"))).unwrap();
        }
        elsewhere.push(place);
    }
    for _ in 0..3 {
        host.kill();
        host.start_again();
        call(&tenants);
        assert_eq!(groups(&host).len(), usual);
    }
    for place in elsewhere {
        fs::remove_dir(place).unwrap();
    }
    host.terminate();
    assert!(host.ended().success());
    assert!(groups(&host).is_empty());
}

/// Something of a tenant's that nobody can remove, as long as this lives.
struct Stuck {
    file: PathBuf,
}

impl Stuck {
    /// `None` where this machine has no such thing.
    fn new(directory: &Path) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let file = directory.join("stuck");
        fs::write(&file, "stuck").unwrap();
        let made = Command::new("chattr").arg("+i").arg(&file).status();
        made.is_ok_and(|it| it.success()).then_some(Self { file })
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.file).status();
    }
}

fn user_of(host: &Host, tenant: &Tenant) -> u32 {
    tenant.post("/hello", "{}").expect(200);
    let status = fs::read_to_string(format!("/proc/{}/status", host.workers(tenant)[0])).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    line.split('\t').next().unwrap().parse().unwrap()
}

#[test]
fn what_cannot_be_removed_of_a_tenant_is_nobody_elses_and_stops_nobody() {
    for part in ["state", "logs", "releases"] {
        let mut host = Host::start();
        let [gone, neighbour] = ["gone", "neighbour"].map(|name| host.tenant(name));
        let user = user_of(&host, &gone);
        let Some(stuck) = Stuck::new(&host.data().join("tenants/gone").join(part)) else {
            println!("skipped: no file can be made immutable here");
            return;
        };
        host.send(&host.admin("DELETE", "/tenants/gone")).expect(204);
        // Its name is taken until that is gone, and it is said why.
        let again = host.admin("POST", "/tenants").json(&json!({ "name": "gone" }));
        host.send(&again).expect_problem(409, "conflict").expect_detail("cannot be removed");
        let heir = host.tenant("heir");
        if part == "state" {
            assert_ne!(user_of(&host, &heir), user, "files of that user are left");
        }
        for _ in 0..2 {
            host.kill_and_start_again();
            for tenant in [&neighbour, &heir] {
                tenant.post("/hello", "{}").expect(200);
            }
        }
        assert!(host.log().contains("the files of a removed tenant could not be removed"));
        host.send(&again).expect_problem(409, "conflict");
        drop(stuck);
        host.send(&again).expect(201);
        host.kill_and_start_again();
        neighbour.post("/hello", "{}").expect(200);
    }
}

#[test]
fn when_all_user_ids_are_given_it_is_said_and_the_others_are_served() {
    // One for compilers, and two for tenants; the first start makes one of these.
    let mut host = Host::with(&["--uids", "1950000-1950002"]);
    let [first, second] = {
        let listed = host.send(&host.admin("GET", "/tenants")).expect(200).json();
        let known = listed["tenants"].as_array().unwrap().len();
        assert!(known <= 1, "{listed}");
        let second = host.tenant("second");
        if known == 0 { [host.tenant("first"), second] } else { [second.clone(), second] }
    };
    first.post("/hello", "{}").expect(200);
    let one_more = host.admin("POST", "/tenants").json(&json!({ "name": "third" }));
    for _ in 0..2 {
        let refused = host.send(&one_more).expect_problem(409, "conflict");
        refused.expect_detail("no uid of 1950001-1950002 is free").expect_detail("--uids");
    }
    let none = host.send(&host.admin("GET", "/tenants/third"));
    none.expect_problem(404, "not_found");

    // A tenant without one at a start, as when the range was made smaller; and a number that is
    // not free, since files of a tenant that is no more are left.
    let user = user_of(&host, &second);
    host.kill_and_wait();
    let ghost = host.data().join("tenants/ghost/state");
    fs::create_dir_all(&ghost).unwrap();
    let Some(_stuck) = Stuck::new(&ghost) else {
        println!("skipped: no file can be made immutable here");
        return;
    };
    std::os::unix::fs::chown(&ghost, Some(user), Some(user)).unwrap();
    let store = rusqlite::Connection::open(host.data().join("hearth.db")).unwrap();
    store.execute("UPDATE tenants SET user = NULL WHERE name = 'second'", []).unwrap();
    let others: Vec<String> = store
        .prepare("SELECT name FROM tenants WHERE name <> 'second'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    drop(store);
    host.start_again();
    for name in &others {
        let called = crate::http::Request::new("POST", &format!("/t/{name}/hello")).body("{}");
        host.send(&called).expect(200);
    }
    for address in second.addresses() {
        address.post("/hello", "{}").expect_problem(503, "worker_unavailable");
    }
    let reason = second.ask("/worker")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("no uid is free"), "{reason}");
    assert!(host.log().contains("no uid of 1950001-1950002 is free"));
}

/// By the kernel's word: who has more is ended sooner.
fn offers(pids: impl IntoIterator<Item = i32>) -> BTreeMap<i32, i32> {
    let offer = |pid: i32| {
        let offer = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?;
        Some((pid, offer.trim().parse().ok()?))
    };
    pids.into_iter().filter_map(offer).collect()
}

#[test]
fn where_memory_is_short_compilers_go_first_and_the_host_last() {
    for host in [Host::start(), Host::as_user()] {
        let tenant = host.tenant("demo");
        let pid = host.pid();
        let watched = Beside::run(move |seen: &mut BTreeSet<i32>| {
            let all = descendants(pid);
            let compilers = all.into_iter().filter(|pid| command_line(*pid).contains("compile"));
            seen.extend(offers(compilers).into_values());
        });
        for round in 0..5 {
            tenant.deploy(&format!("one-{round}"), guests::version_one());
            tenant.deploy(&format!("one-{round}"), guests::version_two());
        }
        let compilers = watched.stop();
        // One that was just born has not said so yet.
        assert_eq!(compilers.last(), Some(&1_000), "{compilers:?}");
        let (worker, zygote) = (host.workers(&tenant)[0], host.zygote().unwrap());
        let offers = offers([worker, zygote, pid]);
        assert!(1_000 > offers[&worker], "{offers:?}");
        assert!(offers[&worker] > offers[&zygote], "{offers:?}");
        assert!(offers[&zygote] > offers[&pid] && offers[&pid] <= 0, "{offers:?}");
        let _: Value = tenant.ask("/worker");
    }
}
