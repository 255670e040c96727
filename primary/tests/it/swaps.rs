//! From one generation to the next: what was answered before, what after, and what happens when
//! the next one cannot start.

use std::collections::BTreeSet;

use hearth_e2e::component;
use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::processes::{Beside, eventually, is_alive, kill_at_birth};

#[test]
fn after_the_answer_to_an_upload_nothing_old_answers() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let modules = [("version one", guests::version_one()), ("version two", guests::version_two())];
    for round in 0_u64..8 {
        let (text, module) = modules[(round % 2) as usize];
        let up = tenant.deploy("one", module);
        assert_eq!(up["functions"][0]["version"], round + 1);
        for address in tenant.addresses() {
            let answer = address.post("/one", "").expect(200);
            assert_eq!(answer.text(), text, "{} in round {round}", address.name);
            let version = format!("/one@{}", round + 1);
            assert_eq!(answer.header("x-hearth-version"), Some(&*version));
        }
    }
    eventually("the end of the old generations", || {
        (host.workers(&tenant).len() == 1).then_some(())
    });
}

#[test]
fn calls_go_on_while_versions_change() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let callers: Vec<Beside<String>> = (0..2)
        .map(|_| {
            let tenant = tenant.clone();
            Beside::run(move |seen| {
                let address = tenant.address();
                match address.request("POST", "/one").try_send(address.to) {
                    Ok(answer) => seen.insert(format!("{} {}", answer.status, answer.text())),
                    Err(error) => seen.insert(format!("lost: {error}")),
                };
            })
        })
        .collect();
    for round in 0..6 {
        let module = if round % 2 == 0 { guests::version_two() } else { guests::version_one() };
        tenant.deploy("one", module);
    }
    for caller in callers {
        let seen = caller.stop();
        let expected: BTreeSet<String> =
            ["200 version one", "200 version two"].map(str::to_owned).into();
        assert!(seen.is_subset(&expected), "{seen:?}");
    }
}

/// From a version for the engine without concurrency to one for the other, and back, each of a
/// function that serves all the while beside another one of either kind.
#[test]
fn a_function_changes_its_engine_under_calls_and_none_fails() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let (one, two) = (guests::version_one(), component::concurrent(guests::version_two()));
    let beside = [("two.wasm", guests::version_one()), ("three.wasm", guests::wasip3_hello())];
    tenant.upload(&[beside[0], beside[1], ("one.wasm", one)], None).expect(200);
    let paths = ["/one", "/two", "/three"];
    let callers = paths.map(|path| {
        let tenant = tenant.clone();
        Beside::run(move |seen| {
            let address = tenant.address();
            match address.request("POST", path).try_send(address.to) {
                Ok(answer) => seen.insert(format!("{} {}", answer.status, answer.text())),
                Err(error) => seen.insert(format!("lost: {error}")),
            };
        })
    });
    let versions = [&*two, guests::wasip3_hello(), one, &*two, one];
    for (round, module) in versions.into_iter().enumerate() {
        tenant.deploy("one", module);
        let said = tenant.post("/one", "").expect(200).text().to_owned();
        let expected = ["version two", "wasip3", "version one", "version two", "version one"];
        assert!(said.ends_with(expected[round]), "{round}: {said}");
    }
    let [one, two, three] = callers.map(Beside::stop);
    let all = |answers: &[&str]| answers.iter().map(|it| format!("200 {it}")).collect();
    let versions: BTreeSet<String> = one
        .into_iter()
        .map(|it| if it.contains("wasip3") { "200 wasip3".to_owned() } else { it })
        .collect();
    let expected: BTreeSet<String> = all(&["version one", "version two", "wasip3"]);
    assert!(versions.is_subset(&expected), "{versions:?}");
    assert_eq!(two, all(&["version one"]));
    assert!(three.len() == 1 && three.iter().all(|it| it.starts_with("200 hello ")), "{three:?}");
}

