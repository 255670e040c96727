//! What a worker's functions are told by name: the same through every interface that asks, whole
//! before it is ready, and secret where it is.

use hearth_engine::EngineKind;
use hearth_wire::limits::{SETTING_VALUE_MAX_BYTES, SETTINGS_MAX};
use hearth_wire::{FromWorker, LogStream, Setting, SettingKind, Start, ToWorker};
use serde_json::{Value, json};

use crate::harness::{CONCURRENT, Release, Worker, Zygote, engine_of, exec, start};

const SECRET: &str = "hunter2-hunter2";

fn setting(name: &str, value: &str, kind: SettingKind) -> Setting {
    Setting { name: name.parse().unwrap(), value: value.to_owned().into(), kind }
}

fn some() -> Vec<Setting> {
    vec![
        setting("region", "eu", SettingKind::Config),
        setting("API-Key", SECRET, SettingKind::Secret),
        setting("empty", "", SettingKind::Config),
    ]
}

fn told(parts: &[Vec<Setting>]) -> Start {
    Start { settings: parts.len() as u32, ..start(1) }
}

/// A worker that serves with these, started by itself.
fn serving(release: &Release, settings: Vec<Setting>) -> Worker {
    let parts = Setting::parts(settings);
    exec(release, told(&parts)).told(&parts).accept()
}

const TEXTS: [&str; 4] = ["runtime", "draft", "draft-2024-09-27", "rc.1"];

fn all_say(value: &Value, variable: &Value) -> Value {
    let mut said: serde_json::Map<String, Value> =
        TEXTS.iter().map(|text| ((*text).to_owned(), value.clone())).collect();
    said.insert("variables-2".to_owned(), variable.clone());
    said.into()
}

