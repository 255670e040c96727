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
/// Those that were woken are asleep when it is their turn again.
const IDLE: [&str; 2] = ["--idle", "2s"];
/// Of tenants far from each other, one after another.
const WAKES: usize = 300;
/// Tenants whose making is timed, the first and the last of them.
const TIMED: usize = 1_000;

const RESIDENT: Goal = Goal::at_most(100.0);
const START: Goal = Goal::at_most(2.0);
const A_TENANT: Goal = Goal::at_most(8.0).better(6.0);
const HEARD: Goal = Goal::at_least(99.0);
/// What the host has to say of the time from a socket's readiness to the fork's request.
const SPAWN_SOON: &str = r#"hearth_spawn_seconds_bucket{le="0.0001"}"#;
const SPAWNS: &str = "hearth_spawn_seconds_count";
const NO_SPAWNS: &str = "this host does not tell";

pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let mut host = Host::start_with_room(&setup.programs, &IDLE, TENANTS)?;
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

    let some = || tenants.iter().step_by(tenants.len() / WAKES).take(WAKES);
    // The host looks after a tenant's files at its first wake.
    let first = wake(&host, some())?;
    let before = spawns(&host)?;
    let again = wake(&host, some())?;
    let since = before.zip(spawns(&host)?).map(|(before, after)| after.since(before));
    let heard = "a socket's readiness to the fork's request within 100 us";
    let said = |wakes: &Samples| {
        let said = [wakes.median(), wakes.quantile(0.99)].map(rounded);
        format!("{} ms; {} ms", said[0], said[1])
    };
    Ok(vec![
        Row::figure(format!("{TENANTS} asleep: the primary"), resident, " MB", RESIDENT),
        Row::figure(format!("its start, median of {STARTS}"), starts.median(), " s", START),
        Row::figure("memory a tenant, the kernel's too", each(own + kernel), " KB", A_TENANT),
        match since {
            Some(Spawns { soon, all }) => Row::figure(heard, soon / all * 100.0, " %", HEARD),
            None => Row::unmeasured(heard, NO_SPAWNS),
        },
        Row::stated("a wake among them: median; 99 of 100", said(&again)),
        Row::stated("the first since the host's start", said(&first)),
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

/// Wakes one after another, each in calm.
fn wake<'a>(host: &Host, tenants: impl Iterator<Item = &'a Tenant>) -> anyhow::Result<Samples> {
    let mut wakes = Samples::default();
    for tenant in tenants {
        host.wait_asleep(tenant)?;
        calm();
        let Timed { status, body, first_byte } = Client::new(tenant.own).time(&tenant.hello())?;
        let right = status == 200 && body == HELLO_ANSWER;
        ensure!(right, "answered {status}: {}", String::from_utf8_lossy(&body));
        wakes.push_milliseconds(first_byte);
    }
    Ok(wakes)
}

/// Forks that were asked for, and those of them within 100 us.
#[derive(Clone, Copy)]
struct Spawns {
    soon: f64,
    all: f64,
}

impl Spawns {
    fn since(self, before: Self) -> Self {
        Self { soon: self.soon - before.soon, all: self.all - before.all }
    }
}

fn spawns(host: &Host) -> anyhow::Result<Option<Spawns>> {
    let said = host.metric(SPAWN_SOON)?.zip(host.metric(SPAWNS)?);
    Ok(said.map(|(soon, all)| Spawns { soon, all }))
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
