//! Many changes of one tenant at once, and beside calls that last: each change is answered, and no
//! call is cut for it. Whatever address an upload comes to, what it replaces may be the very worker
//! that it came through.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::{Answer, Connection, Request};
use crate::processes::{eventually, is_alive, pause, signal, stop_at_birth};

/// A module that is another for each number, and says which version it is.
fn module(number: usize) -> Vec<u8> {
    let says = if number.is_multiple_of(2) { guests::version_one() } else { guests::version_two() };
    let number = [(number >> 7) as u8 | 0x80, (number & 0x7f) as u8];
    // A custom section: its kind, its length, its name, and what nobody reads.
    [says, &[0, 4, 1, b'n', number[0], number[1]]].concat()
}

/// The four addresses at which an upload is taken.
fn uploads(
    tenant: &Tenant,
    front: SocketAddr,
    files: &[(&str, &[u8])],
) -> [(Request, SocketAddr); 4] {
    let [port, name, path] = tenant.addresses().map(|address| {
        let request = address.request("POST", "/$upload").bearer(&tenant.token);
        (upload(request, files, None), address.to)
    });
    let api = upload(tenant.api("POST", "/functions"), files, None);
    [port, name, path, (api, front)]
}

/// Asks again where the host has too much to do at once, which is an answer as well.
fn patiently(ask: impl Fn() -> std::io::Result<Answer>) -> Result<Answer, String> {
    for _ in 0..200 {
        let answer = ask().map_err(|error| error.to_string())?;
        if answer.status != 429 {
            return Ok(answer);
        }
        pause(Duration::from_millis(100));
    }
    Err("never its turn".to_owned())
}

