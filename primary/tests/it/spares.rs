//! Children that the zygote forks before anybody needs them: who wakes is given one, once, and is
//! served as by one that was forked when it was wanted; one that dies, stops or is killed costs its
//! wake next to nothing; and nothing of what it did before is anybody's.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use hearth_e2e::process::waits_for_message;
use hearth_wire::limits::SPARE_MAX_BYTES;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, has_a_listener};
use crate::jailed::without;
use crate::leftovers::groups;
use crate::processes::{
    Beside, Fate, children, descendants, eventually, is_alive, pause, signal, soon, when_told,
};

/// As the zygote has them at most.
const MOST: usize = 4;
/// None of them: every worker is forked when it is wanted.
const NONE: &[&str] = &["--spares", "0"];

impl Host {
    /// The children that wait to be somebody's worker, as the kernel sees them.
    pub fn spares(&self) -> Vec<i32> {
        let children = self.zygote().map(children).unwrap_or_default();
        children.into_iter().filter(|pid| waits_for_message(*pid)).collect()
    }

    /// The one that waits, once there is no other, nor one that may wait soon: there are more after
    /// many have woken.
    #[track_caller]
    pub fn spare(&self) -> i32 {
        eventually("one spare child", || {
            let children = self.zygote().map(children).unwrap_or_default();
            let mut nobodys = children.into_iter().filter(|pid| !has_a_listener(*pid));
            nobodys.next().filter(|pid| nobodys.next().is_none() && waits_for_message(*pid))
        })
    }

    /// Has the tenant be given the one that waits, by something that starts a worker of its. On a
    /// busy machine a child may not take what it is given in time, and ends: then once more.
    #[track_caller]
    pub fn give_spare(&self, tenant: &Tenant, mut starts_one: impl FnMut(i32)) -> i32 {
        for _ in 0..10 {
            let spare = self.spare();
            starts_one(spare);
            if self.workers(tenant).contains(&spare) {
                // Which may be asleep again by then.
                eventually("it alone", || {
                    self.workers(tenant).iter().all(|worker| *worker == spare).then_some(())
                });
                return spare;
            }
            eventually("its end", || (!is_alive(spare)).then_some(()));
        }
        panic!("{} is served by none that was forked before", tenant.name);
    }

    /// Has the tenant served by a worker that was forked before.
    #[track_caller]
    pub fn serve_by_spare(&self, tenant: &Tenant) -> i32 {
        self.give_spare(tenant, |_| {
            self.send(&tenant.api("POST", "/worker/restart")).expect(200);
        })
    }
}

/// A host whose tenant was put to sleep, and a child that waits.
fn asleep(options: &[&str]) -> (Host, Tenant) {
    let host = Host::with(&[&["--idle", "300ms"][..], options].concat());
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    host.sleeps(&tenant);
    (host, tenant)
}

/// How long a wake takes until its answer, of one that must succeed.
fn wake(tenant: &Tenant) -> Duration {
    let began = Instant::now();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    began.elapsed()
}

#[test]
fn whoever_wakes_is_given_one_that_waits_once() {
    let (host, tenant) = asleep(&[]);
    let mut given = BTreeSet::new();
    for _ in 0..5 {
        let spare = host.give_spare(&tenant, |_| {
            host.sleeps(&tenant);
            wake(&tenant);
        });
        assert!(given.insert(spare));
        host.sleeps(&tenant);
        assert!(!is_alive(spare), "it serves nobody else");
    }
    // So is who is woken by name and by path.
    for address in tenant.addresses() {
        host.give_spare(&tenant, |_| {
            host.sleeps(&tenant);
            assert_eq!(address.post("/one", "").expect(200).text(), "version one");
        });
    }
}

#[test]
fn so_is_the_next_worker_of_whoever_uploads() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let mut versions = [guests::version_one(), guests::version_two()].into_iter().cycle();
    host.give_spare(&tenant, |_| drop(tenant.deploy("one", versions.next().unwrap())));
}

#[test]
fn what_it_ran_before_is_on_no_record() {
    let (host, tenant) = asleep(&[]);
    host.spare();
    for name in ["Ada", "Bea"] {
        let said = json!({ "name": name }).to_string();
        tenant.post("/hello", &said).expect(200);
        host.sleeps(&tenant);
    }
    let lines = tenant.ask("/logs");
    let said: Vec<_> = lines["lines"].as_array().unwrap().iter().map(|it| &it["text"]).collect();
    assert_eq!(said, ["greeting Ada", "greeting Bea"], "{lines}");
    assert!(!host.log().contains("a jailed process says"), "{}", host.log());
    assert!(host.log().contains("the walls around spare children hold"), "{}", host.log());
}

