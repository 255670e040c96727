//! A native attacker made from the policy: each jailed process that looks at strangers' bytes makes
//! every call that the policy knows, with all arguments by which a condition is just missed, and
//! what has no condition with arguments that would change what memory may be, or whose something is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use hearth_jail::policy::{POLICY, Row, Stage, Test, Verdict};
use nix::errno::Errno;
use nix::libc::{self, c_long};

use super::state::STATE;
use super::{CONTROL, LISTENER, NOBODY, NONE, connection_of, mapping};
use crate::captive::{Came, Captive};
use crate::guests;
use crate::host::Host;
use crate::jailed;

/// In which argument, and whether its upper half counts.
fn argument(test: Test) -> (usize, bool) {
    match test {
        Test::Is(at, _) | Test::Not(at, _) | Test::UpTo(at, _) | Test::Bits(at, ..) => {
            (usize::from(at), false)
        }
        Test::Null(at) | Test::Given(at) => (usize::from(at), true),
    }
}

/// Values at the edges of a condition, on both sides.
fn edges(test: Test) -> Vec<u64> {
    match test {
        Test::Is(_, value) | Test::Not(_, value) => {
            vec![value, value ^ 1, value + 1, value | 1 << 31, !value & 0xffff_ffff]
        }
        Test::UpTo(_, value) => vec![value, 0, value + 1, 0xffff_ffff],
        Test::Bits(_, mask, value) => {
            let bits = (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit != 0);
            bits.map(|bit| value ^ bit).chain([value, !value & mask]).collect()
        }
        Test::Null(_) | Test::Given(_) => vec![0, 1, 1 << 32],
    }
}

/// Arguments by which all of these hold.
fn fulfil(tests: &[Test], mut arguments: [u64; 6]) -> [u64; 6] {
    for test in tests {
        let (at, _) = argument(*test);
        let all_here = |value: u64| {
            let tried = with(arguments, at, value);
            tests.iter().filter(|it| argument(**it).0 == at).all(|it| it.holds(&tried))
        };
        let here = tests.iter().filter(|it| argument(**it).0 == at);
        let fitting = here.flat_map(|it| edges(*it)).find(|value| all_here(*value));
        arguments[at] = fitting.expect("a condition can be fulfilled");
    }
    arguments
}

fn with(mut arguments: [u64; 6], at: usize, value: u64) -> [u64; 6] {
    arguments[at] = value;
    arguments
}

/// With what a call must not be made: what fulfils all conditions but one, or what is forbidden
/// beside them, and the same with something in the half of a number that no condition looks at.
fn near_misses(row: &Row, stage: Stage) -> BTreeSet<[u64; 6]> {
    // What another stage may ask for besides is among what is just missed.
    let also = row.also.iter().map(|(_, tests)| *tests);
    let mut lists: Vec<&[Test]> = row.only.iter().copied().chain(also).collect();
    if lists.is_empty() {
        lists.push(&[]);
    }
    let never = || row.never.iter().flat_map(|(_, tests)| tests.iter());
    let tests = || lists.iter().flat_map(|list| list.iter()).chain(never());
    let mut tried = BTreeSet::from([NONE]);
    for list in &lists {
        let fulfilled = fulfil(list, NONE);
        tried.insert(fulfilled);
        for test in tests() {
            let (at, _) = argument(*test);
            tried.extend(edges(*test).into_iter().map(|value| with(fulfilled, at, value)));
        }
        tried.extend(row.refused(stage).map(|refused| fulfil(refused, fulfilled)));
    }
    let halves: Vec<usize> =
        tests().map(|test| argument(*test)).filter(|it| !it.1).map(|it| it.0).collect();
    for arguments in tried.clone() {
        tried.extend(halves.iter().map(|at| with(arguments, *at, arguments[*at] | 1 << 32)));
    }
    tried.retain(|arguments| row.verdict(stage, arguments) == Verdict::Forbidden);
    tried
}

