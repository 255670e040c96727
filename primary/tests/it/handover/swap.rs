//! One connection across an upload, in every state in which the upload can find it.

use nix::sys::signal::Signal;

use super::{Stage, answered, ask, is_read};
use crate::guests;
use crate::http::{Answer, Connection};
use crate::processes::{eventually, signal};
use crate::traffic::{Choices, Step};

#[test]
fn an_idle_kept_connection_goes_on() {
    let stage = Stage::new();
    for address in stage.tenant.addresses() {
        let mut connection = stage.kept(&address);
        for _ in 0..3 {
            stage.swap();
            stage.goes_on(&address, &mut connection);
        }
        // Nor must it have been used in between.
        stage.swap();
        stage.swap();
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn a_fresh_connection_without_a_byte_goes_on() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        is_read(&connection);
        stage.swap();
        stage.goes_on(&address, &mut connection);
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn half_a_head_before_and_the_rest_after() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let request = ask(&address, "half").bytes("demo");
        let head = request.len() - "half".len();
        for half in [1, 20, head - 2] {
            let first = Connection::open(address.to).unwrap();
            for mut connection in [first, stage.kept(&address)] {
                connection.send(&request[..half]).unwrap();
                is_read(&connection);
                stage.swap();
                connection.send(&request[half..]).unwrap();
                let answer = connection.answer("POST");
                answered(&stage.history.current(), "half", &answer);
                stage.goes_on(&address, &mut connection);
            }
        }
    }
    stage.settles();
}

#[test]
fn a_trickled_body_is_taken_by_the_version_that_began_with_it() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let request = ask(&address, "a trickled body").bytes("demo");
        let (head, body) = request.split_at(request.len() - "a trickled body".len());
        connection.send(head).unwrap();
        connection.send(&body[..3]).unwrap();
        is_read(&connection);
        let old = stage.swap();
        for byte in &body[3..] {
            connection.send(&[*byte]).unwrap();
            is_read(&connection);
        }
        answered(&old, "a trickled body", &connection.answer("POST"));
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn a_streamed_response_is_finished_by_the_version_that_began_it() {
    let stage = Stage::new();
    stage.tenant.deploy("streams", guests::streams());
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let head = address.request("POST", "/streams").header("transfer-encoding", "chunked");
        connection.send(&head.bytes("demo")).unwrap();
        connection.send(b"6\r\nbefore\r\n").unwrap();
        let answer = connection.head().unwrap();
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
        assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"before"[..]));

        stage.swap();
        connection.send(b"5\r\nafter\r\n0\r\n\r\n").unwrap();
        assert_eq!(connection.chunk().unwrap().as_deref(), Some(&b"after"[..]));
        assert_eq!(connection.chunk().unwrap(), None);
        connection.fields().unwrap();
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn a_response_that_its_client_does_not_read_yet_arrives_whole() {
    const BYTES: usize = 20 << 20;
    let stage = Stage::new();
    stage.tenant.deploy("big", guests::big_response());
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let request = address.request("POST", &format!("/big?bytes={BYTES}"));
        connection.send(&request.bytes("demo")).unwrap();
        // What follows it is not read before it is answered.
        connection.send(&ask(&address, "behind it").bytes("demo")).unwrap();
        let answer = connection.head().unwrap();
        assert!(answer.status == 200 && !answer.closes(), "{answer:?}");

        stage.swap();
        let mut bytes = 0;
        while let Some(chunk) = connection.chunk().unwrap() {
            assert!(chunk.iter().enumerate().all(|(at, byte)| *byte == ((bytes + at) % 251) as u8));
            bytes += chunk.len();
        }
        connection.fields().unwrap();
        assert_eq!(bytes, BYTES);
        answered(&stage.history.current(), "behind it", &connection.answer("POST"));
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn pipelined_requests_are_all_answered_in_order() {
    let stage = Stage::new();
    for address in stage.addresses() {
        for mut connection in [Connection::open(address.to).unwrap(), stage.kept(&address)] {
            let mut requests = address.request("POST", "/one?ms=1000").body("first").bytes("demo");
            for body in ["second", "third"] {
                requests.extend(ask(&address, body).bytes("demo"));
            }
            connection.send(&requests).unwrap();
            is_read(&connection);
            let old = stage.swap();
            // Which version takes the first one is open where the front door saw it before.
            let versions = [old, stage.history.current()];
            let mut at = 0;
            for body in ["first", "second", "third"] {
                let answer = connection.answer("POST");
                at += usize::from(!versions[at].gave(&answer, body));
                answered(&versions[at.min(1)], body, &answer);
            }
            stage.goes_on(&address, &mut connection);
        }
    }
    stage.settles();
}

/// The old worker finds a request and the word that it is to take no more, both at once.
#[test]
fn a_request_that_was_proxied_before_is_answered() {
    let stage = Stage::new();
    let [_, _, by_path] = stage.tenant.addresses();
    let mut connection = stage.kept(&by_path);
    let worker = stage.host.workers(&stage.tenant)[0];
    signal(worker, Signal::SIGSTOP);
    connection.send(&ask(&by_path, "on its way").bytes("demo")).unwrap();
    is_read(&connection);
    let old = stage.history.current();
    std::thread::scope(|scope| {
        // Unlike an upload at its own port, this needs no worker.
        let change = scope.spawn(|| stage.history.roll_back(&mut Choices::new()));
        eventually("a swap that waits for the old worker", || {
            (stage.tenant.ask("/worker")["draining"] == 1).then_some(())
        });
        signal(worker, Signal::SIGCONT);
        change.join().unwrap();
    });
    let answer = connection.answer("POST");
    answered_last(&[old, stage.history.current()], "on its way", &answer);
    stage.goes_on(&by_path, &mut connection);
    stage.settles();
}

#[test]
fn a_half_closed_client_is_answered_and_then_let_go() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let request = address.request("POST", "/one?ms=1000").body("my last words");
        connection.send(&request.bytes("demo")).unwrap();
        is_read(&connection);
        connection.finish_sending().unwrap();
        let old = stage.swap();
        answered_last(&[old], "my last words", &connection.answer("POST"));
        assert!(connection.is_closed(), "{}", address.name);
    }
    stage.settles();
}