/// Before it is given, and between that it has what it was given and that it says so.
#[test]
fn one_that_is_stopped_or_killed_costs_its_wake_next_to_nothing() {
    let (plain, tenant) = asleep(NONE);
    let usual = (0..6).map(|_| {
        plain.sleeps(&tenant);
        wake(&tenant)
    });
    let usual = usual.min().unwrap();
    drop(plain);
    let (host, tenant) = asleep(&[]);
    let zygote = host.zygote().unwrap();
    type Harm = (&'static str, fn(i32) -> Option<std::thread::JoinHandle<()>>);
    let harms: [Harm; 4] = [
        ("killed before", |spare| {
            signal(spare, Signal::SIGKILL);
            None
        }),
        ("stopped before", |spare| {
            signal(spare, Signal::SIGSTOP);
            None
        }),
        ("killed meanwhile", |spare| Some(when_told(spare, Fate::Killed))),
        ("stopped meanwhile", |spare| Some(when_told(spare, Fate::Stopped))),
    ];
    for (harm, act) in harms {
        let mut least = Duration::MAX;
        for _ in 0..6 {
            host.sleeps(&tenant);
            let spare = host.spare();
            let acting = act(spare);
            least = least.min(wake(&tenant));
            if let Some(acting) = acting {
                acting.join().unwrap();
            }
            // Nor does it come to serve later, when somebody lets it go on.
            signal(spare, Signal::SIGCONT);
            eventually("its end", || (!is_alive(spare)).then_some(()));
            // The zygote holds what it would have given, for a moment.
            eventually("a worker", || {
                matches!(host.workers(&tenant)[..], [worker] if worker != spare).then_some(())
            });
        }
        println!("{harm}: {least:?}, and {usual:?} where there are none");
        // The least of some, on a machine that may be busy with something else.
        assert!(least < usual + Duration::from_millis(20), "{harm}: {least:?}, {usual:?}");
    }
    assert_eq!(host.zygote(), Some(zygote));
    assert!(!host.log().contains("the zygote is gone"), "{}", host.log());
}

/// Over and over, at any time, while others wake.
#[test]
fn who_kills_and_stops_them_all_the_while_keeps_nobody_from_waking() {
    const TENANTS: usize = 16;
    let host = Host::with(&["--idle", "200ms"]);
    let tenants: Vec<_> = (0..TENANTS).map(|number| host.tenant(&format!("t{number}"))).collect();
    let zygote = host.zygote().unwrap();
    let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
    let harm = Beside::run(move |harmed: &mut BTreeSet<i32>| {
        for child in children(zygote) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            // Workers are left alone: what becomes of those is another promise.
            if !waits_for_message(child) || !stop_spare(child) {
                continue;
            }
            if seed.is_multiple_of(2) {
                signal(child, Signal::SIGKILL);
            }
            harmed.insert(child);
        }
        pause(Duration::from_millis(seed % 20));
    });
    for _ in 0..6 {
        std::thread::scope(|scope| {
            for tenant in &tenants {
                scope.spawn(move || {
                    let answer = tenant.post("/hello", r#"{"name":"Ada"}"#).expect(200);
                    assert_eq!(answer.json()["greeting"], "Hello, Ada!");
                });
            }
        });
        for tenant in &tenants {
            host.sleeps(tenant);
        }
    }
    let harmed = harm.stop();
    assert!(harmed.len() > 3, "{harmed:?}");
    assert_eq!(host.zygote(), Some(zygote));
    for child in children(zygote) {
        signal(child, Signal::SIGCONT);
    }
    wake_all(&host, &tenants);
}

/// Stops a child that is nobody's, and tells whether it was. Between a look and a signal it may become
/// somebody's worker, which also waits for its first message: only one that stands still is what it
/// is seen to be. Any other goes on.
fn stop_spare(child: i32) -> bool {
    signal(child, Signal::SIGSTOP);
    let stands_still = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
    };
    let is_stopped = soon(|| stands_still() || !is_alive(child)) && is_alive(child);
    let is_nobodys = is_stopped && waits_for_message(child) && !has_a_listener(child);
    if !is_nobodys {
        signal(child, Signal::SIGCONT);
    }
    is_nobodys
}

fn wake_all(host: &Host, tenants: &[Tenant]) {
    for tenant in tenants {
        tenant.post("/hello", "{}").expect(200);
        // None where it is asleep again by now.
        eventually("no more than one", || (host.workers(tenant).len() <= 1).then_some(()));
    }
}

