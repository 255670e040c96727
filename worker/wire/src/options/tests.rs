//! What each option takes, and what layers, changes and limits make of it.

use std::collections::BTreeMap;

use hearth_options::OPTIONS;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::*;
use crate::limits::LimitsPatch;

#[test]
fn defaults_are_those_of_the_contract() {
    assert_eq!(
        OptionsPatch::default().resolve(),
        Options {
            methods: vec!["POST".into()],
            path: PathMatch::Exact,
            strip_prefix: false,
            auth: Auth::Public,
            cors: Cors::default(),
            schema: Schemas::default(),
            timeout_ms: 30_000,
            memory_mb: 64,
            max_body: 10 << 20,
            reuse: 1,
            stores: Allowed::Any,
            relaxed_stores: Allowed::NONE,
            databases: Allowed::Any,
            description: String::new(),
        }
    );
}

#[test]
fn an_upload_speaks_over_the_module() {
    let module = OptionsPatch::parse(r#"{"methods":["GET"],"auth":"invoke"}"#).unwrap();
    let upload = OptionsPatch::parse(r#"{"auth":"public","timeout_ms":5}"#).unwrap();
    let both = upload.over(module).resolve();
    assert_eq!((both.methods, both.auth, both.timeout_ms), (vec!["GET".into()], Auth::Public, 5));
}

#[test]
fn refusals_name_the_key() {
    for (json, said) in [
        ("{", "the options cannot be read: "),
        (
            r#"{"auth":"owner","auth":"public"}"#,
            "the options cannot be read: the key \"auth\" stands twice in one object",
        ),
        (
            r#"{"schema":{"body":{"properties":{"a":{},"a":true}}}}"#,
            "the options cannot be read: the key \"a\" stands twice in one object",
        ),
        ("[]", "options must be a JSON object"),
        (r#"{"metods":[]}"#, "unknown option `metods`; did you mean `methods`?"),
        (r#"{"nix":[]}"#, "unknown option `nix`; known options: methods, path, "),
        (r#"{"schema":[]}"#, "the option `schema` must be an object"),
        (r#"{"schema":{"boddy":{}}}"#, "the option `schema` must be an object"),
        (r#"{"schema":{"body":1}}"#, "the option `schema` must be an object"),
        (r#"{"schema":{"response":{"20":{}}}}"#, "the option `schema` must be an object"),
        (r#"{"schedule":"* * * * *"}"#, "the option `schedule` is not supported"),
        (r#"{"cors":"app.example"}"#, "the option `cors` must be a list of origins"),
        (r#"{"cors":["https://app.example/"]}"#, "the option `cors` must be a list"),
        (r#"{"reuse":10001}"#, "the option `reuse` must be a whole number from 1 to 10000"),
        (r#"{"websocket":true}"#, "the option `websocket` is not supported"),
        (r#"{"methods":[]}"#, "the option `methods` must be a list"),
        (r#"{"methods":["TRACE"]}"#, "the option `methods` must be a list"),
        (r#"{"methods":"GET"}"#, "the option `methods` must be a list"),
        (r#"{"path":"regex"}"#, "the option `path` must be one of exact, prefix, root"),
        (r#"{"path":"Root"}"#, "the option `path` must be one of exact"),
        (r#"{"strip_prefix":"yes"}"#, "the option `strip_prefix` must be true or false"),
        (r#"{"auth":"admin"}"#, "the option `auth` must be one of"),
        (r#"{"timeout_ms":0}"#, "the option `timeout_ms` must be a whole number from 1 to 300000"),
        (r#"{"timeout_ms":1.5}"#, "the option `timeout_ms` must be a whole number"),
        (r#"{"memory_mb":257}"#, "the option `memory_mb` must be a whole number from 1 to 256"),
        (r#"{"description":1}"#, "the option `description` must be a text"),
    ] {
        let error = OptionsPatch::parse(json).unwrap_err().to_string();
        assert!(error.starts_with(said), "{json}: {error}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let patch = OptionsPatch::parse(
        r#"{"path":"root","strip_prefix":true,"auth":"owner","max_body":1,"cors":["https://a.example"],"reuse":7,
            "schema":{"body":{"type":"object"},"response":{"200":true,"4xx":{"type":"null"}}}}"#,
    )
    .unwrap();
    let json = serde_json::to_string(&patch).unwrap();
    assert_eq!(OptionsPatch::parse(&json), Ok(patch));
}

#[test]
fn each_schema_is_laid_over_by_itself() {
    let module = r#"{"schema":{"body":{"a":1},"response":{"200":true,"500":true}}}"#;
    let upload = r#"{"schema":{"querystring":true,"response":{"200":false}}}"#;
    let both = OptionsPatch::parse(upload).unwrap().over(OptionsPatch::parse(module).unwrap());
    assert_eq!(
        serde_json::to_string(&both).unwrap(),
        r#"{"schema":{"body":{"a":1},"querystring":true,"response":{"200":false,"500":true}}}"#
    );
}

#[test]
fn a_change_takes_away_what_is_null() {
    let change = |options: &str, changes: &str| {
        let changes = serde_json::from_str(changes).unwrap();
        let changed = OptionsPatch::parse(options).unwrap().changed(changes);
        changed.map(|options| serde_json::to_string(&options).unwrap())
    };
    for (options, changes, result) in [
        (r#"{"auth":"owner"}"#, r#"{"reuse":2}"#, r#"{"auth":"owner","reuse":2}"#),
        (r#"{"auth":"owner","reuse":2}"#, r#"{"auth":null}"#, r#"{"reuse":2}"#),
        (
            r#"{"schema":{"body":{"a":1},"response":{"200":true,"500":true}}}"#,
            r#"{"schema":{"body":{"b":null},"response":{"200":null}}}"#,
            r#"{"schema":{"body":{"b":null},"response":{"500":true}}}"#,
        ),
        (r#"{"schema":{"body":{"a":1}}}"#, r#"{"schema":{"body":null}}"#, "{}"),
        (r#"{"schema":{"body":{"a":1}}}"#, r#"{"schema":null}"#, "{}"),
    ] {
        assert_eq!(change(options, changes).as_deref(), Ok(result), "{options} {changes}");
    }
    for wrong in [
        r#"{"nix":1}"#,
        r#"{"nix":null}"#,
        r#"{"batch":null}"#,
        r#"{"schema":{"boddy":null}}"#,
        r#"{"schema":{"response":{"20":null}}}"#,
    ] {
        assert!(change("{}", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_tenants_limits_bound_what_is_asked_for_and_what_was() {
    let limits = Limits { memory_mb: 32, ..Limits::default() };
    let asks = |json: &str| OptionsPatch::parse(json).unwrap().check(&limits);
    assert_eq!(asks(r#"{"memory_mb":32}"#), Ok(()));
    assert_eq!(
        asks(r#"{"memory_mb":33}"#).unwrap_err().to_string(),
        "the option `memory_mb` asks for 33, and this tenant's limit is 32"
    );
    let checked =
        |bytes: u64| asks(&format!(r#"{{"max_body":{bytes},"schema":{{"body":true}}}}"#)).is_ok();
    assert!(checked(limits::CHECKED_BODY_MAX_BYTES));
    assert!(!checked(limits::CHECKED_BODY_MAX_BYTES + 1));
    let options = OptionsPatch::default().resolve().within(&limits);
    assert_eq!((options.memory_mb, options.timeout_ms), (32, 30_000));
}

/// Something that an option of this kind may be, as it is read back.
fn valid(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Word(words) => select(words).prop_map(Value::from).boxed(),
        Kind::Words(words) => subsequence(words, 1..=words.len())
            .prop_map(|mut some| {
                some.sort_unstable();
                json!(some)
            })
            .boxed(),
        Kind::Whole { min, max } => (min..=max).prop_map(Value::from).boxed(),
        Kind::Truth => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Text => prop::collection::vec(any::<char>(), 0..8)
            .prop_map(|text| Value::from(text.into_iter().collect::<String>()))
            .boxed(),
        Kind::Origins => {
            let lists: [&[&str]; 4] =
                [&["*"], &[], &["https://a.example"], &["https://a.example", "http://b"]];
            select(lists.to_vec()).prop_map(|origins| json!(origins)).boxed()
        }
        Kind::Names => {
            let lists: [&[&str]; 4] = [&["*"], &[], &["carts"], &["Carts", "a.b-c_9"]];
            select(lists.to_vec()).prop_map(|names| json!(names)).boxed()
        }
        Kind::Schemas => select(&["object", "array", "null"][..])
            .prop_map(|of| json!({"body": {"type": of}}))
            .boxed(),
    }
}

fn written(options: impl Serialize) -> BTreeMap<String, Value> {
    serde_json::from_value(serde_json::to_value(options).unwrap()).unwrap()
}

fn alone(row: &Row, value: &Option<Value>) -> OptionsPatch {
    let object = value.iter().map(|value| (row.name.to_owned(), value.clone())).collect();
    OptionsPatch::from_object(object).unwrap()
}

/// Tries every option with a value in each of the three layers, or none, and another one for all
/// the others.
fn with_each_alone(
    check: impl Fn(&Row, [Option<Value>; 3], OptionsPatch) -> Result<(), TestCaseError>,
) {
    for row in OPTIONS {
        let layer = || prop::option::of(valid(row.kind));
        let others = OPTIONS.iter().filter(|other| other.name != row.name);
        let others: Vec<_> = others.map(|other| (Just(other.name), valid(other.kind))).collect();
        let cases = ([layer(), layer(), layer()], others);
        TestRunner::new(ProptestConfig { cases: 64, ..ProptestConfig::default() })
            .run(&cases, |(layers, others)| {
                let others = others.into_iter().map(|(name, value)| (name.to_owned(), value));
                let others = OptionsPatch::from_object(others.collect()).unwrap();
                check(row, layers, others)
            })
            .unwrap_or_else(|error| panic!("{}: {error}", row.name));
    }
}

#[test]
fn each_option_alone_is_laid_over_rightly() {
    with_each_alone(|row, layers, others| {
        let [declared, uploaded, set] = &layers;
        let strongest = set.as_ref().or(uploaded.as_ref()).or(declared.as_ref());
        let [declared, uploaded, set] = [declared, uploaded, set].map(|layer| alone(row, layer));
        let all = set.clone().over(uploaded.clone()).over(declared.clone());
        prop_assert_eq!(&all, &set.over(uploaded.over(declared)));
        let said: BTreeMap<_, _> =
            strongest.map(|value| (row.name.to_owned(), value.clone())).into_iter().collect();
        prop_assert_eq!(written(&all), said.clone());
        let mut expected = written(OptionsPatch::default().resolve());
        expected.extend(said.clone());
        prop_assert_eq!(written(all.clone().resolve()), expected);
        // Neither does it touch the others, nor they it.
        let mut expected = written(&others);
        expected.extend(said);
        prop_assert_eq!(written(all.clone().over(others.clone())), expected.clone());
        prop_assert_eq!(written(others.over(all)), expected);
        Ok(())
    });
}

#[test]
fn each_option_alone_is_changed_and_taken_away() {
    with_each_alone(|row, [before, after, _], others| {
        let options = alone(row, &before).over(others.clone());
        let change = json!({ row.name: after });
        let Value::Object(change) = change else { unreachable!() };
        let mut expected = written(others);
        expected.extend(after.map(|value| (row.name.to_owned(), value)));
        prop_assert_eq!(written(options.changed(change).unwrap()), expected);
        Ok(())
    });
}

#[test]
fn every_word_of_the_table_is_one_of_its_type() {
    for row in OPTIONS {
        let values: Vec<Value> = match row.kind {
            Kind::Word(words) => words.iter().map(|word| json!(word)).collect(),
            Kind::Words(words) => words.iter().map(|word| json!([word])).collect(),
            Kind::Whole { min, max } => vec![json!(min), json!(max)],
            Kind::Truth | Kind::Text | Kind::Origins | Kind::Names | Kind::Schemas => continue,
        };
        for value in values {
            let resolved = written(alone(row, &Some(value.clone())).resolve());
            assert_eq!(resolved[row.name], value, "{row:?}");
        }
    }
}

#[test]
fn a_limit_of_an_option_s_name_bounds_it() {
    let limited = OPTIONS
        .iter()
        .filter(|row| matches!(row.kind, Kind::Whole { .. }))
        .filter_map(|row| Some((row, Limits::TABLE.iter().find(|limit| limit.name == row.name)?)));
    for (row, limit) in limited {
        assert_eq!(row.kind, Kind::Whole { min: limit.min, max: limit.max }, "{row:?}");
        let mut lowered = LimitsPatch::default();
        lowered.change([(row.name.to_owned(), Some(limit.min))]).unwrap();
        let lowered = lowered.resolve();
        let options = alone(row, &Some(json!(limit.min + 1)));
        assert_eq!(options.check(&Limits::default()), Ok(()));
        assert_eq!(
            options.check(&lowered),
            Err(OptionsError::AboveLimit { key: row.name, asked: limit.min + 1, limit: limit.min })
        );
        let within = written(options.resolve().within(&lowered));
        assert_eq!(within[row.name], json!(limit.min));
    }
}

#[test]
fn the_documentation_lists_them() {
    let documented = include_str!("../../../../docs/options.md");
    let defaults = written(OptionsPatch::default().resolve());
    let mut table = "| option | default | value | what it says |\n|---|---|---|---|\n".to_owned();
    for Row { name, about, kind } in OPTIONS {
        let (default, value) = (&defaults[*name], kind.expected());
        table += &format!("| `{name}` | `{default}` | {value} | {about} |\n");
    }
    assert!(documented.contains(&table), "docs/options.md should have\n{table}");
    let listed = OPTIONS.iter().map(|row| format!("`{}`", row.name)).collect::<Vec<_>>().join(", ");
    let readme = include_str!("../../../../README.md");
    assert!(readme.contains(&listed), "README.md should have {listed}");
}
