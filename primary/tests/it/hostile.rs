//! Functions that mean harm, or are merely broken. Each gets its own code, the next call of the
//! same function succeeds in the same worker, and somebody else's function never notices.
//!
//! Names that begin with `row_` are those of the matrix in `docs/security.md`.

mod ends;
mod modules;
mod readers;
mod requests;
mod uploads;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Host, Tenant};
use crate::http::{Answer, Connection};
use crate::limits::Growth;
use crate::processes::{Beside, eventually, pause};

/// Between two calls of the neighbour.
const NEIGHBOUR_RESTS: Duration = Duration::from_millis(5);

/// A tenant whose `/guest` misbehaves, and another one who is called all the while.
struct Scene {
    host: Host,
    tenant: Tenant,
    worker: Vec<i32>,
    neighbour: Beside<String>,
    answered: Arc<AtomicUsize>,
}

impl Scene {
    fn of(module: &[u8], options: &Value) -> Self {
        Self::on(Host::start(), module, options)
    }

    fn on(host: Host, module: &[u8], options: &Value) -> Self {
        let tenant = host.tenant("hostile");
        tenant.deploy_with("guest", module, options);
        let worker = host.workers(&tenant);
        assert_eq!(worker.len(), 1);
        let answered = Arc::new(AtomicUsize::new(0));
        let neighbour = call_on(host.tenant("neighbour").address(), Arc::clone(&answered));
        let scene = Self { host, tenant, worker, neighbour, answered };
        scene.neighbour_is_answered();
        scene
    }

    /// Several more times from now on.
    #[track_caller]
    fn neighbour_is_answered(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("answers of the neighbour's", || {
            (self.answered.load(Ordering::Relaxed) >= before + 5).then_some(())
        });
    }

    /// The same function serves its next call, in the same process.
    #[track_caller]
    fn serves_on(&self, query: &str, says: &str) {
        for address in self.tenant.addresses() {
            let answer = address.post(&format!("/guest{query}"), "").expect(200);
            assert_eq!(answer.text(), says, "{}", address.name);
        }
        assert_eq!(self.host.workers(&self.tenant), self.worker, "the worker lives on");
        assert_eq!(self.tenant.ask("/worker")["pid"], self.worker[0]);
    }

    #[track_caller]
    fn ends_well(self) {
        self.neighbour_is_answered();
        let errors = self.neighbour.stop();
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// Whenever it is asked so, at each address, it gets this code.
    #[track_caller]
    fn refuses(&self, query: &str, status: u16, code: &str) {
        for address in self.tenant.addresses() {
            let problem = address.post(&format!("/guest{query}"), "").expect_problem(status, code);
            assert_eq!(problem.header("x-hearth-version"), Some("/guest@1"), "{}", address.name);
            assert!(!problem.text().contains(".rs"), "no stack to callers: {}", problem.text());
        }
    }

    fn growth(&self) -> Growth {
        Growth::of(self.worker[0])
    }
}

fn call_on(address: Address, answered: Arc<AtomicUsize>) -> Beside<String> {
    let request = address.request("POST", "/hello").body("{}");
    let host = address.to.to_string();
    let mut connection = Connection::open(address.to).unwrap();
    Beside::run(move |errors| {
        let sent = connection.send(&request.bytes(&host));
        match sent.and_then(|()| connection.try_answer("POST")) {
            Ok(answer) if answer.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                errors.insert(format!("{} {}", answer.status, answer.text()));
            }
            Err(error) => {
                errors.insert(error.to_string());
                if let Ok(another) = Connection::open(address.to) {
                    connection = another;
                }
            }
        }
        pause(NEIGHBOUR_RESTS);
    })
}

#[track_caller]
fn is_cut_short(address: &Address, error: &io::Error) {
    let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
    assert!(ended.contains(&error.kind()), "{}: {error}", address.name);
}

/// The head of an answer, and what came of its body before it was cut short.
#[track_caller]
fn cut_short(address: &Address, path: &str) -> (Answer, usize) {
    let mut connection = Connection::open(address.to).unwrap();
    connection.send(&address.request("POST", path).bytes("hostile")).unwrap();
    let head = connection.head().unwrap_or_else(|e| panic!("no head at {}: {e}", address.name));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"), "{:?}", head.headers);
    let mut came = 0;
    loop {
        match connection.chunk() {
            Ok(Some(chunk)) => came += chunk.len(),
            Ok(None) => panic!("a body that looks whole at {}", address.name),
            Err(error) => {
                is_cut_short(address, &error);
                return (head, came);
            }
        }
    }
}

