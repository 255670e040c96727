//! Connections on their way out of one worker and into another: what is passed on and as what,
//! what is not, and that its client notices nothing.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hearth_wire::{Entry, FromWorker, Moment, Passing, ToWorker};

use crate::harness::{
    Answer, PATIENCE, Release, Worker, ask, exec, get, is_closed, listener, post, read_answer,
    start,
};

fn release() -> Release {
    let functions = [
        ("/one", "version_one", "{}"),
        ("/slow", "slow", "{}"),
        ("/echo", "echo", "{}"),
        ("/streams", "streams", "{}"),
    ];
    Release::new(1, &functions)
}

fn worker() -> Worker {
    exec(&release(), start(1)).accept()
}

fn quiesce(worker: &mut Worker) {
    worker.say(&ToWorker::Quiesce);
    assert_eq!(worker.hear(), FromWorker::Quiesced);
}

fn answer(stream: &mut TcpStream) -> Answer {
    read_answer(&mut BufReader::with_capacity(1, stream), false)
}

/// What was sent before is read, and not left in the socket: what came later is answered.
fn has_read(worker: &Worker) {
    let mut later = worker.connect();
    let request = get("/$health").replace("host", "connection: close\r\nhost");
    assert_eq!(ask(&mut later, &request).status, 200);
    assert!(is_closed(&mut later));
}

/// Its only connection, and its end.
fn last_of(mut worker: Worker) -> (OwnedFd, Passing) {
    let passed = worker.passed(1).remove(0);
    assert_eq!(worker.ended(), Some(0));
    passed
}

fn entering_now(stream: TcpStream, unread: &str, entry: Entry) -> (OwnedFd, Passing) {
    let unread = unread.as_bytes().to_vec();
    (stream.into(), Passing { unread, since: Moment::now(), entry })
}

/// A connection as the front door has it: the client's end and ours.
fn from_front() -> (TcpStream, TcpStream) {
    let listener = listener();
    listener.set_nonblocking(false).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_nonblocking(true).unwrap();
    (client, server)
}

#[test]
fn what_was_read_goes_along() {
    let (half, rest) = ("POST /one HTTP/1.1\r\nho", "st: demo\r\ncontent-length: 0\r\n\r\n");
    for before in [false, true] {
        for said in ["", half] {
            let (mut old, mut next) = (worker(), worker());
            let mut client = old.connect();
            if before {
                assert_eq!(ask(&mut client, &post("/one", "body")).status, 200);
            }
            client.write_all(said.as_bytes()).unwrap();
            has_read(&old);
            quiesce(&mut old);
            let passed = last_of(old);
            assert_eq!(String::from_utf8_lossy(&passed.1.unread), said);
            assert_eq!(passed.1.entry, Entry::Port);
            next.take(vec![passed]);
            let request = if said.is_empty() { post("/one", "") } else { rest.to_owned() };
            client.write_all(request.as_bytes()).unwrap();
            let first = answer(&mut client);
            assert_eq!((first.text(), first.header("connection")), ("version one", None));
            assert_eq!(ask(&mut client, &post("/one", "again")).status, 200);
        }
    }
}

#[test]
fn what_runs_is_answered_first_and_no_close_is_said() {
    let chunked =
        "POST /streams HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n";
    let expects =
        "POST /echo HTTP/1.1\r\nhost: demo\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    for (sent, rest, text) in [
        (post("/slow?ms=300", ""), "", "waited 300 ms"),
        (post("/streams?pieces=3&pause=100", ""), "", "piece 0\npiece 1\npiece 2\n"),
        (chunked.to_owned(), "3\r\ntwo\r\n0\r\n\r\n", "onetwo"),
        (post("/echo", "half").replace(": 4", ": 8"), "half", "halfhalf"),
        (expects.to_owned(), "body", "body"),
        // Its function does not want its body, and ends before it has come.
        (post("/one", "half").replace(": 4", ": 8"), "half", "version one"),
    ] {
        let (mut old, mut next) = (worker(), worker());
        let mut client = old.connect();
        client.write_all(sent.as_bytes()).unwrap();
        if sent == expects {
            assert_eq!(answer(&mut client).status, 100);
        } else {
            has_read(&old);
        }
        quiesce(&mut old);
        client.write_all(rest.as_bytes()).unwrap();
        let answered = answer(&mut client);
        assert!(answered.text().contains(text), "{sent}: {answered:?}");
        assert_eq!((answered.status, answered.header("connection")), (200, None), "{sent}");
        let passed = last_of(old);
        assert_eq!(passed.1.unread, b"", "{sent}");
        next.take(vec![passed]);
        assert_eq!(ask(&mut client, &post("/one", "")).text(), "version one", "{sent}");
    }
}

