//! A worker's life, from ready to its end, and its zygote's.

use std::io::{BufReader, Read, Write};
use std::time::Duration;

use hearth_wire::uplink::Kind;
use hearth_wire::{
    ExitStatus, FromWorker, Moment, Origin, Outcome, Respite, Start, Subject, ToWorker, VERSION,
};

use crate::harness::{
    Release, Worker, Zygote, ask, exec, first_readable, get, is_closed, listener, post,
    read_answer, start,
};

fn hello() -> Release {
    Release::new(1, &[("/one", "version_one", "{}"), ("/slow", "slow", "{}")])
}

#[test]
fn a_generation_that_cannot_be_served_is_refused_with_a_reason() {
    let release = Release::new(1, &[("/one", "version_one", "{}")]);
    let artifact = artifact(&release);
    for (spoil, said) in [
        (&(|| {}) as &dyn Fn(), "generation 2"),
        (&|| std::fs::write(&artifact, b"no artifact").unwrap(), "does not load"),
        (&|| std::fs::remove_file(&artifact).unwrap(), "cannot be read"),
        (&|| std::fs::write(release.path().join("manifest.json"), b"{").unwrap(), "does not parse"),
    ] {
        spoil();
        let generation = if said == "generation 2" { 2 } else { 1 };
        let mut worker = exec(&release, start(generation));
        match worker.hear() {
            FromWorker::Refused { reason } => assert!(reason.contains(said), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(worker.ended(), Some(3));
    }
}

fn artifact(release: &Release) -> std::path::PathBuf {
    let files = std::fs::read_dir(release.path()).unwrap();
    let mut paths = files.map(|file| file.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|it| it == "cwasm")).unwrap()
}

#[test]
fn an_idle_worker_leaves_and_answers_whoever_is_there() {
    let release = hello();
    let idle = Duration::from_millis(200);
    let mut worker = exec(&release, Start { idle, ..start(1) }).accept();
    let mut kept = worker.connect();
    assert_eq!(ask(&mut kept, &post("/one", "")).status, 200);
    let mut silent = worker.connect();
    // Neither health nor silence is a call.
    assert_eq!(worker.call(&get("/$health")).status, 200);
    assert_eq!(worker.hear(), FromWorker::Leaving);
    // Until it is told to, it serves what it has and takes links.
    assert_eq!(ask(&mut kept, &post("/one", "")).status, 200);
    let mut link = worker.link(Origin::Outside);
    assert_eq!(ask(&mut link, &post("/one", "")).status, 200);
    worker.say(&ToWorker::Leave);
    let _idle = worker.passed(2);
    silent.write_all(post("/one", "").as_bytes()).unwrap();
    let again = ask(&mut link, &post("/one", ""));
    assert_eq!((again.status, again.header("connection")), (200, None), "a link is not");
    drop(link);
    assert_eq!(worker.ended(), Some(0));
    assert_eq!(worker.reports.calls.len(), 4);
}

#[test]
fn closing_waits_for_what_runs() {
    let release = hello();
    let mut worker = exec(&release, start(1)).accept();
    let mut running = worker.connect();
    running.write_all(post("/slow?ms=500", "").as_bytes()).unwrap();
    worker.await_report(|report| !report.lines.is_empty());
    let mut idle = worker.connect();
    assert_eq!(ask(&mut idle, &post("/one", "")).status, 200);
    worker.say(&ToWorker::Close);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
    assert!(is_closed(&mut idle));
    // Nobody takes this one: it waits in the queue for the next generation.
    let mut waiting = worker.connect();
    waiting.write_all(post("/one", "").as_bytes()).unwrap();
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("waited 500 ms") && answer.contains("connection: close"), "{answer}");
    assert_eq!(worker.ended(), Some(0));
    let mut zygote = Zygote::start();
    let mut next = zygote.fork_on(worker.listener(), &release, start(1));
    next.await_ready();
    assert_eq!(next.hear(), FromWorker::Applied { serial: 1, what: Subject::Tokens });
    next.say(&ToWorker::Accept);
    assert_eq!(next.hear(), FromWorker::Accepting);
    let mut status = [0; 15];
    waiting.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
}

