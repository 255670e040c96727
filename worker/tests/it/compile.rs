//! What the compiler takes and what it refuses.

use hearth_engine::EngineKind;
use hearth_wire::{CompileReply, Diagnosis, Fingerprint, HandlerKind};

use crate::harness::{CONCURRENT, check, compile, compile_as, engine_of, guest, module};

#[track_caller]
fn refused(bytes: &[u8]) -> String {
    match compile(module(bytes).path()).reply {
        CompileReply::Refused(Diagnosis { detail, imports: _ }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_generations_of_http_are_taken() {
    for (name, expected) in [
        ("version_one", HandlerKind::IncomingHandler),
        ("wstd_hello", HandlerKind::IncomingHandler),
        ("wasip3_hello", HandlerKind::Handler),
    ] {
        let made = compile(&guest(name));
        match made.reply {
            CompileReply::Compiled { engine, kind, imports, unavailable, artifact_bytes } => {
                assert_eq!((kind, made.declared.as_str()), (expected, ""), "{name}");
                let has_concurrency = EngineKind::made(engine).unwrap().has_concurrency();
                assert_eq!(has_concurrency, kind == HandlerKind::Handler, "{name}");
                assert!(artifact_bytes > 0 && imports.is_sorted() && !imports.is_empty());
                assert!(unavailable.is_empty(), "{name}: {unavailable:?}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn declared_options_are_asked_for() {
    let made = compile(&guest("declares_options"));
    assert!(matches!(made.reply, CompileReply::Compiled { .. }), "{:?}", made.reply);
    assert_eq!(made.declared, r#"{"methods":["GET","PUT"],"description":"declares itself"}"#);
}

#[test]
fn what_is_no_function_is_told_why() {
    let whole = std::fs::read(guest("version_one")).unwrap();
    let broken = {
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(0xff);
        bytes
    };
    for (bytes, said) in [
        (&b"#!/bin/sh\n"[..], "not WebAssembly"),
        (b"", "empty"),
        (b"\0asm\x01\0\0\0", "core WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "HTTP handler"),
        (&whole[..whole.len() / 2], "truncated"),
        (&whole[..whole.len() - 10], "truncated"),
        (&broken, "not valid WebAssembly"),
        (
            &std::fs::read(guest("imports_blobs")).unwrap(),
            "`example:blobs/store@1.2.0` is not offered",
        ),
    ] {
        let detail = refused(bytes);
        assert!(detail.contains(said), "{said}: {detail}");
    }
}

#[test]
fn another_engine_is_refused_as_ours() {
    let ours = hearth_engine::fingerprints();
    let stranger = Fingerprint::new([0; 8]);
    for engines in [vec![], vec![stranger], vec![ours[0]], vec![ours[0], stranger]] {
        match compile_as(&guest("version_one"), engines).reply {
            CompileReply::Failed { reason } => assert!(reason.contains("one build"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn schemas_are_tried_before_they_are_kept() {
    let of_body =
        |schema: &str| check("version_one", &format!(r#"{{"schema":{{"body":{schema}}}}}"#));
    assert_eq!(of_body(r#"{"type":"object"}"#), CompileReply::Checked);
    for (schema, said) in [
        (r#"{"type":"objekt"}"#, "at /type"),
        (r#"{"pattern":"(?!a)"}"#, "at /pattern"),
        (r#"{"$ref":"http://127.0.0.1/schema.json"}"#, "127.0.0.1"),
        (r#"{"$schema":"http://json-schema.org/draft-04/schema#"}"#, "2020-12"),
    ] {
        let CompileReply::Refused(Diagnosis { detail, imports: _ }) = of_body(schema) else {
            panic!("{schema} was taken");
        };
        assert!(detail.starts_with("the option `schema.body` cannot be used: "), "{detail}");
        assert!(detail.contains(said), "{said}: {detail}");
    }
}

/// The same handler of WASI 0.2, with something asynchronous within and without.
#[test]
fn which_engine_runs_it_is_what_is_in_it() {
    assert_eq!(engine_of("dirties_memory"), EngineKind::Plain);
    let concurrent = format!("dirties_memory{CONCURRENT}");
    assert_eq!(engine_of(&concurrent), EngineKind::Concurrent);
    // Both are tried with the engine that made them.
    for guest in ["dirties_memory", &concurrent, "wasip3_keeps"] {
        assert_eq!(check(guest, r#"{"reuse":100}"#), CompileReply::Checked, "{guest}");
    }
}
