//! The two engines of a worker: what is so in the one is so in the other, and together they are
//! no more than one.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::time::{Duration, Instant};

use hearth_engine::{EngineKind, fingerprint};
use hearth_wire::{Bundle, FromWorker, Limits, Outcome};

use crate::harness::{
    Answer, CONCURRENT, Release, Worker, Zygote, ask, bundle, engine_of, exec, post, read_answer,
    start,
};

/// Of one function, so that a trace that one call in thousands leaves would be seen.
const CALLS: usize = 10_000;
const REUSE: usize = 100;

fn concurrent(guest: &str) -> String {
    format!("{guest}{CONCURRENT}")
}

/// One after another on one connection.
fn calls(worker: &Worker, path: &str) -> impl Iterator<Item = Answer> {
    let (mut connection, request) = (worker.connect(), post(path, ""));
    std::iter::repeat_with(move || ask(&mut connection, &request)).take(CALLS)
}

fn nothing_is_seen_by_the_next_call(worker: &Worker) {
    let begins_at = |answer: &Answer| answer.header("x-begins-at").unwrap().to_owned();
    std::thread::scope(|scope| {
        for path in ["/fresh/plain", "/fresh/concurrent"] {
            scope.spawn(move || {
                let mut begun = BTreeSet::new();
                for answer in calls(worker, path) {
                    assert_eq!(answer.text(), "clean", "{path}");
                    begun.insert(begins_at(&answer));
                }
                assert_eq!(begun.len(), 1, "{path}: {begun:?}");
            });
        }
        for path in ["/reused/plain", "/reused/concurrent"] {
            scope.spawn(move || {
                let clean = calls(worker, path).filter(|answer| answer.text() == "clean").count();
                // Each instance finds nothing at its first call and its own trace at all others.
                assert!((CALLS / REUSE..CALLS / 2).contains(&clean), "{path}: {clean}");
            });
        }
    });
}

