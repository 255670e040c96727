//! Streams and futures whose ends are taken for each other. A copy that is under way at one end can
//! be cancelled at the other in the engine of today, which then takes the end for what it is not:
//! whatever comes of that is the call's own failure, in a worker that lives on.

use std::io::ErrorKind;

use hearth_e2e::component::{self, RETURNS};
use serde_json::json;

use super::Scene;
use crate::host::Host;
use crate::http::Connection;
use crate::traffic::is_long;

/// Standard output of WASI 0.3, to which a stream can be given away.
const PRINTS: &str = r#"
    (import "wasi:cli/types@0.3.0" (instance $cli
        (type $codes (enum "io" "illegal-byte-sequence" "pipe"))
        (export "error-code" (type (eq $codes)))))
    (alias export $cli "error-code" (type $cli-error))
    (import "wasi:cli/stdout@0.3.0" (instance $stdout
        (alias outer 1 $cli-error (type $outer))
        (export "error-code" (type $cli-error (eq $outer)))
        (export "write-via-stream" (func
            (param "data" (stream u8)) (result (future (result (error $cli-error))))))))
    (core func $print (canon lower (func $stdout "write-via-stream")))"#;

/// A synchronous function that begins a copy at one end, and cancels there what the other end does.
fn synchronous(kind: &str, way: &str) -> Vec<u8> {
    let (other, from) = if way == "read" { ("write", 0) } else { ("read", 32) };
    let (count, parameters) = match kind {
        "stream" => ("(i32.const 1)", "i32 i32 i32"),
        _ => ("", "i32 i32"),
    };
    component::with(
        &format!(
            r#"(core module $memory (memory (export "m") 1))
            (core instance $m (instantiate $memory))
            (type $mine ({kind} u8))
            (core func $new (canon {kind}.new $mine))
            (core func $copy (canon {kind}.{way} $mine async (memory (core memory $m "m"))))
            (core func $cancel (canon {kind}.cancel-{other} $mine))"#
        ),
        r#"(with "host" (instance
            (export "new" (func $new))
            (export "copy" (func $copy))
            (export "cancel" (func $cancel))))"#,
        &format!(
            r#"(import "host" "new" (func $new (result i64)))
            (import "host" "copy" (func $copy (param {parameters}) (result i32)))
            (import "host" "cancel" (func $cancel (param i32) (result i32)))
            (func (export "handle") (param i32 i32) (local $end i32)
                (local.set $end (i32.wrap_i64 (i64.shr_u (call $new) (i64.const {from}))))
                (drop (call $copy (local.get $end) (i32.const 0) {count}))
                (drop (call $cancel (local.get $end))))"#
        ),
    )
}

#[test]
fn row_07_a_synchronous_one_fails_before_it_cancels_at_the_wrong_end() {
    let host = Host::start();
    let tenant = host.tenant("hostile");
    for kind in ["stream", "future"] {
        for way in ["read", "write"] {
            tenant.deploy("guest", &synchronous(kind, way));
            let worker = host.workers(&tenant);
            tenant.post("/guest", "").expect_problem(500, "function_trapped");
            tenant.post("/hello", "{}").expect(200);
            assert_eq!(host.workers(&tenant), worker, "{kind}: {way}");
            let lines = tenant.ask("/logs").to_string();
            assert!(lines.contains("cannot block a synchronous task"), "{kind}: {way}: {lines}");
        }
    }
}

/// What there is two ends of, with what is copied through them.
const KINDS: [(&str, &str); 4] =
    [("stream", "$bytes"), ("future", "$byte"), ("future", "$trailers"), ("future", "$sent")];

/// What is done with an end, in the order in which each kind's stand in the table.
const READ: u8 = 0;
const WRITE: u8 = 1;
const CANCEL_READ: u8 = 2;
const CANCEL_WRITE: u8 = 3;
const DROP_READABLE: u8 = 4;
const DROP_WRITABLE: u8 = 5;

