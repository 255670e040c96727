//! Key-value stores as functions see them: every text over the same entries, in each engine, over
//! swaps, restarts and kills; who may use which store, and what is beyond a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{Beside, eventually};

/// What a guest answers to what it is asked to do, a line for each.
#[track_caller]
fn run(tenant: &Tenant, path: &str, commands: &[&str]) -> Vec<String> {
    let answer = tenant.post(&format!("{path}?{}", commands.join(";")), "").expect(200);
    answer.text().lines().map(str::to_owned).collect()
}

#[track_caller]
fn one(tenant: &Tenant, path: &str, command: &str) -> String {
    run(tenant, path, &[command]).join("\n")
}

/// One function for each text.
fn texts(host: &Host) -> Tenant {
    let tenant = host.tenant("demo");
    tenant.deploy("draft2", guests::stores_draft2());
    tenant.deploy("standard", guests::stores_standard());
    tenant.deploy("draft", guests::stores_draft());
    tenant.deploy("spin2", guests::stores_spin2());
    tenant.deploy("spin3", guests::stores_spin3());
    tenant
}

const TEXTS: [&str; 5] = ["/draft2", "/standard", "/draft", "/spin2", "/spin3"];

#[test]
fn all_texts_are_over_the_same_entries() {
    let host = Host::start();
    let tenant = texts(&host);
    for (at, writer) in TEXTS.iter().enumerate() {
        let key = format!("k{at}");
        assert_eq!(one(&tenant, writer, &format!("default,set,{key},v{at}")), "set");
        for reader in TEXTS {
            let commands = [format!("default,get,{key}"), format!("default,exists,{key}")];
            let commands: Vec<_> = commands.iter().map(String::as_str).collect();
            let said = run(&tenant, reader, &commands);
            assert_eq!(said, [format!("v{at}"), "true".to_owned()], "{writer} to {reader}");
        }
    }
    for reader in TEXTS {
        assert_eq!(one(&tenant, reader, "default,keys"), "k0 k1 k2 k3 k4", "{reader}");
        assert_eq!(one(&tenant, reader, "other,keys"), "", "{reader}");
        assert_eq!(one(&tenant, reader, "default,get,none"), "none", "{reader}");
    }
    for (at, writer) in TEXTS.iter().enumerate() {
        assert_eq!(one(&tenant, writer, &format!("default,delete,k{at}")), "deleted");
        assert_eq!(one(&tenant, "/spin2", &format!("default,exists,k{at}")), "false");
    }
}

#[test]
fn counters_batches_and_swaps() {
    let host = Host::start();
    let tenant = texts(&host);
    assert_eq!(one(&tenant, "/draft2", "default,increment,n,258"), "258");
    assert_eq!(one(&tenant, "/draft", "default,increment,n,2"), "260");
    assert_eq!(one(&tenant, "/draft2", "default,increment,n,-300"), "-40");
    assert_eq!(one(&tenant, "/draft2", "default,increment,m,258"), "258");
    assert_eq!(one(&tenant, "/spin2", "default,get,m"), "[2, 1, 0, 0, 0, 0, 0, 0]");
    one(&tenant, "/spin2", "default,set,text,abc");
    let said = one(&tenant, "/draft2", "default,increment,text,1");
    assert!(said.contains("not a number of 8 bytes"), "{said}");

    assert_eq!(one(&tenant, "/draft2", "batch,set-many,a=1,b=2"), "set");
    assert_eq!(one(&tenant, "/draft2", "batch,get-many,b,x,a"), "b=2 x=none a=1");
    assert_eq!(one(&tenant, "/standard", "batch,get-many,b,x,a"), "b=2 none a=1");
    assert_eq!(one(&tenant, "/draft", "batch,get-many,b,x,a"), "b=2 none a=1");

    assert_eq!(one(&tenant, "/draft2", "batch,swap,a,-,2"), "swapped");
    assert_eq!(one(&tenant, "/draft2", "batch,swap,a,other,3"), "it was other");
    assert_eq!(one(&tenant, "/draft2", "batch,get,a"), "other");
}

