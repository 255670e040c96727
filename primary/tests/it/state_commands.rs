//! `hearth kv` and `hearth sql`, as a person or a script uses them.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::host::{Host, Said, Tenant, hearth};

fn command(host: &Host, tenant: &Tenant, arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>) {
    let mut child = hearth(host.scratch())
        .args(arguments)
        .env("HEARTH_URL", format!("http://{}", host.front))
        .env("HEARTH_TOKEN", &tenant.token)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), output.stdout)
}

#[test]
fn what_functions_keep_by_key_is_shown_and_changed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let hearth = |arguments: &[&str]| -> Said { host.command(&tenant.token, arguments) };
    assert!(hearth(&["kv", "list"]).done().contains("no store yet"));
    let said = hearth(&["kv", "set", "default", "users/7", r#"{"name":"Ada"}"#]).done();
    assert_eq!(said, "Set users/7 in default.\n");
    let (status, _) = command(&host, &tenant, &["kv", "set", "default", "photo"], b"\xff\x00\n");
    assert_eq!(status, 0);
    let file = host.scratch().join("value");
    fs::write(&file, "of a file").unwrap();
    let given = format!("@{}", file.display());
    hearth(&["kv", "set", "default", "users/8", &given, "--expires", "30d"]).done();

    assert_eq!(hearth(&["kv", "list"]).done(), "STORE\ndefault\n");
    assert_eq!(
        hearth(&["kv", "list", "default", "--prefix", "users/"]).done(),
        "users/7\nusers/8\n"
    );
    let page = hearth(&["kv", "list", "default", "-n", "1"]).done();
    assert!(page.ends_with("  hearth kv list default --after photo\n"), "{page}");
    assert_eq!(hearth(&["--json", "kv", "list", "default"]).json()["keys"][0], "photo");
    let (_, bytes) = command(&host, &tenant, &["kv", "get", "default", "photo"], b"");
    assert_eq!(bytes, b"\xff\x00\n");
    assert_eq!(hearth(&["kv", "get", "default", "users/8"]).done(), "of a file");

    let exported = hearth(&["kv", "export", "default"]).done();
    let lines: Vec<Value> =
        exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "key": "photo", "base64": "/wAK" }));
    assert_eq!(lines[1], json!({ "key": "users/7", "value": r#"{"name":"Ada"}"# }));
    assert!(lines[2]["expires_at"].is_string() && lines.len() == 3, "{exported}");

    hearth(&["kv", "rm", "default", "photo"]).done();
    let missing = hearth(&["kv", "get", "default", "photo"]).failed(1);
    assert!(missing.contains("no such key"), "{missing}");
    // Nobody is there who could be asked.
    let asked = hearth(&["kv", "rm", "default"]).failed(2);
    assert!(asked.contains("--yes") && asked.contains("default"), "{asked}");
    hearth(&["kv", "get", "default", "users/7"]).done();
    hearth(&["kv", "rm", "default", "--yes"]).done();
    assert!(hearth(&["kv", "list"]).done().contains("no store yet"));
    hearth(&["kv", "list", "default"]).failed(1);
}

#[test]
fn statements_are_run_and_databases_go_through_files() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let hearth = |arguments: &[&str]| -> Said { host.command(&tenant.token, arguments) };
    assert!(hearth(&["sql"]).done().contains("no database yet"));
    let made = hearth(&["sql", "default", "create table users (id integer primary key, name)"]);
    assert_eq!(made.done(), "Done; no row was changed.\n");
    let insert = "insert into users (name) values (?), (?)";
    let said = hearth(&["sql", "default", insert, "-p", "Ada", "-p", "x\u{1b}[31m"]).done();
    assert_eq!(said, "Changed 2 rows; the last row id is 2.\n");
    let (status, table) =
        command(&host, &tenant, &["sql", "default", "-"], b"select * from users order by id");
    assert_eq!(status, 0);
    assert_eq!(String::from_utf8(table).unwrap(), "id  name\n1   Ada\n2   x\\u{1b}[31m\n");
    let json =
        hearth(&["--json", "sql", "default", "select name from users where id = ?", "-p", "1"]);
    assert_eq!(json.json()["rows"], json!([["Ada"]]));
    let wrong = hearth(&["sql", "default", "select * from nothing"]).failed(1);
    assert!(wrong.contains("nothing"), "{wrong}");

    let file = host.scratch().join("default.sql");
    let path = file.to_str().unwrap();
    let said = hearth(&["sql", "export", "default", path]).done();
    assert!(said.contains("Exported default"), "{said}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.ends_with("COMMIT;\n"), "{text}");
    assert_eq!(hearth(&["sql", "export", "default"]).done(), text);
    let said = hearth(&["sql", "import", "copy", path]).done();
    assert!(said.contains("Imported into copy"), "{said}");
    let (status, _) = command(&host, &tenant, &["sql", "import", "copy", "-"], text.as_bytes());
    assert_eq!(status, 1, "the tables are there already");
    assert_eq!(hearth(&["sql"]).done(), "DATABASE\ncopy\ndefault\n");
    hearth(&["sql", "export", "nothing", path]).failed(1);
    assert_eq!(fs::read_to_string(&file).unwrap(), text, "a file is replaced by what is whole");
}