#[test]
fn a_call_that_runs_is_finished_by_the_generation_that_began_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("streams", guests::streams());
    let old = host.workers(&tenant)[0];
    let mut running = tenant.open();
    running
        .send(b"POST /streams HTTP/1.1\r\nhost: demo\r\ntransfer-encoding: chunked\r\n\r\n6\r\nbefore\r\n")
        .unwrap();
    assert_eq!(running.head().unwrap().status, 200);
    assert_eq!(running.chunk().unwrap().as_deref(), Some(&b"before"[..]));

    tenant.deploy("streams", guests::version_two());
    assert_eq!(tenant.post("/streams", "").expect(200).text(), "version two");
    assert!(is_alive(old), "it still has a call");
    assert_eq!(tenant.ask("/worker")["draining"], 1);

    running.send(b"5\r\nafter\r\n0\r\n\r\n").unwrap();
    assert_eq!(running.chunk().unwrap().as_deref(), Some(&b"after"[..]));
    assert_eq!(running.chunk().unwrap(), None);
    eventually("the end of the old generation", || (!is_alive(old)).then_some(()));
    eventually("an end that is known", || (tenant.ask("/worker")["draining"] == 0).then_some(()));
}

#[test]
fn a_generation_that_cannot_start_changes_nothing_and_its_uploader_is_told() {
    // A worker that was a spare child has its birth behind it.
    let mut host = Host::with(&["--spares", "0"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let (before, worker) = (tenant.ask("/generations"), host.workers(&tenant));
    assert_eq!(worker.len(), 1);

    let killer = kill_at_birth(host.zygote().unwrap());
    let refused = tenant.upload(&[("one.wasm", guests::version_two())], None);
    let killed = killer.stop();
    assert!(!killed.is_empty());
    assert!(refused.status >= 500, "{refused:?}");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("killed"), "{detail}");

    assert_eq!(tenant.ask("/generations"), before, "in the store");
    assert_eq!(tenant.ask("/functions/one/versions")["active"], 1);
    assert_eq!(host.workers(&tenant), worker, "and in fact");
    for address in tenant.addresses() {
        assert_eq!(address.post("/one", "").expect(200).text(), "version one", "{}", address.name);
    }

    host.kill_and_start_again();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one", "after a restart, too");
    assert_eq!(tenant.deploy("one", guests::version_two())["functions"][0]["version"], 2);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
}

#[test]
fn several_files_go_live_together_or_not_at_all() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let both = [("a.wasm", guests::version_one()), ("b.wasm", guests::version_two())];
    let options = json!({ "a.wasm": { "methods": ["GET"] }, "b.wasm": { "timeout_ms": 5000 } });
    let up = tenant.upload(&both, Some(&options.to_string())).expect(200).json();
    assert_eq!(up["functions"].as_array().unwrap().len(), 2);
    tenant.get("/a").expect(200);
    tenant.post("/b", "").expect(200);

    let half = [("a.wasm", guests::version_two()), ("c.wasm", &b"no module"[..])];
    tenant.upload(&half, None).expect_problem(400, "invalid_module").expect_detail("c.wasm");
    assert_eq!(tenant.get("/a").expect(200).text(), "version one");
    tenant.post("/c", "").expect_problem(404, "not_found");
}

#[test]
fn uploads_at_once_are_all_in_the_end() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    std::thread::scope(|scope| {
        for at in 0..4 {
            let tenant = &tenant;
            scope.spawn(move || tenant.deploy(&format!("f{at}"), guests::version_one()));
        }
    });
    for at in 0..4 {
        tenant.post(&format!("/f{at}"), "").expect(200);
    }
    let generations = tenant.ask("/generations");
    let current: Vec<_> = generations["generations"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|generation| generation["current"] == true)
        .collect();
    assert_eq!(current.len(), 1, "{generations}");
    assert_eq!(generations["generations"].as_array().unwrap().len(), 5, "{generations}");
}
