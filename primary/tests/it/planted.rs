//! Somebody puts something else in the place of what the host keeps: links, pipes, directories,
//! names with giant numbers. It is that tenant's loss at most, nothing is followed or waited for,
//! and the host starts, serves and backs up as before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::durability::{checker, stage::sha256};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, artifact};
use crate::processes::{Beside, eventually, pause};

/// What lies there instead, given a file that nobody may touch.
type Plant = fn(place: &Path, precious: &Path);

const PLANTS: [(&str, Plant); 5] = [
    ("a directory", |place, _| fs::create_dir_all(place.join("deep")).unwrap()),
    ("a pipe", |place, _| mkfifo(place, Mode::S_IRWXU).unwrap()),
    ("a link", |place, precious| symlink(precious, place).unwrap()),
    ("a link without end", |place, _| symlink("/dev/zero", place).unwrap()),
    ("a second name", |place, precious| fs::hard_link(precious, place).unwrap()),
];

const PRECIOUS: &str = "nobody writes here\n";

struct Planted {
    host: Host,
    tenant: Tenant,
    neighbour: Tenant,
    precious: PathBuf,
}

impl Planted {
    fn new(options: &[&str]) -> Self {
        let host = Host::with(options);
        let [tenant, neighbour] = ["demo", "other"].map(|name| {
            let tenant = host.tenant(name);
            tenant.deploy("prints", guests::prints());
            tenant.deploy("one", guests::version_one());
            tenant
        });
        let precious = host.scratch().join("precious");
        fs::write(&precious, PRECIOUS).unwrap();
        fs::set_permissions(&precious, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        Self { host, tenant, neighbour, precious }
    }

    fn tree(&self) -> PathBuf {
        self.host.data().join("tenants/demo")
    }

    fn plant(&self, place: &Path, plant: Plant) {
        match fs::symlink_metadata(place) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(place).unwrap(),
            Ok(_) => fs::remove_file(place).unwrap(),
            Err(_) => {}
        }
        plant(place, &self.precious);
    }

    /// The file that nobody may touch: what is in it, and who may read it.
    #[track_caller]
    fn is_untouched(&self, what: &str) {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::read_to_string(&self.precious).unwrap(), PRECIOUS, "{what}");
        let mode = fs::metadata(&self.precious).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{what}");
    }
}

#[expect(clippy::disallowed_methods, reason = "an enemy's, who keeps nothing for good")]
fn moved(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)
}

/// Calls it at each address, and sees to it that none waits.
#[track_caller]
fn serves(tenant: &Tenant, what: &str) {
    for address in tenant.addresses() {
        let begun = Instant::now();
        let answer = address.post("/one", "");
        assert_eq!(
            (answer.status, &*answer.text()),
            (200, "version one"),
            "{what}: {}",
            address.name
        );
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", begun.elapsed());
    }
}

/// A line of a call of its own is kept and found.
#[track_caller]
fn keeps_lines(tenant: &Tenant, id: &str) {
    let call = tenant.address().request("POST", "/prints").header("x-request-id", id);
    tenant.address().send(&call.body("a line\n")).expect(204);
    let page = eventually("its line", || {
        let page = tenant.ask(&format!("/logs?request_id={id}&stream=stdout"));
        (!page["lines"].as_array().unwrap().is_empty()).then_some(page)
    });
    assert_eq!(page["lines"][0]["text"], "a line");
}

#[test]
fn row_15_names_in_a_tenants_logs_end_nobody_elses() {
    let mut planted = Planted::new(&[]);
    let logs = planted.tree().join("logs");
    keeps_lines(&planted.tenant, "before");
    for number in ["18446744073709551615", "09223372036854775807", "00009007199254740991", "7"] {
        planted.host.kill();
        for kind in ["lines", "calls"] {
            fs::write(logs.join(format!("{kind}.{number}.jsonl")), "{}\n").unwrap();
        }
        planted.host.start_again();
        for tenant in [&planted.tenant, &planted.neighbour] {
            keeps_lines(tenant, &format!("with-{number}"));
        }
    }
    for (what, plant) in PLANTS {
        planted.host.kill();
        planted.plant(&logs.join("lines.00000000000000800000.jsonl"), plant);
        planted.plant(&logs.join("calls.00000000000000800000.jsonl"), plant);
        planted.host.start_again();
        for tenant in [&planted.tenant, &planted.neighbour] {
            keeps_lines(tenant, &format!("with-{}", what.replace(' ', "-")));
        }
        planted.is_untouched(what);
    }
    // The whole directory: that tenant's lines are lost, and told.
    planted.host.kill();
    let elsewhere = planted.host.scratch().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::remove_dir_all(&logs).unwrap();
    symlink(&elsewhere, &logs).unwrap();
    planted.host.start_again();
    serves(&planted.tenant, "logs that lead elsewhere");
    keeps_lines(&planted.neighbour, "beside");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let followed = planted.neighbour.api("GET", "/logs?request_id=beside");
    planted.host.send(&followed).expect(200);
    assert!(!planted.host.log().contains("panicked"), "{}", planted.host.log());
}