#[test]
fn pipelined_requests_are_answered_here_or_there() {
    let (mut old, mut next) = (worker(), worker());
    let mut client = old.connect();
    let requests = post("/slow?ms=300", "") + &post("/one", "x") + &post("/echo", "last");
    client.write_all(requests.as_bytes()).unwrap();
    old.await_report(|report| !report.lines.is_empty());
    quiesce(&mut old);
    // This one was sent too late to be the old one's.
    client.write_all(post("/echo", "late").as_bytes()).unwrap();
    let passed = last_of(old);
    next.take(vec![passed]);
    for text in ["waited 300 ms", "version one", "last", "late"] {
        let answered = answer(&mut client);
        assert_eq!(answered.header("connection"), None);
        assert!(answered.text().contains(text), "{answered:?}");
    }
    next.await_report(|report| report.calls.iter().any(|call| call.function.as_str() == "/echo"));
}

#[test]
fn who_wants_to_close_is_closed() {
    let http_1_0 = "GET /$health HTTP/1.0\r\n\r\n";
    for (sent, half_closes) in [
        (post("/slow?ms=300", "").replace("host", "connection: close\r\nhost"), false),
        ("POST /slow?ms=300 HTTP/1.0\r\ncontent-length: 0\r\n\r\n".to_owned(), false),
        (post("/slow?ms=300", ""), true),
        (http_1_0.to_owned(), false),
    ] {
        let mut old = worker();
        let mut client = old.connect();
        client.write_all(sent.as_bytes()).unwrap();
        if half_closes {
            client.shutdown(Shutdown::Write).unwrap();
        }
        if sent != http_1_0 {
            old.await_report(|report| !report.lines.is_empty());
            quiesce(&mut old);
        }
        assert_eq!(answer(&mut client).status, 200, "{sent}");
        if half_closes {
            // There may be a request in front of where it closed, which is the next one's to read.
            let mut next = worker();
            next.take(vec![last_of(old)]);
            assert!(is_closed(&mut client), "{sent}");
            continue;
        }
        assert!(is_closed(&mut client), "{sent}");
        if sent != http_1_0 {
            assert_eq!(old.ended(), Some(0), "{sent}");
        }
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let worker = worker();
    for body in ["", "with a body"] {
        let mut client = worker.connect();
        client.write_all(post("/slow?ms=200", body).as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(answer(&mut client).text(), "waited 200 ms");
        assert!(is_closed(&mut client));
    }
    let mut truncated = worker.connect();
    truncated.write_all(post("/echo", "half").replace(": 4", ": 8").as_bytes()).unwrap();
    truncated.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    let _ = truncated.read_to_string(&mut said);
    assert!(!said.starts_with("HTTP/1.1 200"), "{said}");
}

#[test]
fn http_1_0_can_be_kept_too() {
    let (mut old, mut next) = (worker(), worker());
    let mut client = old.connect();
    let request = "GET /$health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    assert_eq!(ask(&mut client, request).status, 200);
    quiesce(&mut old);
    next.take(vec![last_of(old)]);
    assert_eq!(ask(&mut client, request).status, 200);
}

#[test]
fn a_worker_that_ends_passes_on_what_it_is_brought() {
    let (mut old, mut next) = (worker(), worker());
    let mut running = old.connect();
    running.write_all(post("/slow?ms=500", "").as_bytes()).unwrap();
    old.await_report(|report| !report.lines.is_empty());
    quiesce(&mut old);
    let (mut client, server) = from_front();
    let request = post("/one", "").replace("demo", "demo.localhost");
    old.take(vec![entering_now(server, &request, Entry::Front)]);
    let passed = old.passed(1).remove(0);
    assert_eq!(String::from_utf8_lossy(&passed.1.unread), request);
    assert_eq!(passed.1.entry, Entry::Front);
    next.take(vec![passed]);
    assert_eq!(answer(&mut client).text(), "version one");
}

#[test]
fn a_thousand_idle_ones_go_in_batches() {
    let (mut old, mut next) = (worker(), worker());
    let mut clients: Vec<_> = (0..300).map(|_| old.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, &post("/one", "")).status, 200);
    }
    quiesce(&mut old);
    let mut passed = old.passed(300);
    assert_eq!(old.ended(), Some(0));
    while !passed.is_empty() {
        next.take(passed.drain(..passed.len().min(Passing::MOST)).collect());
    }
    for client in &mut clients {
        assert_eq!(ask(client, &post("/one", "")).text(), "version one");
    }
}

