//! Interfaces of other hosts: what imports them is served, in whichever engine, and a call that needs
//! one ends with its name and leaves nothing behind.

use hearth_engine::EngineKind;
use hearth_wire::{CompileReply, LogStream, Outcome};

use crate::harness::{
    CONCURRENT, DEMO, LATER, Release, Worker, compile, engine_of, made, module, of_each_birth,
    start,
};

fn needs(worker: &Worker, path: &str, interface: &str) {
    let answer = worker.post(path, "");
    answer.is_problem(500, "function_trapped");
    let detail =
        format!("the function needs `{interface}`, an interface that Hearth does not offer");
    assert_eq!(answer.json()["detail"], detail);
}

#[test]
fn a_call_that_needs_one_ends_with_its_name_and_no_other_does() {
    let concurrent = format!("needs{CONCURRENT}");
    let many = format!("imports_many{CONCURRENT}");
    let often = r#"{"reuse":100}"#;
    let functions = [
        ("/plain", "needs", "{}"),
        ("/reused", "needs", often),
        ("/concurrent", &*concurrent, often),
        ("/later", "needs_later", often),
        ("/many", "imports_many", "{}"),
        ("/many-concurrent", &*many, "{}"),
        ("/beside", "dirties_memory", often),
    ];
    for (guest, kind) in [
        ("needs", EngineKind::Plain),
        (&concurrent, EngineKind::Concurrent),
        ("needs_later", EngineKind::Concurrent),
        ("imports_many", EngineKind::Plain),
    ] {
        assert_eq!(engine_of(guest), kind, "{guest}");
    }
    let release = Release::new(1, &functions);
    for (worker, _zygote) in of_each_birth(&release, "dirties_memory", &start(1)) {
        let mut worker = worker.accept();
        for _ in 0..3 {
            for path in ["/plain", "/reused", "/concurrent"] {
                needs(&worker, path, DEMO);
            }
            needs(&worker, "/later", LATER);
            // What they import and do not call is nothing to them.
            worker.post("/many", "").is_problem(502, "function_no_response");
            worker.post("/many-concurrent", "").is_problem(502, "function_no_response");
        }
        assert_eq!(worker.post("/beside", "").text(), "clean");
        assert_eq!(worker.post("/beside", "").text(), "dirty");

        worker.await_report(|report| report.calls.len() == 20 && report.lines.len() == 18);
        let trapped =
            worker.reports.calls.iter().filter(|call| call.outcome == Outcome::Trapped).count();
        assert_eq!(trapped, 12);
        for (path, interface) in [("/plain", DEMO), ("/concurrent", DEMO), ("/later", LATER)] {
            let lines = worker.reports.lines.iter().filter(|line| line.function.as_str() == path);
            let said: Vec<_> = lines.map(|line| (line.stream, &*line.text)).collect();
            let line = format!(
                "the function failed: it called `get` of `{interface}`, an interface that Hearth \
                 does not offer"
            );
            assert_eq!(said, [(LogStream::Host, &*line); 3]);
        }
    }
}

#[test]
fn the_compiler_says_which_are_unavailable() {
    let unavailable = |name: &str| match compile(module(&made(name).unwrap()).path()).reply {
        CompileReply::Compiled { unavailable, imports, .. } => {
            assert!(unavailable.iter().all(|it| imports.contains(it)), "{imports:?}");
            unavailable
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(unavailable("needs"), [DEMO]);
    assert_eq!(unavailable("needs_later"), [LATER]);
    let many = unavailable("imports_many");
    assert!(many.len() == 96 && many.is_sorted(), "{many:?}");
}
