//! Ten thousand tenants that nobody calls: what they cost the host that keeps their sockets, how
//! long it takes to start with them, and what a caller of one of them waits.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, Tenant};
use crate::http::{Client, Timed};
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

use super::calm;
use super::memory::{megabytes, proportional_mb};

/// The one of the host's first start is among them.
const TENANTS: u16 = 10_000;
const STARTS: usize = 3;
/// Of tenants far from each other, one after another.
const WAKES: usize = 300;
/// Tenants whose making is timed, the first and the last of them.
const TIMED: usize = 1_000;

const RESIDENT: Goal = Goal::at_most(100.0);
const START: Goal = Goal::at_most(2.0);
const A_TENANT: Goal = Goal::at_most(8.0);
const HEARD: Goal = Goal::at_least(99.0);
/// What the host has to say of the time from a socket's readiness to the fork's request.
const SPAWN_SOON: &str = r#"hearth_spawn_seconds_bucket{le="0.0001"}"#;
const SPAWNS: &str = "hearth_spawn_seconds_count";
const NO_SPAWNS: &str = "this host does not tell";

pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let mut host = Host::start_with_room(&setup.programs, &[], TENANTS)?;
    let alone = start_again(&mut host)?;
    let disk_alone = stored(&host.data())?;

    let (tenants, made) = create(&host)?;
    let rate = |part: &[f64]| rounded(part.len() as f64 / part.iter().sum::<f64>());
    let rates = [&made[..TIMED], &made[made.len() - TIMED..]].map(rate).join(", ");
    let (mut starts, mut kernel) = (Samples::default(), Samples::default());
    for _ in 0..STARTS {
        kernel.push(start_again(&mut host)?.kernel_mb);
        starts.push(host.start.as_secs_f64());
    }
    let resident = megabytes(&format!("/proc/{}/status", host.primary()?), "VmRSS:")?;
    let own = proportional_mb(host.primary()?)? - alone.own_mb;
    let kernel = kernel.median() - alone.kernel_mb;
    let disk = stored(&host.data())? - disk_alone;
    let each = |mb: f64| mb * 1_000.0 / tenants.len() as f64;

    let mut wakes = Samples::default();
    for tenant in tenants.iter().step_by(tenants.len() / WAKES).take(WAKES) {
        calm();
        let Timed { status, body, first_byte } = Client::new(tenant.own).time(&tenant.hello())?;
        let right = status == 200 && body == HELLO_ANSWER;
        ensure!(right, "answered {status}: {}", String::from_utf8_lossy(&body));
        wakes.push_milliseconds(first_byte);
    }
    let woken = [wakes.median(), wakes.quantile(0.99)].map(rounded);
    let heard = "a socket's readiness to the fork's request within 100 us";
    Ok(vec![
        Row::figure(format!("{TENANTS} asleep: the primary"), resident, " MB", RESIDENT),
        Row::figure(format!("its start, median of {STARTS}"), starts.median(), " s", START),
        Row::figure("memory a tenant, the kernel's too", each(own + kernel), " KB", A_TENANT),
        match host.metric(SPAWN_SOON)?.zip(host.metric(SPAWNS)?) {
            Some((soon, all)) => Row::figure(heard, soon / all * 100.0, " %", HEARD),
            None => Row::unmeasured(heard, NO_SPAWNS),
        },
        Row::stated(
            "wake of one of them: median; 99 of 100",
            format!("{} ms; {} ms", woken[0], woken[1]),
        ),
        Row::aside(
            "memory a tenant: primary, kernel",
            format!("{} KB, {} KB", rounded(each(own)), rounded(each(kernel))),
        ),
        Row::aside("disk a tenant", format!("{} KB", rounded(each(disk)))),
        Row::aside("made a second: the first and the last thousand", rates),
    ])
}

/// What a host takes that has just started.
struct Taken {
    own_mb: f64,
    kernel_mb: f64,
}

fn start_again(host: &mut Host) -> anyhow::Result<Taken> {
    host.stop()?;
    // The kernel takes sockets apart a little after their process is gone.
    calm();
    let before = slab_mb()?;
    host.start_again()?;
    Ok(Taken { own_mb: proportional_mb(host.primary()?)?, kernel_mb: slab_mb()? - before })
}

/// All tenants, and how many seconds each took to make.
fn create(host: &Host) -> anyhow::Result<(Vec<Tenant>, Vec<f64>)> {
    let (mut tenants, mut made) = (Vec::new(), Vec::new());
    for number in 1..TENANTS {
        let begun = Instant::now();
        tenants.push(host.create(&format!("t-{number}"))?);
        made.push(begun.elapsed().as_secs_f64());
    }
    Ok((tenants, made))
}

/// What the kernel has for sockets, files and its other small things, on the whole machine.
fn slab_mb() -> anyhow::Result<f64> {
    megabytes("/proc/meminfo", "Slab:")
}

/// What a tree takes on disk, of 10^6 bytes. A file with several names is there once.
fn stored(tree: &Path) -> anyhow::Result<f64> {
    const BLOCK_BYTES: u64 = 512;
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    let mut directories = vec![tree.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if seen.insert((metadata.dev(), metadata.ino())) {
                bytes += metadata.blocks() * BLOCK_BYTES;
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(bytes as f64 / 1e6)
}