#[test]
fn every_text_tells_the_same_in_either_engine() {
    let concurrent = format!("reads_settings{CONCURRENT}");
    assert_eq!(engine_of("reads_settings"), EngineKind::Plain);
    assert_eq!(engine_of(&concurrent), EngineKind::Concurrent);
    assert_eq!(engine_of("wasip3_reads_settings"), EngineKind::Concurrent);
    let release = Release::new(
        1,
        &[
            ("/plain", "reads_settings", "{}"),
            ("/concurrent", &concurrent, "{}"),
            ("/spin", "spin_variables", r#"{"methods":["POST"]}"#),
            ("/async", "wasip3_reads_settings", "{}"),
        ],
    );
    let worker = serving(&release, some());
    for (name, value) in [("region", "eu"), ("API-Key", SECRET), ("empty", "")] {
        for path in ["/plain", "/concurrent"] {
            let answer = worker.post(&format!("{path}?name={name}"), "");
            assert_eq!(answer.json(), all_say(&json!(value), &json!(value)), "{path} {name}");
        }
        for path in ["/spin", "/async"] {
            let answer = worker.post(&format!("{path}?name={name}"), "");
            assert_eq!((answer.status, answer.text()), (200, value), "{path} {name}");
        }
    }
    for path in ["/plain", "/concurrent"] {
        let undefined = json!({ "error": r#"Error::Undefined("api-key")"# });
        let answer = worker.post(&format!("{path}?name=api-key"), "");
        assert_eq!(answer.json(), all_say(&Value::Null, &undefined), "{path}");
        let invalid = json!({ "error": r#"Error::InvalidName("no:name")"# });
        let answer = worker.post(&format!("{path}?name=no:name"), "");
        assert_eq!(answer.json(), all_say(&Value::Null, &invalid), "{path}");
        let all = json!([["API-Key", SECRET], ["empty", ""], ["region", "eu"]]);
        let answer = worker.post(&format!("{path}?all=1"), "").json();
        for text in TEXTS {
            assert_eq!(answer[text], all, "{path} {text}");
        }
    }
    let answer = worker.post("/spin?name=api-key", "");
    assert_eq!((answer.status, answer.text()), (404, "no api-key"));
    let answer = worker.post("/async?name=api-key", "");
    assert!(answer.text().contains("Undefined"), "{answer:?}");
}

#[test]
fn without_any_there_is_none() {
    let release = Release::new(1, &[("/one", "reads_settings", "{}")]);
    let worker = exec(&release, start(1)).accept();
    let answer = worker.post("/one?all=1", "").json();
    for text in TEXTS {
        assert_eq!(answer[text], json!([]));
    }
}

/// As many, and as large, as any tenant may have, to a worker of each birth.
#[test]
fn the_most_that_there_may_be_comes_whole() {
    let release = Release::new(1, &[("/one", "reads_settings", "{}")]);
    let large = "x".repeat(SETTING_VALUE_MAX_BYTES);
    let largest: Vec<_> =
        (0..15).map(|n| setting(&format!("n{n}"), &large, SettingKind::Secret)).collect();
    let most: Vec<_> = (0..SETTINGS_MAX)
        .map(|n| setting(&format!("{n:0128}"), &"y".repeat(800), SettingKind::Config))
        .collect();
    for settings in [largest, most] {
        let parts = Setting::parts(settings.clone());
        assert!(parts.len() > 3);
        let mut zygote = Zygote::with_spares(1, "reads_settings");
        zygote.await_spares(1);
        let given = zygote.fork(&release, told(&parts)).told(&parts);
        let forked = zygote.fork(&release, told(&parts)).told(&parts);
        let alone = exec(&release, told(&parts)).told(&parts);
        for worker in [given, forked, alone] {
            let all = worker.accept().post("/one?all=1", "").json();
            let all = all["rc.1"].as_array().unwrap();
            assert_eq!(all.len(), settings.len());
            let mut expected: Vec<_> =
                settings.iter().map(|it| json!([it.name.as_str(), it.value.as_str()])).collect();
            expected.sort_by_key(|pair| pair[0].to_string());
            assert_eq!(*all, expected);
        }
    }
}

#[test]
fn a_worker_is_not_ready_with_half_of_them() {
    let release = Release::new(1, &[("/one", "reads_settings", "{}")]);
    let parts = [vec![some().remove(0)], some().split_off(1)];
    let mut worker = exec(&release, told(&parts));
    worker.say(&ToWorker::Settings(parts[0].clone()));
    // What comes in the place of the second part ends it, and it never was ready.
    worker.say(&ToWorker::Accept);
    assert_eq!(worker.hear_or_end(), None);
    assert_ne!(worker.exit_code(), Some(0));

    // One part more than it was told of ends it as well.
    let mut worker = exec(&release, told(&parts[..1])).told(&parts[..1]);
    assert!(matches!(worker.hear(), FromWorker::Ready { .. }));
    worker.say(&ToWorker::Settings(parts[1].clone()));
    while worker.hear_or_end().is_some() {}
    assert_ne!(worker.exit_code(), Some(0));
}

#[test]
fn no_line_of_a_call_has_a_secret() {
    let release = Release::new(1, &[("/one", "reads_settings", "{}")]);
    let mut settings = some();
    settings.push(setting("short", "1234567", SettingKind::Secret));
    settings.push(setting("public", "not-a-secret", SettingKind::Config));
    let mut worker = serving(&release, settings);
    for name in ["API-Key", "short", "public"] {
        assert_eq!(worker.post(&format!("/one?name={name}"), "").status, 200);
    }
    worker.await_report(|report| report.lines.len() == 6);
    let lines: Vec<_> =
        worker.reports.lines.iter().map(|line| (line.stream, line.text.as_str())).collect();
    let (out, err) = (LogStream::Stdout, LogStream::Stderr);
    assert_eq!(
        lines,
        [
            (out, "found [secret]"),
            (err, "[secret] was found"),
            // Too short to be told from anything else.
            (out, "found 1234567"),
            (err, "1234567 was found"),
            (out, "found not-a-secret"),
            (err, "not-a-secret was found"),
        ]
    );
}
