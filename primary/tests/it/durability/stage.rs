//! A host with fail points, what is done to it there, and what must have come of that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::checker::{self, Function, State, Told};
use crate::guests;
use crate::host::{self, Host, Tenant};
use crate::http::{Answer, Request};
use crate::limits::uploads::{noise, padded};
use crate::processes::{eventually, soon};

/// One point, come to for the Nth time in an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    pub point: String,
    pub times: usize,
    /// Whether the disk can refuse it.
    pub is_step: bool,
}

/// One change, as a user asks for it.
pub struct Operation {
    pub name: &'static str,
    /// Brings about what the change needs.
    pub prepare: fn(&Stage),
    pub act: fn(&Stage) -> io::Result<Answer>,
    /// What the store says once it is done.
    pub expect: fn(&Stage, &mut State),
}

pub struct Stage {
    pub host: Host,
    pub tenant: Tenant,
    points: TempDir,
    /// What a module answers, by its digest.
    says: RefCell<BTreeMap<String, &'static str>>,
    /// Makes every module and every setting another one.
    count: Cell<u64>,
    /// What the operation at hand uploads, or names.
    pub at_hand: RefCell<Vec<(String, Vec<u8>)>>,
    pub id: Cell<u64>,
}

impl Stage {
    pub fn new() -> Self {
        let points = tempfile::Builder::new().prefix("hearth-points-").tempdir().unwrap();
        let host = Host::with(&["--fail-points", points.path().to_str().unwrap()]);
        let tenant = host.tenant("demo");
        let stage = Self {
            host,
            tenant,
            points,
            says: RefCell::default(),
            count: Cell::new(1),
            at_hand: RefCell::default(),
            id: Cell::new(0),
        };
        for _ in 0..2 {
            stage.deploy("one");
        }
        stage.deploy("two");
        stage
    }

    pub fn data(&self) -> PathBuf {
        self.host.data()
    }

    /// Starts the host, which is dead, and waits until it has swept: what it changes of itself
    /// would be counted among the points of what is done to it next.
    #[track_caller]
    pub fn start_again(&mut self, when: &str) {
        let nobody = sha256(&self.next().to_le_bytes());
        fs::write(checker::module(&self.data(), &nobody), "nobody's").unwrap();
        self.host.start_again();
        self.is_swept(when);
    }

    /// The names of all points, as the program tells them.
    pub fn points(&self) -> Vec<String> {
        let names = fs::read_to_string(self.points.path().join("points")).unwrap();
        names.lines().map(str::to_owned).collect()
    }

    /// From now on it is counted which points are come to.
    pub fn count_points(&self) {
        fs::write(self.points.path().join("reached"), "").unwrap();
    }

    pub fn reached(&self) -> Vec<Reached> {
        let lines = fs::read_to_string(self.points.path().join("reached")).unwrap();
        let mut all: Vec<Reached> = Vec::new();
        for line in lines.lines() {
            let (point, kind) = line.split_once(' ').unwrap();
            let times = all.iter().filter(|before| before.point == point).count() + 1;
            all.push(Reached { point: point.to_owned(), times, is_step: kind == "step" });
        }
        all
    }

    pub fn arm(&self, at: &Reached, what: &str) {
        let Reached { point, times, .. } = at;
        fs::write(self.points.path().join("armed"), format!("{point} {times} {what}")).unwrap();
        self.count_points();
    }

    pub fn disarm(&self) {
        fs::write(self.points.path().join("armed"), "").unwrap();
    }

    pub fn next(&self) -> u64 {
        self.count.replace(self.count.get() + 1)
    }

    /// A module that nobody has uploaded yet.
    pub fn module(&self) -> Vec<u8> {
        let number = self.next();
        let (module, says) = match number % 2 {
            0 => (guests::version_one(), "version one"),
            _ => (guests::version_two(), "version two"),
        };
        let module = padded(module, module.len() + 64, noise(number));
        self.says.borrow_mut().insert(sha256(&module), says);
        module
    }

    pub fn deploy(&self, name: &str) {
        self.tenant.deploy(name, &self.module());
    }

    pub fn upload(&self) -> Request {
        let at_hand = self.at_hand.borrow();
        let files: Vec<(&str, &[u8])> =
            at_hand.iter().map(|(name, module)| (&**name, &**module)).collect();
        host::upload(self.tenant.api("POST", "/functions"), &files, None)
    }

    pub fn send(&self, request: &Request) -> io::Result<Answer> {
        request.try_send(self.host.front)
    }

