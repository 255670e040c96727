//! One build after another: what comes with Hearth is the build's, and what its tenants changed of
//! that stays theirs. What another build would bring is told to the program of this one by a
//! directory, with which it does all that it does with what it has within itself.
//!
//! `builds/earlier.tar.zst` is what a host left that had the bundled function as rows of its tenants:
//! its data directory without what can be made again (artifacts, and the tenants' empty `state`),
//! and a backup of it. It had `/hello` from the build and, under `/hello`, `/one` and `/jobs/one`,
//! the guest `version_one`. What each tenant had done is in the names of [`EARLIER`].

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::durability::checker;
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, run, spare_port};
use crate::http::{Answer, Request};
use crate::processes::{eventually, soon};

const BUILD: &str = env!("CARGO_PKG_VERSION");

/// What a build brings, as `functions/bundle.json` and the packed components say it.
struct Build {
    directory: TempDir,
}

impl Build {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// From the next start on: paths, components and options, and the components.
    fn brings(&self, mounts: &[(&str, &str, Value)], components: &[(&str, &[u8])]) {
        for entry in fs::read_dir(self.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let mount = |(path, component, options): &(&str, &str, Value)| json!({ "path": path, "component": component, "options": options });
        let mounts: Vec<Value> = mounts.iter().map(mount).collect();
        let said = json!({ "mounts": mounts }).to_string();
        fs::write(self.path().join("bundle.json"), said).unwrap();
        for (name, module) in components {
            let packed = zstd::encode_all(*module, 3).unwrap();
            fs::write(self.path().join(format!("{name}.wasm.zst")), packed).unwrap();
        }
    }

    fn host(&self) -> Host {
        Host::with(&["--bundle", self.path().to_str().unwrap()])
    }
}

fn next(host: &mut Host) {
    host.terminate();
    assert!(host.ended().success());
    host.start_again();
}

/// Paths, and what of each serves: the number of a version, or the build's.
fn served(listed: &Value) -> BTreeMap<String, Value> {
    let functions = listed["functions"].as_array().unwrap().iter();
    let served = functions.map(|function| {
        let is_bundled = function["version"].is_string();
        assert_eq!(function["bundled"], is_bundled, "{function}");
        (function["path"].as_str().unwrap().to_owned(), function["version"].clone())
    });
    served.collect()
}

fn of(functions: &[(&str, Value)]) -> BTreeMap<String, Value> {
    functions.iter().map(|(path, version)| ((*path).to_owned(), version.clone())).collect()
}

fn versions(listed: &Value) -> Vec<Value> {
    let versions = listed["versions"].as_array().unwrap();
    versions.iter().map(|version| version["version"].clone()).collect()
}

/// What is kept of a tenant's generations, so that whoever writes one is seen.
fn written(host: &Host, tenant: &str) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    use std::os::unix::fs::MetadataExt;
    let (mut found, mut left) =
        (Vec::new(), vec![host.data().join("tenants").join(tenant).join("releases")]);
    while let Some(place) = left.pop() {
        let about = fs::metadata(&place).unwrap();
        if about.is_dir() {
            left.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((place, about.ino(), about.modified().unwrap()));
    }
    found.sort();
    found
}

fn rows(host: &Host) -> i64 {
    let db = rusqlite::Connection::open(host.data().join("hearth.db")).unwrap();
    db.query_row("SELECT count(*) FROM functions", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_tenant_has_what_a_later_build_brings_and_keeps_what_is_its_own() {
    let build = Build::new();
    let (one, two) = (guests::version_one(), guests::version_two());
    build.brings(
        &[("/hello", "hello", json!({})), ("/kept", "hello", json!({}))],
        &[("hello", one)],
    );
    let mut host = build.host();
    let tenant = host.tenant("demo");
    let plain = host.tenant("plain");
    assert_eq!(tenant.post("/hello", "").expect(200).text(), "version one");
    assert_eq!(plain.post("/hello", "").expect(200).text(), "version one");
    assert_eq!(rows(&host), 0, "nothing of it is anybody's own");
    tenant.deploy("own", two);
    tenant
        .upload(
            &[("site.wasm", guests::echo()), ("below.wasm", guests::echo())],
            Some(r#"{"site.wasm":{"path":"root"},"below.wasm":{"path":"prefix"}}"#),
        )
        .expect(200);
    let set = json!({ "options": { "methods": ["GET"] } });
    host.send(&tenant.api("PATCH", "/functions/KEPT").json(&set)).expect(200);
    let before = (written(&host, "demo"), written(&host, "plain"), rows(&host));

    build.brings(
        &[
            ("/added", "answers", json!({})),
            ("/below/deep", "hello", json!({})),
            ("/hello", "hello", json!({})),
            ("/kept", "hello", json!({ "auth": "invoke" })),
            ("/OWN", "hello", json!({})),
            ("/roots", "hello", json!({ "path": "root" })),
        ],
        &[("hello", two), ("answers", one)],
    );
    next(&mut host);
    let said = BUILD.to_owned();
    assert_eq!(plain.post("/added", "").expect(200).text(), "version one");
    let mended = plain.post("/hello", "").expect(200);
    assert_eq!(mended.header("x-hearth-version"), Some(&*format!("/hello@{said}")));
    assert_eq!(mended.text(), "version two");
    // The root of who has none of its own.
    assert_eq!(plain.post("/whatever", "").expect(200).text(), "version two");
    assert_eq!(tenant.post("/added", "").expect(200).text(), "version one");
    assert_eq!(tenant.post("/own", "").expect(200).header("x-hearth-version"), Some("/own@1"));
    // What was a tenant's own before stays its own, whatever comes.
    for (path, own) in [("/whatever", "/site@1"), ("/below/deep", "/below@1")] {
        assert_eq!(tenant.post(path, "{}").expect(200).header("x-hearth-version"), Some(own));
    }
    let roots = format!("/roots@{said}");
    assert_eq!(tenant.post("/roots/x", "").expect(200).header("x-hearth-version"), Some(&*roots));
    // What was set is laid over what the next build says.
    let token = tenant.token("invoke");
    let with =
        |method| tenant.address().send(&tenant.address().request(method, "/kept").bearer(&token));
    with("GET").expect(200);
    with("POST").expect(405);
    tenant.get("/kept").expect(401);
    let listed = served(&tenant.ask("/functions"));
    let bundled = |path| (path, json!(said));
    assert_eq!(
        listed,
        of(&[
            bundled("/added"),
            ("/below", json!(1)),
            bundled("/hello"),
            bundled("/kept"),
            ("/own", json!(1)),
            bundled("/roots"),
            ("/site", json!(1)),
        ])
    );
    // And nothing was written for it, of anybody.
    assert_eq!(before, (written(&host, "demo"), written(&host, "plain"), rows(&host)));
    // Its next change is over what serves now.
    tenant.deploy("more", two);
    assert_eq!(tenant.post("/hello", "").expect(200).text(), "version two");

    // What a build has no more is gone, and what was set for it waits.
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", one)]);
    next(&mut host);
    let listed = served(&tenant.ask("/functions"));
    assert!(!listed.contains_key("/added") && !listed.contains_key("/kept"), "{listed:?}");
    assert_eq!(tenant.post("/hello", "").expect(200).text(), "version one");
    plain.post("/added", "").expect(404);
    build.brings(&[("/kept", "hello", json!({}))], &[("hello", one)]);
    next(&mut host);
    tenant.post("/kept", "").expect(405);
    assert_eq!(checker::wrong(&host.data()), [] as [String; 0]);
}

#[test]
fn one_component_is_compiled_once_wherever_it_is_mounted() {
    let build = Build::new();
    let paths: Vec<String> = (0..10).map(|it| format!("/hb/m{it}")).collect();
    let mounts: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| {
            let options = if at % 2 == 0 { json!({}) } else { json!({ "methods": ["GET"] }) };
            (path.as_str(), "beat", options)
        })
        .collect();
    build.brings(&mounts, &[("beat", guests::version_one())]);
    let host = build.host();
    let tenant = host.tenant("demo");
    for (at, path) in paths.iter().enumerate() {
        let answer = if at % 2 == 0 { tenant.post(path, "") } else { tenant.get(path) };
        assert_eq!(answer.expect(200).text(), "version one");
        tenant.post(path, "").expect(if at % 2 == 0 { 200 } else { 405 });
    }
    let engines = fs::read_dir(host.data().join("artifacts")).unwrap();
    let bundled = engines.filter_map(|it| fs::read_dir(it.unwrap().path().join("_bundled")).ok());
    assert_eq!(bundled.flatten().count(), 1);
    // Its worker holds nothing of it beside what its zygote has.
    let worker = host.workers(&tenant)[0];
    let mapped = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let mut of_artifacts: Vec<&str> = mapped
        .lines()
        .filter(|line| line.contains(".cwasm"))
        .filter_map(|line| line.split_whitespace().nth(4))
        .collect();
    of_artifacts.dedup();
    assert!(of_artifacts.len() <= 1, "{mapped}");
}

/// A call that was begun before a host was told to stop, or after the next one served, is answered,
/// and by what then serves.
#[test]
fn two_builds_in_turn_under_calls_and_none_fails() {
    let build = Build::new();
    let builds = [("version one", guests::version_one()), ("version two", guests::version_two())];
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", builds[0].1)]);
    let mut host = build.host();
    let tenants = ["red", "blue"].map(|name| host.tenant(name));
    // Counts turns: while it is odd, a host is on its way.
    let (turn, stop, answered) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (tenant, front) = (&tenants[number % 2], host.front);
            let (turn, stop, answered) = (&turn, &stop, &answered);
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let begun = turn.load(Ordering::SeqCst);
                    let request =
                        Request::new("POST", &format!("/t/{}/hello", tenant.name)).body("");
                    let answer = match number % 3 {
                        0 => request.try_send(front),
                        _ => Request::new("POST", "/hello").body("").try_send(tenant.address().to),
                    };
                    let ended = turn.load(Ordering::SeqCst);
                    if begun % 2 == 1 || ended != begun {
                        continue;
                    }
                    let answer: Answer = answer.expect("a host serves");
                    assert_eq!(answer.expect(200).text(), builds[begun / 2 % 2].0);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=4 {
            let (so_far, goal) = (answered.load(Ordering::SeqCst), 60);
            eventually("calls", || (answered.load(Ordering::SeqCst) > so_far + goal).then_some(()));
            build.brings(&[("/hello", "hello", json!({}))], &[("hello", builds[round % 2].1)]);
            turn.fetch_add(1, Ordering::SeqCst);
            next(&mut host);
            turn.fetch_add(1, Ordering::SeqCst);
        }
        let so_far = answered.load(Ordering::SeqCst);
        eventually("calls", || (answered.load(Ordering::SeqCst) > so_far + 60).then_some(()));
        stop.store(true, Ordering::SeqCst);
    });
    for tenant in &tenants {
        let calls = tenant.ask("/calls?limit=1000");
        for call in calls["calls"].as_array().unwrap() {
            assert!(matches!(call["outcome"].as_str(), Some("answered" | "abandoned")), "{call}");
            assert_eq!(call["version"], BUILD);
        }
    }
}

/// The short form, or with SOAK in the environment the one that Hearth promises.
#[test]
fn all_wake_at_once_after_a_new_build_and_none_is_written() {
    let most: u16 = if std::env::var_os("SOAK").is_some() { 1_000 } else { 20 };
    let build = Build::new();
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", guests::version_one())]);
    // Below those of other tests; one that somebody else has is passed over.
    let (first, spare) = (10_000, 50);
    let ports = format!("{first}-{}", first + most + spare);
    let bundle = build.path().to_str().unwrap();
    let mut host = Host::with(&["--bundle", bundle, "--tenant-ports", &ports]);
    let tenants: Vec<Tenant> = (0..most).map(|it| host.tenant(&format!("t{it}"))).collect();
    let before: Vec<_> = tenants.iter().map(|tenant| written(&host, &tenant.name)).collect();
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", guests::version_two())]);
    next(&mut host);
    std::thread::scope(|scope| {
        for tenant in &tenants {
            scope.spawn(|| assert_eq!(tenant.post("/hello", "").expect(200).text(), "version two"));
        }
    });
    let after: Vec<_> = tenants.iter().map(|tenant| written(&host, &tenant.name)).collect();
    assert_eq!(before, after);
    assert_eq!(rows(&host), 0);
}

#[test]
fn removing_ones_own_brings_the_bundled_one_back_and_removing_that_lasts() {
    let build = Build::new();
    let bundle = [("/hello", "hello", json!({ "description": "bundled" }))];
    build.brings(&bundle, &[("hello", guests::version_one())]);
    let mut host = build.host();
    let tenant = host.tenant("demo");
    let hearth = |host: &Host, arguments: &[&str]| host.command(&tenant.token, arguments);
    let limits = json!({ "limits": { "functions": 1 } });
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    let used = |tenant: &Tenant| {
        let limits = tenant.ask("/limits");
        let functions = limits["limits"].as_array().unwrap().iter();
        functions.clone().find(|it| it["name"] == "functions").unwrap()["used"].clone()
    };
    let is = |host: &Host, serves: Option<&str>| match serves {
        Some(text) => assert_eq!(tenant.on(host).post("/hello", "").expect(200).text(), text),
        None => drop(tenant.post("/hello", "").expect_problem(404, "not_found")),
    };
    assert_eq!(used(&tenant), 0);
    let shown = hearth(&host, &["functions"]).done();
    assert!(shown.contains("bundled") && shown.contains(BUILD), "{shown}");
    let one = tenant.ask("/functions/HELLO");
    assert_eq!((&one["version"], &one["created_at"]), (&json!(BUILD), &json!(null)), "{one}");
    assert_eq!(one["layers"]["uploaded"]["description"], "bundled", "{one}");

    // Its own goes over it, under the same limit, and what was set stays through all of it.
    let set = json!({ "options": { "description": "set" } });
    host.send(&tenant.api("PATCH", "/functions/hello").json(&set)).expect(200);
    tenant.deploy("hello", guests::version_two());
    is(&host, Some("version two"));
    assert_eq!(used(&tenant), 1);
    let up = tenant.upload(&[("more.wasm", guests::version_two())], None);
    up.expect_problem(409, "conflict");
    tenant.upload(&[("HELLO.wasm", guests::version_two())], None).expect_problem(409, "conflict");
    assert_eq!(versions(&tenant.ask("/functions/hello/versions")), [json!(1), json!(BUILD)]);
    let gone = hearth(&host, &["rm", "hello", "--yes"]).done();
    assert!(gone.contains("is the one that comes with Hearth again"), "{gone}");
    is(&host, Some("version one"));
    assert_eq!(tenant.ask("/functions/hello")["options"]["description"], "set");

    // That it was removed lasts over builds.
    assert!(hearth(&host, &["rm", "Hello", "--yes"]).done().contains("is gone"));
    is(&host, None);
    assert_eq!(served(&tenant.ask("/functions")), of(&[]));
    build.brings(&bundle, &[("hello", guests::wasip3_hello())]);
    next(&mut host);
    is(&host, None);
    host.send(&tenant.api("DELETE", "/functions/hello")).expect_problem(404, "not_found");
    build.brings(&bundle, &[("hello", guests::version_one())]);
    next(&mut host);
    is(&host, None);
    // It comes back like anything that was removed.
    let listed = tenant.ask("/functions/hello/versions");
    assert_eq!(
        (&listed["active"], versions(&listed)),
        (&json!(null), vec![json!(1), json!(BUILD)])
    );
    hearth(&host, &["rollback", "hello"]).done();
    is(&host, Some("version one"));
    assert_eq!(tenant.ask("/functions/hello")["options"]["description"], "set");

    // Back and forth, by name and without.
    tenant.rollback("/hello", 1);
    is(&host, Some("version two"));
    hearth(&host, &["rollback", "hello"]).done();
    is(&host, Some("version one"));
    tenant.rollback("/hello", 1);
    hearth(&host, &["rollback", "hello", "bundled"]).done();
    is(&host, Some("version one"));
    let refused =
        tenant.api("POST", "/functions/hello/rollback").json(&json!({ "version": BUILD }));
    host.send(&refused).expect_problem(400, "bad_request");
    let nothing = tenant.api("POST", "/functions/hello/rollback");
    host.send(&nothing).expect_problem(409, "conflict");
    tenant.deploy("more", guests::version_two());
    let rollback =
        tenant.api("POST", "/functions/more/rollback").json(&json!({ "version": "bundled" }));
    host.send(&rollback).expect_problem(404, "not_found");
    // Where only what was set is left, and that is taken back, there is nothing of it any more.
    let audit = Request::new("GET", "/api/v1/audit?limit=1000").bearer(&tenant.token);
    let audit = host.send(&audit).expect(200).text();
    assert!(audit.contains(&format!(r#""version":"{BUILD}""#)), "{audit}");
    assert_eq!(checker::wrong(&host.data()), [] as [String; 0]);
}

#[test]
fn what_was_set_and_taken_back_leaves_no_row() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let set = |value: Value| {
        let set =
            tenant.api("PATCH", "/functions/hello").json(&json!({ "options": { "auth": value } }));
        host.send(&set).expect(200)
    };
    set(json!("owner"));
    assert_eq!(rows(&host), 1);
    tenant.post("/hello", "{}").expect(401);
    set(json!(null));
    assert_eq!(rows(&host), 0);
    tenant.post("/hello", "{}").expect(200);
    host.send(&tenant.api("DELETE", "/functions/hello")).expect(200);
    assert_eq!(rows(&host), 1);
    let rollback = tenant.api("POST", "/functions/hello/rollback");
    let back = host.send(&rollback).expect(200).json();
    assert_eq!(back["version"], BUILD, "{back}");
    assert_eq!(rows(&host), 0);
    let unknown = json!({ "options": { "reuze": 3 } });
    let refused = tenant.api("PATCH", "/functions/hello").json(&unknown);
    host.send(&refused).expect_problem(400, "bad_request");
    let refused = tenant.api("PATCH", "/functions/nix").json(&json!({ "options": {} }));
    host.send(&refused).expect_problem(404, "not_found");
}

/// Each tenant of the earlier build, by what it had done.
const EARLIER: [&str; 7] =
    ["plain", "options", "removed", "replaced", "returned", "gone", "crowded"];

/// A directory with that of the host of an earlier build, at ports that no other test has.
pub fn of_an_earlier_build() -> TempDir {
    let directory = unpack();
    let db = rusqlite::Connection::open(directory.path().join("data/hearth.db")).unwrap();
    for name in EARLIER.into_iter().chain(["home"]) {
        db.execute("UPDATE tenants SET port = ? WHERE name = ?", (spare_port(), name)).unwrap();
    }
    db.close().unwrap();
    directory
}

fn unpack() -> TempDir {
    let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let packed = &include_bytes!("builds/earlier.tar.zst")[..];
    let archive = zstd::Decoder::new(packed).unwrap();
    tar::Archive::new(archive).unpack(directory.path()).unwrap();
    directory
}

pub fn earlier(host: &Host, name: &str) -> Tenant {
    let shown = host.send(&host.admin("GET", &format!("/tenants/{name}"))).expect(200).json();
    let token = json!({ "name": "tests", "scope": "owner" });
    let made = host.admin("POST", &format!("/tenants/{name}/tokens")).json(&token);
    let token = host.send(&made).expect(201).json();
    let port = u16::try_from(shown["port"].as_u64().unwrap()).unwrap();
    Tenant::known(host, name, port, token["token"].as_str().unwrap())
}

/// Everything that the tenants of the earlier build had, under this one.
fn is_taken_on(host: &mut Host, has_logs: bool) {
    let build = json!(BUILD);
    let tenants = EARLIER.map(|name| earlier(host, name));
    let [plain, options, removed, replaced, returned, gone, crowded] = &tenants;
    let hello = ("/hello", build.clone());
    let serves = |tenant: &Tenant, functions: &[(&str, Value)]| {
        assert_eq!(served(&tenant.ask("/functions")), of(functions), "{}", tenant.name);
    };
    serves(plain, std::slice::from_ref(&hello));
    serves(options, &[hello.clone(), ("/jobs/one", json!(1))]);
    serves(removed, &[]);
    serves(replaced, &[("/hello", json!(2))]);
    serves(returned, std::slice::from_ref(&hello));
    serves(gone, &[]);
    serves(crowded, &[hello, ("/one", json!(1))]);
    // Of what nobody ever changed there is no row.
    assert_eq!(rows(host), 7);

    let ada = |tenant: &Tenant| tenant.post("/hello", r#"{"name":"Ada"}"#);
    assert!(ada(plain).expect(200).text().contains("Ada"));
    ada(options).expect(401);
    let set = tenants[1].ask("/functions/hello");
    assert_eq!(set["layers"]["set"], json!({ "auth": "invoke", "timeout_ms": 7_000 }));
    assert_eq!(options.get("/jobs/one").expect(200).text(), "version one");
    options.post("/jobs/one", "").expect(405);
    for nothing in [removed, gone] {
        ada(nothing).expect_problem(404, "not_found");
    }
    assert_eq!(ada(replaced).expect(200).text(), "version one");
    assert!(ada(returned).expect(200).text().contains("Ada"));
    assert_eq!(returned.ask("/functions/hello")["options"]["description"], "back");
    for tenant in [replaced, returned, gone] {
        let kept = versions(&tenant.ask("/functions/hello/versions"));
        assert_eq!(kept, [json!(2), build.clone()], "{}", tenant.name);
    }
    if has_logs {
        let calls = plain.ask("/calls?limit=1000");
        assert_eq!(calls["calls"][0]["request_id"], "plain-hello", "{calls}");
        assert_eq!(calls["calls"][0]["version"], 1, "{calls}");
        eventually("the newest call", || {
            let calls = plain.ask("/calls?limit=1000");
            (calls["calls"].as_array().unwrap().last()?["version"] == build).then_some(())
        });
        let lines = plain.ask("/logs?limit=1000");
        assert_eq!(lines["lines"][0]["text"], "greeting Ada", "{lines}");
        assert_eq!(lines["lines"][0]["version"], 1, "{lines}");
    }
    // What is bundled counted for two until now.
    let limits = crowded.ask("/limits");
    let listed = limits["limits"].as_array().unwrap();
    let limit = listed.iter().find(|limit| limit["name"] == "functions").unwrap();
    assert_eq!((&limit["value"], &limit["set"]), (&json!(2), &json!(true)), "{limit}");
    crowded.deploy("another", guests::version_two());

    // And each goes on from there.
    host.send(&replaced.api("DELETE", "/functions/hello")).expect(200);
    assert!(ada(replaced).expect(200).text().contains("Ada"));
    replaced.deploy("hello", guests::version_two());
    assert_eq!(ada(replaced).expect(200).header("x-hearth-version"), Some("/hello@3"));
    returned.rollback("/hello", 2);
    assert_eq!(ada(returned).expect(200).text(), "version one");
    host.command(ADMIN_TOKEN, &["rollback", "hello", "--tenant", "gone"]).done();
    assert_eq!(ada(gone).expect(200).text(), "version one");
    host.command(ADMIN_TOKEN, &["rollback", "hello", "--tenant", "removed"]).done();
    assert!(ada(removed).expect(200).text().contains("Ada"));
    let made = host.tenant("made");
    assert!(ada(&made).expect(200).text().contains("Ada"));
    next(host);
    assert!(ada(removed).expect(200).text().contains("Ada"));
    assert_eq!(ada(returned).expect(200).text(), "version one");
    ada(options).expect(401);
    // Whoever was not woken has what the earlier build wrote.
    let home = Request::new("POST", "/t/home/hello").body(r#"{"name":"Ada"}"#);
    host.send(&home).expect(200);
    assert_eq!(checker::wrong(&host.data()), [] as [String; 0]);
    // What was another user's of a state that was restored goes when its tenant changes next.
    let left = || {
        let mut left = checker::left_over(&host.data());
        left.retain(|it| !it.ends_with("/state.other"));
        left
    };
    if !soon(|| left().is_empty()) {
        panic!("{:?}", left());
    }
}

#[test]
fn a_data_directory_of_an_earlier_build_is_taken_on() {
    let mut like = Host::start();
    like.kill_and_wait();
    is_taken_on(&mut Host::on(of_an_earlier_build(), &like), true);
}

#[test]
fn a_backup_of_an_earlier_build_is_restored() {
    let unpacked = unpack();
    let file = unpacked.path().join("earlier.backup");
    let file = file.to_str().unwrap();
    let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let data = directory.path().join("data");
    run(unpacked.path(), &["restore", file, "--data", data.to_str().unwrap()]).done();
    let mut like = Host::start();
    like.kill_and_wait();
    is_taken_on(&mut Host::on(directory, &like), true);
    // And by a host that serves, beside what it has.
    let host = Host::start();
    host.command(ADMIN_TOKEN, &["restore", file]).done();
    let [options, removed] = ["options", "removed"].map(|name| earlier(&host, name));
    options.post("/hello", "{}").expect(401);
    removed.post("/hello", "{}").expect(404);
    assert_eq!(rows(&host), 7);
}

#[test]
fn a_bundle_that_cannot_be_is_refused_at_the_start() {
    let build = Build::new();
    let one = guests::version_one();
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", one)]);
    let mut host = build.host();
    host.kill_and_wait();
    let refused = |host: &mut Host, why: &str| {
        let before = host.log().len();
        let said = host.try_start_again().unwrap_err();
        assert!(said[before..].contains(why), "{}", &said[before..]);
    };
    build.brings(&[("/hello", "hello", json!({ "reuze": 2 }))], &[("hello", one)]);
    refused(&mut host, "did you mean `reuse`?");
    build.brings(&[("/hello", "other", json!({}))], &[("hello", one)]);
    refused(&mut host, "there is no component other");
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", b"no module")]);
    refused(&mut host, "the component hello: this is not WebAssembly");
    let mut file = fs::File::create(build.path().join("bundle.json")).unwrap();
    file.write_all(b"{").unwrap();
    refused(&mut host, "bundle.json does not parse");
    build.brings(&[("/hello", "hello", json!({}))], &[("hello", one)]);
    host.start_again();
}
