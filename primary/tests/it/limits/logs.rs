//! How long a line may be, and how much a tenant's functions may log.

use std::time::Instant;

use serde_json::{Value, json};

use super::set;
use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::eventually;

const LINE_BYTES: usize = 8 << 10;
/// Of a line of the guest that floods its log, without what is kept beside the text.
const FLOOD_LINE_BYTES: u64 = 1_000;

fn texts(page: &Value) -> Vec<String> {
    let lines = page["lines"].as_array().unwrap().iter();
    lines.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_line_has_all_its_bytes_up_to_the_bound_and_none_beyond() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("prints", guests::prints());
    for (bytes, kept) in [(LINE_BYTES, LINE_BYTES), (LINE_BYTES + 1, LINE_BYTES)] {
        let id = format!("line-{bytes}");
        let body = format!("{}\nnext\n", "x".repeat(bytes));
        let request = tenant.address().request("POST", "/prints").header("x-request-id", &id);
        tenant.address().send(&request.body(body)).expect(204);
        for stream in ["stdout", "stderr"] {
            let page = eventually("its lines", || {
                let page = tenant.ask(&format!("/logs?request_id={id}&stream={stream}"));
                (texts(&page).len() == 2).then_some(page)
            });
            assert_eq!(texts(&page), ["x".repeat(kept), "next".to_owned()], "{bytes}");
        }
    }
}

/// How many lines of a flood are kept. All others are counted, which is waited for.
#[track_caller]
fn kept_of_flood(host: &Host, tenant: &Tenant, lines: u64) -> u64 {
    let request = tenant.address().request("POST", &format!("/floods?lines={lines}"));
    let request = request.header("x-request-id", "flood-1");
    tenant.address().send(&request).expect(200);
    eventually("every line kept or counted", || {
        let dropped =
            format!(r#"hearth_log_records_dropped_total{{tenant="{}",kind="line"}}"#, tenant.name);
        let kept = count(tenant);
        (kept + host.figure(&dropped) == lines).then_some(kept)
    })
}

#[track_caller]
fn count(tenant: &Tenant) -> u64 {
    let (mut kept, mut before) = (0, String::new());
    loop {
        let page = tenant.ask(&format!("/logs?request_id=flood-1&limit=1000{before}"));
        kept += page["lines"].as_array().unwrap().len() as u64;
        let Some(next) = page["next"].as_u64() else { return kept };
        before = format!("&before={next}");
    }
}

#[test]
fn a_flood_of_lines_is_cut_to_the_rate_and_what_is_lost_is_counted() {
    const RATE: u64 = 1 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("floods", guests::prints_on());
    let begun = Instant::now();
    let kept = kept_of_flood(&host, &tenant, 6_000);
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(kept * FLOOD_LINE_BYTES <= RATE * (1 + seconds), "{kept} lines in {seconds} s");
    assert!(kept >= 500, "{kept}");
}

#[test]
fn a_tenants_own_rate_of_lines_holds() {
    const RATE: u64 = 32 << 10;
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("floods", guests::prints_on());
    set(&host, &tenant, &json!({ "log_bytes_per_second": RATE }));
    let begun = Instant::now();
    let kept = kept_of_flood(&host, &tenant, 1_000);
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(kept * FLOOD_LINE_BYTES <= RATE * (1 + seconds), "{kept} lines in {seconds} s");
    assert!(kept >= 15, "{kept}");
}
