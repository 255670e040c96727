//! Uploads that mean harm by how their files are called, or by when they come.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, upload};

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
    let request = upload(tenant.door().request("POST", "/$upload"), &[("a.wasm", b"x")], None);
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

#[test]
fn row_20_changes_of_one_function_at_once_are_one_after_the_other() {
    let host = Host::start();
    let tenant = Arc::new(host.tenant("demo"));
    tenant.deploy("one", guests::version_one());
    tenant.deploy("one", guests::version_two());
    let front = host.front;
    let uploaders = (0..4).map(|at| {
        let tenant = Arc::clone(&tenant);
        std::thread::spawn(move || {
            let mut versions = Vec::new();
            for turn in 0..3 {
                // Another module each time, so that each is a version of its own.
                let module = [guests::version_one(), &custom_section(at * 10 + turn)].concat();
                let uploaded = deploy(&tenant, front, &module);
                versions.push(uploaded["functions"][0]["version"].as_u64().unwrap());
            }
            versions
        })
    });
    let uploaders: Vec<_> = uploaders.collect();
    for at in 0..6 {
        tenant.rollback("/one", 1 + at % 2);
        let text = tenant.post("/one", "").expect(200).text();
        assert!(text == "version one" || text == "version two", "{text}");
    }
    let versions: Vec<u64> = uploaders.into_iter().flat_map(|it| it.join().unwrap()).collect();
    let different: BTreeSet<u64> = versions.iter().copied().collect();
    assert_eq!((different.len(), different.first(), different.last()), (12, Some(&3), Some(&14)));
    // A removal beside an upload: the function is there with what was uploaded, or is not.
    let removes = {
        let tenant = Arc::clone(&tenant);
        std::thread::spawn(move || tenant.api("DELETE", "/functions/one").send(front).status)
    };
    deploy(&tenant, front, guests::version_two());
    assert!(matches!(removes.join().unwrap(), 200 | 204));
    match tenant.post("/one", "") {
        answer if answer.status == 200 => assert_eq!(answer.text(), "version two"),
        answer => drop(answer.expect_problem(404, "not_found")),
    }
}

/// By way of the host: a worker through which an upload comes may be ended with its generation,
/// where many are replaced at once.
fn deploy(tenant: &Tenant, front: SocketAddr, module: &[u8]) -> Value {
    let request = upload(tenant.api("POST", "/functions"), &[("one.wasm", module)], None);
    request.send(front).expect(200).json()
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
        .map(|tenant| {
            let mut engines = std::fs::read_dir(host.data().join("artifacts")).unwrap();
            let engine = engines.next().unwrap().unwrap().path();
            let artifact = engine.join(tenant).join(format!("{sha256}.cwasm"));
            std::fs::metadata(artifact).unwrap().ino()
        })
        .into();
    assert_eq!(artifacts.len(), 2, "one file for both");
}
