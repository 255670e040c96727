//! Each setting in its places, and what is refused there. Which values are good and which are not
//! is said beside each noun's rows.

use super::sections::{EXAMPLES, SECTIONS};
use super::settings::{Good, Row};
use super::*;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn resolve(
    args: UpArgs,
    environment: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Config, String> {
    let file = file.map(|text| (text.to_owned(), PathBuf::from("h.toml")));
    Written::of(args, &variables(environment), file)
        .and_then(Written::resolve)
        .map_err(|error| error.to_string())
}

fn nothing() -> UpArgs {
    UpArgs::default()
}

fn defaults() -> Config {
    resolve(nothing(), &[], None).unwrap()
}

fn good() -> impl Iterator<Item = Good> {
    EXAMPLES.iter().flat_map(|(good, _)| *good).copied()
}

#[test]
fn headers_without_a_proxy_are_nobodys() {
    let names_nobodys = |environment: &[(&str, &str)]| {
        resolve(UpArgs::default(), environment, None).unwrap().front.names_headers_of_nobody()
    };
    let header = ("HEARTH_TRUSTED_HEADER", "forwarded");
    assert!(names_nobodys(&[header]));
    assert!(!names_nobodys(&[]));
    assert!(!names_nobodys(&[header, ("HEARTH_TRUSTED_PROXY", "127.0.0.1")]));
}

fn args(key: &str, text: &str) -> UpArgs {
    use clap::{Args, FromArgMatches};
    let command = UpArgs::augment_args(clap::Command::new("up"));
    let matches = command.get_matches_from(["up", &format!("--{key}={text}")]);
    UpArgs::from_arg_matches(&matches).unwrap()
}

fn variable_of(key: &str) -> String {
    format!("HEARTH_{}", key.to_uppercase().replace('-', "_"))
}

/// Each of the two ways to write it in a file, and what it is called there.
fn in_file(key: &str, text: &str) -> Vec<(String, String)> {
    let row = table::of_name(key).unwrap();
    let mut ways = vec![(format!("{key} = {text:?}"), key.to_owned())];
    if !row.section.is_empty() {
        let toml = format!("[{}]\n{} = {text:?}", row.section, row.key);
        ways.push((toml, format!("{}.{}", row.section, row.key)));
    }
    ways
}

#[test]
fn nothing_written_is_the_defaults_of_the_contract() {
    let config = defaults();
    assert_eq!(
        config.to_string(),
        "data=./hearth-data isolation=auto listen=127.0.0.1:3400 \
         trusted-header=x-forwarded-for trusted-header=x-forwarded-proto \
         connections-per-address=256 handover=auto tenant-bind=127.0.0.1 tenant-ports=3411-13410 \
         rest=7days idle=1m uids=1900000000-1900065535 uploads=32 uploads-per-tenant=8 \
         upload-time=10m disk-reserve=64 log=auto log-filter=info"
    );
    assert_eq!((config.host.ready_fd, config.front.domain.clone()), (None, None));
    assert_eq!((config.admin_token(), config.notify_socket.clone()), (None, None));
    assert!(config.front.names.is_empty() && config.front.trusted_proxies.is_empty());
}

#[test]
fn an_option_goes_over_the_environment_goes_over_the_file() {
    for (key, [by_option, by_variable, by_file], [option, variable, file]) in good() {
        let name = variable_of(key);
        let environment = [(name.as_str(), by_variable)];
        for (toml, _) in in_file(key, by_file) {
            for (config, said) in [
                (resolve(args(key, by_option), &environment, Some(&toml)), option),
                (resolve(args(key, by_option), &[], Some(&toml)), option),
                (resolve(args(key, by_option), &environment, None), option),
                (resolve(nothing(), &environment, Some(&toml)), variable),
                (resolve(nothing(), &environment, None), variable),
                (resolve(nothing(), &[], Some(&toml)), file),
            ] {
                let config = format!("{} ", config.unwrap());
                assert!(config.contains(said), "{key}: {config}");
            }
        }
    }
}

#[test]
fn each_setting_alone_changes_no_other() {
    let without = |key: &str, config: &Config| {
        let mut list = config.list();
        list.retain(|(name, _)| *name != key);
        list
    };
    for (key, [text, ..], _) in good() {
        let config = resolve(args(key, text), &[], None).unwrap();
        assert_eq!(without(key, &config), without(key, &defaults()), "{key}");
    }
}

#[test]
fn every_setting_has_examples_and_a_name_of_its_own() {
    let examples: Vec<_> = good().map(|(key, ..)| key).collect();
    for (at, row) in table::rows().enumerate() {
        assert!(examples.contains(&row.name), "{row:?} has no examples");
        let others = || table::rows().take(at);
        assert!(others().all(|other| other.name != row.name), "{row:?}");
        let place = (row.section, row.key);
        assert!(others().all(|other| (other.section, other.key) != place), "{row:?}");
        assert!(!environment::OTHERS.contains(&&*row.variable()), "{row:?}");
        assert!(!row.about.ends_with('.') && !row.about.contains(". "), "{row:?}");
    }
}

#[test]
fn a_setting_is_taken_by_the_name_that_it_had() {
    let uids = |config: Result<Config, String>| config.unwrap().tenants.uids;
    let had = 5_000..=6_000;
    assert_eq!(uids(resolve(args("users", "5000-6000"), &[], None)), had);
    assert_eq!(uids(resolve(nothing(), &[("HEARTH_USERS", "5000-6000")], None)), had);
    for file in ["users = \"5000-6000\"", "[tenants]\nusers = \"5000-6000\""] {
        assert_eq!(uids(resolve(nothing(), &[], Some(file))), had, "{file}");
    }
    // One of both only, since nobody can say which is meant.
    let both = [("HEARTH_UIDS", "5000-6000"), ("HEARTH_USERS", "7000-8000")];
    let said = resolve(nothing(), &both, None).unwrap_err();
    assert!(said.contains("`HEARTH_UIDS` and `HEARTH_USERS`"), "{said}");
    let file = "uids = \"5000-6000\"\n[tenants]\nusers = \"7000-8000\"";
    let said = resolve(nothing(), &[], Some(file)).unwrap_err();
    assert!(said.contains("are two names of one setting"), "{said}");
    // Nobody is told to write it so.
    let said = resolve(nothing(), &[("HEARTH_USER", "5000-6000")], None).unwrap_err();
    assert!(!said.contains("HEARTH_USERS"), "{said}");
}

#[test]
fn a_bad_value_names_its_key_and_its_source() {
    for (key, text, said) in EXAMPLES.iter().flat_map(|(_, bad)| *bad).copied() {
        let name = variable_of(key);
        let mut refused = vec![
            (resolve(args(key, text), &[], None), format!("`{key}` (option --{key}) ")),
            (resolve(nothing(), &[(&name, text)], None), format!("`{key}` (environment {name}) ")),
        ];
        for (toml, called) in in_file(key, text) {
            refused
                .push((resolve(nothing(), &[], Some(&toml)), format!("`{called}` (in h.toml) ")));
        }
        for (result, from) in refused {
            let error = result.unwrap_err();
            assert!(error.starts_with(&from), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_in_the_file() {
    for (toml, said) in [
        ("idle = 60", "`idle` (in h.toml) must be a duration"),
        (
            "idle = true",
            "`idle` (in h.toml) must be a duration of at least 10ms, like 60s or 5m, not `boolean`",
        ),
        (
            "idle = [\"1s\", \"2s\"]",
            "`idle` (in h.toml) must be a duration of at least 10ms, like 60s or 5m, not `1s, 2s`",
        ),
        ("trusted-proxy = [1]", "`trusted-proxy` (in h.toml) must be networks"),
        (
            "[listen]",
            "`listen` (in h.toml) must be an address and a port, like 127.0.0.1:3400, not `table`",
        ),
        ("[tenants]\nidle = [1]", "`tenants.idle` (in h.toml) must be a duration"),
        ("[tenants.idle]\nleast = 1", "`tenants.idle` (in h.toml) must be a duration"),
        ("[[log]]\nformat = \"json\"", "`log` (in h.toml) must be one of text"),
        (
            "tenants = \"demo\"",
            "`tenants` (in h.toml) must be a section, written [tenants], with its settings below it, \
             not `string`",
        ),
        ("idle", "h.toml is not valid TOML"),
    ] {
        let error = resolve(nothing(), &[], Some(toml)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
    let config =
        resolve(nothing(), &[], Some("ready-fd = 3\ntrusted-proxy = [\"10.0.0.0/8\", \"::1\"]"));
    let config = config.unwrap();
    assert_eq!(config.host.ready_fd, Some(3));
    let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
    assert_eq!(config.front.trusted_proxies, networks);
}

#[test]
fn a_file_has_sections_and_one_name_for_each_setting() {
    let config = resolve(
        nothing(),
        &[],
        Some(
            "isolation = \"A\"\nidle = \"5s\"\n[log]\nfilter = \"warn\"\n[front]\nname = [\"a.example\"]\n\
             [tenants]\nbind = \"::1\"\n[uploads]\nat-once = 3",
        ),
    );
    let config = config.unwrap().to_string();
    for said in [
        "isolation=A",
        "idle=5s",
        "log-filter=warn",
        "name=a.example",
        "tenant-bind=::1",
        "uploads=3",
    ] {
        assert!(config.contains(said), "{said}: {config}");
    }
    for (key, [text, ..], _) in good() {
        let ways = in_file(key, text);
        let [(flat, _), (sectioned, called)] = &ways[..] else { continue };
        let error = resolve(nothing(), &[], Some(&format!("{flat}\n{sectioned}"))).unwrap_err();
        // Where a section is called as a setting is, TOML itself knows that key once only.
        if table::of_name(table::of_name(key).unwrap().section).is_some_and(|row| row.name == key) {
            assert!(error.contains("h.toml is not valid TOML"), "{error}");
            continue;
        }
        assert!(
            error.contains(&format!("`{key}`")) && error.contains(&format!("`{called}`")),
            "{error}"
        );
        assert!(error.ends_with(" (in h.toml) are two names of one setting; keep one of them"));
    }
}

#[test]
fn a_key_that_nobody_knows_is_named_with_the_one_that_was_meant() {
    for (name, said) in [
        ("HEARTH_IDEL", "unknown setting `HEARTH_IDEL`; did you mean `HEARTH_IDLE`?"),
        (
            "HEARTH_TENANT_PORT",
            "unknown setting `HEARTH_TENANT_PORT`; did you mean `HEARTH_TENANT_PORTS`?",
        ),
        ("HEARTH_TOKN", "unknown setting `HEARTH_TOKN`; did you mean `HEARTH_TOKEN`?"),
        (
            "HEARTH_PORT",
            "unknown setting `HEARTH_PORT`; known settings: HEARTH_DATA, HEARTH_ADMIN_TOKEN_FILE, ",
        ),
    ] {
        let error = resolve(nothing(), &[(name, "60s")], None).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
    for (toml, said) in [
        ("idel = 1", "unknown setting `idel` in h.toml; did you mean `idle`?"),
        ("tenant_bind = 1", "unknown setting `tenant_bind` in h.toml; did you mean `tenant-bind`?"),
        ("DATA = 1", "unknown setting `DATA` in h.toml; did you mean `data`?"),
        (
            "admin-token = 1",
            "unknown setting `admin-token` in h.toml; did you mean `admin-token-file`?",
        ),
        ("filter = 1", "unknown setting `filter` in h.toml; did you mean `log.filter`?"),
        ("config = 1", "unknown setting `config` in h.toml; known settings: data, "),
        ("[tenant]", "unknown section `tenant` in h.toml; did you mean `tenants`?"),
        (
            "[http]",
            "unknown section `http` in h.toml; known sections: front, tenants, uploads, log",
        ),
        (
            "[tenants]\nbnid = 1",
            "unknown setting `tenants.bnid` in h.toml; did you mean `tenants.bind`?",
        ),
        (
            "[tenants]\ntenant-bind = 1",
            "unknown setting `tenants.tenant-bind` in h.toml; did you mean `tenants.bind`?",
        ),
        (
            "[front]\nidle = 1",
            "unknown setting `front.idle` in h.toml; did you mean `tenants.idle`?",
        ),
        ("[log]\nx = 1", "unknown setting `log.x` in h.toml; known settings: format, filter"),
    ] {
        let error = resolve(nothing(), &[], Some(toml)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn the_environment_of_the_client_and_of_kubernetes_is_left_alone() {
    let environment = [
        ("HEARTH_URL", "x"),
        ("HEARTH_TOKEN", "x"),
        ("HEARTH_TENANT", "x"),
        ("HEARTH_CA_FILE", "x"),
        ("HEARTH_CONFIG", "x"),
        ("HEARTH_WEB_SERVICE_HOST", "10.0.0.1"),
        ("HEARTH_WEB_PORT", "tcp://10.0.0.1:3400"),
        ("HEARTHSTONE", "x"),
    ];
    assert_eq!(resolve(nothing(), &environment, None), Ok(defaults()));
}

#[test]
fn where_the_admin_token_comes_from() {
    let admin_token = |args, environment: &[_], file| {
        resolve(args, environment, file).map(|config| config.admin_token())
    };
    let token = ("HEARTH_ADMIN_TOKEN", "secret");
    let file = Some("admin-token-file = \"/file\"");
    let option = || args("admin-token-file", "/option");
    let from = |path: &str| Ok(Some(AdminToken::File(path.into())));
    assert_eq!(admin_token(option(), &[token], file), from("/option"));
    assert_eq!(admin_token(nothing(), &[token], file), Ok(Some(AdminToken::Environment)));
    assert_eq!(admin_token(nothing(), &[], file), from("/file"));
    let both = [token, ("HEARTH_ADMIN_TOKEN_FILE", "/environment")];
    assert!(admin_token(nothing(), &both, None).is_err());
}

#[test]
fn what_can_be_an_admin_token() {
    let good = "0123456789abcdef";
    assert_eq!(admin_token(&format!(" {good}\n")).as_deref(), Some(good));
    let long = "x".repeat(513);
    for bad in ["", "short", "0123456789 abcdef", "0123456789\nabcdef", "0123456789abcdéf", &long]
    {
        assert_eq!(admin_token(bad), None, "{bad:?}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let config =
        resolve(nothing(), &[("HEARTH_ADMIN_TOKEN", "hunter2-hunter2-hunter2")], None).unwrap();
    assert!(!format!("{config} {config:?}").contains("hunter2"));
    let secrets = Secrets { admin_token: Some("hunter2".to_owned()) };
    assert_eq!(format!("{secrets:?}"), "Secrets(…)");
}

#[test]
fn the_documentation_lists_them() {
    let documented = include_str!("../../../docs/settings.md");
    for (name, about, rows) in SECTIONS {
        let (heading, place) = match *name {
            "" => ("## The host".to_owned(), "at the top of the file".to_owned()),
            name => (format!("## `[{name}]`"), format!("in `[{name}]`")),
        };
        let mut section = format!("{heading}\n\n{about}\n\n");
        section += &format!("| setting | {place} | default | value | what it says |\n");
        section += "|---|---|---|---|---|\n";
        for Row { name, key, about, default, expected, .. } in *rows {
            let default = default.map_or_else(String::new, |default| format!("`{default}`"));
            let expected = expected();
            section += &format!("| `{name}` | `{key}` | {default} | {expected} | {about} |\n");
        }
        assert!(documented.contains(&section), "docs/settings.md should have\n{section}");
    }
}