#[test]
fn nothing_of_one_call_is_seen_by_the_next_in_either_engine() {
    let (plain, concurrent) = ("dirties_memory", concurrent("dirties_memory"));
    assert_eq!(engine_of(plain), EngineKind::Plain);
    assert_eq!(engine_of(&concurrent), EngineKind::Concurrent);
    let reuse = format!(r#"{{"reuse":{REUSE}}}"#);
    let release = Release::new(
        1,
        &[
            ("/fresh/plain", plain, "{}"),
            ("/fresh/concurrent", &concurrent, "{}"),
            ("/reused/plain", plain, &reuse),
            ("/reused/concurrent", &concurrent, &reuse),
        ],
    );
    nothing_is_seen_by_the_next_call(&exec(&release, start(1)).accept());
    let mut zygote = Zygote::start();
    nothing_is_seen_by_the_next_call(&zygote.fork(&release, start(1)).accept());
}

/// Of two functions that wait for a while, one in each engine.
fn slow_in_both(limits: Limits) -> Release {
    let functions =
        [("/plain", "slow", "{}"), ("/concurrent", &*concurrent("slow"), r#"{"reuse":100}"#)];
    Release::within(1, &functions, limits)
}

/// So many calls of these paths in turn, all at once: how long all of them took together.
fn at_once(worker: &Worker, count: usize, paths: &[&str]) -> Duration {
    let mut connections: Vec<_> = (0..count).map(|_| worker.connect()).collect();
    let began = Instant::now();
    for (number, connection) in connections.iter_mut().enumerate() {
        let path = paths[number % paths.len()];
        connection.write_all(post(path, "").as_bytes()).unwrap();
    }
    for connection in connections {
        let answer = read_answer(&mut BufReader::new(connection), false);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    began.elapsed()
}

#[test]
fn a_tenants_turns_are_for_both_engines_together() {
    let mut zygote = Zygote::start();
    let few = Limits { calls_running: 4, ..Limits::default() };
    for (limits, at_most) in [(few, 4), (Limits::default(), 64)] {
        let worker = zygote.fork(&slow_in_both(limits), start(1)).accept();
        // Twice as many as may run, half of them in each engine.
        let took = at_once(&worker, 2 * at_most, &["/plain?ms=300", "/concurrent?ms=300"]);
        assert!(took >= Duration::from_millis(600), "{at_most}: {took:?}");
    }
}

/// However many of them are kept, and in which engine, an instance makes room for one that is
/// called.
#[test]
fn the_instances_of_both_engines_are_no_more_than_one_has() {
    let often = r#"{"reuse":100}"#;
    let functions = [
        ("/kept", "dirties_memory", often),
        ("/concurrent", &*concurrent("slow"), often),
        ("/plain", "slow", often),
    ];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    let kept = || worker.post("/kept", "").text().to_owned();
    assert_eq!([kept(), kept()], ["clean", "dirty"]);
    // One less than all: there is room for it.
    at_once(&worker, 63, &["/concurrent?ms=300"]);
    let stays = Instant::now();
    let still = kept();
    // It would have been ended by now for want of calls on a machine that is that slow.
    assert!(still == "dirty" || stays.elapsed() > Duration::from_secs(1), "{still}");
    at_once(&worker, 64, &["/concurrent?ms=300"]);
    assert_eq!(kept(), "clean");
    // And as many again where those of the other engine are all kept.
    at_once(&worker, 64, &["/plain?ms=100"]);
    at_once(&worker, 64, &["/concurrent?ms=100", "/plain?ms=100"]);
}

/// A loop in either engine is stopped, while calls of the other are answered.
#[test]
fn the_ticker_is_for_both_engines() {
    let (loops, late) = (concurrent("loops"), r#"{"timeout_ms":200}"#);
    let functions = [
        ("/loops/plain", "loops", late),
        ("/loops/concurrent", &*loops, late),
        ("/one", "version_one", "{}"),
        ("/three", "wasip3_hello", "{}"),
    ];
    let mut worker = exec(&Release::new(1, &functions), start(1)).accept();
    let paths = ["/loops/plain", "/loops/concurrent"];
    let mut looping = paths.map(|path| {
        let mut connection = worker.connect();
        connection.write_all(post(path, "").as_bytes()).unwrap();
        connection
    });
    assert_eq!(worker.post("/one", "").status, 200);
    assert_eq!(worker.post("/three", "").status, 200);
    for connection in &mut looping {
        read_answer(&mut BufReader::new(connection), false).is_problem(504, "timeout");
    }
    worker.await_report(|report| report.calls.len() == 4);
    let late = worker.reports.calls.iter().filter(|call| call.outcome == Outcome::Timeout);
    assert_eq!(late.count(), 2);
}

/// What is bundled is linked by whoever forks, in whichever engine it needs.
#[test]
fn a_bundle_has_functions_of_both_engines() {
    let mut zygote = Zygote::start();
    let mounts = [("/two", "version_one", "{}"), ("/three", "wasip3_hello", "{}")];
    let bundle: Bundle = bundle(&mounts);
    zygote.bundle(&bundle, &["version_one", "wasip3_hello"]);
    let release = Release::new(1, &[("/own", "wasip3_hello", "{}"), ("/echo", "echo", "{}")]);
    let worker = zygote.fork(&release, start(1)).accept();
    assert_eq!(worker.post("/two", "").text(), "version one");
    assert_eq!(worker.post("/three", "").text(), "hello http://demo/three from wasip3");
    assert_eq!(worker.post("/own", "").text(), "hello http://demo/own from wasip3");
    assert_eq!(worker.post("/echo", "hello").json()["body"], "hello");
}

/// Many functions of one module are one artifact in a worker.
#[test]
fn a_shared_artifact_is_mapped_once() {
    let paths: Vec<_> = (0..20).map(|number| format!("/f{number}")).collect();
    for guest in ["version_one", "wasip3_hello"] {
        let functions: Vec<_> = paths.iter().map(|path| (&**path, guest, "{}")).collect();
        let worker = exec(&Release::new(1, &functions), start(1)).accept();
        for path in &paths {
            assert_eq!(worker.post(path, "").status, 200);
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", worker.id())).unwrap();
        let executable = |line: &&str| line.contains(".cwasm") && line.contains("r-xp");
        assert_eq!(maps.lines().filter(executable).count(), 1, "{guest}: {maps}");
    }
}

/// What the manifest says of an artifact's engine is held to.
#[test]
fn an_artifact_of_another_engine_is_refused_at_the_start() {
    let [plain, concurrent] = EngineKind::ALL.map(fingerprint);
    let stranger = hearth_wire::Fingerprint::new([7; 8]);
    for (guest, made_by, said) in [
        ("version_one", concurrent, "does not load"),
        ("wasip3_hello", plain, "does not load"),
        ("version_one", stranger, "0707070707070707, which this build does not have"),
    ] {
        let release = Release::new(1, &[("/one", guest, "{}")]);
        release.rewrite(|manifest| manifest.functions[0].engine = Some(made_by));
        let mut worker = exec(&release, start(1));
        match worker.hear() {
            FromWorker::Refused { reason } => assert!(reason.contains(said), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(worker.ended(), Some(3));
    }
}

#[test]
fn each_of_many_artifacts_is_loaded_or_refused_at_the_start() {
    const PLAIN: [&str; 5] = ["version_one", "version_two", "echo", "slow", "prints"];
    let (paths, others) = (PLAIN.map(|guest| format!("/{guest}")), PLAIN.map(concurrent));
    let beside = PLAIN.map(|guest| format!("/{guest}/concurrent"));
    let functions =
        |at: usize| [(&*paths[at], PLAIN[at], "{}"), (&*beside[at], &*others[at], "{}")];
    let functions: Vec<_> = (0..PLAIN.len()).flat_map(functions).collect();
    let release = Release::new(1, &functions);
    let mut zygote = Zygote::start();
    for worker in [exec(&release, start(1)), zygote.fork(&release, start(1))] {
        let worker = worker.accept();
        for (path, ..) in &functions {
            let answer = worker.post(path, "");
            assert!(answer.status < 300, "{path}: {answer:?}");
        }
    }
    // One of them alone is damaged, wherever it is among the others.
    let artifacts: Vec<_> = std::fs::read_dir(release.path()).unwrap().collect();
    let artifacts = artifacts.into_iter().map(|file| file.unwrap().path());
    for artifact in artifacts.filter(|path| path.extension().is_some_and(|it| it == "cwasm")) {
        let whole = std::fs::read(&artifact).unwrap();
        std::fs::write(&artifact, &whole[..whole.len() / 2]).unwrap();
        let mut worker = zygote.fork(&release, start(1));
        match worker.hear() {
            FromWorker::Refused { reason } => assert!(reason.contains("does not load"), "{reason}"),
            other => panic!("{other:?}"),
        }
        std::fs::write(&artifact, whole).unwrap();
    }
}