/// So many at once, until all is done; what was not answered as it should be.
fn at_once(threads: usize, number: usize, act: impl Fn(usize) -> Result<(), String> + Sync) {
    let (next, act) = (AtomicUsize::new(0), &act);
    let failed: Vec<String> = std::thread::scope(|scope| {
        let next = &next;
        let threads: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(move || {
                    let mine =
                        || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|it| *it < number);
                    let done = std::iter::from_fn(mine).map(|at| (at, act(at)));
                    let failed =
                        done.filter_map(|(at, done)| Some(format!("{at}: {}", done.err()?)));
                    failed.collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {number}: {failed:#?}", failed.len());
}

fn done(answer: &Answer) -> Result<(), String> {
    match answer.status {
        200 => Ok(()),
        status => Err(format!("{status} {}", answer.text())),
    }
}

#[test]
fn sixteen_uploads_eight_at_once_at_its_own_port_are_all_answered() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let versions = std::sync::Mutex::new(BTreeMap::new());
    at_once(8, 16, |at| {
        let module = module(at);
        let [(request, to), ..] = uploads(&tenant, host.front, &[("one.wasm", &module)]);
        let answer = patiently(|| request.try_send(to))?;
        done(&answer)?;
        let version = answer.json()["functions"][0]["version"].as_u64().unwrap();
        versions.lock().unwrap().insert(version, at);
        Ok(())
    });
    let versions = versions.into_inner().unwrap();
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), (1..=16).collect::<Vec<u64>>());
    let says = if versions[&16].is_multiple_of(2) { "version one" } else { "version two" };
    assert_eq!(tenant.post("/one", "").expect(200).text(), says);
    eventually("the end of older workers", || (host.workers(&tenant).len() == 1).then_some(()));
}

#[test]
fn changes_of_every_kind_at_every_address_are_all_answered() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let limits = json!({ "limits": { "versions": 200 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    tenant.deploy("one", &module(0));
    tenant.deploy("one", &module(1));
    let api = |method: &str, path: &str, body: &Value| {
        tenant.api(method, path).json(body).try_send(host.front)
    };
    let limits = |value: u64| {
        let request = host.admin("PATCH", "/tenants/demo/limits");
        request.json(&json!({ "limits": { "rate_burst": value } })).try_send(host.front)
    };
    at_once(8, 45, |at| {
        let module = module(at + 2);
        let answer = match at % 9 {
            kind @ 0..4 => {
                let (request, to) = &uploads(&tenant, host.front, &[("one.wasm", &module)])[kind];
                patiently(|| request.try_send(*to))
            }
            // A second one at its own port, since that is where it is hardest.
            4 => {
                let (request, to) = &uploads(&tenant, host.front, &[("two.wasm", &module)])[0];
                patiently(|| request.try_send(*to))
            }
            5 => {
                let body = json!({ "version": at % 2 + 1 });
                patiently(|| api("POST", "/functions/one/rollback", &body))
            }
            6 => {
                let body = json!({ "options": { "timeout_ms": 20_000 + at } });
                patiently(|| api("PATCH", "/functions/one", &body))
            }
            7 => patiently(|| limits(200 + at as u64)),
            _ => patiently(|| tenant.api("POST", "/worker/restart").try_send(host.front)),
        };
        done(&answer?)
    });
    for address in tenant.addresses() {
        address.post("/one", "").expect(200);
        address.get("/$health").expect(200);
    }
}

/// What is said of the calls of one function that are over.
fn outcomes(tenant: &Tenant, function: &str) -> Vec<(String, u64)> {
    let calls = tenant.ask("/calls?limit=200")["calls"].as_array().unwrap().clone();
    let of_it = calls.into_iter().filter(|call| call["function"] == function);
    of_it
        .map(|call| {
            (call["outcome"].as_str().unwrap().to_owned(), call["status"].as_u64().unwrap())
        })
        .collect()
}

#[test]
fn five_uploads_in_a_row_cut_none_of_thirty_calls() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    for number in 0..5 {
        let file = host.scratch().join(format!("{number}.wasm"));
        std::fs::write(file, module(number)).unwrap();
    }
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let call = |address: usize| {
            let tenant = &tenant;
            scope.spawn(move || tenant.addresses()[address].post("/slow?ms=3000", ""))
        };
        let mut calls = Vec::new();
        for number in 0..5 {
            calls.extend((0..6).map(|at| call(at % 3)));
            eventually("calls that run", || {
                let lines = tenant.ask("/logs?limit=200")["lines"].as_array().unwrap().len();
                (lines >= (number + 1) * 6).then_some(())
            });
            let file = format!("{number}.wasm");
            host.command(&tenant.token, &["upload", "--tenant", "demo", &file]).done();
        }
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let wrong: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(answers.len() == 30 && wrong.is_empty(), "{}: {wrong:?}", wrong.len());
    eventually("all records", || {
        (outcomes(&tenant, "/slow") == vec![("answered".to_owned(), 200); 30]).then_some(())
    });
}

/// Calls at all three addresses that last for minutes, and one in the middle of its answer.
struct Lasting {
    calls: Vec<Connection>,
    stream: Connection,
}

impl Lasting {
    fn begin(tenant: &Tenant) -> Self {
        let long = json!({ "timeout_ms": 300_000 });
        tenant.deploy_with("slow", guests::slow(), &long);
        tenant.deploy_with("streams", guests::streams(), &long);
        let begin = |address: crate::host::Address, path: &str| {
            let mut connection = Connection::open(address.to).unwrap();
            connection.send(&address.request("POST", path).bytes("demo")).unwrap();
            connection
        };
        let calls = tenant.addresses().map(|address| begin(address, "/slow?ms=200000")).into();
        let mut stream = begin(tenant.address(), "/streams?pieces=2000&pause=100");
        assert_eq!(stream.head().unwrap().status, 200);
        eventually("calls that run", || {
            let lines = tenant.ask("/logs")["lines"].as_array().unwrap().len();
            (lines == 3).then_some(())
        });
        Self { calls, stream }
    }

    /// All are told that their worker had no more time, or in the middle of an answer find its end.
    fn are_ended(self) {
        let Self { calls, mut stream } = self;
        for mut call in calls {
            let answer = call.answer("POST").expect_problem(503, "worker_unavailable");
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            let _ = answer.expect_detail("had no more time for it");
        }
        while let Ok(Some(_)) = stream.chunk() {}
        assert!(stream.is_closed());
    }

    fn are_on_record(tenant: &Tenant) {
        eventually("all records", || {
            let stopped = |status| ("stopped".to_owned(), status);
            let slow = outcomes(tenant, "/slow") == vec![stopped(503); 3];
            (slow && outcomes(tenant, "/streams") == [stopped(200)]).then_some(())
        });
        let lines = tenant.ask("/logs");
        let lines = lines["lines"].as_array().unwrap();
        let told = lines.iter().filter(|line| {
            line["stream"] == "host" && line["text"].as_str().unwrap().contains("no more time")
        });
        assert_eq!(told.count(), 4, "{lines:?}");
    }
}

#[test]
fn a_call_that_outlasts_its_worker_is_answered_and_on_record() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let lasting = Lasting::begin(&tenant);
    let old = host.workers(&tenant)[0];
    let begun = Instant::now();
    tenant.deploy("one", &module(1));
    lasting.are_ended();
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    Lasting::are_on_record(&tenant);
    eventually("its end", || (!is_alive(old)).then_some(()));
    assert!(!host.log().contains("ending worker"), "it went by itself");
}

/// Who asks twice for the end is not kept waiting, and neither are those who are cut off for it.
#[test]
fn a_second_signal_gives_calls_up_and_says_so() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let lasting = Lasting::begin(&tenant);
    host.terminate();
    eventually("a host that is stopping", || {
        (host.send(&Request::new("GET", "/readyz")).status == 503).then_some(())
    });
    let begun = Instant::now();
    host.terminate();
    lasting.are_ended();
    assert_eq!(host.ended().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    host.start_again();
    Lasting::are_on_record(&tenant);
}

/// Nor does a tenant that is removed, or stopped again and again, take an answer from anybody.
#[test]
fn whoever_is_cut_off_by_a_removal_or_by_stops_is_told() {
    let host = Host::start();
    let (removed, stopped) = (host.tenant("removed"), host.tenant("stopped"));
    let lasting = [Lasting::begin(&removed), Lasting::begin(&stopped)];
    let [of_removed, of_stopped] = lasting;
    host.send(&host.admin("DELETE", "/tenants/removed")).expect(204);
    of_removed.are_ended();
    let mut others = Vec::new();
    for _ in 0..3 {
        let stop = stopped.api("POST", "/worker/stop");
        assert!(stop.send(host.front).status < 300);
        let mut other = stopped.open();
        let slow = stopped.address().request("POST", "/slow?ms=200000");
        other.send(&slow.bytes("demo")).unwrap();
        others.push(other);
        eventually("it runs", || {
            let lines = stopped.ask("/logs")["lines"].as_array().unwrap().len();
            (lines >= 3 + others.len()).then_some(())
        });
    }
    of_stopped.are_ended();
}

/// However many there are, each is done in its turn, or told at once that too many wait.
#[test]
fn more_changes_than_may_wait_are_told_so() {
    const CHANGES: usize = 100;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("slow", guests::slow());
    // Both places are taken for some seconds, so that the next change waits.
    let mut running = Vec::new();
    for number in 0..2 {
        let mut call = tenant.open();
        call.send(&tenant.address().request("POST", "/slow?ms=10000").bytes("demo")).unwrap();
        running.push(call);
        eventually("a call that runs", || {
            let lines = tenant.ask("/logs")["lines"].as_array().unwrap().len();
            (lines == running.len()).then_some(())
        });
        tenant.deploy("one", &module(number));
    }
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let changes = (0..CHANGES).map(|at| {
            let (host, limits) = (&host, json!({ "limits": { "rate_burst": 300 + at } }));
            scope.spawn(move || {
                let request = host.admin("PATCH", "/tenants/demo/limits").json(&limits);
                request.send(host.front)
            })
        });
        let changes: Vec<_> = changes.collect();
        changes.into_iter().map(|change| change.join().unwrap()).collect()
    });
    let number = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!(number(200) + number(429), CHANGES, "{answers:?}");
    assert!(number(200) >= 64 && number(429) > 0, "{} and {}", number(200), number(429));
    for answer in answers.into_iter().filter(|answer| answer.status == 429) {
        let refused = answer.expect_problem(429, "too_many_requests");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    for mut call in running {
        call.answer("POST").expect(200);
    }
}

