//! What the option `reuse` keeps and what it must not: an instance's memory from one call to the
//! next, and nothing else.

use std::io::{BufReader, Write};

use hearth_wire::{LogStream, Outcome};

use crate::harness::{Release, Worker, ask, exec, of_each_birth, post, read_answer, start};

/// What one call after another of a guest gets that tells whether it finds an earlier one's trace.
fn traces(worker: &Worker, path: &str, calls: usize) -> Vec<String> {
    let mut connection = worker.connect();
    (0..calls).map(|_| ask(&mut connection, &post(path, "")).text().to_owned()).collect()
}

#[test]
fn an_instance_serves_as_many_calls_as_it_may_and_no_more() {
    let functions = [
        ("/fresh", "dirties_memory", "{}"),
        ("/once", "dirties_memory", r#"{"reuse":1}"#),
        ("/thrice", "dirties_memory", r#"{"reuse":3}"#),
    ];
    let release = Release::new(1, &functions);
    for (worker, _zygote) in of_each_birth(&release, "dirties_memory", &start(1)) {
        let worker = worker.accept();
        for path in ["/fresh", "/once"] {
            assert_eq!(traces(&worker, path, 5), ["clean"; 5]);
        }
        let kept = ["clean", "dirty", "dirty", "clean", "dirty", "dirty", "clean"];
        assert_eq!(traces(&worker, "/thrice", 7), kept);
    }
}

#[test]
fn functions_do_not_share_instances_though_they_are_one_module() {
    let often = r#"{"reuse":100}"#;
    let functions = [("/one", "dirties_memory", often), ("/two", "dirties_memory", often)];
    let release = Release::new(1, &functions);
    for (worker, _zygote) in of_each_birth(&release, "dirties_memory", &start(1)) {
        let worker = worker.accept();
        assert_eq!(traces(&worker, "/one", 2), ["clean", "dirty"]);
        assert_eq!(traces(&worker, "/two", 2), ["clean", "dirty"]);
    }
}

#[test]
fn a_call_that_ends_badly_takes_its_instance_along() {
    let functions = [("/exits", "dirties_memory", r#"{"reuse":100}"#)];
    let release = Release::new(1, &functions);
    for (worker, _zygote) in of_each_birth(&release, "dirties_memory", &start(1)) {
        let mut worker = worker.accept();
        assert_eq!(traces(&worker, "/exits", 2), ["clean", "dirty"]);
        // It has answered and then ends itself: nothing is wrong, but nothing is left to be kept.
        assert_eq!(traces(&worker, "/exits?exit=1", 1), ["dirty"]);
        worker.await_report(|report| report.calls.len() == 3);
        assert_eq!(traces(&worker, "/exits", 2), ["clean", "dirty"]);
        assert!(worker.reports.calls.iter().all(|call| call.outcome == Outcome::Answered));
    }

    let functions = [
        ("/traps", "traps", r#"{"reuse":100}"#),
        ("/silent", "no_response", r#"{"reuse":100}"#),
        ("/late", "slow", r#"{"reuse":100,"timeout_ms":50}"#),
    ];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    for _ in 0..3 {
        worker.post("/traps", "").is_problem(500, "function_trapped");
        worker.post("/silent", "").is_problem(502, "function_no_response");
        worker.post("/late?ms=60000", "").is_problem(504, "timeout");
    }
}

#[test]
fn two_calls_at_once_never_share_an_instance() {
    let functions = [("/slow", "slow", r#"{"reuse":1000}"#)];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    // Twice, so that the second time finds instances that were kept.
    for _ in 0..2 {
        let mut connections: Vec<_> = (0..20).map(|_| worker.connect()).collect();
        for connection in &mut connections {
            connection.write_all(post("/slow?ms=100", "").as_bytes()).unwrap();
        }
        for connection in connections {
            let answer = read_answer(&mut BufReader::new(connection), false);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
}

#[test]
fn a_line_is_its_own_calls_though_the_instance_is_an_earlier_ones() {
    let functions = [("/prints", "prints", r#"{"reuse":100}"#)];
    let mut worker = exec(&Release::new(1, &functions), start(1)).accept();
    for number in 0..10 {
        // Without its newline: the line ends with its call.
        let request = post("/prints", &format!("call {number}"));
        let id = format!("host: demo\r\nx-request-id: id-{number}");
        assert_eq!(worker.call(&request.replace("host: demo", &id)).status, 204);
    }
    worker.await_report(|report| report.lines.len() == 20);
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let lines = worker.reports.lines.iter().filter(|line| line.stream == stream);
        let said: Vec<_> = lines.map(|line| (line.request_id.as_str(), &*line.text)).collect();
        let expected: Vec<_> = (0..10).map(|n| (format!("id-{n}"), format!("call {n}"))).collect();
        let expected: Vec<_> = expected.iter().map(|(id, text)| (&**id, &**text)).collect();
        assert_eq!(said, expected);
    }
}

/// What of a call is left in an instance that serves the next one: nothing that would hold the
/// first one's request open, and nothing that nobody thought of.
#[test]
fn what_may_not_stay_ends_its_instance() {
    let often = r#"{"reuse":100}"#;
    let functions = [("/two", "keeps", often), ("/three", "wasip3_keeps", often)];
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    // Nothing, and fields, which are text.
    for path in ["/two?what=0", "/two?what=1", "/three?what=0", "/three?what=1"] {
        let served = traces(&worker, path, 3);
        let first: u32 = served[0].parse().unwrap();
        let counted: Vec<_> = (first..first + 3).map(|calls| calls.to_string()).collect();
        assert_eq!(served, counted, "{path}");
    }
    // A request, its body, a timer.
    for path in ["/two?what=2", "/two?what=3", "/two?what=4", "/three?what=2", "/three?what=3"] {
        // The first may find an instance that was kept, and ends it.
        assert_eq!(traces(&worker, path, 4)[1..], ["1"; 3], "{path}");
    }
}

/// More functions than there are places for instances: those that are only kept make room.
#[test]
fn kept_instances_make_room_for_calls() {
    let paths: Vec<_> = (0..80).map(|number| format!("/f{number}")).collect();
    let often = r#"{"reuse":100}"#;
    let functions: Vec<_> = paths.iter().map(|path| (&**path, "version_one", often)).collect();
    let worker = exec(&Release::new(1, &functions), start(1)).accept();
    let mut connection = worker.connect();
    for _ in 0..2 {
        for path in &paths {
            assert_eq!(ask(&mut connection, &post(path, "")).text(), "version one");
        }
    }
}

#[test]
fn every_toolchain_is_reused() {
    let often = r#"{"reuse":100}"#;
    let functions = [
        ("/two", "version_one", often),
        ("/wstd", "wstd_hello", often),
        ("/three", "wasip3_hello", often),
        ("/echo", "echo", often),
    ];
    let mut worker = exec(&Release::new(1, &functions), start(1)).accept();
    for _ in 0..20 {
        assert_eq!(worker.post("/two", "").text(), "version one");
        assert_eq!(worker.post("/wstd", "Ada").text(), "hello Ada from wstd");
        assert_eq!(worker.post("/three", "").text(), "hello http://demo/three from wasip3");
        assert_eq!(worker.post("/echo", "hello").json()["body"], "hello");
    }
    worker.await_report(|report| report.calls.len() == 80);
    assert!(worker.reports.calls.iter().all(|call| call.outcome == Outcome::Answered));
}
