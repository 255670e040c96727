//! Uploads that mean harm by how their files are called, or by when they come.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, artifact, upload};
use crate::http::Answer;
use crate::processes::{Beside, pause};

#[test]
fn row_14_a_file_whose_name_is_no_functions_touches_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let long = format!("{}.wasm", "x".repeat(256));
    let deep = format!("{}x.wasm", "a/".repeat(8));
    for name in [
        "../up.wasm",
        "a/../../up.wasm",
        "/../up.wasm",
        "..\\up.wasm",
        "a\\b.wasm",
        "C:\\up.wasm",
        "%2e%2e%2fup.wasm",
        "a%00.wasm",
        "a\0.wasm",
        "a\n.wasm",
        ".wasm",
        "..wasm",
        ".hidden.wasm",
        "-rf.wasm",
        "~root.wasm",
        "$upload.wasm",
        "a b.wasm",
        "\u{202e}evil.wasm",
        "zero\u{200b}width.wasm",
        "h\u{435}llo.wasm",
        "\u{ff0e}\u{ff0e}/up.wasm",
        "a//b.wasm",
        "a/",
        "up",
        "up.wasm.exe",
        &long,
        &deep,
    ] {
        let answer = tenant.upload(&[(name, guests::version_one())], None);
        assert_eq!(answer.status, 400, "{name:?}: {}", answer.text());
    }
    // Not as UTF-8 either.
    let request = upload(tenant.address().request("POST", "/$upload"), &[("a.wasm", b"x")], None);
    let (host_name, mut bytes) = ("demo", request.bearer(&tenant.token).bytes("demo"));
    let at = bytes.windows(6).position(|window| window == b"a.wasm").unwrap();
    bytes[at] = 0xc0;
    let mut connection = tenant.open();
    connection.send(&bytes).unwrap();
    let answer = connection.answer("POST");
    assert_eq!(answer.status, 400, "{host_name}: {}", answer.text());
    let functions = tenant.get("/$functions").expect(200).text();
    assert!(!functions.contains("up") && functions.contains("/hello"), "{functions}");
    for name in
        ["", "-a", "A", "a_b", "a.b", "a b", "../a", "a/b", "a\0", "\u{430}", &"a".repeat(64)]
    {
        let request = host.admin("POST", "/tenants").json(&json!({ "name": name }));
        let answer = host.send(&request);
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.text());
    }
    // Odd, and nothing but names.
    for name in ["CON.wasm", "nul.wasm", "a..b.wasm", "__proto__.wasm"] {
        tenant.upload(&[(name, guests::version_one())], None).expect(200);
    }
}

/// Whoever reads: what was said as which version of `/one`, and as which as of `$functions`.
fn reader(tenant: &Arc<Tenant>, at: usize) -> Beside<(u64, String)> {
    let tenant = Arc::clone(tenant);
    Beside::run(move |seen| {
        let answer = tenant.addresses()[at].post("/one", "");
        let said = match answer.status {
            200 => answer.text(),
            // It is removed just now.
            404 => return,
            _ => format!("{} {}", answer.status, answer.text()),
        };
        let version = answer.header("x-hearth-version").unwrap_or_default();
        let version = version.strip_prefix("/one@").and_then(|version| version.parse().ok());
        seen.insert((version.unwrap_or(0), said));
    })
}

/// Each version has one module, whoever uploaded it and whatever else happened: two uploads of one
/// name, of one module, removals and rollbacks, all at once and at every address. Who reads sees a
/// whole version, and who changes is told what came of it.
#[test]
fn row_20_changes_of_one_function_at_once_are_one_after_the_other() {
    const ROUNDS: usize = 4;
    let host = Host::start();
    let tenant = Arc::new(host.tenant("demo"));
    let front = host.front;
    // What each version says.
    let says = Arc::new(Mutex::new(BTreeMap::new()));
    let note = |version: u64, text: &'static str| {
        let before = says.lock().unwrap().insert(version, text);
        assert!(before.is_none_or(|before| before == text), "two winners of version {version}");
    };
    keeps_all_versions(&host);
    for (text, module) in TEXTS.iter().zip([0, 1].map(module)) {
        let up = deploy(&tenant, 0, front, &module).expect(200).json();
        note(up["functions"][0]["version"].as_u64().unwrap(), text);
    }
    let readers: Vec<_> = (0..3).map(|at| reader(&tenant, at)).collect();
    std::thread::scope(|scope| {
        let mut changers = Vec::new();
        // Eight uploaders of one name, two at each address, each time with another module.
        for at in 0..8 {
            let (tenant, note) = (&tenant, &note);
            changers.push(scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = 2 + at * ROUNDS + round;
                    let answer = deploy(tenant, at % 4, front, &module(number));
                    let up = answer.expect(200).json();
                    let function = &up["functions"][0];
                    assert_eq!(function["unchanged"], false, "{up}");
                    note(function["version"].as_u64().unwrap(), TEXTS[number % 2]);
                }
            }));
        }
        // And meanwhile somebody rolls back, and somebody removes.
        changers.push(scope.spawn(|| {
            for round in 0..2 * ROUNDS {
                let request = tenant.api("POST", "/functions/one/rollback");
                let version = json!({ "version": round % 2 + 1 });
                let answer = patiently(|| request.clone().json(&version).send(front)).expect(200);
                assert_eq!(answer.json()["version"], version["version"]);
            }
        }));
        changers.push(scope.spawn(|| {
            for _ in 0..ROUNDS {
                let answer = patiently(|| tenant.api("DELETE", "/functions/one").send(front));
                match answer.status {
                    200 => {}
                    // It is removed already.
                    _ => drop(answer.expect_problem(404, "not_found")),
                }
            }
        }));
        for changer in changers {
            changer.join().unwrap();
        }
    });
    let seen: BTreeSet<(u64, String)> = readers.into_iter().flat_map(Beside::stop).collect();
    let says = says.lock().unwrap();
    let made: Vec<u64> = says.keys().copied().collect();
    assert_eq!(made, (1..=2 + 8 * ROUNDS as u64).collect::<Vec<_>>(), "a number of its own each");
    for (version, said) in &seen {
        assert_eq!(says.get(version).copied(), Some(&**said), "version {version} in {seen:?}");
    }
    assert!(seen.len() > 2, "{seen:?}");
    // What is told of it and what is there are one.
    deploy(&tenant, 0, front, &module(0)).expect(200);
    let active = tenant.ask("/functions/one/versions")["active"].as_u64().unwrap();
    for address in tenant.addresses() {
        let answer = address.post("/one", "").expect(200);
        assert_eq!(answer.text(), TEXTS[0]);
        assert_eq!(answer.header("x-hearth-version"), Some(&*format!("/one@{active}")));
    }
}