#[test]
fn row_15_what_lies_in_the_place_of_a_generation_is_made_again() {
    let mut planted = Planted::new(&["--idle", "300ms"]);
    let generation = fs::read_dir(planted.tree().join("releases")).unwrap().next().unwrap();
    let generation = generation.unwrap().path();
    let manifest = generation.join("manifest.json");
    let artifact = generation.join(format!("{}.cwasm", sha256(guests::version_one())));
    for (what, plant) in PLANTS {
        for place in [&manifest, &artifact, &generation] {
            // A directory has no second name.
            if what == "a second name" && place == &generation {
                continue;
            }
            let what = format!("{what} in the place of {}", place.display());
            // While the host runs, and nobody looks before the next worker does.
            planted.host.sleeps(&planted.tenant);
            planted.plant(place, plant);
            eventually(&what, || {
                serves(&planted.neighbour, &what);
                let begun = Instant::now();
                let status = planted.tenant.post("/one", "").status;
                assert!(begun.elapsed() < Duration::from_secs(10), "{what}: it waited");
                (status == 200).then_some(())
            });
            serves(&planted.tenant, &what);
            // And before it starts.
            planted.host.kill();
            planted.plant(place, plant);
            planted.host.start_again();
            serves(&planted.tenant, &what);
            serves(&planted.neighbour, &what);
            planted.is_untouched(&what);
        }
    }
    let wrong = checker::wrong(&planted.host.data());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn row_15_what_lies_in_a_modules_place_is_a_damaged_module_and_no_more() {
    let mut planted = Planted::new(&[]);
    let module = checker::module(&planted.host.data(), &sha256(guests::version_one()));
    planted.tenant.deploy("two", guests::version_two());
    for (what, plant) in PLANTS {
        planted.host.kill();
        planted.plant(&module, plant);
        planted.host.start_again();
        for address in planted.tenant.addresses() {
            assert_eq!(address.post("/two", "").expect(200).text(), "version two", "{what}");
            address.post("/one", "").expect_problem(503, "module_damaged");
        }
        planted.neighbour.post("/hello", "{}").expect(200);
        if what != "a second name" {
            // That one has bytes that are another's, which a backup refuses.
            let saved = planted.host.scratch().join(what.replace(' ', "-"));
            planted.host.command(ADMIN_TOKEN, &["backup", saved.to_str().unwrap()]).done();
        }
        // Uploading it again mends it, for everybody.
        planted.tenant.deploy("one", guests::version_one());
        serves(&planted.tenant, what);
        eventually("the neighbour's", || {
            (planted.neighbour.post("/one", "").status == 200).then_some(())
        });
        planted.is_untouched(what);
    }
}

#[test]
fn row_15_what_lies_in_an_artifacts_place_is_made_again() {
    let mut planted = Planted::new(&[]);
    let own = artifact(&planted.host.data(), "demo", &sha256(guests::version_one()));
    let engine = own.ancestors().nth(2).unwrap().to_owned();
    let bundled = fs::read_dir(engine.join("_bundled")).unwrap().next().unwrap().unwrap().path();
    let places = [own, bundled, engine.join("demo"), engine.join("_bundled"), engine.join("stray")];
    for (what, plant) in PLANTS {
        for place in &places {
            if what == "a directory" && !place.to_str().unwrap().ends_with(".cwasm") {
                continue;
            }
            let what = format!("{what} in the place of {}", place.display());
            planted.host.kill();
            planted.plant(place, plant);
            planted.host.start_again();
            serves(&planted.tenant, &what);
            planted.tenant.post("/hello", "{}").expect(200);
            serves(&planted.neighbour, &what);
            planted.is_untouched(&what);
        }
    }
}

#[test]
fn row_15_a_race_with_what_is_swapped_all_the_while_is_not_won() {
    let planted = Planted::new(&["--idle", "300ms"]);
    let generation = fs::read_dir(planted.tree().join("releases")).unwrap().next().unwrap();
    let manifest = generation.unwrap().path().join("manifest.json");
    let logs = planted.tree().join("logs/lines.00000000000000000001.jsonl");
    let (precious, aside) = (planted.precious.clone(), planted.host.scratch().join("aside"));
    let swapper = Beside::run(move |_: &mut BTreeSet<()>| {
        for place in [&manifest, &logs] {
            for (_, plant) in &PLANTS[1..] {
                // It may be being made again just then.
                let _ = moved(place, &aside);
                if fs::symlink_metadata(place).is_err() {
                    let planted = std::panic::AssertUnwindSafe(|| plant(place, &precious));
                    let _ = std::panic::catch_unwind(planted);
                }
                pause(Duration::from_millis(3));
                let _ = fs::remove_file(place);
                let _ = moved(&aside, place);
            }
        }
    });
    for round in 0..20 {
        // It gets an answer, whichever; the neighbour notices nothing.
        let begun = Instant::now();
        let _ = planted.tenant.post("/one", "");
        let _ = planted
            .tenant
            .address()
            .request("POST", "/prints")
            .try_send(planted.tenant.address().to);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        serves(&planted.neighbour, "a swap");
        keeps_lines(&planted.neighbour, &format!("round-{round}"));
    }
    swapper.stop();
    planted.is_untouched("a swap");
    planted.host.send(&planted.tenant.api("POST", "/worker/start"));
    eventually("that it serves again", || {
        (planted.tenant.post("/one", "").status == 200).then_some(())
    });
    assert!(!planted.host.log().contains("a request about a tenant's journals failed"));
}