#[test]
fn a_half_closed_client_gets_every_answer_that_it_asked_for() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let mut requests = address.request("POST", "/one?ms=1000").body("first").bytes("demo");
        requests.extend(ask(&address, "second").bytes("demo"));
        requests.extend(ask(&address, "third").bytes("demo"));
        connection.send(&requests).unwrap();
        connection.finish_sending().unwrap();
        let old = stage.swap();
        let versions = [old, stage.history.current()];
        for body in ["first", "second", "third"] {
            answered_last(&versions, body, &connection.answer("POST"));
        }
        assert!(connection.is_closed(), "{}", address.name);
    }
    stage.settles();
}

#[test]
fn http_1_0_is_kept_where_it_was_asked_to_be() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let ask = |body: &str, keep: &str| {
            let request = ask(&address, body).header("connection", keep).bytes("demo");
            String::from_utf8(request).unwrap().replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n")
        };
        for _ in 0..3 {
            connection.send(ask("old", "keep-alive").as_bytes()).unwrap();
            let answer = connection.answer("POST");
            answered(&stage.history.current(), "old", &answer);
            assert_eq!(answer.header("connection"), Some("keep-alive"), "{}", address.name);
            stage.swap();
        }
        let last = ask("older", "x-none");
        let (half, rest) = last.split_at(30);
        connection.send(half.as_bytes()).unwrap();
        is_read(&connection);
        stage.swap();
        connection.send(rest.as_bytes()).unwrap();
        answered_last(&[stage.history.current()], "older", &connection.answer("POST"));
        assert!(connection.is_closed(), "{}", address.name);
    }
    stage.settles();
}

#[test]
fn who_asked_for_a_close_gets_it_after_the_answer() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let mut connection = stage.kept(&address);
        let request = address.request("POST", "/one?ms=1000").header("connection", "close");
        connection.send(&request.body("enough").bytes("demo")).unwrap();
        is_read(&connection);
        let old = stage.swap();
        let answer = connection.answer("POST");
        assert!(answer.closes(), "{answer:?}");
        answered_last(&[old], "enough", &answer);
        assert!(connection.is_closed(), "{}", address.name);
    }
    stage.settles();
}

#[test]
fn who_waits_for_100_continue_gets_it() {
    let stage = Stage::new();
    for address in stage.addresses() {
        let request = |path: &str| {
            let request = address.request("POST", path).header("expect", "100-continue");
            let bytes = request.header("content-length", "4").bytes("demo");
            assert!(bytes.ends_with(b"\r\n\r\n"));
            bytes
        };
        let go_on = |connection: &mut Connection| {
            assert_eq!(connection.head().unwrap().status, 100, "{}", address.name);
        };

        // It has it already.
        let mut connection = stage.kept(&address);
        connection.send(&request("/one")).unwrap();
        go_on(&mut connection);
        let old = stage.swap();
        connection.send(b"body").unwrap();
        answered(&old, "body", &connection.answer("POST"));
        stage.goes_on(&address, &mut connection);

        // The function does not read yet.
        connection.send(&request("/one?ms=1000")).unwrap();
        is_read(&connection);
        let old = stage.swap();
        go_on(&mut connection);
        connection.send(b"body").unwrap();
        answered(&old, "body", &connection.answer("POST"));
        stage.goes_on(&address, &mut connection);

        // Nobody has asked for it yet.
        let bytes = request("/one");
        let (half, rest) = bytes.split_at(bytes.len() - 3);
        connection.send(half).unwrap();
        is_read(&connection);
        stage.swap();
        connection.send(rest).unwrap();
        go_on(&mut connection);
        connection.send(b"body").unwrap();
        answered(&stage.history.current(), "body", &connection.answer("POST"));
        stage.goes_on(&address, &mut connection);
    }
    stage.settles();
}

#[test]
fn a_connection_that_outlives_many_generations_is_one_connection() {
    let stage = Stage::new();
    let [port, _] = stage.addresses();
    let mut connection = stage.kept(&port);
    let worker = || stage.host.workers(&stage.tenant);
    let mut seen = vec![worker()];
    for _ in 0..10 {
        stage.swap();
        stage.goes_on(&port, &mut connection);
        eventually("one worker", || (worker().len() == 1).then_some(()));
        seen.push(worker());
    }
    seen.dedup();
    assert_eq!(seen.len(), 11, "each generation has a process of its own");
    stage.settles();
}

/// The right answer of one of these versions, be the connection kept or not.
#[track_caller]
fn answered_last(versions: &[Step], body: &str, answer: &Answer) {
    let mut kept = answer.clone();
    kept.headers.retain(|(name, _)| name != "connection");
    let gave = versions.iter().any(|step| step.gave(&kept, body));
    assert!(gave, "one of {versions:?} was asked {body:?}: {answer:?} {}", answer.text());
}
