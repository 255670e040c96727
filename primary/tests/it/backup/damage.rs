//! Files that are no whole backup: each is refused with a sentence that says what is wrong with
//! it, and the data directory is as it was.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{backup, directory, members, name, text};
use crate::guests;
use crate::host::{Host, run};

pub(super) type Members = Vec<(Header, Vec<u8>)>;

/// A backup, the host that made it long gone.
fn made() -> (TempDir, Vec<u8>, Members) {
    let mut host = Host::start();
    host.tenant("demo").deploy("one", guests::version_one());
    let (file, place) = (backup(&host), directory());
    host.kill_and_wait();
    (place, fs::read(&file).unwrap(), members(&file))
}

pub(super) fn pack(members: &Members) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (header, content) in members {
        let mut header = header.clone();
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
}

/// An entry of any name and kind, however wrong.
pub(super) fn entry(name: &str, kind: EntryType, content: &[u8]) -> (Header, Vec<u8>) {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o600);
    header.set_size(content.len() as u64);
    (header, content.to_vec())
}

/// Refused, with this in what is said; into a directory that is there and one that is not.
#[track_caller]
pub(super) fn refused(place: &TempDir, bytes: &[u8], said: &str) {
    let file = place.path().join("damaged");
    fs::write(&file, bytes).unwrap();
    let (new, empty) = (place.path().join("new"), place.path().join("empty"));
    fs::create_dir_all(&empty).unwrap();
    for data in [&new, &empty] {
        let told = run(place.path(), &["restore", text(&file), "--data", text(data)]).failed(1);
        assert!(told.contains(said), "{said:?} is not in {told:?}");
    }
    assert!(!new.exists());
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let outside =
        |name: &str| place.path().join(name).exists() || Path::new("/tmp").join(name).exists();
    assert!(!outside("planted"));
}

#[test]
fn what_was_cut_off_or_changed_on_its_way() {
    let (place, whole, _) = made();
    for at in [1, 10, whole.len() / 3, whole.len() / 2, whole.len() - 100, whole.len() - 1] {
        refused(&place, &whole[..at], "");
    }
    refused(&place, &whole[..whole.len() / 2], "the transfer was cut off");
    // One bit, at places from the first byte to the last.
    for place_of in 0..24 {
        let at = (whole.len() - 1) * place_of / 23;
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (place_of % 8);
        refused(&place, &flipped, "backup");
    }
    let longer = [&whole[..], b"more"].concat();
    refused(&place, &longer, "backup");
}

#[test]
fn what_is_something_else() {
    let (place, _, members) = made();
    for other in [&b""[..], b"text", &[0; 10_240]] {
        refused(&place, other, "backup");
    }
    refused(
        &place,
        &pack(&vec![entry("other.txt", EntryType::Regular, b"x")]),
        "not a backup of Hearth",
    );
    refused(&place, &pack(&Vec::new()), "not a backup of Hearth");
    let tomorrow = json!({ "format": 2, "hearth": "9.9.9", "made_at": "2030-01-01T00:00:00Z" });
    let mut newer = members.clone();
    newer[0] = entry("backup.json", EntryType::Regular, tomorrow.to_string().as_bytes());
    refused(
        &place,
        &pack(&newer),
        "has the format 2, and this version of hearth reads 1: use the version that made it (9.9.9)",
    );
}