/// It is asked when somebody is about to read, and does not wait for its batch to be old or full.
#[test]
fn what_calls_wrote_is_reported_before_it_says_so() {
    let release = hello();
    let mut worker = exec(&release, start(1)).accept();
    let mut connection = worker.connect();
    for serial in 1..=20 {
        assert_eq!(ask(&mut connection, &post("/slow?ms=0", "")).status, 200);
        worker.say(&ToWorker::Report { serial });
        assert_eq!(worker.hear(), FromWorker::Reported { serial });
        assert_eq!(worker.reports.lines.len() as u64, serial);
    }
    worker.say(&ToWorker::Report { serial: 21 });
    assert_eq!(worker.hear(), FromWorker::Reported { serial: 21 });
}

/// Every call, be it running, waiting for its turn, or in the middle of an answer that nobody
/// reads: it is answered where that can still be, and on record either way, before the end.
#[test]
fn calls_whose_time_is_up_are_answered_and_on_record() {
    const TURNS: usize = 64;
    let functions = [("/slow", "slow", "{}"), ("/big", "big_response", "{}")];
    let release = Release::new(1, &functions);
    let mut worker = exec(&release, start(1)).accept();
    let begin = |worker: &Worker, request: &str| {
        let mut running = worker.connect();
        running.write_all(request.as_bytes()).unwrap();
        running
    };
    let mut unread = begin(&worker, &post("/big?bytes=20000000", ""));
    let mut head = [0; 15];
    unread.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut calls: Vec<_> =
        (1..TURNS).map(|_| begin(&worker, &post("/slow?ms=60000", ""))).collect();
    worker.await_report(|report| report.lines.len() == TURNS - 1);
    // Neither these nor a body that has not come have begun.
    calls.extend((0..4).map(|_| begin(&worker, &post("/slow?ms=60000", ""))));
    let mut link = worker.link(Origin::Outside);
    link.write_all(post("/slow?ms=60000", "").as_bytes()).unwrap();
    assert_eq!(worker.call(&get("/$health")).status, 200);
    worker.say(&ToWorker::Finish(Respite::now(Duration::from_millis(200))));
    worker.say(&ToWorker::Quiesce);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
    for mut call in calls {
        let answer = read_answer(&mut BufReader::new(&mut call), false);
        answer.is_problem(503, "worker_unavailable");
        assert!(answer.text().contains("had no more time for it"), "{answer:?}");
    }
    read_answer(&mut BufReader::new(&mut link), false).is_problem(503, "worker_unavailable");
    // What it may pass on of them it does.
    let ended = loop {
        match worker.hear_or_end() {
            Some(FromWorker::Pass(_)) => worker.say(&ToWorker::Passed),
            Some(other) => panic!("{other:?}"),
            None => break worker.exit_code(),
        }
    };
    assert_eq!(ended, Some(0));
    let calls = &worker.reports.calls;
    assert_eq!(calls.len(), TURNS + 5);
    assert!(calls.iter().all(|call| call.outcome == Outcome::Stopped), "{calls:?}");
    let cut = calls.iter().filter(|call| call.status == 200).count();
    assert_eq!(cut, 1, "{calls:?}");
    let mut rest = Vec::new();
    let _ = unread.read_to_end(&mut rest);
    assert!(rest.len() < 20_000_000, "it was not whole");
}

/// One that no guest's loop can keep.
#[test]
fn a_loop_is_given_up_in_time_as_well() {
    let release = Release::new(1, &[("/loops", "loops", "{}")]);
    let mut worker = exec(&release, start(1)).accept();
    let mut running = worker.connect();
    running.write_all(post("/loops", "").as_bytes()).unwrap();
    // Its head is read when this is answered.
    assert_eq!(worker.call(&get("/$health")).status, 200);
    worker.say(&ToWorker::Finish(Respite::now(Duration::from_millis(100))));
    worker.say(&ToWorker::Close);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
    read_answer(&mut BufReader::new(&running), false).is_problem(503, "worker_unavailable");
    assert_eq!(worker.ended(), Some(0));
    assert_eq!(worker.reports.calls[0].outcome, Outcome::Stopped);
}