#[test]
fn each_condition_is_just_missed() {
    for stage in Stage::ALL {
        for row in POLICY {
            let misses = near_misses(row, stage).len();
            let conditions = row.only.iter().flat_map(|list| list.iter()).count();
            let least = match (row.is_of(stage), row.is_unconditional(stage)) {
                (true, true) => 0,
                (true, false) => conditions.max(1),
                (false, _) => 1,
            };
            assert!(misses >= least, "{} of {stage:?}: {misses}", row.call);
        }
    }
}

/// What must be the same whatever was called.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    /// Mappings that are executable: where, what of, and their beginnings.
    code: Vec<(String, Vec<u8>)>,
    /// Users, groups, capabilities, filters.
    status: BTreeMap<String, String>,
    /// What each descriptor is.
    open: BTreeMap<u32, String>,
    limits: String,
}

impl Rights {
    fn of(pid: i32) -> Self {
        use std::os::unix::fs::FileExt;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
        let code = maps.lines().filter(|line| line.split(' ').nth(1).unwrap().contains('x'));
        let code = code.map(|line| {
            let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            let mut bytes = vec![0; 4_096];
            // The kernel's own page is not read so.
            let read = memory.read_at(&mut bytes, start).unwrap_or(0);
            bytes.truncate(read);
            (line.to_owned(), bytes)
        });
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let status =
            status.lines().filter_map(|line| line.split_once(":\t")).filter(|(name, _)| {
                ["Uid", "Gid", "Groups", "NoNewPrivs"].contains(name)
                    || name.starts_with("Cap")
                    || name.starts_with("Seccomp")
            });
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().filter_map(|fd| {
            let number = fd.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(fd.path()).ok()?.to_string_lossy().into_owned()))
        });
        Self {
            code: code.collect(),
            status: status.map(|(name, it)| (name.to_owned(), it.to_owned())).collect(),
            open: open.collect(),
            limits: fs::read_to_string(format!("/proc/{pid}/limits")).unwrap(),
        }
    }
}

/// What an attacker can point at.
struct Place {
    code: u64,
    /// Where nothing is, and where zeroes are.
    nowhere: u64,
    zeroes: u64,
}