#[test]
fn what_no_backup_has() {
    let (place, _, members) = made();
    let with = |strange: (Header, Vec<u8>)| {
        let mut members = members.clone();
        members.insert(members.len() - 1, strange);
        pack(&members)
    };
    for name in [
        "../planted",
        "/tmp/planted",
        "tenants/../../planted",
        "tenants/demo/../../../planted",
        "tenants/demo/logs/../../../../planted",
        "tenants/../demo/planted",
        "tenants/Demo/planted",
        "tenants/demo",
        "modules/planted",
        "modules/../../planted",
        "planted",
        "hearth.db-wal",
        "lock",
    ] {
        refused(
            &place,
            &with(entry(name, EntryType::Regular, b"x")),
            "the backup has an unknown entry",
        );
    }
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::GNUSparse,
    ] {
        let (mut header, content) = entry("tenants/demo/state", kind, b"");
        header.set_link_name("/tmp").unwrap();
        refused(&place, &with((header, content)), "the backup has an unknown entry");
    }
    let stranger = entry("tenants/stranger/state", EntryType::Directory, b"");
    refused(&place, &with(stranger), "its store does not name tenants/stranger/state");
    let module = format!("modules/{}.wasm.zst", "0".repeat(64));
    refused(
        &place,
        &with(entry(&module, EntryType::Regular, b"x")),
        "its store does not name modules/0000",
    );
    let again = members.iter().find(|(header, _)| name(header) == "hearth.db").unwrap().clone();
    refused(&place, &with(again), "it has two stores");
    let deep = format!("tenants/demo/{}x", "a/".repeat(8));
    refused(
        &place,
        &with(entry(&deep, EntryType::Regular, b"x")),
        "the backup has an unknown entry",
    );
}

#[test]
fn what_is_larger_than_it_may_be() {
    let (place, _, members) = made();
    let at = members.iter().position(|(header, _)| name(header).starts_with("modules/")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (header, content) in &members[..at] {
        tar.append(header, content.as_slice()).unwrap();
    }
    let mut giant = members[at].0.clone();
    giant.set_size(1 << 40);
    giant.set_cksum();
    let mut bytes = tar.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1_024);
    bytes.extend(giant.as_bytes());
    bytes.extend([0; 4_096]);
    let packed = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    refused(&place, &packed, "with 1099511627776 bytes, and it may have");
}

/// With every sum right for what is there, so that only sense is missing.
pub(super) fn consistent(members: &mut Members) {
    let mut sums = serde_json::Map::new();
    for (header, content) in &members[1..members.len() - 1] {
        if header.entry_type() == EntryType::Regular {
            let digest = Sha256::digest(content);
            let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            sums.insert(name(header), json!({ "size": content.len(), "sha256": sha256 }));
        }
    }
    let manifest = json!({ "members": Value::Object(sums), "left_out": [] }).to_string();
    let last = members.len() - 1;
    members[last] = entry("manifest.json", EntryType::Regular, manifest.as_bytes());
}

#[test]
fn what_does_not_agree_with_itself() {
    let (place, _, members) = made();
    let find = |start: &str| members.iter().position(|(header, _)| name(header).starts_with(start));
    let (database, module) = (find("hearth.db").unwrap(), find("modules/").unwrap());

    let mut changed = members.clone();
    changed[module].1[100] ^= 1;
    refused(&place, &pack(&changed), "is another file");
    let mut missing = members.clone();
    missing.remove(module);
    refused(&place, &pack(&missing), "is missing");
    consistent(&mut missing);
    refused(&place, &pack(&missing), "which is not in it");
    let mut headless = members.clone();
    headless.remove(database);
    refused(&place, &pack(&headless), "its store does not name");
    let mut torn = members.clone();
    torn[database].1[4_096..8_192].fill(0xff);
    consistent(&mut torn);
    refused(&place, &pack(&torn), "the backup is damaged: its store");
    let mut endless = members.clone();
    endless.pop();
    refused(&place, &pack(&endless), "the transfer was cut off");
    let mut nowhere = members.clone();
    let strange = entry("tenants/demo/state/deep/x", EntryType::Regular, b"x");
    nowhere.insert(find("tenants/demo").unwrap() + 1, strange);
    consistent(&mut nowhere);
    refused(&place, &pack(&nowhere), "No such file");
    let mut twice = members.clone();
    twice.insert(module, members[module].clone());
    refused(&place, &pack(&twice), "");
    // And what was taken apart and put together again is whole.
    let mut same = members.clone();
    consistent(&mut same);
    let file = place.path().join("same");
    fs::write(&file, pack(&same)).unwrap();
    run(place.path(), &["restore", text(&file), "--data", text(&place.path().join("data"))]).done();
}
