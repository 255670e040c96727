//! What the compiler takes and what it refuses.

use hearth_wire::{CompileReply, Diagnosis, HandlerKind};

use crate::harness::{compile, compile_as, engine, guest, module};

#[track_caller]
fn refused(bytes: &[u8]) -> String {
    match compile(module(bytes).path()).0 {
        CompileReply::Refused(Diagnosis { detail }) => detail,
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
        match compile(&guest(name)).0 {
            CompileReply::Compiled { kind, imports, options: None, artifact_bytes } => {
                assert_eq!(kind, expected, "{name}");
                assert!(artifact_bytes > 0 && imports.is_sorted() && !imports.is_empty());
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn declared_options_are_asked_for() {
    let CompileReply::Compiled { options, .. } = compile(&guest("declares_options")).0 else {
        panic!("it is a function");
    };
    let declared = r#"{"methods":["GET","PUT"],"description":"declares itself"}"#;
    assert_eq!(options.as_deref(), Some(declared));
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
        (&b"#!/bin/sh\n"[..], "no WebAssembly"),
        (b"", "empty"),
        (b"\0asm\x01\0\0\0", "core WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "HTTP handler"),
        (&whole[..whole.len() / 2], "truncated"),
        (&whole[..whole.len() - 10], "truncated"),
        (&broken, "no valid WebAssembly"),
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
    match compile_as(&guest("version_one"), "other").0 {
        CompileReply::Failed { reason } => assert!(reason.contains("one build"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
