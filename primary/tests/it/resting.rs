//! What a removed tenant leaves is nobody's for a while: its port and its name lead to what its
//! pages have left in their visitors' browsers.

use std::collections::HashSet;

use serde_json::json;

use crate::host::{ADMIN_TOKEN, Host};
use crate::http::Answer;

fn make(host: &Host, name: &str) -> Answer {
    host.send(&host.admin("POST", "/tenants").json(&json!({ "name": name })))
}

fn remove(host: &Host, name: &str) {
    host.send(&host.admin("DELETE", &format!("/tenants/{name}"))).expect(204);
}

#[test]
fn a_removed_tenants_port_and_name_are_not_given_to_the_next() {
    let mut host = Host::with(&["--rest", "1h"]);
    let first = make(&host, "first").expect(201).json()["port"].as_u64().unwrap();
    let backup = host.scratch().join("backup");
    host.command(ADMIN_TOKEN, &["backup", backup.to_str().unwrap()]).done();
    remove(&host, "first");
    for _ in 0..2 {
        make(&host, "first").expect_problem(409, "conflict").expect_detail("--rest");
        // Nor after a start.
        host.kill_and_start_again();
    }
    let second = make(&host, "second").expect(201).json()["port"].as_u64().unwrap();
    assert_ne!(first, second);
    // Whoever has its backup has what it was: it comes back, and to its own address.
    let restored =
        host.command(ADMIN_TOKEN, &["restore", backup.to_str().unwrap(), "--tenant", "first"]);
    restored.done();
    let shown = host.send(&host.admin("GET", "/tenants/first")).expect(200).json();
    assert_eq!(shown["port"], first);
    // A tenant that is not made after all has left nothing anywhere.
    make(&host, "second").expect_problem(409, "conflict");
}

#[test]
fn a_range_that_rests_is_said_to_and_what_is_free_longest_comes_first() {
    let host = Host::with(&["--rest", "1h"]);
    let mut ports = HashSet::new();
    let refused = loop {
        let name = format!("t{}", ports.len());
        let made = make(&host, &name);
        if made.status != 201 {
            break made;
        }
        assert!(ports.insert(made.json()["port"].as_u64().unwrap()), "{name} has one that rests");
        remove(&host, &name);
        assert!(ports.len() <= 24);
    };
    refused.expect_problem(409, "conflict").expect_detail("--tenant-ports").expect_detail("--rest");
    assert!(ports.len() > 10, "{}", ports.len());

    let host = Host::start();
    let mut given = Vec::new();
    loop {
        let port = make(&host, "again").expect(201).json()["port"].as_u64().unwrap();
        remove(&host, "again");
        if given.contains(&port) {
            assert_eq!(port, given[0], "{given:?}");
            break;
        }
        given.push(port);
    }
    assert!(given.len() > 10, "{given:?}");
}
