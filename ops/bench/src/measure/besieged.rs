//! What tenants notice of an attack on the host that they share: one is called steadily, one
//! uploads and one is woken, in the calm and then while the attack goes on. Each attack has a host
//! of its own, so that nothing of one is left for the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::process::{Signal, kill_process, nice};
use serde_json::json;

use crate::Setup;
use crate::attacks::{Attack, Target, allow_descriptors};
use crate::host::{HELLO_ANSWER, Host, Tenant};
use crate::http::Client;
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

/// How long is looked, in the calm and beside the attack.
const LOOK: Duration = Duration::from_secs(12);
/// Until an attack is what it is.
const WARMING: Duration = Duration::from_secs(3);
/// From one to the next.
const CALLS: Duration = Duration::from_millis(4);
const UPLOADS: Duration = Duration::from_millis(1_500);
const WAKES: Duration = Duration::from_millis(700);
/// Well below the time between two wakes, and above that between two calls.
const IDLE: [&str; 2] = ["--idle", "200ms"];
/// Of whoever attacks, and of all that it starts: the lowest priority there is.
const ATTACKERS_NICE: i32 = 19;
/// Of those they are measured beside, where this process may give it: the highest.
const CLIENTS_NICE: i32 = -20;
const GOAL: Goal = Goal::at_most(3.0);

/// Of a host that may open few files.
const FEW_FILES: u32 = 512;
/// Of a tenant whose uploads unpack to more.
const SMALL_DISK_BYTES: u64 = 4 << 20;
/// What its log holds is many pages.
const LOGGED_LINES: usize = 600;
const LOGGED_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Attack(Attack),
    /// The process that all workers are forked from does nothing any more.
    StoppedZygote,
}

const HARMS: [(&str, Harm); 6] = [
    ("540 uploads that trickle", Harm::Attack(Attack::TrickledUploads)),
    ("uploads that unpack to more than fits", Harm::Attack(Attack::Bombs)),
    ("16 modules hard to compile", Harm::Attack(Attack::HardModules)),
    ("300 slow readers", Harm::Attack(Attack::SlowReaders)),
    ("616 silent connections to 512 open files", Harm::Attack(Attack::SilentConnections)),
    ("a zygote that is stopped (calls alone)", Harm::StoppedZygote),
];

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Row>> {
    allow_descriptors()?;
    let mut rows = Vec::new();
    for (name, harm) in HARMS {
        rows.extend(beside(setup, name, harm)?);
    }
    Ok(rows)
}

fn beside(setup: &Setup, name: &str, harm: Harm) -> anyhow::Result<Vec<Row>> {
    let few = harm == Harm::Attack(Attack::SilentConnections);
    let host = Host::start_with_files(&setup.programs, &IDLE, few.then_some(FEW_FILES))?;
    let neighbours = Neighbours::new(setup, &host)?;
    let target = target(setup, &host, harm)?;
    let calm = neighbours.look(false)?;
    ensure!(calm.errors.is_empty(), "in the calm: {:?}", calm.errors);
    let ends = AtomicBool::new(false);
    let besieged = match harm {
        Harm::StoppedZygote => {
            let zygote = host.zygote()?;
            kill_process(zygote, Signal::STOP)?;
            let looked = neighbours.look(true);
            // The host may have ended it.
            let _ = kill_process(zygote, Signal::CONT);
            looked?
        }
        Harm::Attack(attack) => thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                // Attackers have machines of their own: those they are measured beside go first.
                nice(ATTACKERS_NICE)?;
                attack.run(&target, &ends)
            });
            thread::park_timeout(WARMING);
            let looked = neighbours.look(false);
            ends.store(true, Ordering::Relaxed);
            let done = attacker.join().expect("a panic ends the process")?;
            ensure!(done > 0, "{attack:?} did nothing");
            looked
        })?,
    };
    let mut worst = f64::NAN;
    let mut said = Vec::new();
    for ((what, beside), (_, before)) in besieged.kinds().into_iter().zip(calm.kinds()) {
        let [before, beside] = [before, beside].map(|it| it.quantile(0.99));
        if beside.is_finite() {
            worst = worst.max(beside / before);
            said.push(format!("{what} {} ms, {} ms", rounded(before), rounded(beside)));
        }
    }
    let what = format!("99 of 100 calls, uploads, wakes within, beside {name}");
    let mut rows = vec![
        Row::beside(what, worst, besieged.errors.len(), GOAL),
        Row::aside("in the calm, beside it", said.join("; ")),
    ];
    if let Some(first) = besieged.errors.first() {
        rows.push(Row::aside("the first error", first));
    }
    Ok(rows)
}