#[test]
fn there_are_more_while_many_wake_and_one_when_it_is_quiet() {
    let host = Host::with(&["--idle", "200ms"]);
    let tenants: Vec<_> = (0..12).map(|number| host.tenant(&format!("t{number}"))).collect();
    let zygote = host.zygote().unwrap();
    assert_eq!(host.spares().len().max(1), 1);
    let watched = Beside::run(move |seen: &mut BTreeSet<usize>| {
        let waits = |pid: &i32| waits_for_message(*pid);
        seen.insert(children(zygote).iter().filter(|pid| waits(pid)).count());
    });
    let more = soon(|| {
        std::thread::scope(|scope| {
            for tenant in &tenants {
                scope.spawn(move || tenant.post("/hello", "{}").expect(200));
            }
        });
        for tenant in &tenants {
            host.sleeps(tenant);
        }
        watched.seen().last().is_some_and(|most| *most > 1)
    });
    assert!(more, "there was never more than one");
    eventually("quiet", || (host.spares().len() == 1).then_some(()));
    let seen = watched.stop();
    assert!(seen.last().is_some_and(|most| *most <= MOST), "{seen:?}");
}

/// What a worker has, whichever way it came to be, by the kernel's word.
fn rights(worker: i32) -> BTreeMap<String, String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{worker}/{file}")).unwrap();
    let mut rights = BTreeMap::new();
    for line in read("status").lines() {
        let Some((name, value)) = line.split_once(":\t") else { continue };
        let counts = ["Uid", "Gid", "Groups", "NoNewPrivs", "Umask", "Threads"].contains(&name)
            || ["Cap", "Seccomp", "Sig"].iter().any(|it| name.starts_with(it));
        // Of the handlers of faults, that come with the first call, both have the same.
        if counts && name != "SigQ" {
            rights.insert(name.to_owned(), value.to_owned());
        }
    }
    for line in read("limits").lines().skip(1) {
        let (name, value) = line.split_at(26);
        // What it is born with is part of it, and is about the same.
        if !name.starts_with("Max data size") {
            rights.insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }
    for kind in ["net", "mnt", "ipc", "uts", "user"] {
        let own = fs::read_link(format!("/proc/{worker}/ns/{kind}")).unwrap();
        let hosts = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        rights.insert(format!("namespace {kind}"), format!("{}", own == hosts));
    }
    let groups = read("cgroup");
    let ours = groups.lines().filter_map(|line| line.rsplit('/').next());
    let ours = ours.filter(|group| group.starts_with("hearth-")).count();
    rights.insert("cgroups".to_owned(), ours.to_string());
    rights.insert("offer".to_owned(), read("oom_score_adj").trim().to_owned());
    let mut open: BTreeMap<u32, String> = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{worker}/fd")).unwrap().flatten() {
        let number: u32 = fd.file_name().to_str().unwrap().parse().unwrap();
        // Callers' connections come and go.
        let Ok(to) = fs::read_link(fd.path()) else { continue };
        let to = to.to_string_lossy().into_owned();
        let to = to.split(":[").next().unwrap();
        open.insert(number, to.rsplit('/').next().unwrap().to_owned());
    }
    let fixed: Vec<_> = (0..5).map(|number| open.remove(&number)).collect();
    rights.insert("fixed".to_owned(), format!("{fixed:?}"));
    let mut others: Vec<String> = open.into_values().filter(|it| it != "socket").collect();
    others.sort();
    rights.insert("others".to_owned(), others.join(" "));
    rights
}

/// At each level there is, as root and as a user: with and without spare children the walls are the
/// same.
#[test]
fn one_that_was_given_stands_behind_the_same_walls() {
    let lacking = ["", "unshare", "landlock_create_ruleset", "unshare,landlock_create_ruleset"];
    let root = |lacks: &str, options: &[&str]| match lacks {
        "" => Host::with(options),
        lacks => Host::wrapped(&[&without(), lacks], options),
    };
    for case in 0..=lacking.len() {
        let mut seen = Vec::new();
        for options in [&[][..], NONE] {
            let host = match lacking.get(case) {
                Some(lacks) => root(lacks, options),
                None => Host::as_user_with(options),
            };
            let tenant = host.tenant("demo");
            tenant.deploy("one", guests::version_one());
            let worker = match options {
                [] => host.serve_by_spare(&tenant),
                _ => host.workers(&tenant)[0],
            };
            let level = tenant.ask("/worker")["isolation"].as_str().unwrap().to_owned();
            tenant.post("/one", "").expect(200);
            seen.push((level, rights(worker)));
            assert!(!host.log().contains("sandbox violation"), "{}", host.log());
        }
        println!("{}: {:?}", seen[0].0, seen[0].1);
        assert_eq!(seen[0], seen[1]);
    }
}