/// The same bytes twice at once are one version, and both are told which.
#[test]
fn row_20_one_module_twice_at_once_is_one_version() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for round in 0..4 {
        let module = module(round);
        let answers: Vec<Value> = std::thread::scope(|scope| {
            let uploads = [(); 4].iter().enumerate().map(|(at, ())| {
                let (tenant, module, front) = (&tenant, &module, host.front);
                scope.spawn(move || deploy(tenant, at, front, module).expect(200).json())
            });
            let uploads: Vec<_> = uploads.collect();
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
        });
        let functions = || answers.iter().map(|answer| &answer["functions"][0]);
        assert!(functions().all(|it| it["version"] == round + 1), "{answers:?}");
        let changed = functions().filter(|it| it["unchanged"] == false).count();
        assert_eq!(changed, 1, "{answers:?}");
    }
}

/// Else the first ones go, to which somebody rolls back.
fn keeps_all_versions(host: &Host) {
    let limits = json!({ "limits": { "versions": 200 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
}

const TEXTS: [&str; 2] = ["version one", "version two"];

/// Another module for each number; what it says is one of [`TEXTS`].
fn module(number: usize) -> Vec<u8> {
    let says = [guests::version_one(), guests::version_two()][number % 2];
    [says, &custom_section(number as u8)].concat()
}

/// At one of the four addresses.
fn deploy(tenant: &Tenant, at: usize, front: SocketAddr, module: &[u8]) -> Answer {
    let files = [("one.wasm", module)];
    let (request, to) = match tenant.addresses().get(at) {
        Some(address) => (address.request("POST", "/$upload").bearer(&tenant.token), address.to),
        None => (tenant.api("POST", "/functions"), front),
    };
    let request = upload(request, &files, None);
    patiently(|| request.send(to))
}

/// Asks again where the host has too much to do at once.
fn patiently(ask: impl Fn() -> Answer) -> Answer {
    for _ in 0..200 {
        let answer = ask();
        if answer.status != 429 {
            return answer;
        }
        pause(Duration::from_millis(100));
    }
    panic!("never its turn");
}

fn custom_section(number: u8) -> Vec<u8> {
    // Its kind, its length, the length of its name, its name, and what nobody reads.
    vec![0, 3, 1, b'n', number]
}

#[test]
fn row_32_that_another_has_the_same_module_shows_in_nothing() {
    let host = Host::start();
    let (first, second) = (host.tenant("first"), host.tenant("second"));
    let module = [guests::version_one(), &custom_section(32)].concat();
    let sha256 =
        first.deploy("one", &module)["functions"][0]["sha256"].as_str().unwrap().to_owned();
    let kept = host.data().join("modules").join(format!("{sha256}.wasm.zst"));
    let before = std::fs::metadata(&kept).unwrap().ino();
    let uploaded = second.deploy("one", &module);
    // It is compiled and kept again, as if it were the first: each step takes its time.
    assert_ne!(std::fs::metadata(&kept).unwrap().ino(), before);
    assert!(uploaded["compile_ms"].as_u64().unwrap() > 0, "{uploaded}");
    let artifacts: BTreeSet<u64> = ["first", "second"]
        .map(|tenant| std::fs::metadata(artifact(&host.data(), tenant, &sha256)).unwrap().ino())
        .into();
    assert_eq!(artifacts.len(), 2, "one file for both");
}
