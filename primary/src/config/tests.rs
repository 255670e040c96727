//! Each setting in its three places, and what is refused there.

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

fn defaults() -> Config {
    Config {
        data: "./hearth-data".into(),
        listen: "127.0.0.1:3400".parse().unwrap(),
        tenant_bind: "127.0.0.1".parse().unwrap(),
        tenant_ports: 3411..=13410,
        rest: Duration::from_secs(7 * 86_400),
        domain: None,
        admin_token: None,
        names: vec![],
        trusted_proxies: vec![],
        trusted_headers: vec![FORWARDED_FOR, HeaderName::from_static("x-forwarded-proto")],
        connections_per_address: 256,
        idle: Duration::from_secs(60),
        isolation: Level::D,
        users: USERS_DEFAULT,
        handover: Handover::Auto,
        intake: Intake {
            places: Places { most: 32, most_of_one: 8 },
            time: Duration::from_secs(600),
        },
        disk_reserve_mb: 64,
        ready_fd: None,
        log_format: LogFormat::Auto,
        log_filter: "info".into(),
        notify_socket: None,
        #[cfg(debug_assertions)]
        fail_points: None,
    }
}

#[test]
fn headers_without_a_proxy_are_nobodys() {
    let names_nobodys = |environment: &[(&str, &str)]| {
        resolve(UpArgs::default(), environment, None).unwrap().names_headers_of_nobody()
    };
    let header = ("HEARTH_TRUSTED_HEADER", "forwarded");
    assert!(names_nobodys(&[header]));
    assert!(!names_nobodys(&[]));
    assert!(!names_nobodys(&[header, ("HEARTH_TRUSTED_PROXY", "127.0.0.1")]));
}

/// Each key with three values that are good, and what the configuration says of each.
const KEYS: [(&str, [&str; 3], [&str; 3]); 22] = [
    ("data", ["/a", "/b", "c"], ["data=/a ", "data=/b ", "data=c "]),
    (
        "listen",
        ["0.0.0.0:1", "[::1]:2", "127.0.0.1:0"],
        ["listen=0.0.0.0:1 ", "listen=[::1]:2 ", "listen=127.0.0.1:0 "],
    ),
    (
        "tenant-bind",
        ["0.0.0.0", "::1", "10.0.0.1"],
        ["tenant-bind=0.0.0.0 ", "tenant-bind=::1 ", "tenant-bind=10.0.0.1 "],
    ),
    (
        "tenant-ports",
        ["1-2", "5-5", "1024 - 65535"],
        ["tenant-ports=1-2 ", "tenant-ports=5-5 ", "tenant-ports=1024-65535 "],
    ),
    ("rest", ["0s", "12h", "30days"], [" rest=0s ", " rest=12h ", " rest=30days "]),
    (
        "name",
        ["a.example", "B,c.", "hearth"],
        [" name=a.example ", " name=b name=c ", " name=hearth "],
    ),
    (
        "trusted-header",
        ["forwarded", "X-Forwarded-For, x-real-ip", "x-forwarded-ours"],
        [
            " trusted-header=forwarded ",
            " trusted-header=x-forwarded-for trusted-header=x-real-ip ",
            " trusted-header=x-forwarded-ours ",
        ],
    ),
    (
        "domain",
        ["a.example", "B.example", "c"],
        [" domain=a.example ", " domain=b.example ", " domain=c "],
    ),
    (
        "admin-token-file",
        ["/a", "/b", "/c"],
        [" admin-token=/a ", " admin-token=/b ", " admin-token=/c "],
    ),
    (
        "trusted-proxy",
        ["10.0.0.0/8", "192.0.2.1", "::1,fe80::/10"],
        [
            " trusted-proxy=10.0.0.0/8 ",
            " trusted-proxy=192.0.2.1/32 ",
            " trusted-proxy=::1/128 trusted-proxy=fe80::/10 ",
        ],
    ),
    (
        "connections-per-address",
        ["1", "256", "4294967295"],
        [
            " connections-per-address=1 ",
            " connections-per-address=256 ",
            " connections-per-address=4294967295 ",
        ],
    ),
    ("idle", ["10ms", "5m", "1h 5s"], [" idle=10ms ", " idle=5m ", " idle=1h 5s "]),
    ("isolation", ["A", "auto", "C"], [" isolation=A ", " isolation=auto ", " isolation=C "]),
    (
        "users",
        ["1000-2000", "70000-70001", "5000-4294967294"],
        [" users=1000-2000 ", " users=70000-70001 ", " users=5000-4294967294 "],
    ),
    (
        "handover",
        ["never", "auto", "never"],
        [" handover=never ", " handover=auto ", " handover=never "],
    ),
    ("uploads", ["1", "64", "1000"], [" uploads=1 ", " uploads=64 ", " uploads=1000 "]),
    (
        "uploads-per-tenant",
        ["1", "2", "1000"],
        [" uploads-per-tenant=1 ", " uploads-per-tenant=2 ", " uploads-per-tenant=1000 "],
    ),
    (
        "upload-time",
        ["1s", "5m", "1h"],
        [" upload-time=1s ", " upload-time=5m ", " upload-time=1h "],
    ),
    (
        "disk-reserve",
        ["0", "1", "1048576"],
        [" disk-reserve=0 ", " disk-reserve=1 ", " disk-reserve=1048576 "],
    ),
    ("ready-fd", ["1", "3", "10"], [" ready-fd=1 ", " ready-fd=3 ", " ready-fd=10 "]),
    ("log", ["text", "json", "auto"], [" log=text ", " log=json ", " log=auto "]),
    (
        "log-filter",
        ["warn", "info,hearth=debug", "off"],
        [" log-filter=warn", " log-filter=info,hearth=debug", " log-filter=off"],
    ),
];