/// It says so when nothing else is left, and its time is not the calls'.
#[test]
fn an_upload_on_its_way_is_no_call() {
    let release = hello();
    let mut worker = exec(&release, start(1)).accept();
    let mut running = worker.connect();
    running.write_all(post("/slow?ms=60000", "").as_bytes()).unwrap();
    worker.await_report(|report| !report.lines.is_empty());
    let mut upload = worker.connect();
    upload.write_all(post("/$upload", "the form").as_bytes()).unwrap();
    assert_eq!(worker.hear(), FromWorker::WantUplink { kind: Kind::Upload });
    let uplink = worker.uplink(Kind::Upload);
    worker.say(&ToWorker::Finish(Respite::now(Duration::from_millis(200))));
    worker.say(&ToWorker::Quiesce);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
    read_answer(&mut BufReader::new(&running), false).is_problem(503, "worker_unavailable");
    drop(running);
    loop {
        match worker.hear() {
            FromWorker::Pass(_) => worker.say(&ToWorker::Passed),
            other => break assert_eq!(other, FromWorker::CallsDone),
        }
    }
    worker.say(&ToWorker::AreYouAlive);
    assert_eq!(worker.hear(), FromWorker::Alive);
    drop(uplink);
    read_answer(&mut BufReader::new(&upload), false).is_problem(503, "worker_unavailable");
    drop(upload);
    while let Some(FromWorker::Pass(_)) = worker.hear_or_end() {
        worker.say(&ToWorker::Passed);
    }
    assert_eq!(worker.exit_code(), Some(0));
}

#[test]
fn quiescing_before_accepting_finishes_the_links() {
    let release = hello();
    let mut worker = exec(&release, start(1));
    worker.await_ready();
    assert_eq!(worker.hear(), FromWorker::Applied { serial: 1, what: Subject::Tokens });
    let mut link = worker.link(Origin::Api);
    assert_eq!(ask(&mut link, &post("/one", "")).status, 200);
    worker.say(&ToWorker::Quiesce);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
    assert_eq!(ask(&mut link, &post("/one", "")).status, 200, "it waits for its link");
    drop(link);
    assert_eq!(worker.ended(), Some(0));
}

#[test]
fn only_what_woke_the_worker_was_cold() {
    let release = hello();
    let listener = listener();
    let now = Moment::now();
    let address = listener.local_addr().unwrap();
    let mut first = std::net::TcpStream::connect(address).unwrap();
    first.write_all(post("/one", "").as_bytes()).unwrap();
    let mut zygote = Zygote::start();
    let woken = Start { woken_at: Some(now), ..start(1) };
    let mut worker = zygote.fork_on(&listener, &release, woken).accept();
    let cold = ask(&mut first, "");
    assert!(cold.header("server-timing").unwrap().contains("cold;dur="), "{cold:?}");
    let warm = ask(&mut first, &post("/one", ""));
    assert!(!warm.header("server-timing").unwrap().contains("cold"), "{warm:?}");
    assert!(!worker.post("/one", "").header("server-timing").unwrap().contains("cold"));
    worker.await_report(|report| report.calls.len() == 3);
    let cold: Vec<_> = worker.reports.calls.iter().map(|call| call.cold_us.is_some()).collect();
    assert_eq!(cold, [true, false, false]);
}

#[test]
fn without_its_primary_a_worker_ends_at_once() {
    let release = hello();
    let mut zygote = Zygote::start();
    let worker = zygote.fork(&release, start(1)).accept();
    let pid = worker.pid.unwrap();
    let mut running = worker.connect();
    running.write_all(post("/slow?ms=60000", "").as_bytes()).unwrap();
    drop(worker);
    assert_eq!(zygote.exited(), (pid, ExitStatus::Code(0)));
}

#[test]
fn the_zygote_reports_how_each_of_its_children_ended() {
    let release = hello();
    let mut zygote = Zygote::start();
    let mut pids: Vec<_> = Vec::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let worker = zygote.fork(&release, start(1)).accept();
            pids.push(worker.pid.unwrap());
            worker
        })
        .collect();
    for &pid in &pids {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let mut ended: Vec<_> = (0..3).map(|_| zygote.exited()).collect();
    ended.sort_unstable_by_key(|(pid, _)| *pid);
    pids.sort_unstable();
    let killed: Vec<_> = pids.into_iter().map(|pid| (pid, ExitStatus::Signal(9))).collect();
    assert_eq!(ended, killed);
    drop(workers);
    assert_eq!(zygote.end(), Some(0));
}

