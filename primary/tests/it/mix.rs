//! Every kind of client at once, at all addresses and through the proxies that operators have,
//! while functions are uploaded, rolled back and put to sleep behind them: each call has its
//! answer, or a true outcome on record, and nothing of one tenant's clients shows at another's.
//! The seeded short form, or with SOAK in the environment the long one.
//!
//! `plan.rs` says what a client does, `clients.rs` does it, `judge.rs` says whether what it saw and
//! what is on record are right; this brings them together.

mod clients;
mod judge;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::{Connection, Request};
use crate::mix::clients::{Address, Kept, call};
use crate::mix::judge::{Saw, Told, is_cut_on_the_way, is_on_record, judge};
use crate::mix::plan::{PATIENT, Plan, Way};
use crate::processes::{pause, soon};
use crate::proxies::{DOMAIN, Kind, Proxy};
use crate::traffic::{Choices, is_long};

/// Whose clients do as they like, whose do no harm, and who sleeps between theirs.
const ROUGH: &str = "red";
const POLITE: &str = "blue";
const SLEEPY: &str = "green";
const TENANTS: [&str; 3] = [ROUGH, POLITE, SLEEPY];
/// For each way.
const ROUGH_CLIENTS: usize = 4;
const POLITE_CLIENTS: usize = 2;
const SLEEPY_CLIENTS: usize = 1;
/// Changes wait for one another, and for calls that older workers are still finishing.
const CHANGE_MAX: Duration = Duration::from_secs(240);
/// What a client's calls are numbered within.
const CALLS_EACH: u64 = 1_000_000;
/// Clients that are cut off after 20 or 30 seconds must not be.
const PATIENCE: Duration = Duration::from_secs(24);

/// How long new calls are begun.
fn extent() -> Duration {
    if is_long() { Duration::from_secs(600) } else { Duration::from_secs(25) }
}

#[test]
fn each_call_has_its_answer_or_a_true_outcome_on_record() {
    let host =
        Host::with(&["--trusted-proxy", "127.0.0.1/32", "--domain", DOMAIN, "--idle", "200ms"]);
    let proxies = [Kind::Nginx, Kind::Haproxy, Kind::Caddy]
        .map(|kind| Proxy::start(kind, host.scratch(), host.front));
    let mut choices = Choices::new();
    let stages = TENANTS.map(|name| Stage::begin(&host, &proxies, name));
    let [rough, polite, sleepy] = &stages;
    let begun = Instant::now();
    let goes_on = &|| begun.elapsed() < extent();
    let begun = &begun;
    std::thread::scope(|scope| {
        let mut client = 0;
        let mut numbers = || {
            client += 1;
            client * CALLS_EACH..(client + 1) * CALLS_EACH
        };
        for way in Way::ALL {
            for (stage, clients, is_rough) in [
                (rough, ROUGH_CLIENTS, true),
                (polite, POLITE_CLIENTS, false),
                (sleepy, SLEEPY_CLIENTS, false),
            ] {
                for _ in 0..clients {
                    let (mut choices, numbers) = (choices.another(), numbers());
                    scope.spawn(move || {
                        let make = if is_rough { Plan::rough } else { Plan::polite };
                        let mut kept = None;
                        for nonce in numbers.take_while(|_| goes_on()) {
                            let plan = make(&mut choices, nonce, way);
                            stage.call(plan, &mut kept);
                            pause(Duration::from_millis(choices.below(60)));
                        }
                    });
                }
            }
            for kind in 0..PATIENT {
                let numbers = numbers();
                scope.spawn(move || {
                    let mut kept = None;
                    let fits = || goes_on() && begun.elapsed() + PATIENCE <= extent();
                    for nonce in numbers.take_while(|_| fits()) {
                        let plan = Plan::patient(kind, nonce, way, PATIENCE);
                        rough.call(plan, &mut kept);
                    }
                });
            }
        }
        for ways in Way::ALL.chunks(3) {
            let mut choices = choices.another();
            scope.spawn(move || {
                for way in ways.iter().cycle().take_while(|_| goes_on()) {
                    rough.upload_other(*way, &mut choices);
                }
            });
        }
        for stage in &stages {
            let (host, mut choices) = (&host, choices.another());
            scope.spawn(move || {
                while goes_on() {
                    match choices.below(2) {
                        0 if stage.name() == SLEEPY => stage.sleep(host),
                        _ => stage.change(&mut choices),
                    }
                    pause(Duration::from_millis(choices.below(3_000)));
                }
            });
        }
        for stage in &stages {
            scope.spawn(move || {
                while goes_on() {
                    stage.collect();
                    pause(Duration::from_millis(500));
                }
            });
        }
    });
    let mut wrong = BTreeMap::<_, (usize, Vec<String>)>::new();
    let mut right = BTreeMap::<_, usize>::new();
    let mut cut_by_caddy = Vec::new();
    for stage in &stages {
        stage.wait_for_records();
        stage.judge(&mut right, &mut wrong, &mut cut_by_caddy);
    }
    println!("{} answers were cut by Caddy", cut_by_caddy.len());
    let said = proxies[2].said();
    let owns_up = |line: &&str| {
        line.contains("reading from backend") && line.contains("use of closed network connection")
    };
    let owned_up = said.lines().filter(owns_up).count();
    assert!(cut_by_caddy.len() <= owned_up, "Caddy cut {owned_up}: {cut_by_caddy:#?}\n{said}");
    for ((tenant, way), calls) in &right {
        println!("{calls} calls of {tenant} by {way:?} were as they must be");
    }
    let dropped = |name: &str| {
        let kind = r#"kind="call""#;
        host.figure(&format!("hearth_log_records_dropped_total{{tenant=\"{name}\",{kind}}}"))
    };
    println!("records dropped: {:?}", TENANTS.map(dropped));
    if !wrong.is_empty() {
        for proxy in &proxies {
            println!("{}", proxy.said());
        }
    }
    let all: usize = wrong.values().map(|(calls, _)| calls).sum();
    assert!(wrong.is_empty(), "{all} calls were not as they must be: {wrong:#?}");
}