/// It is warm when it waits, and what that took of memory is bounded.
#[test]
fn what_it_takes_before_it_is_given_is_bounded() {
    for host in [Host::start(), Host::as_user()] {
        let spare = host.spare();
        let sums = fs::read_to_string(format!("/proc/{spare}/smaps_rollup")).unwrap();
        let of = |name: &str| {
            let line = sums.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
        };
        println!("{} private, {} of its share", of("Private_Dirty:"), of("Pss:"));
        assert!(of("Private_Dirty:") <= SPARE_MAX_BYTES);
        let threads = fs::read_dir(format!("/proc/{spare}/task")).unwrap().count();
        assert_eq!(threads, 1);
    }
}

/// The kernel moves no charge: what a worker had before it was its tenant's is taken off.
#[test]
fn what_it_took_is_taken_off_its_tenants_memory() {
    for (options, less) in [(&[][..], 4 * SPARE_MAX_BYTES), (NONE, 0)] {
        let host = Host::with(options);
        let tenant = host.tenant("demo");
        let limits = json!({ "limits": { "total_memory_mb": 64 } });
        host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
        tenant.deploy("one", guests::version_one());
        let limits = groups(&host).into_iter().filter_map(|group| {
            let is_its = group.to_string_lossy().ends_with("-demo");
            let files = ["memory.max", "memory.limit_in_bytes"];
            let read = |file| fs::read_to_string(group.join(file)).ok();
            files.into_iter().find_map(read).filter(|_| is_its)
        });
        let limits: Vec<u64> = limits.map(|it| it.trim().parse().unwrap()).collect();
        assert_eq!(limits, [(64 << 20) - less]);
    }
}

#[test]
fn they_end_with_their_zygote_and_with_their_host() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let (zygote, spare) = (host.zygote().unwrap(), host.spare());
    signal(zygote, Signal::SIGKILL);
    eventually("its end", || (!is_alive(spare)).then_some(()));
    tenant.post("/hello", "{}").expect(200);
    let next = eventually("another", || {
        let other = host.zygote().is_some_and(|it| it != zygote);
        other.then(|| host.spares().first().copied()).flatten()
    });
    assert_ne!(next, spare);
    let all = descendants(host.pid());
    host.kill();
    eventually("the end of all", || all.iter().all(|pid| !is_alive(*pid)).then_some(()));

    // One that is stopped sees no end, and is ended by the next host.
    host.start_again();
    let stopped = host.spare();
    signal(stopped, Signal::SIGSTOP);
    let zygote = host.zygote().unwrap();
    host.kill();
    eventually("the zygote's end", || (!is_alive(zygote)).then_some(()));
    assert!(is_alive(stopped));
    host.start_again();
    assert!(!is_alive(stopped));
    tenant.on(&host).post("/hello", "{}").expect(200);
}

/// A build whose function cannot be called: workers are forked when they are wanted, and it is said
/// once.
#[test]
fn without_a_function_that_can_be_run_there_are_none_and_all_is_served() {
    for (module, said) in [
        (guests::traps(), "/hello was called and answered HTTP/1.1 500"),
        (guests::loops(), "what they run first does not come to its end"),
    ] {
        let build = tempfile::tempdir().unwrap();
        let mounts = json!({ "mounts": [{ "path": "/hello", "component": "hello" }] });
        fs::write(build.path().join("bundle.json"), mounts.to_string()).unwrap();
        let packed = zstd::encode_all(module, 3).unwrap();
        fs::write(build.path().join("hello.wasm.zst"), packed).unwrap();
        let host = Host::with(&["--bundle", build.path().to_str().unwrap()]);
        let tenant = host.tenant("demo");
        tenant.deploy("one", guests::version_one());
        assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
        assert_eq!(host.spares(), [0_i32; 0]);
        let log = host.log();
        let told: Vec<_> = log.lines().filter(|it| it.contains("no spare children")).collect();
        assert!(told.len() == 1 && told[0].contains(said), "{told:?}");
    }
}

fn draw(tenant: &Tenant, calls: usize) -> Vec<[String; 4]> {
    let mut connection = tenant.open();
    let request = tenant.address().request("POST", "/draws");
    let draws = (0..calls).map(|_| {
        let said = connection.call(&request).expect(200).text();
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.try_into().unwrap()
    });
    draws.collect()
}

