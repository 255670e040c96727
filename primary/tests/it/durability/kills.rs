//! Kills: any process of the host at any moment, over and over, under calls and uploads of several
//! tenants. What was acknowledged is there, every tenant comes back, and nobody outlives the host.
//! A hundred kills that are always the same, or with SOAK in the environment a thousand others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::checker;
use super::stage::sha256;
use crate::guests;
use crate::host::{Host, Tenant};
use crate::limits::uploads::{noise, padded};
use crate::processes::{
    children, command_line, descendants, eventually, is_alive, is_listening, pause, signal,
};
use crate::traffic::{Choices, is_long};

const TENANTS: [&str; 3] = ["ada", "ben", "cyd"];
/// Between two kills, at the most.
const QUIET_US: u64 = 300_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victim {
    Primary,
    Zygote,
    Worker,
    Compiler,
}

/// One tenant's uploads and calls, which nothing but the end of the test stops.
struct Customer {
    tenant: Tenant,
    /// The module of each version that was acknowledged.
    acknowledged: Mutex<BTreeMap<i64, String>>,
    /// All that were sent: what was not acknowledged may be there or not.
    sent: Mutex<BTreeSet<String>>,
    answered: AtomicU64,
}

impl Customer {
    fn uploads(&self, end: &AtomicBool, mut seed: u64) {
        while !end.load(Ordering::Relaxed) {
            seed += 1;
            let module = [guests::version_one(), guests::version_two()][seed as usize % 2];
            let module = padded(module, module.len() + 64, noise(seed));
            let digest = sha256(&module);
            self.sent.lock().unwrap().insert(digest.clone());
            let address = self.tenant.address();
            let files = [("one.wasm", &*module)];
            let request = crate::host::upload(address.request("POST", "/$upload"), &files, None);
            if let Ok(answer) = request.bearer(&self.tenant.token).try_send(address.to)
                && answer.status == 200
            {
                let version = answer.json()["functions"][0]["version"].as_i64().unwrap();
                self.acknowledged.lock().unwrap().insert(version, digest);
            }
            // There is no host for a while after it was killed.
            pause(Duration::from_millis(20));
        }
    }