    /// Everything that is named is there, and every function answers as its version does.
    #[track_caller]
    pub fn is_whole(&self, when: &str) {
        let wrong = checker::wrong(&self.data());
        assert!(wrong.is_empty(), "{when}: {wrong:#?}");
        for (name, tenant) in checker::read(&self.data()).tenants {
            for (path, function) in tenant.functions {
                let to = (std::net::Ipv4Addr::LOCALHOST, tenant.port).into();
                let call = Request::new("POST", &path).body("{}");
                let answer = call.try_send(to);
                let answer = answer.unwrap_or_else(|error| panic!("{when}: {name}{path}: {error}"));
                match function.active {
                    None => drop(answer.expect_problem(404, "not_found")),
                    Some((version, sha256)) => {
                        let answer = answer.expect(200);
                        let version = format!("{path}@{version}");
                        assert_eq!(answer.header("x-hearth-version"), Some(&*version), "{when}");
                        if let Some(says) = self.says.borrow().get(&sha256) {
                            assert_eq!(answer.text(), *says, "{when}: {name}{version}");
                        }
                    }
                }
            }
        }
        let wrong = checker::wrong(&self.data());
        assert!(wrong.is_empty(), "{when}, once called: {wrong:#?}");
    }

    /// Nothing is left that nothing names.
    #[track_caller]
    pub fn is_swept(&self, when: &str) {
        let mut left = Vec::new();
        let swept = soon(|| {
            left = checker::left_over(&self.data());
            left.is_empty()
        });
        assert!(swept, "{when}: {left:#?}");
    }
}

pub fn sha256(module: &[u8]) -> String {
    checker::hex(&Sha256::digest(module))
}

/// As it is in the store, but for what a change counts up whatever it does.
pub fn same(a: &State, b: &State) -> bool {
    let without = |state: &State| {
        let mut state = state.clone();
        for tenant in state.tenants.values_mut() {
            tenant.generation = 0;
        }
        state
    };
    without(a) == without(b)
}

fn demo(state: &mut State) -> &mut checker::Tenant {
    state.tenants.get_mut("demo").unwrap()
}

/// One row more of who changed what.
fn tells(state: &mut State, tenant: &str, action: &str, path: Option<&str>) {
    let (tenant, action) = (Some(tenant.to_owned()), action.to_owned());
    state.audit.push(Told { tenant, action, path: path.map(str::to_owned) });
}

fn uploaded(stage: &Stage, state: &mut State) {
    const KEPT: usize = 20;
    let path = match &stage.at_hand.borrow()[..] {
        [(file, _)] => Some(format!("/{}", file.strip_suffix(".wasm").unwrap())),
        _ => None,
    };
    tells(state, "demo", "function.upload", path.as_deref());
    for (file, module) in stage.at_hand.borrow().iter() {
        let path = format!("/{}", file.strip_suffix(".wasm").unwrap());
        let function: &mut Function = demo(state).functions.entry(path).or_default();
        function.latest += 1;
        function.active = Some((function.latest, sha256(module)));
        function.versions.insert(function.latest, sha256(module));
        if function.options.is_empty() {
            "{}".clone_into(&mut function.options);
        }
        while function.versions.len() > KEPT {
            function.versions.pop_first();
        }
    }
}

fn take_in_hand(stage: &Stage, files: &[&str]) {
    let files = files.iter().map(|file| ((*file).to_owned(), stage.module()));
    *stage.at_hand.borrow_mut() = files.collect();
}

fn guest(stage: &Stage) -> Option<State> {
    Some(checker::read(&stage.data())).filter(|state| state.tenants.contains_key("guest"))
}

pub const UPLOADS: &[Operation] = &[
    Operation {
        name: "an upload",
        prepare: |stage| take_in_hand(stage, &["one.wasm"]),
        act: |stage| stage.send(&stage.upload()),
        expect: uploaded,
    },
    Operation {
        name: "an upload of two, one of them new, at the tenant's port",
        prepare: |stage| {
            let fresh = format!("fresh{}.wasm", stage.next());
            take_in_hand(stage, &["two.wasm", &fresh]);
        },
        act: |stage| {
            let at_hand = stage.at_hand.borrow();
            let files: Vec<(&str, &[u8])> =
                at_hand.iter().map(|(name, module)| (&**name, &**module)).collect();
            let address = stage.tenant.address();
            let request = host::upload(address.request("POST", "/$upload"), &files, None);
            request.bearer(&stage.tenant.token).try_send(address.to)
        },
        expect: uploaded,
    },
];