#[test]
fn row_48_what_functions_share_is_their_tenants_alone_and_may_expire() {
    let host = Host::start();
    let tenant = texts(&host);
    assert_eq!(one(&tenant, "/draft2", "default,set-expiring,gone,x,0"), "set");
    assert_eq!(one(&tenant, "/draft2", "default,set-expiring,later,x,3600000"), "set");
    for reader in TEXTS {
        assert_eq!(one(&tenant, reader, "default,get,gone"), "none", "{reader}");
        assert_eq!(one(&tenant, reader, "default,exists,gone"), "false", "{reader}");
        assert_eq!(one(&tenant, reader, "default,keys"), "later", "{reader}");
    }
    let stands = ["gone", "later"].map(|key| format!("default,expires-in,{key}"));
    let stands: Vec<_> = stands.iter().map(String::as_str).collect();
    assert_eq!(run(&tenant, "/draft2", &stands), ["missing", "expires"]);
    assert_eq!(one(&tenant, "/draft2", "default,expire,later,-"), "true");
    assert_eq!(one(&tenant, "/draft2", "default,expires-in,later"), "stays");
    assert_eq!(one(&tenant, "/draft2", "default,expire,gone,1000"), "false");

    let other = host.tenant("other");
    other.deploy("draft2", guests::stores_draft2());
    assert_eq!(one(&other, "/draft2", "default,keys"), "");
    assert_eq!(one(&other, "/draft2", "default,get,later"), "none");
}

#[test]
fn a_function_uses_the_stores_that_its_options_name() {
    let host = Host::start();
    let tenant = texts(&host);
    one(&tenant, "/spin2", "private,set,a,1");
    for (name, module) in [
        ("limited", guests::stores_draft2()),
        ("limited2", guests::stores_spin2()),
        ("limited3", guests::stores_spin3()),
    ] {
        tenant.deploy_with(name, module, &json!({"stores": ["mine"]}));
        let said = run(&tenant, &format!("/{name}"), &["mine,set,a,2", "mine,get,a"]);
        assert_eq!(said, ["set", "2"], "{name}");
        for other in ["private,get,a", "new,set,a,1", "Mine,get,a"] {
            let said = one(&tenant, &format!("/{name}"), other);
            assert_eq!(said, "error: access denied", "{name}: {other}");
        }
    }
    tenant.deploy_with("none", guests::stores_spin2(), &json!({"stores": []}));
    assert_eq!(one(&tenant, "/none", "mine,get,a"), "error: access denied");
    // What was refused was not made.
    let said = one(&tenant, "/spin2", "new,keys");
    assert_eq!(said, "");

    // Two tenants with the same names never meet.
    let other = host.tenant("other");
    other.deploy("spin2", guests::stores_spin2());
    assert_eq!(one(&other, "/spin2", "mine,get,a"), "none");
}

#[test]
fn what_is_beyond_a_bound_is_an_error_of_the_text() {
    let host = Host::start();
    let tenant = texts(&host);
    let long = "k".repeat(1_024);
    for text in TEXTS {
        let said = one(&tenant, text, &format!("default,set,{long},*1048576"));
        assert_eq!(said, "set", "{text}");
        assert_eq!(one(&tenant, text, &format!("default,length,{long}")), "1048576");
        let said = one(&tenant, text, &format!("default,set,{long}k,1"));
        assert!(said.contains("the key has more than 1024 bytes"), "{text}: {said}");
        let said = one(&tenant, text, "default,set,a,*1048577");
        assert!(said.contains("the value has more than 1048576 bytes"), "{text}: {said}");
        assert_eq!(one(&tenant, text, "default,get,a"), "none", "{text}");
    }
    assert_eq!(one(&tenant, "/spin2", "default,hold,300"), "error: store table full");
    assert_eq!(one(&tenant, "/spin2", "a/b,get,a"), "error: no such store");
    let many: Vec<_> = (1..64).map(|n| format!("store-{n}")).collect();
    for store in &many {
        assert_eq!(one(&tenant, "/spin2", store), "open");
    }
    let said = one(&tenant, "/spin2", "one-too-many");
    assert!(said.contains("there are 64 stores already"), "{said}");
}