fn args(key: &str, text: &str) -> UpArgs {
    use clap::{Args, FromArgMatches};
    let command = UpArgs::augment_args(clap::Command::new("up"));
    let matches = command.get_matches_from(["up", &format!("--{key}={text}")]);
    UpArgs::from_arg_matches(&matches).unwrap()
}

fn variable_of(key: &str) -> String {
    format!("HEARTH_{}", key.to_uppercase().replace('-', "_"))
}

#[test]
fn nothing_written_is_the_defaults_of_the_contract() {
    assert_eq!(resolve(UpArgs::default(), &[], None), Ok(defaults()));
}

#[test]
fn an_option_goes_over_the_environment_goes_over_the_file() {
    for (key, [by_option, by_variable, by_file], [option, variable, file]) in KEYS {
        let name = variable_of(key);
        let toml = format!("{key} = {by_file:?}");
        let environment = [(name.as_str(), by_variable)];
        for (config, said) in [
            (resolve(args(key, by_option), &environment, Some(&toml)), option),
            (resolve(args(key, by_option), &[], Some(&toml)), option),
            (resolve(args(key, by_option), &environment, None), option),
            (resolve(UpArgs::default(), &environment, Some(&toml)), variable),
            (resolve(UpArgs::default(), &environment, None), variable),
            (resolve(UpArgs::default(), &[], Some(&toml)), file),
        ] {
            let config = format!("{} ", config.unwrap());
            assert!(config.contains(said), "{key}: {config}");
        }
    }
}

#[test]
fn every_key_can_be_written_in_three_ways() {
    let known: Vec<_> = KEYS.iter().map(|(key, ..)| *key).collect();
    for key in Key::ALL.map(Key::name) {
        assert!(known.contains(&key), "{key} has no row in KEYS");
    }
}

#[test]
fn a_bad_value_names_its_key_and_its_source() {
    for (key, text, said) in [
        ("data", "", "must be a directory, not ``"),
        ("listen", "3400", "must be an address and a port, like 127.0.0.1:3400, not `3400`"),
        ("listen", "localhost:3400", "must be an address and a port"),
        ("tenant-bind", "127.0.0.1:80", "must be an IP address"),
        ("tenant-ports", "5-4", "must be a range of ports, like 3411-13410, not `5-4`"),
        ("tenant-ports", "0-4", "must be a range of ports"),
        ("tenant-ports", "1-65536", "must be a range of ports"),
        ("tenant-ports", "3411", "must be a range of ports"),
        ("rest", "7", "must be a duration, like 7d or 12h, not `7`"),
        ("rest", "101years", "must be a duration"),
        ("name", "a.example:80", "must be names of this host without a port"),
        ("name", "a.localhost", "and none below localhost, not `a.localhost`"),
        ("name", "*.example", "must be names"),
        ("name", "", "must be names"),
        ("trusted-header", "host", "must be forwarded, x-real-ip, or headers"),
        ("trusted-header", "x-forwarded-for,", "must be forwarded"),
        ("domain", "-a.example", "must be a domain"),
        ("domain", "a..example", "must be a domain"),
        ("domain", "a.example:80", "must be a domain"),
        ("admin-token-file", "", "must be a file"),
        ("trusted-proxy", "10.0.0.0/33", "must be networks"),
        ("trusted-proxy", "::1,all", "like 10.0.0.0/8 or 192.0.2.1, not `all`"),
        ("connections-per-address", "0", "must be a whole number, from 1, not `0`"),
        ("connections-per-address", "many", "must be a whole number, from 1"),
        ("idle", "60", "must be a duration of at least 10ms, like 60s or 5m, not `60`"),
        ("idle", "9ms", "must be a duration of at least 10ms"),
        ("isolation", "D", "must be one of auto, A, B, C, not `D`"),
        ("isolation", "b", "must be one of auto, A, B, C, not `b`"),
        ("users", "70000", "must be two user ids from 1000 on"),
        ("users", "0-70000", "must be two user ids from 1000 on"),
        ("users", "70000-70000", "must be two user ids from 1000 on"),
        ("handover", "always", "must be one of auto, never, not `always`"),
        ("uploads", "0", "must be a number from 1 to 1000"),
        ("uploads-per-tenant", "1001", "must be a number from 1 to 1000"),
        ("upload-time", "999ms", "must be a duration of at least 1s, like 10m, not `999ms`"),
        ("disk-reserve", "1.5", "must be MiB, from 0 to 1048576"),
        ("ready-fd", "0", "must be the number of an open descriptor, from 1"),
        ("log", "xml", "must be one of text, json, auto, not `xml`"),
        ("log-filter", "hearth=loud", "must be levels"),
    ] {
        let name = variable_of(key);
        let toml = format!("{key} = {text:?}");
        for (result, from) in [
            (resolve(args(key, text), &[], None), format!("option --{key}")),
            (resolve(UpArgs::default(), &[(&name, text)], None), format!("environment {name}")),
            (resolve(UpArgs::default(), &[], Some(&toml)), "in h.toml".to_owned()),
        ] {
            let error = result.unwrap_err();
            assert!(error.starts_with(&format!("`{key}` ({from}) ")), "{error}");
            assert!(error.contains(said), "{error}");
        }
    }
}