pub const SWITCHES: &[Operation] = &[
    Operation {
        name: "a rollback",
        prepare: |stage| stage.deploy("one"),
        act: |stage| stage.send(&stage.tenant.api("POST", "/functions/one/rollback")),
        expect: |_, state| {
            tells(state, "demo", "function.rollback", Some("/one"));
            let one = demo(state).functions.get_mut("/one").unwrap();
            let (active, _) = one.active.clone().unwrap();
            let before = one.versions.range(..active).next_back().unwrap();
            one.active = Some((*before.0, before.1.clone()));
        },
    },
    Operation {
        name: "a removal",
        prepare: |stage| stage.deploy("two"),
        act: |stage| stage.send(&stage.tenant.api("DELETE", "/functions/two")),
        expect: |_, state| {
            tells(state, "demo", "function.remove", Some("/two"));
            demo(state).functions.get_mut("/two").unwrap().active = None;
        },
    },
    Operation {
        name: "other options",
        prepare: |stage| stage.id.set(stage.next() + 1_000),
        act: |stage| {
            let options = json!({ "options": { "timeout_ms": stage.id.get() } });
            stage.send(&stage.tenant.api("PATCH", "/functions/one").json(&options))
        },
        expect: |stage, state| {
            tells(state, "demo", "function.options", Some("/one"));
            let options = json!({ "timeout_ms": stage.id.get() }).to_string();
            demo(state).functions.get_mut("/one").unwrap().options = options;
        },
    },
    Operation {
        name: "other limits",
        prepare: |stage| stage.id.set(stage.next() + 10),
        act: |stage| {
            let limits = json!({ "limits": { "rate_per_second": stage.id.get() + 1_000 } });
            stage.send(&stage.host.admin("PATCH", "/tenants/demo/limits").json(&limits))
        },
        expect: |stage, state| {
            tells(state, "demo", "tenant.limits", None);
            let limits = json!({ "rate_per_second": stage.id.get() + 1_000 }).to_string();
            demo(state).limits = limits;
        },
    },
];

/// Which its worker is told at its next start, and with which there is a key.
fn has_a_secret(stage: &Stage) {
    let secrets = json!({ "secrets": { "SEALED": "sealed-secret" } });
    let set = stage.tenant.api("PATCH", "/secrets").json(&secrets);
    stage.host.send(&set).expect(200);
}

pub const SETTINGS: &[Operation] = &[
    Operation {
        name: "other configuration",
        prepare: |stage| stage.id.set(stage.next()),
        act: |stage| {
            let config = json!({ "config": { "region": stage.id.get().to_string() } });
            stage.send(&stage.tenant.api("PATCH", "/config").json(&config))
        },
        expect: |stage, state| {
            tells(state, "demo", "tenant.config", None);
            let region = format!("config {}", stage.id.get());
            demo(state).settings.insert("region".to_owned(), region);
        },
    },
    Operation {
        name: "another secret",
        prepare: |stage| {
            has_a_secret(stage);
            stage.id.set(stage.next());
        },
        act: |stage| {
            let secrets = json!({ "secrets": { "KEY": "x".repeat(stage.id.get() as usize) } });
            stage.send(&stage.tenant.api("PATCH", "/secrets").json(&secrets))
        },
        expect: |stage, state| {
            tells(state, "demo", "tenant.secrets", None);
            let secret = format!("secret of {}", stage.id.get());
            demo(state).settings.insert("KEY".to_owned(), secret);
        },
    },
    Operation {
        name: "another key for secrets",
        // The one that is in use is in its place, whatever failed before.
        prepare: |stage| {
            has_a_secret(stage);
            stage.host.send(&stage.host.admin("POST", "/secrets/rekey")).expect(200);
        },
        act: |stage| stage.send(&stage.host.admin("POST", "/secrets/rekey")),
        expect: |_, state| {
            let (tenant, action) = (None, "host.rekey".to_owned());
            state.audit.push(Told { tenant, action, path: None });
        },
    },
];

