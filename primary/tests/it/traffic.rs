//! Many clients on kept connections, who ask without end while something changes behind them, and
//! what they may be told: nothing but whole answers, of a version that was live meanwhile.
//!
//! `History` changes one function and knows which version may answer when. `Traffic` asks it.
//! What is changed, and when, is the test's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::guests;
use crate::host::{Address, Tenant};
use crate::http::{Answer, Connection, Request};
use crate::processes::eventually;

pub const CONNECTIONS: u64 = 32;

/// Whether the tests run in their long form.
pub fn is_long() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// Choices that can be made again: the short form always makes the same, the long form others
/// each time, and both what `SEED` says.
pub struct Choices(u64);

impl Choices {
    pub fn new() -> Self {
        let seed = match std::env::var_os("SEED") {
            Some(seed) => seed.to_str().unwrap().parse().unwrap(),
            None if is_long() => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                now.as_micros() as u64 | 1
            }
            None => 0x9e37_79b9_7f4a_7c15,
        };
        println!("SEED={seed} makes the same choices");
        Self(seed)
    }

    /// Somebody else's, which follow from these and are not the same again.
    pub fn another(&mut self) -> Self {
        const MIX: u64 = 0xbf58_476d_1ce4_e5b9;
        let mixed = (self.below(u64::MAX) ^ MIX).wrapping_mul(MIX);
        Self((mixed ^ (mixed >> 29)).wrapping_mul(MIX) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One version of the function, and how it begins what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    version: u64,
    says: &'static str,
}

impl Step {
    /// Whether this version, asked with this body, gave this answer, and keeps the connection.
    pub fn gave(&self, answer: &Answer, body: &str) -> bool {
        let version = format!("/one@{}", self.version);
        answer.status == 200
            && !answer.closes()
            && answer.header("x-hearth-version") == Some(&version)
            && answer.text() == format!("{}: {body}", self.says)
    }
}

/// What `/one` of a tenant was, in order, as told by the only one who changes it.
pub struct History {
    tenant: Tenant,
    steps: RwLock<Vec<Step>>,
    /// The last step whose change is known to be done; at most one more has begun.
    done: AtomicUsize,
    uploads: Mutex<Vec<Step>>,
}

impl History {
    pub fn begin(tenant: &Tenant) -> Self {
        let history = Self {
            tenant: tenant.clone(),
            steps: RwLock::default(),
            done: AtomicUsize::new(0),
            uploads: Mutex::default(),
        };
        // Both are compiled now, so that a later upload is little more than its swap.
        for says in ["two", "one"] {
            history.put(says, json!({}));
        }
        history
    }

    pub fn current(&self) -> Step {
        *self.steps.read().unwrap().last().unwrap()
    }

    /// The other module. Returns when the upload is acknowledged.
    pub fn upload(&self) {
        self.put(if self.current().says == "one" { "two" } else { "one" }, json!({}));
    }

    /// The same module with options that it never had before.
    pub fn reconfigure(&self) {
        let timeout = 20_000 + self.uploads.lock().unwrap().len();
        self.put(self.current().says, json!({ "timeout_ms": timeout }));
    }

    /// One of the latest versions, and never the one that is active.
    pub fn roll_back(&self, choices: &mut Choices) {
        const LATEST: usize = 10;
        let uploads = self.uploads.lock().unwrap();
        let mut latest: Vec<Step> = uploads.iter().rev().take(LATEST).copied().collect();
        drop(uploads);
        latest.retain(|step| *step != self.current());
        let step = latest[choices.below(latest.len() as u64) as usize];
        self.change(step, || self.tenant.rollback("/one", step.version)["version"].clone());
    }

    fn put(&self, says: &'static str, options: Value) {
        let module = if says == "one" { guests::repeats_one() } else { guests::repeats_two() };
        let version = self.uploads.lock().unwrap().len() as u64 + 1;
        let step = Step { version, says };
        self.uploads.lock().unwrap().push(step);
        self.change(step, || {
            let up = self.tenant.deploy_with("one", module, &options);
            up["functions"][0]["version"].clone()
        });
    }

    fn change(&self, step: Step, make: impl FnOnce() -> Value) {
        let at = {
            let mut steps = self.steps.write().unwrap();
            steps.push(step);
            steps.len() - 1
        };
        assert_eq!(make(), step.version);
        self.done.store(at, Ordering::SeqCst);
    }

    /// To be asked before a request is sent; its answer is then [`History::judge`]d.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// An answer is right if a version gave it that was live after the request was sent.
    fn judge(&self, done: usize, body: &str, answer: &Answer) -> Result<(), String> {
        let steps = self.steps.read().unwrap();
        let live = &steps[done..];
        if live.iter().any(|step| step.gave(answer, body)) {
            return Ok(());
        }
        Err(format!("{live:?}, asked {body}, never answered {answer:?} {}", answer.text()))
    }
}

/// Clients that ask until the test has made its changes and they their requests.
pub struct Traffic<'a> {
    address: &'a Address,
    history: &'a History,
    requests: usize,
    begun: AtomicUsize,
    answered: AtomicUsize,
    changed: AtomicBool,
    lost: Mutex<Vec<String>>,
    /// Read by whoever is speaking.
    speaking: RwLock<()>,
}