#[test]
fn one_that_spins_is_stopped_soon_after_its_time() {
    const LIMIT: Duration = Duration::from_millis(1_000);
    const LATE: Duration = Duration::from_millis(500);
    let scene = Scene::of(guests::spins(), &json!({ "timeout_ms": 1_000 }));
    for address in scene.tenant.addresses() {
        // Other programs want this machine, too: one of three must be in time.
        let mut took = Vec::new();
        while took.len() < 3 && took.last().is_none_or(|took| *took >= LIMIT + LATE) {
            let begun = Instant::now();
            address
                .post("/guest?at_once=1", "")
                .expect_problem(504, "timeout")
                .expect_detail("1000");
            took.push(begun.elapsed());
        }
        assert!(took.iter().all(|took| *took >= LIMIT), "{took:?}");
        assert!(took.last().unwrap() < &(LIMIT + LATE), "{}: {took:?}", address.name);
    }
    scene.serves_on("", "well");
    scene.ends_well();
}

#[test]
fn one_that_spins_in_the_middle_of_its_answer_is_cut_short() {
    let scene = Scene::of(guests::spins(), &json!({ "timeout_ms": 1_000 }));
    for address in scene.tenant.addresses() {
        let begun = Instant::now();
        let (head, came) = cut_short(&address, "/guest?sends=1000");
        assert_eq!((head.status, came), (200, 1_000), "{}", address.name);
        assert!(begun.elapsed() >= Duration::from_millis(1_000), "{}", address.name);
    }
    scene.serves_on("", "well");
    scene.ends_well();
}

#[test]
fn one_that_waits_for_ever_is_stopped() {
    let scene = Scene::of(guests::slow(), &json!({ "timeout_ms": 500 }));
    scene.refuses("?ms=3600000", 504, "timeout");
    scene.serves_on("?ms=0", "waited 0 ms");
    scene.ends_well();
}

#[test]
fn one_that_takes_all_memory_is_stopped() {
    let scene = Scene::of(guests::eats_memory(), &json!({}));
    scene.refuses("", 500, "memory_limit");
    scene.serves_on("?mb=50", "50");
    scene.ends_well();
}

#[test]
fn one_that_calls_itself_without_end_is_stopped() {
    let scene = Scene::of(guests::recurses(), &json!({}));
    scene.refuses("", 500, "function_trapped");
    scene.serves_on("?depth=100", "100");
    scene.ends_well();
}

#[test]
fn one_that_ends_before_it_has_answered_is_told_apart_by_how() {
    let scene = Scene::of(guests::ends_early(), &json!({}));
    for (query, status, code) in [
        ("?trap", 500, "function_trapped"),
        ("?panic", 500, "function_trapped"),
        ("?exit", 500, "function_trapped"),
        ("?return", 502, "function_no_response"),
    ] {
        scene.refuses(query, status, code);
        scene.serves_on("", "well");
    }
    scene.ends_well();
}

#[test]
fn one_that_forges_a_handle_is_stopped() {
    let scene = Scene::of(guests::answers_twice(), &json!({}));
    scene.refuses("?forged=1", 500, "function_trapped");
    scene.serves_on("", "once");
    scene.ends_well();
}

#[test]
fn one_that_answers_twice_gives_no_whole_answer() {
    let scene = Scene::of(guests::answers_twice(), &json!({}));
    scene.refuses("?forged=2", 500, "function_trapped");
    scene.serves_on("", "once");
    scene.ends_well();
}

#[test]
fn one_that_sends_less_than_it_said_is_cut_short_and_one_that_sends_more_to_what_it_said() {
    let scene = Scene::of(guests::misstates_length(), &json!({}));
    for address in scene.tenant.addresses() {
        match address.request("POST", "/guest?says=1000&sends=999").try_send(address.to) {
            Ok(answer) => assert!(answer.status >= 500, "{answer:?}"),
            Err(error) => is_cut_short(&address, &error),
        }
        // One connection throughout, on which what is too much would be taken for an answer.
        let mut connection = Connection::open(address.to).unwrap();
        for sends in [1_001, 100_000, 1_000] {
            let path = format!("/guest?says=1000&sends={sends}");
            connection.send(&address.request("POST", &path).bytes("hostile")).unwrap();
            let answer = connection.answer("POST").expect(200);
            assert_eq!(answer.body, [b'x'; 1_000], "{sends} at {}", address.name);
            if answer.closes() {
                connection = Connection::open(address.to).unwrap();
            }
        }
    }
    scene.serves_on("?says=3&sends=3", "xxx");
    scene.ends_well();
}

#[test]
fn one_that_hoards_its_hosts_resources_is_stopped() {
    let scene = Scene::of(guests::hoards(), &json!({}));
    let growth = scene.growth();
    scene.refuses("", 500, "function_trapped");
    scene.refuses("?handles=10000", 500, "function_trapped");
    scene.serves_on("?handles=9900", "well");
    growth.stays_below(32);
    scene.ends_well();
}

#[test]
fn one_that_asks_for_too_much_at_once_is_stopped() {
    let scene = Scene::of(guests::asks_random(), &json!({}));
    let growth = scene.growth();
    for bytes in [(64 << 10) + 1, 1 << 30, u64::MAX] {
        scene.refuses(&format!("?bytes={bytes}"), 500, "function_trapped");
    }
    scene.serves_on("?bytes=65536", "65536");
    growth.stays_below(32);
    scene.ends_well();
}