/// Arguments with which a call that has no condition would change what memory may be or holds that
/// is code, or whose something is; each list is tried. A call that is new in the policy needs some.
fn worst(call: c_long, at: &Place) -> Vec<[u64; 6]> {
    let Place { code, nowhere, zeroes } = *at;
    const CLOCK: u64 = libc::CLOCK_MONOTONIC as u64;
    const WAKE: u64 = libc::FUTEX_WAKE as u64;
    const WAKE_OP: u64 = libc::FUTEX_WAKE_OP as u64;
    const LOCK_PI: u64 = libc::FUTEX_LOCK_PI as u64;
    let page = code & !4_095;
    match call {
        // The kernel as the one who writes into code. Of what can be read, nothing is at hand that
        // others do not miss.
        libc::SYS_read | libc::SYS_readv => vec![[1, code, 64, 0, 0, 0]],
        libc::SYS_write | libc::SYS_writev => vec![[NOBODY, code, 64, 0, 0, 0]],
        libc::SYS_recvfrom => vec![[LISTENER, code, 64, 0x40, code, zeroes]],
        libc::SYS_getsockname | libc::SYS_getpeername => {
            vec![[LISTENER, code, code, 0, 0, 0], [CONTROL, code, zeroes + 256, 0, 0, 0]]
        }
        libc::SYS_accept4 => vec![
            [CONTROL, code, code, 0, 0, 0],
            [LISTENER, 0, 0, 0xffff_ffff, 0, 0],
            [1, 0, 0, 0, 0, 0],
        ],
        libc::SYS_epoll_ctl => vec![[CONTROL, 1, LISTENER, zeroes, 0, 0]],
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => vec![[LISTENER, code, 1, 0, 0, 0]],
        libc::SYS_futex => vec![
            [code, WAKE, 1, 0, 0, 0],
            [zeroes, WAKE_OP, 1, 1, page, 1 << 28 | 7 << 12],
            [page, LOCK_PI, 0, 0, 0, 0],
        ],
        libc::SYS_clock_gettime | libc::SYS_clock_getres => vec![[CLOCK, code, 0, 0, 0, 0]],
        libc::SYS_clock_nanosleep => vec![[CLOCK, 0, zeroes, code, 0, 0]],
        libc::SYS_nanosleep => vec![[zeroes, code, 0, 0, 0, 0]],
        libc::SYS_getrandom => vec![[code, 64, 0, 0, 0, 0], [code, 64, 7, 0, 0, 0]],
        libc::SYS_munmap => vec![[nowhere, 4_096, 0, 0, 0, 0], [page + 1, 4_096, 0, 0, 0, 0]],
        libc::SYS_brk => vec![[page, 0, 0, 0, 0, 0], [NOBODY & !4_095, 0, 0, 0, 0, 0]],
        libc::SYS_set_robust_list => vec![[code, 1, 0, 0, 0, 0]],
        libc::SYS_rseq => vec![[code & !31, 32, 0, 0, 0, 0], [code & !31, 32, 1, 0, 0, 0]],
        libc::SYS_sched_getaffinity => vec![[0, 128, code, 0, 0, 0]],
        libc::SYS_rt_sigprocmask => vec![[0, 0, code, 8, 0, 0]],
        libc::SYS_sigaltstack => vec![[0, code, 0, 0, 0, 0]],
        libc::SYS_rt_sigaction => vec![[1, 0, code, 8, 0, 0]],
        libc::SYS_sched_yield | libc::SYS_gettid | libc::SYS_getpid => vec![[code; 6]],
        // Registers, and the end: nothing of memory, and nobody's.
        libc::SYS_rt_sigreturn
        | libc::SYS_restart_syscall
        | libc::SYS_exit
        | libc::SYS_exit_group => vec![],
        // Files, of those who have them: see what becomes of them in the tests of levels.
        libc::SYS_fstat
        | libc::SYS_lseek
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_fsync
        | libc::SYS_ftruncate => {
            vec![[NOBODY, code, 64, 0, 0, 0], [STATE, code, 64, 0, 0, 0], [1, code, 64, 0, 0, 0]]
        }
        _ => panic!("{call} has no condition: say here what would be the worst to ask it for"),
    }
}

/// Makes every call of the policy in this process.
fn go_through(captive: &Captive, stage: Stage, pid: i32) {
    let at = Place {
        code: mapping(pid, "r-xp"),
        nowhere: 0x1000_0000,
        zeroes: captive.place(0, &[0; 512]),
    };
    let before = Rights::of(pid);
    let is_writable = |(line, _): &(String, Vec<u8>)| line.contains(" rwx");
    assert!(!before.code.iter().any(is_writable), "{:?}", before.code);
    let mut tried = 0;
    for row in POLICY {
        for arguments in near_misses(row, stage) {
            let came = captive.call(row.call, arguments);
            assert_eq!(came, Came::Forbidden, "{stage:?}: {} with {arguments:x?}", row.call);
            tried += 1;
        }
        if row.is_absent(stage) {
            let came = captive.call(row.call, [at.code & !4_095, 4_096, 1 << 20, 1, 0, 0]);
            assert_eq!(came, Came::Refused(Errno::ENOSYS), "{stage:?}: {}", row.call);
        } else if row.is_of(stage) && stage.is_sealed() && row.is_unconditional(stage) {
            for arguments in worst(row.call, &at) {
                captive.call(row.call, arguments);
                let after = Rights::of(pid);
                assert_eq!(after, before, "{stage:?}: {} with {arguments:x?}", row.call);
                tried += 1;
            }
        }
    }
    println!("{stage:?}: {tried} calls");
    assert!(tried > POLICY.len());
}