impl<'a> Traffic<'a> {
    /// At least so many requests, and further ones for as long as the changes last. After them
    /// each connection serves once more.
    #[track_caller]
    pub fn run(
        address: &'a Address,
        history: &'a History,
        requests: usize,
        changes: impl FnOnce(&Traffic<'a>),
    ) {
        let traffic = Self {
            address,
            history,
            requests,
            begun: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            changed: AtomicBool::new(false),
            lost: Mutex::default(),
            speaking: RwLock::new(()),
        };
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| traffic.client());
            }
            // Also where the test fails in the middle of it.
            let _changed = Finally(&traffic.changed);
            changes(&traffic);
        });
        let answered = traffic.answered.into_inner();
        println!("{answered} requests were answered on {CONNECTIONS} connections");
        let lost = traffic.lost.into_inner().unwrap();
        assert!(lost.is_empty(), "{} of {CONNECTIONS} clients: {lost:#?}", lost.len());
        assert!(answered >= requests, "{answered} of {requests}");
    }

    /// Waits until that part of the requests is answered.
    #[track_caller]
    pub fn reach(&self, part: usize, of: usize) {
        eventually("more answers", || {
            let lost = self.lost.lock().unwrap();
            assert!(lost.is_empty(), "{lost:#?}");
            (self.answered.load(Ordering::Relaxed) >= self.requests * part / of).then_some(())
        });
    }

    /// Every client waits between two requests, its connection kept, for as long as this lasts.
    pub fn silence<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        let _silent = self.speaking.write().unwrap();
        meanwhile()
    }

    fn client(&self) {
        if let Err(lost) = self.ask() {
            self.lost.lock().unwrap().push(lost);
        }
    }

    fn ask(&self) -> Result<(), String> {
        let host = self.address.to.to_string();
        let mut connection = Connection::open(self.address.to).map_err(|e| format!("open: {e}"))?;
        for asked in 1.. {
            let _speaking = self.speaking.read().unwrap();
            let changed = self.changed.load(Ordering::SeqCst);
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let body = format!(r#"{{"request":{number}}}"#);
            let request = self.request(&body);
            let done = self.history.done();
            let answer = connection
                .send(&request.bytes(&host))
                .and_then(|()| connection.try_answer("POST"))
                .map_err(|e| format!("request {asked} of {:?}: {e}", connection.ends().0))?;
            self.history.judge(done, &body, &answer)?;
            self.answered.fetch_add(1, Ordering::Relaxed);
            if changed && number >= self.requests {
                break;
            }
        }
        Ok(())
    }

    fn request(&self, body: &str) -> Request {
        let request = self.address.request("POST", "/one");
        request.header("content-type", "application/json").body(body)
    }
}

struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
