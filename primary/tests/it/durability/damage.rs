//! The disk changes what was kept, or has no room for more. A damaged artifact is made again; a
//! damaged module takes its versions out of service and nothing else; a damaged store keeps the
//! host from starting. Each says so.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::checker;
use super::stage::sha256;
use crate::guests;
use crate::host::{Host, Tenant, artifact};
use crate::http::Answer;
use crate::limits::uploads::{noise, padded};
use crate::processes::eventually;

/// What may happen to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// One bit in its middle.
    Flip,
    Cut,
    Empty,
    Gone,
    /// Another one's bytes.
    Forged,
}

impl Damage {
    const ALL: [Self; 5] = [Self::Flip, Self::Cut, Self::Empty, Self::Gone, Self::Forged];

    fn befall(self, file: &Path, other: &Path) {
        let bytes = fs::read(file).unwrap();
        match self {
            Self::Gone => fs::remove_file(file).unwrap(),
            Self::Flip => {
                let mut bytes = bytes;
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                write(file, &bytes);
            }
            Self::Cut => write(file, &bytes[..bytes.len() / 2]),
            Self::Empty => write(file, b""),
            Self::Forged => write(file, &fs::read(other).unwrap()),
        }
    }
}

/// In place: there may be a second link to it.
fn write(file: &Path, bytes: &[u8]) {
    File::options().write(true).truncate(true).open(file).unwrap().write_all(bytes).unwrap();
}

fn two_functions(options: &[&str]) -> (Host, Tenant) {
    let host = Host::with(options);
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    tenant.deploy("two", guests::version_two());
    (host, tenant)
}

#[test]
fn a_damaged_artifact_is_made_again_and_never_run() {
    let (mut host, tenant) = two_functions(&[]);
    let one = artifact(&host.data(), "demo", &sha256(guests::version_one()));
    let two = artifact(&host.data(), "demo", &sha256(guests::version_two()));
    for damage in Damage::ALL {
        host.kill();
        damage.befall(&one, &two);
        host.start_again();
        for (path, says) in [("/one", "version one"), ("/two", "version two")] {
            assert_eq!(tenant.post(path, "").expect(200).text(), says, "{damage:?}");
        }
        let wrong = checker::wrong(&host.data());
        assert!(wrong.is_empty(), "{damage:?}: {wrong:#?}");
    }
}

#[test]
fn a_damaged_module_takes_its_version_alone_out_of_service() {
    let (mut host, tenant) = two_functions(&[]);
    let one = checker::module(&host.data(), &sha256(guests::version_one()));
    let two = checker::module(&host.data(), &sha256(guests::version_two()));
    let mut version = 1;
    for damage in Damage::ALL {
        host.kill();
        damage.befall(&one, &two);
        host.start_again();
        for address in tenant.addresses() {
            is_out_of_service(address.post("/one", ""), version);
            assert_eq!(address.post("/two", "").expect(200).text(), "version two", "{damage:?}");
            address.post("/hello", "{}").expect(200);
        }
        assert_eq!(host.figure("hearth_modules_damaged"), 1);
        assert_eq!(damaged(&tenant), ["/one"], "{damage:?}");
        let listed = host.command(&tenant.token, &["--tenant", "demo", "functions"]).done();
        assert!(listed.contains("damaged: upload it again"), "{listed}");
        // All else can be changed meanwhile.
        tenant.deploy("three", guests::echo());
        is_out_of_service(tenant.post("/one", ""), version);

        let up = tenant.deploy("one", guests::version_one());
        assert_eq!(up["functions"][0]["unchanged"], false, "{damage:?}");
        version = up["functions"][0]["version"].as_u64().unwrap();
        assert_eq!(tenant.post("/one", "").expect(200).text(), "version one", "{damage:?}");
        assert_eq!(host.figure("hearth_modules_damaged"), 0);
        assert!(damaged(&tenant).is_empty());
        let wrong = checker::wrong(&host.data());
        assert!(wrong.is_empty(), "{damage:?}: {wrong:#?}");
    }
}

