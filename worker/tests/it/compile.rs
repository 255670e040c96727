//! What the compiler takes and what it refuses.

use hearth_wire::{CompileReply, Diagnosis, HandlerKind};

use crate::harness::{check, compile, compile_as, engine, guest, module};

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
            CompileReply::Compiled { kind, imports, artifact_bytes } => {
                assert_eq!((kind, made.declared.as_str()), (expected, ""), "{name}");
                assert!(artifact_bytes > 0 && imports.is_sorted() && !imports.is_empty());
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
    assert_ne!(engine(), "other");
    match compile_as(&guest("version_one"), "other").reply {
        CompileReply::Failed { reason } => assert!(reason.contains("one build"), "{reason}"),
        other => panic!("{other:?}"),
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