#[test]
fn a_child_holds_nothing_of_its_zygotes() {
    let release = hello();
    let mut zygote = Zygote::start();
    zygote.preload("version_one");
    let first = zygote.fork(&release, start(1)).accept();
    let second = zygote.fork(&release, start(1)).accept();
    for worker in [&first, &second] {
        let open = std::fs::read_dir(format!("/proc/{}/fd", worker.pid.unwrap())).unwrap();
        let open: Vec<_> = open
            .map(|fd| fd.unwrap())
            .map(|fd| {
                let name = fd.file_name().into_string().unwrap();
                (name.parse::<i32>().unwrap(), std::fs::read_link(fd.path()).unwrap())
            })
            .collect();
        let number =
            |number: i32| open.iter().find(|(n, _)| *n == number).unwrap().1.display().to_string();
        assert!(number(0).starts_with("socket:"), "{open:?}");
        let signals = open.iter().filter(|(_, to)| to.display().to_string().contains("signalfd"));
        assert_eq!(signals.count(), 0, "{open:?}");
        // Its own, not the zygote's, in which nothing that it wrote would be dirty.
        let pagemaps: Vec<_> = open.iter().filter(|(_, to)| to.ends_with("pagemap")).collect();
        let own = format!("/proc/{}/pagemap", worker.pid.unwrap());
        assert_eq!(pagemaps.len(), 1, "{open:?}");
        assert_eq!(pagemaps[0].1, std::path::Path::new(&own));
        // The runtime's own, the control socket, the listener, standard output and error, the
        // pagemap, and the files behind what was preloaded.
        assert!(open.len() <= 14, "{open:?}");
    }
    drop(second);
    assert_eq!(first.post("/one", "").text(), "version one");
}

#[test]
fn an_upload_goes_up_unread() {
    let release = hello();
    let mut worker = exec(&release, start(1)).accept();
    let mut stream = worker.connect();
    stream.write_all(post("/dir/$upload?x=1", "the form").as_bytes()).unwrap();
    assert_eq!(worker.hear(), FromWorker::WantUplink { kind: Kind::Upload });
    // The preface of HTTP/2 is the first thing that comes.
    let mut uplink = worker.uplink(Kind::Upload);
    let mut preface = [0; 24];
    uplink.read_exact(&mut preface).unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    drop(uplink);
    read_answer(&mut BufReader::new(&stream), false).is_problem(503, "worker_unavailable");
}

/// More are asked for while those that are there are full, up to the bound, and what would wait
/// beyond that is answered at once.
#[test]
fn a_full_uplink_is_joined_by_others_and_nobody_waits_without_end() {
    let release = hello();
    let mut worker = exec(&release, start(1)).accept();
    let bounds = Kind::Upload.bounds();
    let upload = |worker: &Worker| {
        let mut stream = worker.connect();
        stream.write_all(post("/$upload", "the form").as_bytes()).unwrap();
        stream
    };
    let (mut uploads, mut uplinks) = (Vec::new(), Vec::new());
    for _ in 0..bounds.connections {
        uploads.extend((0..bounds.streams).map(|_| upload(&worker)));
        assert_eq!(worker.hear(), FromWorker::WantUplink { kind: Kind::Upload });
        // The host answers nothing of what comes on it.
        uplinks.push(worker.uplink(Kind::Upload));
    }
    uploads.extend((0..=bounds.waiting).map(|_| upload(&worker)));
    let refused = uploads.swap_remove(first_readable(&uploads));
    read_answer(&mut BufReader::new(&refused), false).is_problem(503, "worker_unavailable");
    worker.say(&ToWorker::AreYouAlive);
    assert_eq!(worker.hear(), FromWorker::Alive);
    // Whoever has room on one is waited for, however long that takes, until it breaks.
    drop(uplinks);
    for upload in uploads {
        read_answer(&mut BufReader::new(&upload), false).is_problem(503, "worker_unavailable");
    }
}

#[test]
fn another_version_is_told_apart() {
    let mut worker = exec(&hello(), Start { version: VERSION + 1, ..start(1) });
    assert_eq!(worker.ended(), Some(1));
}
