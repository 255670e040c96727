//! What a data directory holds, and what is wrong with it. Reads it by itself: SQLite, SHA-256 and
//! the directories, and none of the server's code, so that a mistake there is not made here again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the store says, without what differs from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub tenants: BTreeMap<String, Tenant>,
    /// Who changed what, from the first change on.
    pub audit: Vec<Told>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub tenant: Option<String>,
    pub action: String,
    /// A function's path; the ids of tokens are others each time.
    pub path: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tenant {
    pub port: u16,
    pub generation: i64,
    pub limits: String,
    /// By path; those that were removed, too.
    pub functions: BTreeMap<String, Function>,
    /// How many there are of each name.
    pub tokens: BTreeMap<String, u64>,
    /// By name: the value of configuration, and of secrets how long they are.
    pub settings: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Function {
    /// The version that serves, and its module.
    pub active: Option<(i64, String)>,
    pub latest: i64,
    pub options: String,
    /// The versions that are kept.
    pub versions: BTreeMap<i64, String>,
    /// What is bundled at its path was removed.
    pub hidden: bool,
}

fn open(data: &Path) -> Connection {
    let db = Connection::open_with_flags(data.join("hearth.db"), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let db = db.unwrap();
    db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    db
}

pub fn read(data: &Path) -> State {
    let mut db = open(data);
    // One transaction, since the host goes on.
    let db = db.transaction().unwrap();
    let mut tenants = BTreeMap::new();
    // Without a generation it is being made, and nobody was told of it.
    let sql = "SELECT id, name, port, generation, limits FROM tenants WHERE generation > 0";
    let mut rows = db.prepare(sql).unwrap();
    let mut rows = rows.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let id: i64 = row.get(0).unwrap();
        let mut tenant = Tenant {
            port: row.get(2).unwrap(),
            generation: row.get(3).unwrap(),
            limits: row.get(4).unwrap(),
            ..Tenant::default()
        };
        let mut functions = db.prepare(
            "SELECT id, path, active, latest, options, hidden_at IS NOT NULL FROM functions
                 WHERE tenant = ?",
        );
        let mut functions = functions.as_mut().unwrap().query([id]).unwrap();
        while let Some(row) = functions.next().unwrap() {
            let mut versions = BTreeMap::new();
            let mut kept = db.prepare("SELECT version, sha256 FROM versions WHERE function = ?");
            let mut kept = kept.as_mut().unwrap().query([row.get::<_, i64>(0).unwrap()]).unwrap();
            while let Some(row) = kept.next().unwrap() {
                versions.insert(row.get(0).unwrap(), row.get::<_, String>(1).unwrap());
            }
            let active: Option<i64> = row.get(2).unwrap();
            let function = Function {
                active: active.map(|version| (version, versions[&version].clone())),
                latest: row.get(3).unwrap(),
                options: row.get(4).unwrap(),
                versions,
                hidden: row.get(5).unwrap(),
            };
            tenant.functions.insert(row.get(1).unwrap(), function);
        }
        let mut tokens = db.prepare("SELECT name FROM tokens WHERE tenant = ?").unwrap();
        let mut tokens = tokens.query([id]).unwrap();
        while let Some(row) = tokens.next().unwrap() {
            *tenant.tokens.entry(row.get(0).unwrap()).or_default() += 1;
        }
        let mut settings = db
            .prepare(
                "SELECT name, ifnull('config ' || value, 'secret of ' || (length(sealed) - 40))
                 FROM settings WHERE tenant = ?",
            )
            .unwrap();
        let mut settings = settings.query([id]).unwrap();
        while let Some(row) = settings.next().unwrap() {
            tenant.settings.insert(row.get(0).unwrap(), row.get(1).unwrap());
        }
        tenants.insert(row.get(1).unwrap(), tenant);
    }
    let mut audit =
        db.prepare("SELECT tenant_name, action, object FROM audit ORDER BY id").unwrap();
    let told = audit.query_map([], |row| {
        let path = row.get::<_, Option<String>>(2)?.filter(|object| object.starts_with('/'));
        Ok(Told { tenant: row.get(0)?, action: row.get(1)?, path })
    });
    let audit = told.unwrap().map(Result::unwrap).collect();
    State { tenants, audit }
}

/// What may never be: something names what is not there or is not what it should be.
pub fn wrong(data: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let state = read(data);
    let db = open(data);
    for (check, sound) in [("integrity_check", Some("ok")), ("foreign_key_check", None)] {
        let mut statement = db.prepare(&format!("PRAGMA {check}")).unwrap();
        let said: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        if said.iter().map(String::as_str).ne(sound) {
            wrong.push(format!("{check}: {said:?}"));
        }
    }
    let mut seen = BTreeSet::new();
    for (name, tenant) in &state.tenants {
        let newest: Option<i64> = db
            .query_row(
                "SELECT max(generations.generation) FROM generations JOIN tenants ON tenant = id
                 WHERE name = ?",
                [name],
                |row| row.get(0),
            )
            .unwrap();
        if newest != Some(tenant.generation) {
            wrong.push(format!("{name} is at {}, and {newest:?} is the newest", tenant.generation));
        }
        wrong.extend(out_of_step(&db, name));
        if !tenant.tokens.contains_key("owner") {
            wrong.push(format!("{name} has no owner's token"));
        }
        for (path, function) in &tenant.functions {
            let is_changed = function.hidden || function.options != "{}";
            if function.versions.is_empty() && !is_changed {
                wrong.push(format!("{name}{path} has no version, and nothing of it was changed"));
            }
            for (version, sha256) in &function.versions {
                if *version > function.latest {
                    wrong.push(format!("{name}{path}@{version} is above the latest"));
                }
                if seen.insert(sha256.clone())
                    && let Err(error) = whole(data, sha256)
                {
                    wrong.push(format!("{name}{path}@{version} names {sha256}: {error}"));
                }
            }
        }
        let release = data.join(format!("tenants/{name}/releases/{}", tenant.generation));
        if release.exists() {
            wrong.extend(wrong_release(&db, tenant, &release));
        }
    }
    wrong
}

/// Each generation and each token was told of once, and nothing that is not there.
fn out_of_step(db: &Connection, tenant: &str) -> Vec<String> {
    let ids = |sql: &str| -> Vec<i64> {
        let mut statement = db.prepare(sql).unwrap();
        let ids = statement.query_map([tenant], |row| row.get(0)).unwrap();
        ids.map(Result::unwrap).collect()
    };
    let of = "FROM audit JOIN tenants ON tenant = tenants.id WHERE tenants.name = ?";
    if ids(&format!("SELECT 1 {of} AND action = 'tenant.create'")).len() != 1 {
        // It is older than what is told, or came from another host.
        return Vec::new();
    }
    let mut wrong = Vec::new();
    let made = "SELECT generations.generation FROM generations JOIN tenants ON tenant = id
         WHERE name = ? ORDER BY 1";
    let told = format!("SELECT after ->> '$.generation' AS it {of} AND it IS NOT NULL ORDER BY 1");
    let (made, told) = (ids(made), ids(&told));
    // The oldest generations go first.
    if !told.ends_with(&made) || !told.is_sorted_by(|a, b| a < b) {
        wrong.push(format!("{tenant} had the generations {made:?}, and {told:?} are told of"));
    }
    let kept = "SELECT tokens.id FROM tokens JOIN tenants ON tenant = tenants.id
         WHERE tenants.name = ? ORDER BY 1";
    let told = format!(
        "SELECT after ->> '$.owner_token' AS it {of} AND action = 'tenant.create'
         UNION ALL SELECT CAST(object AS INTEGER) {of} AND action = 'token.create' ORDER BY 1"
    )
    .replace('?', "?1");
    let removed = ids(&format!("SELECT CAST(object AS INTEGER) {of} AND action = 'token.delete'"));
    let (kept, mut told) = (ids(kept), ids(&told));
    told.retain(|id| !removed.contains(id));
    if told != kept {
        wrong.push(format!("{tenant} has the tokens {kept:?}, and {told:?} are told of"));
    }
    wrong
}

fn whole(data: &Path, sha256: &str) -> Result<(), String> {
    let packed = File::open(module(data, sha256)).map_err(|error| error.to_string())?;
    let module = zstd::decode_all(packed).map_err(|error| error.to_string())?;
    let found = hex(&Sha256::digest(&module));
    if found == sha256 { Ok(()) } else { Err(format!("its bytes are {found}")) }
}

pub fn module(data: &Path, sha256: &str) -> PathBuf {
    data.join("modules").join(format!("{sha256}.wasm.zst"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A generation has what the store says, and artifacts that the store vouches for.
fn wrong_release(db: &Connection, tenant: &Tenant, release: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let manifest: Value =
        serde_json::from_slice(&fs::read(release.join("manifest.json")).unwrap()).unwrap();
    let told: BTreeMap<String, (i64, String)> = manifest["functions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|function| {
            let text = |key: &str| function[key].as_str().unwrap().to_owned();
            (text("path"), (function["version"].as_i64().unwrap(), text("sha256")))
        })
        .collect();
    let named: BTreeMap<String, (i64, String)> = tenant
        .functions
        .iter()
        .filter_map(|(path, function)| Some((path.clone(), function.active.clone()?)))
        .collect();
    if told != named {
        wrong.push(format!("{} says {told:?} and the store {named:?}", release.display()));
    }
    let key: Vec<u8> =
        db.query_row("SELECT value FROM host WHERE key = 'key'", [], |row| row.get(0)).unwrap();
    for (_, sha256) in told.values() {
        let artifact = release.join(format!("{sha256}.cwasm"));
        let Ok(code) = fs::read(&artifact) else {
            wrong.push(format!("{} is not there", artifact.display()));
            continue;
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(&code);
        let mac = mac.finalize().into_bytes().to_vec();
        let vouched = db
            .prepare("SELECT 1 FROM artifacts WHERE sha256 = ? AND mac = ?")
            .unwrap()
            .exists((sha256, mac))
            .unwrap();
        if !vouched {
            wrong.push(format!("nobody vouches for {}", artifact.display()));
        }
    }
    wrong
}

/// What nothing names, and what a sweep should have taken.
pub fn left_over(data: &Path) -> Vec<String> {
    let mut left = Vec::new();
    let state = read(data);
    let versions = |tenant: &Tenant| -> Vec<String> {
        tenant.functions.values().flat_map(|f| f.versions.values().cloned()).collect()
    };
    let all: BTreeSet<String> = state.tenants.values().flat_map(versions).collect();
    left.extend(names(&data.join("tmp")).into_iter().map(|name| format!("tmp/{name}")));
    for name in names(&data.join("modules")) {
        if !name.strip_suffix(".wasm.zst").is_some_and(|sha256| all.contains(sha256)) {
            left.push(format!("modules/{name}"));
        }
    }
    for name in names(&data.join("tenants")) {
        let Some(tenant) = state.tenants.get(&name) else {
            left.push(format!("tenants/{name}"));
            continue;
        };
        for part in names(&data.join(format!("tenants/{name}"))) {
            if !["releases", "logs", "state"].contains(&&*part) {
                left.push(format!("tenants/{name}/{part}"));
            }
        }
        for release in names(&data.join(format!("tenants/{name}/releases"))) {
            if release != tenant.generation.to_string() {
                left.push(format!("tenants/{name}/releases/{release}"));
            }
        }
    }
    let engines = names(&data.join("artifacts"));
    // One without the component model's concurrency, and one with it.
    if engines.len() != 2 {
        left.push(format!("artifacts of the engines {engines:?}"));
    }
    for engine in engines {
        let engine = data.join("artifacts").join(engine);
        for owner in names(&engine) {
            let theirs = match state.tenants.get(&owner) {
                Some(tenant) => versions(tenant),
                // Whatever this build brought.
                None if owner == "_bundled" => continue,
                None => {
                    left.push(format!("artifacts of {owner}"));
                    continue;
                }
            };
            for name in names(&engine.join(&owner)) {
                let sha256 = name.strip_suffix(".cwasm").unwrap_or_default().to_owned();
                if !theirs.contains(&sha256) {
                    left.push(format!("an artifact of {owner}: {name}"));
                }
            }
        }
    }
    left
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
