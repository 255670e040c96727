//! From nothing to an answer: a caller connects to a tenant that sleeps, and waits for the first
//! byte. Beside it a cluster of Node forks a worker, which is how a tenant would start there.

use std::time::Duration;

use anyhow::ensure;

use crate::Setup;
use crate::cores::Cores;
use crate::host::Host;
use crate::http::{Client, Timed};
use crate::module::numbered;
use crate::others::{ANSWER, BODY, Cluster, FUNCTION, NO_FASTIFY};
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

use super::calm;

pub const IDLE: [&str; 2] = ["--idle", "30ms"];
/// Of a tenant with one function: blocks of wakes, with one fork of the cluster after each.
const BLOCKS: usize = 25;
const WAKES: usize = 20;
const WAKES_OF_MANY: usize = 200;
/// Tenants with many functions, and what the median of their wakes is to be.
const MANY: [(u32, Goal); 2] = [(10, Goal::at_most(3.0)), (100, Goal::at_most(8.0))];
/// Modules of one upload.
const UPLOADED_AT_ONCE: usize = 20;

const MEDIAN: Goal = Goal::at_most(2.2).better(1.8);
const P99: Goal = Goal::at_most(5.0);
const WALLS: Goal = Goal::at_most(0.6);

/// Nothing is kept on one core: caller and host take turns.
pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let mut rows = with_one(setup)?;
    for (functions, median) in MANY {
        let host = host_with(setup, functions)?;
        let mut took = Samples::default();
        for _ in 0..WAKES_OF_MANY {
            took.push_milliseconds(wake(&host)?);
        }
        let what = format!("of a tenant with {functions} functions, median");
        rows.push(Row::milliseconds(what, took.median(), median));
        rows.push(Row::milliseconds_stated("99 of 100", took.quantile(0.99)));
    }
    Ok(rows)
}

fn with_one(setup: &Setup) -> anyhow::Result<Vec<Row>> {
    let host = host_with(setup, 1)?;
    let mut cluster = Cluster::start(&setup.fastify)?;
    let (mut wakes, mut forks, mut ratios) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..BLOCKS {
        let mut block = Samples::default();
        for _ in 0..WAKES {
            block.push_milliseconds(wake(&host)?);
        }
        wakes.extend(block.iter());
        if let Some(cluster) = &mut cluster {
            let took = cluster.wake()?.as_secs_f64() * 1_000.0;
            forks.push(took);
            ratios.push(took / block.median());
        }
    }
    let mut rows = vec![
        Row::milliseconds("connection to first byte, median", wakes.median(), MEDIAN),
        Row::milliseconds("99 of 100", wakes.quantile(0.99), P99),
    ];
    let quicker = "times quicker than Node's cluster.fork with Fastify";
    if forks.is_empty() {
        rows.push(Row::unmeasured(quicker, NO_FASTIFY));
    } else {
        rows.push(Row::compared(quicker, &ratios));
        rows.push(Row::aside("Node's, median", format!("{} ms", rounded(forks.median()))));
    }
    let ends = [wakes.quantile(0.0), wakes.most()].map(rounded);
    rows.push(Row::aside("quickest; slowest", format!("{} ms; {} ms", ends[0], ends[1])));
    if let Some(mean) = host.mean_milliseconds("hearth_walls_seconds")? {
        rows.push(Row::milliseconds("the walls' part of it, mean", mean, WALLS));
    }
    if let Some(mean) = host.mean_milliseconds("hearth_wake_seconds")? {
        let what = "of it until the worker accepts, mean";
        rows.push(Row::aside(what, format!("{} ms", rounded(mean))));
    }
    Ok(rows)
}

/// A host whose tenant has so many functions, all its own, and no other.
fn host_with(setup: &Setup, functions: u32) -> anyhow::Result<Host> {
    let host = Host::start(&setup.programs, &IDLE)?;
    let component = setup.guest(FUNCTION)?;
    let mut own = vec![("hello".to_owned(), numbered(&component, 0))];
    own.extend((1..functions).map(|it| (format!("own-{it}"), numbered(&component, it))));
    let mut client = Client::new(host.home.own);
    for part in own.chunks(UPLOADED_AT_ONCE) {
        let modules: Vec<_> = part.iter().map(|(name, it)| (&**name, &**it)).collect();
        client.call(&host.home.upload(&modules, None))?;
    }
    Ok(host)
}

fn wake(host: &Host) -> anyhow::Result<Duration> {
    host.wait_asleep(&host.home)?;
    calm();
    let request = host.home.call("hello", BODY);
    let Timed { status, body, first_byte } = Client::new(host.home.own).time(&request)?;
    ensure!(status == 200 && body == ANSWER, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(first_byte)
}