/// Neither functions nor what serves them: two processes that came from one share no number.
#[test]
fn two_workers_share_no_random_number_and_no_order_of_hashes() {
    const CALLS: usize = 5_000;
    for options in [&[][..], NONE] {
        let host = Host::with(options);
        let tenants = ["one", "two"].map(|name| {
            let tenant = host.tenant(name);
            tenant.deploy("draws", guests::draws());
            if options.is_empty() {
                host.serve_by_spare(&tenant);
            }
            tenant
        });
        let drawn = std::thread::scope(|scope| {
            let drawing = [&tenants[0], &tenants[1]].map(|it| scope.spawn(move || draw(it, CALLS)));
            drawing.map(|it| it.join().unwrap())
        });
        for kind in 0..4 {
            let of = |draws: &[[String; 4]]| -> HashSet<String> {
                draws.iter().map(|it| it[kind].clone()).collect()
            };
            let [one, two] = [of(&drawn[0]), of(&drawn[1])];
            assert!(one.is_disjoint(&two), "{}", drawn[0][0][kind]);
            // The seed of hash tables, and so their order, may be kept from a call to the next.
            if kind < 2 {
                assert_eq!([one.len(), two.len()], [CALLS; 2], "{}", drawn[0][0][kind]);
            }
        }
        let [one, two] = tenants.map(|tenant| host.workers(&tenant)[0]);
        let shared = shared_numbers(one, two);
        assert!(shared.is_empty(), "{options:?}: {shared:x?}");
    }
}

/// What a worker's thread has for itself, and less than the C library has below it.
const OWN_BYTES: u64 = 4_096;

/// What of what each thread has for itself is the same number in the first thread of both, is none that
/// counts something, and points to nothing: keys of hash tables, and what generators have drawn.
fn shared_numbers(one: i32, two: i32) -> Vec<(u64, u64)> {
    let [(one_at, one), (two_at, two)] = [one, two].map(|pid| {
        let traced = Pid::from_raw(pid);
        ptrace::attach(traced).unwrap();
        waitpid(traced, None).unwrap();
        let at = ptrace::getregs(traced).unwrap().fs_base;
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut words = BTreeMap::new();
        for before in (8..=OWN_BYTES).step_by(8) {
            let mut word = [0; 8];
            if memory.read_at(&mut word, at - before).is_ok_and(|read| read == 8) {
                words.insert(before, u64::from_le_bytes(word));
            }
        }
        ptrace::detach(traced, None).unwrap();
        (at, words)
    });
    assert_eq!(one_at, two_at, "they are of one process");
    assert!(one.len() > 100, "{}", one.len());
    let is_random = |word: u64| {
        let bytes = word.to_le_bytes();
        let differ = bytes.iter().collect::<BTreeSet<_>>().len();
        // Text of the calendar is none, nor is its end, and addresses have nothing above 47 bits.
        let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
            || bytes.windows(3).any(|it| it == b"GMT");
        differ >= 6 && !is_text && word >> 48 != 0 && word >> 48 != 0xffff
    };
    let shared = one.iter().filter(|(at, word)| is_random(**word) && two.get(*at) == Some(*word));
    shared.map(|(at, word)| (*at, *word)).collect()
}

/// The first function that is called there is the one that it has run before.
#[test]
fn nothing_of_what_it_ran_is_found_by_a_call() {
    let build = tempfile::tempdir().unwrap();
    let mounts = json!({ "mounts": [
        { "path": "/dirties", "component": "dirties" },
        { "path": "/kept", "component": "dirties", "options": { "reuse": 100 } },
    ] });
    fs::write(build.path().join("bundle.json"), mounts.to_string()).unwrap();
    let packed = zstd::encode_all(guests::dirties_memory(), 3).unwrap();
    fs::write(build.path().join("dirties.wasm.zst"), packed).unwrap();
    let bundle = build.path().to_str().unwrap().to_owned();
    let host = Host::with(&["--idle", "300ms", "--bundle", &bundle]);
    let tenant = host.tenant("demo");
    for round in 0..5 {
        host.give_spare(&tenant, |_| {
            host.sleeps(&tenant);
            assert_eq!(tenant.post("/dirties", "").expect(200).text(), "clean", "{round}");
        });
        assert_eq!(tenant.post("/dirties", "").expect(200).text(), "clean", "{round}");
        let kept: Vec<_> = (0..3).map(|_| tenant.post("/kept", "").expect(200).text()).collect();
        assert_eq!(kept, ["clean", "dirty", "dirty"], "{round}");
    }
    let _: Value = tenant.ask("/worker");
}
