//! What a function's state costs: a value that is read, beside a call that reads nothing; values
//! that are durable once their call is answered, many at once beside one after another; a wake and
//! a worker's memory. Beside durable writes stands what one sync takes on the same disk.

use std::fs::{File, remove_file};
use std::io::Write;
use std::time::Instant;

use anyhow::ensure;

use crate::Setup;
use crate::cores::Cores;
use crate::host::{Host, Placed, Tenant};
use crate::http::{Client, Timed};
use crate::module::numbered;
use crate::others::{ANSWER, BODY, FUNCTION};
use crate::rounds::{Measured, Subject, by_turns};
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

use super::hello::CONNECTIONS;
use super::memory::proportional_mb;
use super::{calm, wake};

const STATE: &str = "measures_state";
const DONE: &[u8] = b"done";
const TENANTS: u16 = 20;
const IDLE: [&str; 2] = ["--idle", "30m"];
const WAKES: usize = 200;
const SYNCS: usize = 100;
/// What SQLite's log has for a page that changed, rounded up.
const SYNCED: [u8; 4 << 10] = [0; 4 << 10];

const GET_MICROSECONDS: Goal = Goal::at_most(15.0);
const TIMES: Goal = Goal::at_least(25.0);
const A_SECOND: f64 = 5_000.0;
const IN_A_SYNC: f64 = 32.0;
const WAKE: Goal = Goal::at_most(0.1);
const MEMORY: Goal = Goal::at_most(1.2);

pub fn measure(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let mut rows = calls(setup, cores)?;
    rows.extend(wakes(setup)?);
    rows.push(memory(setup)?);
    Ok(rows)
}

fn calls(setup: &Setup, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &IDLE)?;
    let home = &host.home;
    upload(setup, home)?;
    host.place(cores, Placed::WorkerAlone)?;
    let worker = host.worker(home)?;
    let subject = |what: &str| Subject {
        to: home.own,
        request: home.call(STATE, what.as_bytes()),
        answer: DONE,
        pids: vec![worker],
    };

    let [mut nothing, mut get, mut sets, mut one_set] =
        std::array::from_fn(|_| Measured::default());
    let (mut more, mut syncs) = (Samples::default(), Samples::default());
    for _ in 0..setup.rounds {
        let mut many = [
            (subject("nothing"), &mut nothing),
            (subject("get"), &mut get),
            (subject("set"), &mut sets),
        ];
        by_turns(cores, 1, CONNECTIONS, &mut many)?;
        by_turns(cores, 1, 1, &mut [(subject("set"), &mut one_set)])?;
        syncs.extend(sync_milliseconds(&host)?.iter());
    }
    more.extend(get.cost.iter().zip(nothing.cost.iter()).map(|(get, nothing)| get - nothing));

    let sync = syncs.median();
    let a_second = Goal::at_least(A_SECOND.min(IN_A_SYNC * 1_000.0 / sync).round());
    Ok(vec![
        Row::figure(
            "`get` of 100 bytes, beside an empty call",
            more.median(),
            " us",
            GET_MICROSECONDS,
        ),
        Row::ratio(
            format!("durable `set`s, {CONNECTIONS} at once, of one after another"),
            &sets.rate.of(&one_set.rate),
            TIMES,
        ),
        Row::figure("of them a second", sets.rate.median(), "", a_second),
        Row::stated("one sync beside them, median", format!("{} ms", rounded(sync))),
        Row::aside("an empty call; with `get`; with `set`", {
            let cost = [&nothing, &get, &sets].map(|it| rounded(it.cost.median()));
            format!("{} us; {} us; {} us", cost[0], cost[1], cost[2])
        }),
        Row::aside("one `set` after another, a second", rounded(one_set.rate.median())),
    ])
}

/// Wakes of two tenants by turns, whose functions differ in what they import.
fn wakes(setup: &Setup) -> anyhow::Result<Vec<Row>> {
    let host = Host::start_with_room(&setup.programs, &wake::IDLE, 1)?;
    let other = host.create("imports")?;
    for (tenant, function) in [(&host.home, FUNCTION), (&other, STATE)] {
        let module = numbered(&setup.guest(function)?, 0);
        Client::new(tenant.own).call(&tenant.upload(&[("hello", &module)], None))?;
    }
    let (mut without, mut with) = (Samples::default(), Samples::default());
    for _ in 0..WAKES {
        let asked: [(&Tenant, &[u8], &[u8], &mut Samples); 2] =
            [(&host.home, BODY, ANSWER, &mut without), (&other, b"nothing", DONE, &mut with)];
        for (tenant, body, expected, took) in asked {
            host.wait_asleep(tenant)?;
            calm();
            let request = tenant.call("hello", body);
            let Timed { status, body, first_byte } = Client::new(tenant.own).time(&request)?;
            ensure!(status == 200 && body == expected, "{status}");
            took.push_milliseconds(first_byte);
        }
    }
    let more = with.median() - without.median();
    Ok(vec![
        Row::milliseconds("a wake with state imported, beside one without", more, WAKE),
        Row::aside("both, median", {
            format!("{} ms; {} ms", rounded(with.median()), rounded(without.median()))
        }),
    ])
}

/// Of workers that wrote and read once, among others like them.
fn memory(setup: &Setup) -> anyhow::Result<Row> {
    let host = Host::start_with_room(&setup.programs, &IDLE, TENANTS)?;
    let tenants: Vec<Tenant> =
        (0..TENANTS).map(|it| host.create(&format!("t-{it}"))).collect::<anyhow::Result<_>>()?;
    for tenant in &tenants {
        upload(setup, tenant)?;
    }
    let mut shares = Samples::default();
    for tenant in &tenants {
        shares.push(proportional_mb(host.pid(tenant)?)?);
    }
    let what = format!("an idle worker that used state, of {TENANTS}");
    Ok(Row::figure(what, shares.mean(), " MB", MEMORY))
}

/// And has a value to read.
fn upload(setup: &Setup, tenant: &Tenant) -> anyhow::Result<()> {
    let mut client = Client::new(tenant.own);
    client.call(&tenant.upload(&[(STATE, &setup.guest(STATE)?)], None))?;
    for what in ["set", "get"] {
        client.call(&tenant.call(STATE, what.as_bytes()))?;
    }
    Ok(())
}

/// Of a file that grows, where the state is.
fn sync_milliseconds(host: &Host) -> anyhow::Result<Samples> {
    let path = host.data().join("tmp/synced");
    let mut file = File::create(&path)?;
    let mut took = Samples::default();
    for _ in 0..SYNCS {
        file.write_all(&SYNCED)?;
        let begun = Instant::now();
        file.sync_data()?;
        took.push_milliseconds(begun.elapsed());
    }
    remove_file(path)?;
    Ok(took)
}