pub const TENANTS: &[Operation] = &[
    Operation {
        name: "a new tenant",
        prepare: |stage| {
            if guest(stage).is_some() {
                stage.host.send(&stage.host.admin("DELETE", "/tenants/guest")).expect(204);
            }
        },
        act: |stage| {
            let request = stage.host.admin("POST", "/tenants").json(&json!({ "name": "guest" }));
            stage.send(&request)
        },
        expect: |stage, state| {
            let made = guest(stage).expect("it must be there").tenants.remove("guest").unwrap();
            assert_eq!((made.generation, made.functions.len()), (1, 0), "{made:?}");
            tells(state, "guest", "tenant.create", None);
            state.tenants.insert("guest".to_owned(), made);
        },
    },
    Operation {
        name: "a tenant's end",
        prepare: |stage| {
            if guest(stage).is_none() {
                let guest = stage.host.tenant("guest");
                guest.deploy("one", &stage.module());
            }
            let port = guest(stage).unwrap().tenants["guest"].port;
            // So that there is a worker to end.
            let to = (std::net::Ipv4Addr::LOCALHOST, port).into();
            Request::new("POST", "/hello").body("{}").send(to).expect(200);
        },
        act: |stage| stage.send(&stage.host.admin("DELETE", "/tenants/guest")),
        expect: |_, state| {
            tells(state, "guest", "tenant.delete", None);
            drop(state.tenants.remove("guest"));
        },
    },
    Operation {
        name: "a new token",
        prepare: |_| {},
        act: |stage| {
            let token = json!({ "name": "ci", "scope": "deploy" });
            stage.send(&stage.tenant.api("POST", "/tokens").json(&token))
        },
        expect: |_, state| {
            tells(state, "demo", "token.create", None);
            *demo(state).tokens.entry("ci".to_owned()).or_default() += 1;
        },
    },
    Operation {
        name: "a token's end",
        prepare: |stage| {
            let token = json!({ "name": "old", "scope": "invoke" });
            let made = stage.host.send(&stage.tenant.api("POST", "/tokens").json(&token));
            let id: &Value = &made.expect(201).json()["id"];
            stage.id.set(id.as_u64().unwrap());
        },
        act: |stage| {
            let path = format!("/tokens/{}", stage.id.get());
            stage.send(&stage.tenant.api("DELETE", &path))
        },
        expect: |_, state| {
            tells(state, "demo", "token.delete", None);
            let old = demo(state).tokens.get_mut("old").unwrap();
            *old -= 1;
            if *old == 0 {
                demo(state).tokens.remove("old");
            }
        },
    },
];

fn has_a_worker(stage: &Stage) {
    stage.tenant.post("/one", "{}").expect(200);
}

fn tell_worker(stage: &Stage, verb: &str) -> io::Result<Answer> {
    stage.send(&stage.tenant.api("POST", &format!("/worker/{verb}")))
}

/// What is nothing that is kept, but for that it was done.
pub const WORKERS: &[Operation] = &[
    Operation {
        name: "a worker's restart",
        prepare: has_a_worker,
        act: |stage| tell_worker(stage, "restart"),
        expect: |_, state| tells(state, "demo", "worker.restart", None),
    },
    Operation {
        name: "a worker's end",
        prepare: has_a_worker,
        act: |stage| tell_worker(stage, "stop"),
        expect: |_, state| tells(state, "demo", "worker.stop", None),
    },
    Operation {
        name: "a worker's start",
        prepare: |stage| drop(tell_worker(stage, "stop").unwrap().expect(200)),
        act: |stage| {
            let answer = tell_worker(stage, "start")?;
            // It is answered before there is one.
            eventually("a worker, or no host", || {
                match stage.send(&stage.tenant.api("GET", "/worker")) {
                    Ok(worker) if answer.status == 200 && worker.json()["state"] != "ready" => None,
                    _ => Some(()),
                }
            });
            Ok(answer)
        },
        expect: |_, state| tells(state, "demo", "worker.start", None),
    },
];

pub const RESTORES: &[Operation] = &[Operation {
    name: "a tenant's return out of a backup",
    prepare: |stage| {
        if guest(stage).is_none() {
            stage.host.tenant("guest").deploy("one", &stage.module());
        }
        if stage.at_hand.borrow().is_empty() {
            let backup = stage.host.send(&stage.host.admin("GET", "/backup")).expect(200).body;
            *stage.at_hand.borrow_mut() = vec![("backup".to_owned(), backup)];
        }
        stage.host.send(&stage.host.admin("DELETE", "/tenants/guest")).expect(204);
    },
    act: |stage| {
        let request = stage.host.admin("POST", "/restore?tenant=guest");
        stage.send(&request.body(&stage.at_hand.borrow()[0].1))
    },
    expect: |stage, state| {
        let back = guest(stage).expect("it must be there").tenants.remove("guest").unwrap();
        assert_eq!(back.functions.len(), 1, "{back:?}");
        tells(state, "guest", "tenant.restore", None);
        state.tenants.insert("guest".to_owned(), back);
    },
}];

pub fn all() -> impl Iterator<Item = &'static Operation> {
    UPLOADS.iter().chain(SWITCHES).chain(SETTINGS).chain(TENANTS).chain(WORKERS)
}

/// What a start finds to do: artifacts to make again, and what a crash left lying about.
pub fn leave_work_for_a_start(stage: &Stage) {
    let data = stage.data();
    let _ = fs::remove_dir_all(data.join("artifacts"));
    for directory in ["tmp", "tenants/stranger/releases/1", "tenants/demo/releases/999.half"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    for file in ["tmp/half", "tenants/stranger/releases/1/manifest.json"] {
        fs::write(data.join(file), "left over").unwrap();
    }
    let nobody = sha256(&stage.next().to_le_bytes());
    fs::write(checker::module(&data, &nobody), "nobody's").unwrap();
    for owner in ["another-engine/demo", "another-engine/stranger"] {
        fs::create_dir_all(data.join("artifacts").join(owner)).unwrap();
    }
}