#[test]
fn a_connection_from_the_front_door_leads_to_one_tenant() {
    let mut worker = worker();
    let to = |host: &str| post("/one", "").replace("demo", host);
    for (host, status) in [
        ("demo.localhost", 200),
        ("DEMO.localhost:3400", 200),
        ("other.localhost", 421),
        ("localhost", 421),
        ("demo", 421),
    ] {
        let (mut client, server) = from_front();
        worker.take(vec![entering_now(server, &to("demo.localhost"), Entry::Front)]);
        assert_eq!(answer(&mut client).status, 200);
        let second = ask(&mut client, &to(host));
        assert_eq!(second.status, status, "{host}: {second:?}");
        if status == 421 {
            second.is_problem(421, "misdirected");
            assert_eq!(second.header("connection"), Some("close"));
            assert!(is_closed(&mut client));
        }
    }
}

#[test]
fn an_old_beginning_is_not_made_young() {
    let mut next = worker();
    let (mut client, server) = from_front();
    let since = Moment::from(Instant::now() - Duration::from_secs(9));
    let unread = b"POST /one HTTP/1.1\r\nho".to_vec();
    next.take(vec![(server.into(), Passing { unread, since, entry: Entry::Port })]);
    let begun = Instant::now();
    read_answer(&mut BufReader::new(&client), false).is_problem(408, "request_timeout");
    assert!(is_closed(&mut client));
    assert!(begun.elapsed() < Duration::from_secs(8), "a new term: {:?}", begun.elapsed());
}

#[test]
fn a_message_without_its_descriptors_ends_the_worker() {
    let mut worker = worker();
    let passing = Passing { unread: vec![], since: Moment::now(), entry: Entry::Port };
    worker.say(&ToWorker::Pass(vec![passing]));
    assert_eq!(worker.ended(), Some(1));
}

#[test]
fn an_answer_that_leaves_a_body_unasked_for_says_that_it_is_the_last() {
    let worker = worker();
    let mut client = worker.connect();
    let head =
        "POST /one HTTP/1.1\r\nhost: demo\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    let answered = ask(&mut client, head);
    assert_eq!((answered.status, answered.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut client));
}

/// As long as the gate's patience, which is what is tested: one connection for each way.
#[test]
fn a_client_that_stops_in_the_middle_of_a_body_is_cut_off() {
    let functions = [("/echo", "echo", "{}"), ("/big", "big_response", "{}")];
    let mut worker = exec(&Release::new(1, &functions), start(1)).accept();
    let begun = Instant::now();
    let mut sends = worker.connect();
    sends.write_all(post("/echo", "half").replace(": 4", ": 8").as_bytes()).unwrap();
    let mut takes = worker.connect();
    takes.write_all(post("/big?bytes=33554432", "").as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = sends.read_to_end(&mut said);
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(15), "{waited:?} and {}", String::from_utf8_lossy(&said));
    worker.await_report(|report| report.calls.len() == 2);
    // Its answer was far more than the sockets between us hold.
    let answered = answer(&mut takes);
    assert!(answered.broken, "{} bytes came", answered.body.len());
    assert_eq!(worker.call(&get("/$health")).status, 200);
}