/// One tenant, its addresses, and all that was seen and told of its calls.
struct Stage {
    tenant: Tenant,
    addresses: [Address; 6],
    versions: Versions,
    calls: Mutex<Vec<(Plan, Saw)>>,
    told: Mutex<Records>,
    /// What came of uploads that was no answer.
    lost: Mutex<Vec<(Way, String)>>,
    /// Read by whoever speaks; who sleeps is spoken to by nobody.
    speaking: RwLock<()>,
}

#[derive(Default)]
struct Records {
    last: u64,
    of: HashMap<String, Vec<Told>>,
}

/// The versions that were live, in order, as told by the only one who changes them.
#[derive(Default)]
struct Versions {
    steps: RwLock<Vec<u64>>,
    /// The last step whose change is known to be done; at most one more has begun.
    done: AtomicUsize,
    uploads: Mutex<u64>,
}

impl Stage {
    fn begin(host: &Host, proxies: &[Proxy; 3], name: &'static str) -> Self {
        let tenant = host.tenant(name);
        let stage = Self {
            addresses: addresses(host, &tenant, proxies),
            tenant,
            versions: Versions::default(),
            calls: Mutex::default(),
            told: Mutex::default(),
            lost: Mutex::default(),
            speaking: RwLock::new(()),
        };
        stage.upload();
        stage.upload();
        stage
    }