#[test]
fn one_that_logs_without_end_loses_lines_and_takes_no_memory() {
    let scene = Scene::of(guests::prints_on(), &json!({ "timeout_ms": 1_000 }));
    let growth = scene.growth();
    let host = Growth::of(scene.host.pid());
    scene.refuses("", 504, "timeout");
    let dropped = r#"hearth_log_records_dropped_total{tenant="hostile",kind="line"}"#;
    eventually("lines that were dropped", || (scene.host.figure(dropped) > 0).then_some(()));
    scene.serves_on("?lines=1", "well");
    growth.stays_below(32);
    host.stays_below(64);
    scene.ends_well();
}

#[test]
fn one_that_answers_with_a_gigabyte_is_let_through_and_nobody_keeps_it() {
    const GIGABYTE: usize = 1 << 30;
    let scene = Scene::of(guests::sends_on(), &json!({ "timeout_ms": 300_000 }));
    let growth = [scene.growth(), Growth::of(scene.host.pid())];
    let [port, _, path] = scene.tenant.addresses();
    for (address, bytes) in [(port, GIGABYTE), (path, GIGABYTE / 8)] {
        let mut connection = Connection::open(address.to).unwrap();
        let request = address.request("POST", &format!("/guest?bytes={bytes}"));
        connection.send(&request.bytes("hostile")).unwrap();
        connection.head().unwrap();
        let mut came = 0;
        while let Some(chunk) = connection.chunk().unwrap() {
            came += chunk.len();
        }
        assert_eq!(came, bytes, "{}", address.name);
    }
    // One that nobody reads waits, and goes with its caller.
    let mut unread = scene.tenant.open();
    let request = scene.tenant.address().request("POST", "/guest?bytes=1073741824");
    unread.send(&request.bytes("hostile")).unwrap();
    unread.head().unwrap();
    scene.serves_on("?bytes=3", "xxx");
    drop(unread);
    for growth in growth {
        growth.stays_below(64);
    }
    scene.ends_well();
}

#[test]
fn one_that_answers_with_a_monstrous_head_harms_itself_at_most() {
    let scene = Scene::of(guests::answers(), &json!({}));
    let growth = scene.growth();
    let [port, name, path] = scene.tenant.addresses();
    let answer = |address: &Address, headers: Vec<[String; 2]>| {
        let wanted = json!({ "status": 200, "headers": headers, "body": "x" });
        let request = address.request("POST", "/guest").body(wanted.to_string());
        request.try_send(address.to).unwrap_or_else(|e| panic!("{}: {e}", address.name))
    };
    let large = |bytes: usize| vec![["x-large".to_owned(), "x".repeat(bytes)]];
    let many = |fields: usize| (0..fields).map(|at| [format!("x-{at}"), "x".to_owned()]).collect();
    for address in [&port, &name, &path] {
        let whole = answer(address, large(64 << 10)).expect(200);
        assert_eq!(whole.header("x-large").map(str::len), Some(64 << 10), "{}", address.name);
        // More than a host of `wasi:http` takes is the function's own failure.
        answer(address, large(256 << 10)).expect_problem(500, "function_trapped");
        answer(address, many(5_000)).expect_problem(500, "function_trapped");
    }
    for address in [&port, &name, &path] {
        let whole = answer(address, many(90)).expect(200);
        let came = whole.headers.iter().filter(|(name, _)| name.starts_with("x-")).count();
        assert!(came >= 90, "{came} at {}", address.name);
        for past in [91, 1_000] {
            answer(address, many(past)).expect_problem(502, "function_no_response");
        }
        assert_eq!(answer(address, Vec::new()).expect(200).text(), "x");
    }
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
    growth.stays_below(64);
    scene.ends_well();
}

#[test]
fn one_that_answers_with_an_odd_status_cannot_confuse_its_caller() {
    let scene = Scene::of(guests::answers(), &json!({}));
    for address in scene.tenant.addresses() {
        let mut connection = Connection::open(address.to).unwrap();
        let mut answer = |status: u16| {
            let wanted = json!({ "status": status, "headers": [], "body": "x" }).to_string();
            connection.call(&address.request("POST", "/guest").body(wanted))
        };
        // Those that announce a further answer are none, and no number at all is a failure.
        for status in [100, 101, 103] {
            answer(status).expect_problem(502, "function_no_response");
        }
        for status in [0, 99, 1_000, 65_535] {
            answer(status).expect_problem(500, "function_trapped");
        }
        for status in [200, 299, 599, 999] {
            assert_eq!(answer(status).expect(status).text(), "x", "{status} at {}", address.name);
        }
        for status in [204, 304] {
            assert!(answer(status).expect(status).body.is_empty(), "{status} at {}", address.name);
        }
    }
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "the worker lives on");
    scene.ends_well();
}