#[track_caller]
fn is_out_of_service(answer: Answer, version: u64) {
    let refused = answer.expect_problem(503, "module_damaged").expect_detail("upload it again");
    assert_eq!(refused.header("x-hearth-version"), Some(&*format!("/one@{version}")));
}

fn damaged(tenant: &Tenant) -> Vec<String> {
    let functions = tenant.ask("/functions");
    let functions = functions["functions"].as_array().unwrap().iter();
    let damaged = functions.filter(|function| function["damaged"] == true);
    damaged.map(|function| function["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn damage_is_found_while_a_worker_serves_and_so_is_its_end() {
    let (host, tenant) = two_functions(&[]);
    let one = checker::module(&host.data(), &sha256(guests::version_one()));
    let bytes = fs::read(&one).unwrap();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    Damage::Flip.befall(&one, &one);
    // It is not called for: one module after the other is looked at.
    eventually("damage that is found", || (damaged(&tenant) == ["/one"]).then_some(()));
    eventually("a worker that knows of it", || {
        let answer = tenant.post("/one", "");
        (answer.status == 503).then(|| is_out_of_service(answer, 1))
    });
    assert_eq!(tenant.post("/two", "").expect(200).text(), "version two");
    // Somebody puts a copy from a backup in its place.
    write(&one, &bytes);
    eventually("service", || (tenant.post("/one", "").status == 200).then_some(()));
    assert!(damaged(&tenant).is_empty());
}

#[test]
fn a_version_whose_module_is_damaged_is_not_rolled_back_to() {
    let (host, tenant) = two_functions(&[]);
    tenant.deploy("one", guests::echo());
    let module = checker::module(&host.data(), &sha256(guests::version_one()));
    Damage::Cut.befall(&module, &module);
    let back = host.send(&tenant.api("POST", "/functions/one/rollback"));
    back.expect_problem(503, "module_damaged").expect_detail("/one@1");
    assert!(tenant.post("/one", "").expect(200).text().contains("\"method\""));
    let versions = tenant.ask("/functions/one/versions");
    assert_eq!(versions["versions"][1]["damaged"], true, "{versions}");
    assert_eq!(versions["versions"][0]["damaged"], false, "{versions}");
}

#[test]
fn a_damaged_store_keeps_the_host_from_starting_and_says_so() {
    let (mut host, tenant) = two_functions(&[]);
    host.terminate();
    host.ended();
    let file = host.data().join("hearth.db");
    let whole = fs::read(&file).unwrap();
    assert!(!host.data().join("hearth.db-wal").exists(), "a host that stops leaves one file");
    let page = 4_096;
    let pages = whole.len() / page;
    assert!(pages > 8, "{pages}");
    let mut header = whole.clone();
    header[..16].fill(0);
    let mut blank = whole.clone();
    blank[2 * page..3 * page].fill(0);
    for (damage, bytes) in [
        ("its first bytes", &header[..]),
        ("a page of zeroes", &blank),
        ("half of it", &whole[..pages / 2 * page]),
    ] {
        fs::write(&file, bytes).unwrap();
        fs::remove_file(host.scratch().join("log")).unwrap();
        let said = host.try_start_again().expect_err(damage);
        assert!(said.contains("hearth.db is damaged"), "{damage}: {said}");
        assert!(said.contains("backup"), "{damage}: {said}");
        // What could be had from it by hand is not made worse.
        assert!(fs::read(&file).unwrap() == bytes, "{damage}: it was changed");
        let _ = fs::remove_file(host.data().join("hearth.db-wal"));
        let _ = fs::remove_file(host.data().join("hearth.db-shm"));
    }
    fs::write(&file, &whole).unwrap();
    host.start_again();
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

/// A disk of a few megabytes, which this machine lets root mount.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// In the place of a directory, with what is in it.
    pub fn instead_of(directory: &Path) -> Option<Self> {
        let aside = directory.with_extension("aside");
        let run = |program: &str, arguments: &[&str]| {
            Command::new(program).args(arguments).output().is_ok_and(|it| it.status.success())
        };
        let (at, aside) = (directory.to_str()?, aside.to_str()?);
        assert!(run("cp", &["-a", at, aside]));
        if !run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", at]) {
            println!("skipped: mounting a small disk takes root, and a machine that lets it");
            return None;
        }
        let disk = Self { at: directory.to_owned() };
        assert!(run("cp", &["-a", &format!("{aside}/."), at]));
        Some(disk)
    }

    /// Takes all of its room but so many bytes.
    pub fn fill(&self, but: u64) {
        let mut filler = File::create(self.filler()).unwrap();
        let zeroes = [0; 4_096];
        while filler.write_all(&zeroes).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(but)).unwrap();
    }

    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

#[test]
fn a_full_disk_refuses_uploads_and_serves_on() {
    let (mut host, tenant) = two_functions(&["--disk-reserve", "0"]);
    host.terminate();
    host.ended();
    let Some(disk) = SmallDisk::instead_of(&host.data()) else { return };
    host.start_again();
    let (mut refused, mut version) = (0, 1);
    // With ever more room it comes further, until it is taken.
    for room in (0..).map(|step: u64| step * (48 << 10)) {
        let module =
            padded(guests::version_one(), guests::version_one().len() + 64, noise(room + 1));
        disk.fill(room);
        let answer = tenant.upload(&[("one.wasm", &module)], None);
        let is_taken = answer.status == 200;
        if is_taken {
            version += 1;
        } else {
            answer.expect_problem(507, "storage_full");
            refused += 1;
        }
        let serves = tenant.post("/one", "").expect(200);
        assert_eq!(serves.header("x-hearth-version"), Some(&*format!("/one@{version}")));
        disk.empty();
        if is_taken {
            break;
        }
    }
    assert!(refused > 3, "{refused}");
    assert_eq!(host.figure("hearth_store_read_only"), 0);
    tenant.deploy("one", guests::version_two());
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version two");
    println!("{refused} uploads refused for want of room; everything served on");
}

#[test]
fn row_36_who_fills_the_disk_leaves_the_store_its_own() {
    let (mut host, tenant) = two_functions(&["--disk-reserve", "4"]);
    let neighbour = host.tenant("neighbour");
    host.terminate();
    host.ended();
    let Some(disk) = SmallDisk::instead_of(&host.data()) else { return };
    host.start_again();
    let free = || {
        let disk = rustix::fs::statvfs(&disk.at).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    let mut taken = 0;
    // Ever smaller ones, until not even the smallest fits.
    for bytes in [1 << 20, 256 << 10, 0] {
        for _ in 0..64 {
            let module = guests::version_one();
            let module = padded(module, module.len() + 64 + bytes, noise(taken + 1));
            let name = format!("f{taken}.wasm");
            let answer = tenant.upload(&[(&name, &module)], None);
            if answer.status != 200 {
                answer.expect_problem(507, "storage_full");
                break;
            }
            taken += 1;
        }
    }
    assert!(taken > 0 && free() >= 3 << 20, "{taken} were taken, {} bytes are free", free());
    // Nobody uploads now, and everything else can be done.
    neighbour
        .upload(&[("one.wasm", guests::version_one())], None)
        .expect_problem(507, "storage_full");
    for _ in 0..10 {
        neighbour.token("invoke");
    }
    let timeout = serde_json::json!({ "options": { "timeout_ms": 1_234 } });
    host.send(&tenant.api("PATCH", "/functions/one").json(&timeout)).expect(200);
    host.send(&tenant.api("DELETE", "/functions/f0")).expect(200);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    neighbour.post("/hello", "{}").expect(200);
    assert_eq!(host.figure("hearth_store_read_only"), 0);
    host.kill_and_start_again();
    assert_eq!(tenant.post("/two", "").expect(200).text(), "version two");
}