/// Somebody with a tenant of his own, and what his attack needs of it.
fn target(setup: &Setup, host: &Host, harm: Harm) -> anyhow::Result<Target> {
    let tenant = host.create("attacker")?;
    let module = setup.guest("version_one")?;
    match harm {
        Harm::Attack(Attack::Bombs) => {
            host.limit(&tenant, &json!({ "disk_bytes": SMALL_DISK_BYTES }))?;
        }
        Harm::Attack(Attack::SlowReaders) => {
            let mut client = Client::new(tenant.own);
            client.call(&tenant.upload(&[("prints", &setup.guest("prints")?)], None))?;
            let line = vec![b'x'; LOGGED_BYTES];
            for _ in 0..LOGGED_LINES {
                client.call(&tenant.call("prints", &line))?;
            }
        }
        _ => {}
    }
    let token = host.deploy_token(&tenant)?;
    Ok(Target { front: host.front, name: tenant.name, own: tenant.own, token, module })
}

/// Three tenants who mean no harm.
struct Neighbours<'a> {
    called: &'a Tenant,
    uploads: Tenant,
    sleeps: Tenant,
    modules: [Vec<u8>; 2],
}

#[derive(Default)]
struct Looked {
    calls: Samples,
    uploads: Samples,
    wakes: Samples,
    errors: Vec<String>,
}

impl Looked {
    fn kinds(&self) -> [(&'static str, &Samples); 3] {
        [("calls", &self.calls), ("uploads", &self.uploads), ("wakes", &self.wakes)]
    }
}

impl<'a> Neighbours<'a> {
    fn new(setup: &Setup, host: &'a Host) -> anyhow::Result<Self> {
        let (uploads, sleeps) = (host.create("uploads")?, host.create("sleeps")?);
        let modules = [setup.guest("version_one")?, setup.guest("version_two")?];
        let neighbours = Self { called: &host.home, uploads, sleeps, modules };
        // Both are compiled now.
        for module in &neighbours.modules {
            Client::new(neighbours.uploads.own).call(&neighbours.upload(module))?;
        }
        Ok(neighbours)
    }

    fn upload(&self, module: &[u8]) -> Vec<u8> {
        self.uploads.upload(&[("one", module)], None)
    }

    /// What all three have in a while.
    fn look(&self, calls_alone: bool) -> anyhow::Result<Looked> {
        let looked = Mutex::new(Looked::default());
        let until = Instant::now() + LOOK;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::new(self.called.own);
                let request = self.called.hello();
                paced(
                    CALLS,
                    until,
                    &looked,
                    |it| &mut it.calls,
                    |_| {
                        let answer = client.call(&request);
                        if answer.is_err() {
                            client = Client::new(self.called.own);
                        }
                        let answer = answer?;
                        ensure!(*answer == *HELLO_ANSWER, "another answer");
                        Ok(())
                    },
                );
            });
            if calls_alone {
                return;
            }
            scope.spawn(|| {
                paced(
                    UPLOADS,
                    until,
                    &looked,
                    |it| &mut it.uploads,
                    |number| {
                        let request = self.upload(&self.modules[number % 2]);
                        Client::new(self.uploads.own).call(&request).map(drop)
                    },
                );
            });
            scope.spawn(|| {
                paced(
                    WAKES,
                    until,
                    &looked,
                    |it| &mut it.wakes,
                    |_| Client::new(self.sleeps.own).call(&self.sleeps.hello()).map(drop),
                );
            });
        });
        Ok(looked.into_inner().expect("nobody panics with it"))
    }
}

/// Does it at a steady pace, and notes how long each took or what came in its place.
fn paced(
    pace: Duration,
    until: Instant,
    looked: &Mutex<Looked>,
    samples: impl Fn(&mut Looked) -> &mut Samples,
    mut act: impl FnMut(usize) -> anyhow::Result<()>,
) {
    // They have machines of their own as well, and wait for the host's cores, not for one to ask.
    let _ = nice(CLIENTS_NICE);
    let mut next = Instant::now();
    for number in 0.. {
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        next = Instant::now() + pace;
        let begun = Instant::now();
        if begun >= until {
            return;
        }
        let acted = act(number);
        let took = begun.elapsed();
        let mut looked = looked.lock().expect("nobody panics with it");
        match acted {
            Ok(()) => samples(&mut looked).push_milliseconds(took),
            Err(error) => looked.errors.push(format!("{error:#}")),
        }
    }
}