/// The files are longer than they may be by now, and can be read and made shorter all the same.
#[test]
fn a_limit_that_was_lowered_keeps_nobody_from_reading_and_deleting() {
    const VALUES: usize = 24;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("kv", guests::stores_draft2());
    for n in 0..VALUES {
        assert_eq!(one(&tenant, "/kv", &format!("default,set,k{n},*1000000")), "set");
    }
    let limits = json!({"limits": {"disk_bytes": 8 << 20}});
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    host.send(&tenant.api("POST", "/worker/restart")).expect(200);
    let said = one(&tenant, "/kv", "default,set,more,*1000000");
    assert!(said.contains("no room is left"), "{said}");
    for n in 0..VALUES {
        assert_eq!(one(&tenant, "/kv", &format!("default,length,k{n}")), "1000000");
        assert_eq!(one(&tenant, "/kv", &format!("default,delete,k{n}")), "deleted");
    }
    eventually("room again", || {
        (one(&tenant, "/kv", "default,set,again,*100000") == "set").then_some(())
    });
    assert_eq!(host.figure(r#"hearth_state_over_quota_total{tenant="demo"}"#), 0);
}

#[test]
fn a_full_share_is_an_error_and_reads_go_on() {
    let host = Host::start();
    let tenant = texts(&host);
    let limits = json!({"limits": {"disk_bytes": 32 << 20}});
    host.send(&host.admin("PATCH", "/tenants/demo/limits").json(&limits)).expect(200);
    one(&tenant, "/draft2", "default,set,first,1");
    let mut full = None;
    for n in 0..64 {
        let said = one(&tenant, "/draft2", &format!("default,set,k{n},*1000000"));
        if said != "set" {
            full = Some((n, said));
            break;
        }
    }
    let (n, said) = full.expect("it is full at some time");
    assert!(said.contains("no room is left"), "{said}");
    assert_eq!(one(&tenant, "/draft2", "default,get,first"), "1");
    for gone in 0..n {
        one(&tenant, "/draft2", &format!("default,delete,k{gone}"));
    }
    assert_eq!(one(&tenant, "/draft2", "default,set,again,*1000000"), "set");
}

/// Two generations write at once, and take turns.
#[test]
fn fifty_swaps_under_writes_lose_nothing_and_refuse_nobody() {
    let host = Host::start();
    let tenant = texts(&host);
    let longest = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (tenant, longest) = (tenant.clone(), Arc::clone(&longest));
            Beside::run(move |done| {
                let began = Instant::now();
                let said = one(&tenant, "/draft2", &format!("default,increment,n{writer},1"));
                longest.fetch_max(began.elapsed().as_millis() as u64, Ordering::Relaxed);
                done.insert(said.parse::<u64>().unwrap_or_else(|_| panic!("{said}")));
            })
        })
        .collect();
    for swap in 0..50 {
        tenant.deploy_with("swapped", guests::echo(), &json!({"description": swap.to_string()}));
    }
    for (writer, counts) in writers.into_iter().map(Beside::stop).enumerate() {
        let expected: Vec<u64> = (1..=counts.len() as u64).collect();
        assert_eq!(Vec::from_iter(counts), expected, "writer {writer}");
    }
    println!("the longest wait of a write: {} ms", longest.load(Ordering::Relaxed));
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let mut host = Host::start();
    let tenant = texts(&host);
    for n in 0..20 {
        assert_eq!(one(&tenant, "/spin3", &format!("default,set,k{n},{n}")), "set");
    }
    host.kill_and_start_again();
    let keys: Vec<_> = (0..20).map(|n| format!("default,get,k{n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(run(&tenant, "/draft2", &keys), expected);
}

/// Figures are worth what they are figures of.
#[test]
fn what_is_measured_does_its_work() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("measured", guests::measures_state());
    tenant.deploy("spin2", guests::stores_spin2());
    tenant.post("/measured", "get").expect(500);
    for what in ["nothing", "set", "get"] {
        assert_eq!(tenant.post("/measured", what).expect(200).text(), "done");
    }
    assert_eq!(one(&tenant, "/spin2", "default,get,measured"), "v".repeat(100));
}