/// An asynchronous function that does what its query says, a letter a step: the pair that it does
/// it with (`s f` of its own, `b c d p q v` with one end the host's), the end (`r w`), and what is
/// done there.
fn obedient() -> Vec<u8> {
    let does = |step: u8| format!("(call $do (i32.const {step}))");
    let begins = |kind: usize| format!("(call $begin (i32.const {kind}))");
    let takes = |kind: usize, readable: &str, writable: &str| {
        format!("(call $take (i32.const {kind}) {readable} {writable})")
    };
    const NONE: &str = "(i32.const 0)";
    let steps = [
        ('s', begins(0)),
        ('f', begins(1)),
        // The request's body, its trailers, and the word on what became of it.
        (
            'b',
            format!(
                "{} (global.set $res (global.get $w))
                (call $consume (global.get $request) (global.get $r) (i32.const 16))
                {} (global.set $received (i32.load (i32.const 20)))",
                begins(3),
                takes(0, "(i32.load (i32.const 16))", NONE)
            ),
        ),
        ('c', takes(2, "(global.get $received)", NONE)),
        ('d', takes(3, NONE, "(global.get $res)")),
        // A response whose body is this end, its trailers, and the host's word on it.
        (
            'p',
            "(local.set $ends (call $new-2))
            (global.set $trailing (i32.wrap_i64 (i64.shr_u (local.get $ends) (i64.const 32))))
            (call $respond (call $fields) (i32.const 1) (global.get $end)
                (i32.wrap_i64 (local.get $ends)) (i32.const 16))
            (global.set $response (i32.load (i32.const 16)))
            (global.set $sent (i32.load (i32.const 20)))"
                .to_owned(),
        ),
        ('q', takes(2, NONE, "(global.get $trailing)")),
        ('v', takes(3, "(global.get $sent)", NONE)),
        (
            'A',
            "(call $return (i32.const 0) (global.get $response)
                (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"
                .to_owned(),
        ),
        ('P', "(drop (call $print (global.get $end)))".to_owned()),
        ('r', "(global.set $end (global.get $r))".to_owned()),
        ('w', "(global.set $end (global.get $w))".to_owned()),
        // Copies of nothing from now on.
        ('0', "(global.set $count (i32.const 0))".to_owned()),
        ('R', does(READ)),
        ('W', does(WRITE)),
        ('C', does(CANCEL_READ)),
        ('D', does(CANCEL_WRITE)),
        ('X', does(DROP_READABLE)),
        ('Y', does(DROP_WRITABLE)),
        // Lets everybody else do something.
        ('.', "(return (i32.const 1))".to_owned()),
    ];
    let steps: String = steps
        .iter()
        .map(|(letter, does)| {
            let letter = u32::from(*letter);
            format!("(if (i32.eq (local.get $step) (i32.const {letter})) (then {does} (br $on)))")
        })
        .collect();
    let (defined, given, imported) = builtins();
    let (mut wrapped, mut news) = (String::new(), String::new());
    let mut table = String::new();
    for (at, (kind, _)) in KINDS.iter().enumerate() {
        let count = if *kind == "stream" { "(global.get $count)" } else { "" };
        for (name, call) in [
            ("r", format!("(call $read-{at} (local.get 0) (i32.const 2048) {count})")),
            ("w", format!("(call $write-{at} (local.get 0) (i32.const 1024) {count})")),
            ("cr", format!("(call $cancel-read-{at} (local.get 0))")),
            ("cw", format!("(call $cancel-write-{at} (local.get 0))")),
            ("dr", format!("(call $drop-readable-{at} (local.get 0)) (i32.const 0)")),
            ("dw", format!("(call $drop-writable-{at} (local.get 0)) (i32.const 0)")),
        ] {
            wrapped += &format!("(func ${name}{at} (param i32) (result i32) {call})");
            table += &format!(" ${name}{at}");
        }
        news += &format!(" $new-{at}");
    }
    let core = format!(
        r#"(import "host" "m" (memory 1))
        {imported}
        (import "host" "print" (func $print (param i32) (result i32)))
        (import "host" "fields" (func $fields (result i32)))
        (import "host" "path" (func $path (param i32 i32)))
        (import "host" "consume" (func $consume (param i32 i32 i32)))
        (import "host" "respond" (func $respond (param i32 i32 i32 i32 i32)))
        (import "host" "return" (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))
        (type $step (func (param i32) (result i32)))
        (type $new (func (result i64)))
        {wrapped}
        (table funcref (elem{table}{news}))
        (global $at (mut i32) (i32.const 0)) (global $over (mut i32) (i32.const 0))
        (global $request (mut i32) (i32.const 0))
        (global $kind (mut i32) (i32.const 0)) (global $count (mut i32) (i32.const 1))
        (global $r (mut i32) (i32.const 0)) (global $w (mut i32) (i32.const 0))
        (global $end (mut i32) (i32.const 0))
        (global $res (mut i32) (i32.const 0)) (global $received (mut i32) (i32.const 0))
        (global $response (mut i32) (i32.const 0)) (global $trailing (mut i32) (i32.const 0))
        (global $sent (mut i32) (i32.const 0))
        (func $take (param $kind i32) (param $r i32) (param $w i32)
            (global.set $kind (local.get $kind))
            (global.set $r (local.get $r))
            (global.set $w (local.get $w))
            (global.set $end (local.get $r)))
        (func $begin (param $kind i32) (local $ends i64)
            (local.set $ends
                (call_indirect (type $new) (i32.add (i32.const 24) (local.get $kind))))
            (call $take (local.get $kind) (i32.wrap_i64 (local.get $ends))
                (i32.wrap_i64 (i64.shr_u (local.get $ends) (i64.const 32)))))
        (func $do (param $what i32)
            (drop (call_indirect (type $step) (global.get $end)
                (i32.add (i32.mul (i32.const 6) (global.get $kind)) (local.get $what)))))
        (func $next (result i32)
            (i32.load8_u (global.get $at))
            (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func $go_on (result i32) (local $step i32) (local $ends i64)
            (loop $on
                (if (i32.ge_u (global.get $at) (global.get $over)) (then (return (i32.const 0))))
                (local.set $step (call $next))
                {steps}
                unreachable)
            unreachable)
        (func (export "handle") (param i32) (result i32)
            (global.set $request (local.get 0))
            (call $path (local.get 0) (i32.const 16))
            (global.set $at (i32.load (i32.const 20)))
            (global.set $over (i32.add (global.get $at) (i32.load (i32.const 24))))
            (loop $path (br_if $path (i32.ne (call $next) (i32.const 63))))
            (call $go_on))
        (func (export "callback") (param i32 i32 i32) (result i32) (call $go_on))"#
    );
    component::asynchronous(&defined, &given, &core)
}

/// Everything there is to do with each kind, and all else that the function calls: as it is
/// defined, given and imported.
fn builtins() -> (String, String, String) {
    const LOWERED: &str = r#"(memory (core memory $m "m")) (realloc (core func $m "realloc"))"#;
    let mut defined = format!(
        r#"{PRINTS}
        (type $bytes (stream u8)) (type $byte (future u8))"#
    );
    for (name, function) in [
        ("fields", "[constructor]fields"),
        ("path", "[method]request.get-path-with-query"),
        ("consume", "[static]request.consume-body"),
        ("respond", "[static]response.new"),
    ] {
        defined +=
            &format!(r#"(core func ${name} (canon lower (func $http "{function}") {LOWERED}))"#);
    }
    let mut given = r#"(export "m" (memory $m "m"))"#.to_owned();
    for name in ["print", "fields", "path", "consume", "respond", "return"] {
        given += &format!(r#"(export "{name}" (func ${name}))"#);
    }
    let mut imported = String::new();
    for (at, (kind, copied)) in KINDS.iter().enumerate() {
        let copies = match *kind {
            "stream" => "(param i32 i32 i32) (result i32)",
            _ => "(param i32 i32) (result i32)",
        };
        for (name, options, signature) in [
            ("new", String::new(), "(result i64)"),
            ("read", format!("async {LOWERED}"), copies),
            ("write", format!("async {LOWERED}"), copies),
            ("cancel-read", String::new(), "(param i32) (result i32)"),
            ("cancel-write", String::new(), "(param i32) (result i32)"),
            ("drop-readable", String::new(), "(param i32)"),
            ("drop-writable", String::new(), "(param i32)"),
        ] {
            defined +=
                &format!("(core func ${name}-{at} (canon {kind}.{name} {copied} {options}))");
            given += &format!(r#"(export "{name}-{at}" (func ${name}-{at}))"#);
            imported +=
                &format!(r#"(import "host" "{name}-{at}" (func ${name}-{at} {signature}))"#);
        }
    }
    (defined, format!(r#"(with "host" (instance {given}))"#), imported)
}

/// The code of its problem; nothing if it had answered before it failed, or did not fail.
fn told(scene: &Scene, steps: &str) -> Option<String> {
    let address = scene.tenant.address();
    let request = address.request("POST", &format!("/guest?{steps}"));
    // Of a body that never comes whole, so that the host keeps its end.
    let request = request.header("transfer-encoding", "chunked").body("2\r\nab\r\n");
    let mut connection = Connection::open(address.to).unwrap();
    connection.send(&request.bytes("hostile")).unwrap();
    match connection.try_answer("POST") {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(answer.json()["code"].as_str().unwrap().to_owned()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => None,
        Err(error) => panic!("{steps}: {error}"),
    }
}

#[track_caller]
fn fails_alone(scene: &Scene, steps: &str) {
    let code = told(scene, steps);
    println!("{steps}: {code:?}");
    let is_its_own = match &code {
        Some(code) => ["function_trapped", "function_no_response"].contains(&&**code),
        None => steps.contains('A'),
    };
    assert!(is_its_own, "{steps}: {code:?}");
    assert_eq!(scene.host.workers(&scene.tenant), scene.worker, "{steps}: the worker lives on");
}

#[test]
fn row_07_an_asynchronous_one_that_cancels_at_the_wrong_end_fails_alone() {
    let scene = Scene::of(&obedient(), &json!({}));
    // Where it does nothing of the kind it is a function like another one.
    assert_eq!(told(&scene, "spA.wW.Y"), None);
    assert_eq!(told(&scene, "srRC"), Some("function_trapped".to_owned()));
    const THEN: [&str; 13] =
        ["", ".", "rR", "wW", "rW", "wR", "rX", "wY", "rY", "wX", "rP", "wp", "wP"];
    // In the short form one of these behind each, by turns.
    let (mut turn, each) = (0, if is_long() { THEN.len() } else { 1 });
    // Its own, then those with an end of the host's: to read from, and to write to.
    for (pair, pending) in [
        ("s", &["", "rR", "wW", "0rR", "0wW"][..]),
        ("f", &["", "rR", "wW"]),
        ("b", &["", "rR"]),
        ("bc", &["", "rR"]),
        ("spv", &["", "rR"]),
        ("bd", &["", "wW"]),
        ("sp", &["", "wW", "wWA", "A.wW"]),
        ("spq", &["", "wW", "wWA", "A.wW"]),
        ("bp", &["", "A."]),
        ("srP", &["", "wW"]),
    ] {
        for pending in pending {
            for between in ["", "."] {
                for cancelled in ["rD", "wC"] {
                    for then in THEN.iter().cycle().skip(turn % THEN.len()).take(each) {
                        let steps = format!("{pair}{pending}{between}{cancelled}{then}");
                        fails_alone(&scene, &steps);
                    }
                    turn += each;
                }
            }
        }
    }
    // What the engine says of its own mistakes names files of whoever built it.
    fails_alone(&scene, "brRD");
    let lines = scene.tenant.ask("/logs").to_string();
    assert!(lines.contains("the function failed") && !lines.contains(".rs"), "{lines}");
    scene.ends_well();
}

#[test]
fn row_07_to_cancel_without_waiting_is_refused_at_upload() {
    let host = Host::start();
    let tenant = host.tenant("hostile");
    let mut modules: Vec<_> = ["stream", "future"]
        .into_iter()
        .flat_map(|kind| ["read", "write"].map(|way| (kind, way)))
        .map(|(kind, way)| {
            let cancels = |how: &str| {
                let defined = format!(
                    "(type $mine ({kind} u8))
                    (core func $cancel (canon {kind}.cancel-{way} $mine {how}))"
                );
                component::with(&defined, "", RETURNS)
            };
            tenant.upload(&[("waits.wasm", &cancels(""))], None).expect(200);
            (format!("{kind}.cancel-{way}"), cancels("async"))
        })
        .collect();
    // Nor is there a function that waits on a stack of its own for as long as it likes.
    let stackful = r#"(core module $inner (func (export "f")))
        (core instance $i (instantiate $inner))
        (func $f async (canon lift (core func $i "f") async))"#;
    modules.push(("stackful".to_owned(), component::with(stackful, "", RETURNS)));
    for (name, module) in modules {
        let answer = tenant.upload(&[("odd.wasm", &module)], None);
        println!("{name}: {}", answer.text());
        answer.expect_problem(400, "invalid_module");
        tenant.post("/odd", "").expect_problem(404, "not_found");
    }
}
