//! What was acknowledged is there after the host died as by a power cut; what was not is there
//! whole or not at all.
//!
//! `points.rs` kills it at each point that it has, `kills.rs` any process at any moment, and
//! `entries.rs` while functions write; in `refusals.rs` the disk refuses each step, in `power.rs` it
//! forgets what was not synced, and in `damage.rs` it changes what was kept. Most of them ask
//! `checker.rs`, which reads the data directory by itself.

pub mod checker;
mod damage;
mod disk;
mod entries;
mod kills;
mod points;
mod power;
mod refusals;
pub mod stage;
mod workers;

use serde_json::json;

use crate::guests;
use crate::host::Host;
use crate::processes::Beside;

#[test]
fn everything_acknowledged_survives_a_kill() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    tenant.deploy("one", guests::version_two());
    tenant.deploy_with("private", guests::echo(), &json!({ "auth": "invoke" }));
    host.send(&tenant.api("POST", "/functions/one/rollback")).expect(200);
    host.send(&tenant.api("DELETE", "/functions/hello")).expect(200);
    let invoke = tenant.token("invoke");
    let before: Vec<_> = ["/functions", "/generations", "/functions/one/versions", "/tokens"]
        .map(|path| (path, tenant.ask(path)))
        .into();

    host.kill_and_start_again();
    for (path, answer) in before {
        assert_eq!(tenant.ask(path), answer, "{path}");
    }
    for address in tenant.addresses() {
        let answer = address.post("/one", "").expect(200);
        assert_eq!(answer.text(), "version one", "{}", address.name);
        address.send(&address.request("POST", "/private").bearer(&invoke)).expect(200);
        address.post("/hello", "{}").expect_problem(404, "not_found");
    }
    // Compiled artifacts are a cache: without them, the modules are enough.
    std::fs::remove_dir_all(host.data().join("artifacts")).unwrap();
    host.kill_and_start_again();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn a_kill_amid_uploads_leaves_one_version_or_the_other() {
    let mut host = Host::start();
    let tenant = host.tenant("demo");
    let mut acknowledged =
        tenant.deploy("one", guests::version_one())["generation"].as_u64().unwrap();
    for round in 0..5_u64 {
        let uploads = Beside::run({
            let tenant = tenant.clone();
            let mut at = 0;
            move |done| {
                let module = [guests::version_two(), guests::version_one()][at % 2];
                at += 1;
                let request = crate::host::upload(
                    tenant.address().request("POST", "/$upload").bearer(&tenant.token),
                    &[("one.wasm", module)],
                    None,
                );
                if let Ok(answer) = request.try_send(tenant.address().to)
                    && answer.status == 200
                {
                    done.insert(answer.json()["generation"].as_u64().unwrap());
                }
            }
        });
        // A different moment of an upload each time.
        crate::processes::pause(std::time::Duration::from_millis(130 + 47 * round));
        host.kill_and_start_again();
        acknowledged = acknowledged.max(uploads.stop().last().copied().unwrap_or_default());
        let generations = tenant.ask("/generations");
        let current = &generations["generations"][0];
        assert_eq!(current["current"], true, "{generations}");
        assert!(current["generation"].as_u64().unwrap() >= acknowledged, "{generations}");
        let function = tenant.ask("/functions/one");
        let answer = tenant.post("/one", "").expect(200);
        let version = format!("/one@{}", function["version"]);
        assert_eq!(answer.header("x-hearth-version"), Some(&*version));
        let digest_of_one = tenant.ask("/functions/one/versions")["versions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|version| version["version"] == 1)
            .map(|version| version["sha256"].clone());
        if let Some(digest) = digest_of_one {
            let text = if function["sha256"] == digest { "version one" } else { "version two" };
            assert_eq!(answer.text(), text);
        }
    }
}

#[test]
fn an_artifact_that_somebody_changed_is_not_run() {
    let mut host = Host::with(&["--idle", "100ms"]);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    let mut changed = 0;
    let mut directories = vec![host.data().join("artifacts")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let mut bytes = std::fs::read(&path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0xff;
                // In place: a release may be a link to the same file.
                let mut permissions = std::fs::metadata(&path).unwrap().permissions();
                #[expect(
                    clippy::permissions_set_readonly_false,
                    reason = "in a test's own directory"
                )]
                permissions.set_readonly(false);
                std::fs::set_permissions(&path, permissions).unwrap();
                std::fs::write(&path, bytes).unwrap();
                changed += 1;
            }
        }
    }
    assert!(changed >= 2, "{changed}");
    host.kill_and_start_again();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    tenant.post("/hello", "{}").expect(200);
}