    fn calls(&self, end: &AtomicBool) {
        let address = self.tenant.address();
        while !end.load(Ordering::Relaxed) {
            if let Ok(answer) = address.request("POST", "/one").try_send(address.to)
                && answer.status == 200
            {
                assert!(answer.text().starts_with("version "), "{answer:?}");
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            pause(Duration::from_millis(2));
        }
    }
}

#[test]
fn whoever_dies_and_whenever_nothing_acknowledged_is_lost() {
    let kills = if is_long() { 1_000 } else { 100 };
    let mut choices = Choices::new();
    let mut host = Host::start();
    let customers = TENANTS.map(|name| {
        let tenant = host.tenant(name);
        tenant.deploy("one", guests::version_one());
        let sent = BTreeSet::from([sha256(guests::version_one())]);
        let acknowledged = BTreeMap::from([(1, sha256(guests::version_one()))]);
        Customer {
            tenant,
            acknowledged: Mutex::new(acknowledged),
            sent: Mutex::new(sent),
            answered: AtomicU64::new(0),
        }
    });
    let end = AtomicBool::new(false);
    let mut killed: BTreeMap<Victim, u32> = BTreeMap::new();
    let mut orphans: BTreeSet<i32> = BTreeSet::new();
    std::thread::scope(|scope| {
        // Also where the test fails in the middle of it.
        let _end = Finally(&end);
        let end = &end;
        for (number, customer) in (1..).zip(&customers) {
            scope.spawn(move || customer.calls(end));
            scope.spawn(move || customer.uploads(end, number << 32));
        }
        while killed.values().sum::<u32>() < kills {
            pause(Duration::from_micros(choices.below(QUIET_US)));
            let victim = match choices.below(5) {
                0 => Victim::Primary,
                1 => Victim::Zygote,
                2 => Victim::Compiler,
                _ => Victim::Worker,
            };
            let Some(pid) = one_of(&host, victim, &mut choices) else { continue };
            *killed.entry(victim).or_default() += 1;
            match victim {
                Victim::Primary => {
                    orphans.extend(kill_host(&mut host));
                    host.start_again();
                }
                Victim::Zygote | Victim::Worker | Victim::Compiler => signal(pid, Signal::SIGKILL),
            }
            if killed.values().sum::<u32>().is_multiple_of(20) {
                comes_back(&customers);
            }
        }
        comes_back(&customers);
    });
    let (mut acknowledged, mut answered) = (0, 0);
    for customer in &customers {
        acknowledged += is_kept(&host, customer);
        answered += customer.answered.load(Ordering::Relaxed);
    }
    let wrong = checker::wrong(&host.data());
    assert!(wrong.is_empty(), "{wrong:#?}");
    orphans.extend(kill_host(&mut host));
    eventually("the end of every process", || {
        orphans.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    for customer in &customers {
        assert!(!is_listening(customer.tenant.port), "somebody holds {}", customer.tenant.port);
    }
    println!(
        "{killed:?}: 0 of {acknowledged} acknowledged uploads lost, {} of {} tenants back, \
         0 of {} processes left, {answered} calls answered",
        customers.len(),
        customers.len(),
        orphans.len()
    );
    assert!(killed.len() == 4 && acknowledged > u64::from(kills) / 10, "{killed:?}");
    host.start_again();
    comes_back(&customers);
}

/// Kills the host. Tells its processes at that moment, none of which was born
/// unseen: whoever could have a child was stopped first.
fn kill_host(host: &mut Host) -> Vec<i32> {
    let pid = host.pid();
    signal(pid, Signal::SIGSTOP);
    // Those that are forked from a zygote look like one.
    let could_fork = |pid: &i32| command_line(*pid).contains("zygote");
    let forkers = descendants(pid).into_iter().filter(could_fork);
    forkers.for_each(|pid| signal(pid, Signal::SIGSTOP));
    let theirs = descendants(pid);
    host.kill();
    theirs.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    theirs
}

fn one_of(host: &Host, victim: Victim, choices: &mut Choices) -> Option<i32> {
    let zygote = host.zygote();
    let is_compiler = |pid: &i32| command_line(*pid).contains("hearth-compile");
    let found: Vec<i32> = match victim {
        Victim::Primary => vec![host.pid()],
        Victim::Zygote => zygote.into_iter().collect(),
        Victim::Compiler => children(host.pid()).into_iter().filter(is_compiler).collect(),
        Victim::Worker => descendants(host.pid())
            .into_iter()
            .filter(|pid| Some(*pid) != zygote && !is_compiler(pid))
            .collect(),
    };
    let at = choices.below(found.len().max(1) as u64) as usize;
    found.get(at).copied()
}

/// Every tenant answers, however often it was killed before.
fn comes_back(customers: &[Customer]) {
    for customer in customers {
        eventually("a tenant that is back", || {
            let address = customer.tenant.address();
            let answer = address.request("POST", "/one").try_send(address.to).ok()?;
            (answer.status == 200).then_some(())
        });
    }
}

/// Tells how many uploads were acknowledged: each is there, under its number, with its bytes.
fn is_kept(host: &Host, customer: &Customer) -> u64 {
    let state = checker::read(&host.data());
    let function = &state.tenants[&customer.tenant.name].functions["/one"];
    let acknowledged = customer.acknowledged.lock().unwrap();
    let sent = customer.sent.lock().unwrap();
    let (active, module) = function.active.as_ref().unwrap();
    let newest = acknowledged.last_key_value().map_or(0, |(version, _)| *version);
    assert!(*active >= newest, "{newest} was acknowledged, and {active} serves");
    assert!(sent.contains(module), "nobody sent {module}");
    for (version, module) in acknowledged.iter() {
        // The oldest go when there are more than are kept.
        let kept = function.versions.get(version);
        let is_old = function.versions.keys().next().is_some_and(|oldest| version < oldest);
        assert!(kept == Some(module) || (kept.is_none() && is_old), "{version}: {kept:?}");
    }
    let answer = customer.tenant.post("/one", "").expect(200);
    let version = format!("/one@{active}");
    assert_eq!(answer.header("x-hearth-version"), Some(&*version));
    acknowledged.len() as u64
}

struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