#[test]
fn a_value_of_the_wrong_kind_in_the_file() {
    for (toml, said) in [
        ("idle = 60", "`idle` (in h.toml) must be a duration"),
        ("idle = true", "`idle` (in h.toml) must be a text, a whole number"),
        (
            "idle = [\"1s\", \"2s\"]",
            "`idle` (in h.toml) must be a duration of at least 10ms, like 60s or 5m, not `1s, 2s`",
        ),
        ("trusted-proxy = [1]", "`trusted-proxy` (in h.toml) must be a text"),
        ("[listen]", "`listen` (in h.toml) must be a text"),
        ("idle", "h.toml is no TOML"),
    ] {
        let error = resolve(UpArgs::default(), &[], Some(toml)).unwrap_err();
        assert!(error.starts_with(said), "{error}");
    }
    let config = resolve(
        UpArgs::default(),
        &[],
        Some("ready-fd = 3\ntrusted-proxy = [\"10.0.0.0/8\", \"::1\"]"),
    );
    let expected = Config {
        ready_fd: Some(3),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        ..defaults()
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn a_key_that_nobody_knows_is_named() {
    let error = resolve(UpArgs::default(), &[("HEARTH_IDEL", "60s")], None).unwrap_err();
    assert!(
        error.starts_with(
            "`HEARTH_IDEL` (environment HEARTH_IDEL) is no setting; there are HEARTH_DATA, HEARTH_LISTEN"
        ),
        "{error}"
    );
    for name in ["tenant_bind", "config", "admin-token", "DATA"] {
        let toml = format!("{name} = \"x\"");
        let error = resolve(UpArgs::default(), &[], Some(&toml)).unwrap_err();
        assert!(error.starts_with(&format!("`{name}` (in h.toml) is no setting")), "{error}");
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
    assert_eq!(resolve(UpArgs::default(), &environment, None), Ok(defaults()));
}

#[test]
fn where_the_admin_token_comes_from() {
    let admin_token = |args, environment: &[_], file| {
        resolve(args, environment, file).map(|config| config.admin_token)
    };
    let token = ("HEARTH_ADMIN_TOKEN", "secret");
    let file = Some("admin-token-file = \"/file\"");
    let option = || args("admin-token-file", "/option");
    let from = |path: &str| Ok(Some(AdminToken::File(path.into())));
    assert_eq!(admin_token(option(), &[token], file), from("/option"));
    assert_eq!(admin_token(UpArgs::default(), &[token], file), Ok(Some(AdminToken::Environment)));
    assert_eq!(admin_token(UpArgs::default(), &[], file), from("/file"));
    let both = [token, ("HEARTH_ADMIN_TOKEN_FILE", "/environment")];
    assert!(admin_token(UpArgs::default(), &both, None).is_err());
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
        resolve(UpArgs::default(), &[("HEARTH_ADMIN_TOKEN", "hunter2-hunter2-hunter2")], None)
            .unwrap();
    assert!(!format!("{config} {config:?}").contains("hunter2"));
    let secrets = Secrets { admin_token: Some("hunter2".to_owned()) };
    assert_eq!(format!("{secrets:?}"), "Secrets(…)");
}