    fn name(&self) -> &'static str {
        TENANTS.into_iter().find(|name| *name == self.tenant.name).expect("it is one of them")
    }

    fn call(&self, plan: Plan, kept: &mut Option<Kept>) {
        let _speaking = self.speaking.read().unwrap();
        let done = self.versions.done.load(Ordering::SeqCst);
        let address = &self.addresses[plan.way as usize];
        let follows_early = kept.as_ref().is_some_and(|kept| kept.was_early);
        let (answer, sent_at) = call(address, &plan, kept);
        let live = self.versions.steps.read().unwrap()[done..].to_vec();
        let saw = Saw { answer, live, waited: sent_at.elapsed(), follows_early };
        self.calls.lock().unwrap().push((plan, saw));
    }

    /// One of what its owner does.
    fn change(&self, choices: &mut Choices) {
        if choices.below(3) == 0 { self.roll_back(choices) } else { self.upload() }
    }

    /// The same module with options that it never had before.
    fn upload(&self) {
        let mut uploads = self.versions.uploads.lock().unwrap();
        *uploads += 1;
        let version = *uploads;
        let options = json!({ "timeout_ms": 60_000 + version, "max_body": 16 << 20 });
        let files = [("mix.wasm", guests::mirrors())];
        let request = self.tenant.api("POST", "/functions");
        let request = upload(request, &files, Some(&options.to_string()));
        self.versions
            .become_live(version, || self.changed(&request)["functions"][0]["version"].clone());
    }

    /// What came of a change, which others that are made at once may hold up.
    fn changed(&self, request: &Request) -> Value {
        let mut busy = 0;
        loop {
            let mut connection = Connection::open(self.addresses[Way::Name as usize].to).unwrap();
            connection.wait_for(CHANGE_MAX).unwrap();
            let answer = connection.call(request);
            if !matches!(answer.status, 409 | 429) {
                return answer.expect(200).json();
            }
            busy += 1;
            assert!(busy < 100, "it is held up again and again: {}", answer.text());
            pause(Duration::from_millis(100));
        }
    }

    fn roll_back(&self, choices: &mut Choices) {
        const LATEST: u64 = 5;
        let uploads = *self.versions.uploads.lock().unwrap();
        let active = *self.versions.steps.read().unwrap().last().unwrap();
        let version = uploads - choices.below(LATEST.min(uploads));
        if version != active {
            self.versions
                .become_live(version, || self.tenant.rollback("/mix", version)["version"].clone());
        }
    }

    /// Its clients are silent until it sleeps, and then all ask.
    fn sleep(&self, host: &Host) {
        let _silent = self.speaking.write().unwrap();
        host.sleeps(&self.tenant);
    }

    /// Whoever waits for the answer of an upload has one; whoever leaves harms nobody.
    fn upload_other(&self, way: Way, choices: &mut Choices) {
        let address = &self.addresses[way as usize];
        let options = json!({ "timeout_ms": 1_000 + choices.below(20_000) }).to_string();
        let module = [guests::repeats_one(), guests::repeats_two()][choices.below(2) as usize];
        let files = [("other.wasm", module)];
        let request = upload(address.request("POST", "/$upload"), &files, Some(&options));
        let bytes = request.bearer(&self.tenant.token).bytes("");
        let Ok(mut connection) = address.open() else { return };
        match choices.below(5) {
            0 | 1 => {
                connection.wait_for(CHANGE_MAX).unwrap();
                let sent = connection.send(&bytes);
                let said = match connection.try_answer("POST") {
                    // One at a time, and not without end.
                    Ok(answer) if matches!(answer.status, 200 | 409 | 429) => return,
                    Ok(answer) => format!("answered {}: {}", answer.status, answer.text()),
                    Err(error) => format!("{error} (sent: {sent:?})"),
                };
                self.lost.lock().unwrap().push((way, format!("an upload was lost: {said}")));
            }
            2 => {
                let _ = connection.send(&bytes[..2_000]);
            }
            3 => {
                let _ = connection.send(&bytes[..bytes.len() / 2]);
                connection.reset();
                return;
            }
            _ => {
                for piece in bytes.chunks(300).take(20) {
                    pause(Duration::from_millis(100));
                    if connection.send(piece).is_err() {
                        break;
                    }
                }
            }
        }
        pause(Duration::from_millis(choices.below(2_000)));
    }

    /// Takes the records that are new.
    fn collect(&self) {
        const PAGE: u64 = 1_000;
        let mut told = self.told.lock().unwrap();
        let (mut before, known) = (String::new(), told.last);
        loop {
            let page = self.tenant.ask(&format!("/calls?limit={PAGE}{before}"));
            let calls = page["calls"].as_array().unwrap();
            for call in calls.iter().filter(|call| number(call, "id") > known) {
                let id = call["request_id"].as_str().unwrap().to_owned();
                told.last = told.last.max(number(call, "id"));
                told.of.entry(id).or_default().push(Told {
                    status: number(call, "status").try_into().unwrap(),
                    outcome: call["outcome"].as_str().unwrap().to_owned(),
                    duration_us: number(call, "duration_us"),
                    request_bytes: number(call, "request_bytes"),
                    response_bytes: number(call, "response_bytes"),
                });
            }
            match calls.first().map(|call| number(call, "id")) {
                Some(oldest) if oldest > known + 1 && page["next"].is_u64() => {
                    before = format!("&before={oldest}");
                }
                _ => break,
            }
        }
    }

    /// Until there is one of each call of which there must be one, or none comes any more.
    fn wait_for_records(&self) {
        let calls = self.calls.lock().unwrap();
        soon(|| {
            self.collect();
            let told = self.told.lock().unwrap();
            let mut needed = calls.iter().filter(|(plan, saw)| is_on_record(plan, saw));
            needed.all(|(plan, _)| told.of.contains_key(&plan.request_id()))
        });
    }

    fn judge(
        &self,
        right: &mut BTreeMap<(&'static str, Way), usize>,
        wrong: &mut BTreeMap<(&'static str, Way, String), (usize, Vec<String>)>,
        cut_by_caddy: &mut Vec<String>,
    ) {
        const EXAMPLES: usize = 2;
        let told = self.told.lock().unwrap();
        let mut is_wrong = |way: Way, why: String, example: String| {
            let (calls, examples) = wrong.entry((self.name(), way, kind_of(&why))).or_default();
            *calls += 1;
            if examples.len() < EXAMPLES {
                examples.push(format!("{why}; {example}"));
            }
        };
        for (way, why) in self.lost.lock().unwrap().drain(..) {
            is_wrong(way, why, String::new());
        }
        for (plan, saw) in self.calls.lock().unwrap().iter() {
            let told = told.of.get(&plan.request_id()).map_or(&[][..], Vec::as_slice);
            match judge(plan, saw, told) {
                Ok(()) => *right.entry((self.name(), plan.way)).or_default() += 1,
                Err(why) if plan.way == Way::Caddy && is_cut_on_the_way(saw, told) => {
                    cut_by_caddy.push(format!("{why}; {plan:?} {saw:?} {told:?}"));
                }
                Err(why) => is_wrong(plan.way, why, format!("{plan:?} {saw:?} {told:?}")),
            }
        }
    }
}

impl Versions {
    fn become_live(&self, version: u64, make: impl FnOnce() -> Value) {
        let at = {
            let mut steps = self.steps.write().unwrap();
            steps.push(version);
            steps.len() - 1
        };
        assert_eq!(make(), version);
        self.done.store(at, Ordering::SeqCst);
    }
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap()
}

/// A sentence without its numbers, so that those of one kind are counted together.
fn kind_of(why: &str) -> String {
    why.chars().filter(|it| !it.is_ascii_digit()).take(60).collect()
}

fn addresses(host: &Host, tenant: &Tenant, proxies: &[Proxy; 3]) -> [Address; 6] {
    let name = &tenant.name;
    let of = |way, to, host: String, prefix: &str| Address { way, to, host, prefix: prefix.into() };
    let proxied = |way, proxy: &Proxy| of(way, proxy.address, format!("{name}.{DOMAIN}"), "");
    let own = tenant.address().to;
    [
        of(Way::Port, own, own.to_string(), ""),
        of(Way::Name, host.front, format!("{name}.{DOMAIN}"), ""),
        of(Way::Path, host.front, host.front.to_string(), &format!("/t/{name}")),
        proxied(Way::Nginx, &proxies[0]),
        proxied(Way::Haproxy, &proxies[1]),
        proxied(Way::Caddy, &proxies[2]),
    ]
}