/// A primary that stands still for a while (as one that is traced, frozen, or starved) takes
/// nobody for late who was not: not who has sent all of an upload meanwhile, at whatever address,
/// nor a worker that has answered.
#[test]
fn a_stall_of_the_host_is_not_held_against_others() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", &module(0));
    let worker = host.workers(&tenant);
    let files: Vec<_> = (0..4).map(|at| (format!("f{at}.wasm"), module(at))).collect();
    let requests: Vec<_> = files
        .iter()
        .enumerate()
        .map(|(at, (name, module))| {
            let [port, by_name, path, api] = uploads(&tenant, host.front, &[(name, module)]);
            [port, by_name, path, api][at].clone()
        })
        .collect();
    let mut halves: Vec<_> = requests
        .iter()
        .map(|(request, to)| {
            let bytes = request.bytes("demo");
            let bytes = match to.port() == tenant.port {
                true => bytes,
                false => request.bytes(&to.to_string()),
            };
            let (half, rest) = bytes.split_at(bytes.len() / 2);
            let mut connection = Connection::open(*to).unwrap();
            let (but_one, last) = half.split_at(half.len() - 1);
            // In pieces, so that its reader has waited for the next, and does so again.
            for piece in but_one.chunks(but_one.len().div_ceil(4)).chain([last]) {
                connection.send(piece).unwrap();
                eventually("a reader", || {
                    let end = crate::processes::far_end(connection.ends())?;
                    (end.accepted && end.unread == 0).then_some(())
                });
                pause(Duration::from_millis(100));
            }
            (connection, rest.to_vec())
        })
        .collect();
    signal(host.pid(), Signal::SIGSTOP);
    for (connection, rest) in &mut halves {
        connection.send(rest).unwrap();
    }
    pause(Duration::from_secs(25));
    signal(host.pid(), Signal::SIGCONT);
    for (mut connection, _) in halves {
        let answer = connection.answer("POST");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for at in 0..4 {
        tenant.post(&format!("/f{at}"), "").expect(200);
    }
    assert!(!host.log().contains("ending"), "the worker {worker:?} was ended");
}

/// A worker whose first word lies unread was ready in time.
#[test]
fn a_worker_that_was_ready_in_time_is_not_late_because_the_host_was() {
    // It is stopped at its birth, which a spare child has behind it.
    let host = Host::with(&["--spares", "0"]);
    let tenant = host.tenant("demo");
    let births = stop_at_birth(host.zygote().unwrap());
    let mut caller = tenant.open();
    caller.send(&tenant.address().request("POST", "/hello").body("{}").bytes("demo")).unwrap();
    let born = eventually("a birth", || births.seen().first().copied());
    births.stop();
    eventually("a host that knows of it", || (tenant.ask("/worker")["pid"] == born).then_some(()));
    signal(host.pid(), Signal::SIGSTOP);
    signal(born, Signal::SIGCONT);
    // More than it has to get ready.
    pause(Duration::from_secs(12));
    signal(host.pid(), Signal::SIGCONT);
    caller.answer("POST").expect(200);
    assert_eq!(host.workers(&tenant), [born]);
}