/// One that was a spare child, and one that was forked when it was wanted.
#[test]
fn row_25_a_worker_makes_every_call_of_the_policy() {
    for spares in ["1", "0"] {
        let host = Host::with(&["--spares", spares]);
        let tenant = host.tenant("demo");
        tenant.deploy("one", guests::version_one());
        let worker = match spares {
            "1" => host.serve_by_spare(&tenant),
            _ => host.workers(&tenant)[0],
        };
        tenant.post("/one", "").expect(200);
        go_through(&Captive::take(worker), Stage::Worker, worker);
        assert_eq!(host.workers(&tenant), [worker]);
    }
}

/// The zygote may make calls that its workers may not, and a child that waits may make no other.
#[test]
fn row_25_a_spare_child_makes_every_call_of_the_policy() {
    let host = Host::with(&["--idle", "1s"]);
    let tenant = host.tenant("demo");
    host.give_spare(&tenant, |spare| {
        host.sleeps(&tenant);
        go_through(&Captive::take(spare), Stage::Zygote, spare);
        tenant.post("/hello", "{}").expect(200);
    });
}

#[test]
fn row_25_a_compiler_makes_every_call_of_the_policy() {
    let compiler = jailed::compiler("");
    go_through(&Captive::take(compiler.pid), Stage::Compiler, compiler.pid);
    let trial = jailed::trial();
    go_through(&Captive::take(trial.pid), Stage::Trial, trial.pid);
}

#[test]
fn row_25_a_tree_makes_every_call_of_the_policy() {
    let tree = jailed::tree("");
    go_through(&Captive::take(tree.pid), Stage::Tree, tree.pid);
    let copier = jailed::copier();
    go_through(&Captive::take(copier.pid), Stage::Copier, copier.pid);
}

/// Where nothing would keep a worker to its directory.
#[test]
fn row_25_a_worker_without_landlock_makes_every_call_of_the_policy() {
    let host = Host::wrapped(&[&jailed::without(), "landlock_create_ruleset"], &[]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant)[0];
    go_through(&Captive::take(worker), Stage::Bare, worker);
}

/// What follows in the file becomes code with it, which for an artifact is its tenant's own data.
#[test]
fn row_25_code_that_is_mapped_cannot_be_enlarged() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let mut caller = tenant.open();
    let request = tenant.address().request("POST", "/one").bytes(&tenant.name);
    caller.send(&request).unwrap();
    caller.answer("POST").expect(200);
    let worker = host.workers(&tenant)[0];
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let artifacts = maps.lines().filter(|line| line.contains("r-xp") && line.ends_with(".cwasm"));
    let artifacts: Vec<(u64, u64)> = artifacts
        .map(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).unwrap());
            (start, end - start)
        })
        .collect();
    assert!(!artifacts.is_empty(), "{maps}");
    let captive = Captive::take(worker);
    let before = Rights::of(worker);
    const MAY_MOVE: u64 = libc::MREMAP_MAYMOVE as u64;
    const KEEP: u64 = libc::MREMAP_DONTUNMAP as u64;
    for (start, length) in artifacts {
        for (larger, flags) in [
            (length + 4_096, 0),
            (length + (1 << 20), MAY_MOVE),
            (length, MAY_MOVE | KEEP),
            (length, 3),
        ] {
            let came = captive.call(libc::SYS_mremap, [start, length, larger, flags, 1 << 40, 0]);
            assert_eq!(came, Came::Refused(Errno::ENOSYS), "{larger:x} {flags}");
            assert_eq!(Rights::of(worker), before);
        }
    }
    assert!(connection_of(worker) > LISTENER);
    drop(captive);
    // Its allocator has another way.
    caller.send(&request).unwrap();
    caller.answer("POST").expect(200);
    assert_eq!(host.workers(&tenant), [worker]);
}
