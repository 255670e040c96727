//! Components made by others' toolchains, knowing nothing of Hearth, run as they are.

use std::fs;

use serde_json::json;

use crate::guests;
use crate::host::Host;

#[test]
fn every_kind_of_component_runs_packed_or_not_at_every_address() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for (name, module) in [
        ("plain", guests::version_one()),
        ("wstd", guests::wstd_hello()),
        ("wasip3", guests::wasip3_hello()),
    ] {
        let packed = zstd::encode_all(module, 3).unwrap();
        let raw = format!("{name}-raw.wasm");
        let zst = format!("{name}-packed.wasm.zst");
        let up = tenant.upload(&[(&raw, module), (&zst, &packed)], None).expect(200).json();
        assert_eq!(up["uploaded"], true);
        for path in &[format!("/{name}-raw"), format!("/{name}-packed")] {
            let functions = up["functions"].as_array().unwrap();
            let function = functions.iter().find(|function| function["path"] == **path).unwrap();
            assert_eq!(function["sha256"], sha256(module), "of the module, not of what was sent");
            assert_eq!(function["size"], module.len(), "{up}");
            assert!(function["stored"].as_u64().unwrap() < module.len() as u64, "{up}");
            let imports = function["imports"].to_string();
            assert!(imports.contains("wasi:"), "{imports}");
            for address in tenant.addresses() {
                let answer = address.post(path, "Ada").expect(200);
                let expected = match name {
                    "plain" => "version one".to_owned(),
                    "wstd" => "hello Ada from wstd".to_owned(),
                    // Each address takes off what is its own, so the function sees one path.
                    _ => format!("hello http://{}{path} from wasip3", address.authority()),
                };
                assert_eq!(answer.text(), expected, "{} at {}", path, address.name);
                assert_eq!(answer.header("x-hearth-version"), Some(&*format!("{path}@1")));
            }
        }
        let kept = host.data().join("modules").join(format!("{}.wasm.zst", sha256(module)));
        let kept = fs::read(&kept).unwrap_or_else(|e| panic!("{}: {e}", kept.display()));
        assert_eq!(zstd::decode_all(kept.as_slice()).unwrap(), module);
    }
    for entry in fs::read_dir(host.data().join("modules")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let digest = name.strip_suffix(".wasm.zst").unwrap_or_else(|| panic!("{name}"));
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
}

#[test]
fn a_module_declares_options_and_an_upload_speaks_over_them() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("declared", guests::declares_options());
    let shown = tenant.ask("/functions/declared");
    assert_eq!(shown["options"]["methods"], json!(["GET", "PUT"]), "{shown}");
    assert_eq!(shown["options"]["description"], "declares itself", "{shown}");
    tenant.get("/declared").expect(200);
    let refused = tenant.post("/declared", "").expect_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("GET, PUT"));

    tenant.deploy_with("declared", guests::declares_options(), &json!({ "methods": ["POST"] }));
    tenant.post("/declared", "").expect(200);
    tenant.get("/declared").expect_problem(405, "method_not_allowed");
    let shown = tenant.ask("/functions/declared");
    assert_eq!(shown["options"]["description"], "declares itself", "{shown}");
}

#[test]
fn a_function_finds_nothing_of_the_machine() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("env", guests::reads_env());
    tenant.deploy("out", guests::calls_out());
    let found = tenant.post("/env", "").expect(200).json();
    for empty in ["environment", "arguments", "stdin"] {
        assert_eq!(found[empty], json!([]), "{empty}: {found}");
    }
    assert_eq!(found["stdin_ended"], true, "{found}");
    assert_eq!(found["directories"], 0, "{found}");
    assert_eq!((&found["root"], &found["passwd"]), (&json!(false), &json!(false)), "{found}");
    for socket in ["tcp", "udp"] {
        assert_eq!(found[socket], "PermissionDenied", "{found}");
    }
    let said = tenant.post("/out", "").expect(200).text();
    assert!(said.contains("HttpRequestDenied"), "{said}");
}

#[test]
fn every_call_has_a_fresh_instance() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("static", guests::dirties_memory());
    let mut connection = tenant.open();
    for _ in 0..20 {
        let answer = connection.call(&tenant.address().request("POST", "/static"));
        assert_eq!(answer.expect(200).text(), "clean");
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
