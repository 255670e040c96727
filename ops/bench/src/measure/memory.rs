//! What a worker takes that has nothing to do: its share of all memory that it uses (PSS), after
//! three calls each, beside 99 others. First with the bundled functions, which all workers have
//! from one place; then with a module more in each that no other tenant has.

use std::fs;

use anyhow::Context;

use crate::Setup;
use crate::cores::Cores;
use crate::host::{Host, Tenant};
use crate::http::Client;
use crate::module::numbered;
use crate::others::{BODY, FUNCTION};
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

const TENANTS: u16 = 100;
const CALLS: usize = 3;
/// None of them falls asleep before it is looked at.
const IDLE: [&str; 2] = ["--idle", "30m"];
const BUNDLED: Goal = Goal::at_most(0.5).better(0.4);
const OWN: Goal = Goal::at_most(0.9);

pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start_with_room(&setup.programs, &IDLE, TENANTS)?;
    let tenants: Vec<Tenant> =
        (0..TENANTS).map(|it| host.create(&format!("t-{it}"))).collect::<anyhow::Result<_>>()?;
    for tenant in &tenants {
        call(tenant, &tenant.hello())?;
    }
    let bundled = shares(&host, &tenants)?;
    let primary = proportional_mb(host.primary()?)?;

    let component = setup.guest(FUNCTION)?;
    for (number, tenant) in (0..).zip(&tenants) {
        let upload = tenant.upload(&[("own", &numbered(&component, number))], None);
        Client::new(tenant.own).call(&upload)?;
        call(tenant, &tenant.call("own", BODY))?;
    }
    let own = shares(&host, &tenants)?;
    let what = format!("an idle worker, of {TENANTS} with the bundled functions");
    Ok(vec![
        Row::figure(what, bundled.mean(), " MB", BUNDLED),
        Row::figure("with a module of its own in each", own.mean(), " MB", OWN),
        Row::aside("the largest of both", {
            format!("{} MB, {} MB", rounded(bundled.most()), rounded(own.most()))
        }),
        Row::aside("the primary beside them", format!("{} MB", rounded(primary))),
    ])
}

fn call(tenant: &Tenant, request: &[u8]) -> anyhow::Result<()> {
    let mut client = Client::new(tenant.own);
    for _ in 0..CALLS {
        client.call(request)?;
    }
    Ok(())
}

/// Of all workers at one time.
fn shares(host: &Host, tenants: &[Tenant]) -> anyhow::Result<Samples> {
    let mut shares = Samples::default();
    for tenant in tenants {
        shares.push(proportional_mb(host.pid(tenant)?)?);
    }
    Ok(shares)
}

/// Its own memory, and of what it shares its share; of 10^6 bytes.
pub fn proportional_mb(pid: i32) -> anyhow::Result<f64> {
    megabytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// A line of a file in which the kernel says sizes. It writes kB for 1,024 bytes.
pub fn megabytes(file: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    let kilobytes: f64 = line.with_context(|| format!("{file} has no {name}"))?.parse()?;
    Ok(kilobytes * 1_024.0 / 1e6)
}
