use hearth_wire::{FunctionPath, GenerationNumber, LimitsPatch, OptionsPatch, Scope};
use jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::store::functions::tests::row;
use crate::store::scratch::{author, scratch, tenant};
use crate::store::{Cause, Change, NewGeneration, Tenant};

fn all() -> AuditQuery {
    AuditQuery { whose: Whose::Everybodys, action: None, before: None, limit: 1_000 }
}

fn by(id: i64, name: &str) -> Author {
    let actor = Actor::Token { id, name: name.to_owned() };
    Author { actor, request_id: RequestId::parse(b"r-1") }
}

fn event(action: Action, tenant: Option<&Tenant>) -> Event {
    Event { action, tenant: tenant.map(|it| it.id), object: None, sides: Sides::none() }
}

/// On all pages.
async fn rows(store: &Store, mut query: AuditQuery) -> Vec<AuditRow> {
    let mut all = Vec::new();
    loop {
        let AuditPage { rows, more } = store.audit(query.clone()).await.unwrap();
        query.before = rows.first().map(|row| row.id);
        all.splice(0..0, rows);
        if !more {
            return all;
        }
    }
}

fn sides(row: &AuditRow) -> (Value, Value) {
    let value = |side: &Option<Map<String, Value>>| side.clone().map_or(Value::Null, Value::Object);
    (value(&row.before), value(&row.after))
}

#[tokio::test]
async fn each_change_of_functions_tells_what_became_other() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let path: FunctionPath = "/a".parse().unwrap();
    let mut limits = LimitsPatch::default();
    limits.change([("functions".to_owned(), Some(3))]).unwrap();
    let set = OptionsPatch::parse(r#"{"auth":"owner"}"#).unwrap();
    for (generation, (cause, changes)) in (1..).zip([
        (Cause::Upload, vec![Change::Add(row("/a", 1)), Change::Add(row("/b", 1))]),
        (Cause::Upload, vec![Change::Add(row("/a", 2))]),
        (Cause::Rollback, vec![Change::Switch { path: path.clone(), version: 1 }]),
        (Cause::Options, vec![Change::Set { path: path.clone(), options: set }]),
        (Cause::Limits, vec![Change::Limits(limits)]),
        (Cause::Remove, vec![Change::Remove { path }]),
    ]) {
        let new = NewGeneration {
            tenant: acme.id,
            generation: GenerationNumber(generation),
            cause,
            by: by(7, "ci"),
            bundle: Default::default(),
            changes,
        };
        store.commit_generation(new).await.unwrap();
    }
    let one = json!({ "version": 1, "auth": "public" });
    let expected = [
        (
            "function.upload",
            None,
            json!({ "generation": 0, "functions": { "/a": null, "/b": null } }),
            json!({ "generation": 1, "functions": { "/a": one, "/b": one } }),
        ),
        (
            "function.upload",
            Some("/a"),
            json!({ "generation": 1, "functions": { "/a": { "version": 1 } } }),
            json!({ "generation": 2, "functions": { "/a": { "version": 2 } } }),
        ),
        (
            "function.rollback",
            Some("/a"),
            json!({ "generation": 2, "functions": { "/a": { "version": 2 } } }),
            json!({ "generation": 3, "functions": { "/a": { "version": 1 } } }),
        ),
        (
            "function.options",
            Some("/a"),
            json!({ "generation": 3, "functions": { "/a": { "auth": "public", "options": {} } } }),
            json!({ "generation": 4, "functions": { "/a": { "auth": "owner", "options": { "auth": "owner" } } } }),
        ),
        (
            "tenant.limits",
            None,
            json!({ "generation": 4, "limits": {} }),
            json!({ "generation": 5, "limits": { "functions": 3 } }),
        ),
        (
            "function.remove",
            Some("/a"),
            json!({ "generation": 5, "functions": { "/a": { "version": 1, "auth": "owner" } } }),
            json!({ "generation": 6, "functions": { "/a": null } }),
        ),
    ];
    let found = rows(&store, all()).await;
    assert_eq!(found.len(), expected.len());
    for (row, (action, object, before, after)) in found.iter().zip(expected) {
        assert_eq!((row.action.as_str(), row.object.as_deref()), (action, object));
        assert_eq!(sides(row), (before, after), "{action}");
        let AuditRow { actor, tenant, request_id, .. } = row;
        assert_eq!((actor, tenant), (&by(7, "ci").actor, &Some("acme".parse().unwrap())));
        assert_eq!(request_id.as_ref().map(RequestId::as_str), Some("r-1"));
    }
}

#[tokio::test]
async fn a_change_that_is_not_committed_leaves_no_row() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let nix = Change::Remove { path: "/nix".parse().unwrap() };
    for (generation, cause, changes) in [(1, Cause::Remove, vec![nix]), (0, Cause::Upload, vec![])]
    {
        let new = NewGeneration {
            tenant: acme.id,
            generation: GenerationNumber(generation),
            cause,
            by: author("ci"),
            bundle: Default::default(),
            changes,
        };
        store.commit_generation(new).await.unwrap_err();
    }
    let gone = TenantId(99);
    store.retire_tenant(gone, Timestamp::UNIX_EPOCH, author("ops")).await.unwrap_err();
    let stop = Event { tenant: Some(gone), ..event(Action::WorkerStop, None) };
    store.note(author("ops"), stop).await.unwrap_err();
    assert!(!store.delete_token(Some(acme.id), 99, author("ops")).await.unwrap());
    let token = store.create_token(Some(gone), "t".into(), Scope::Owner, None, author("ops"));
    token.await.unwrap_err();
    assert_eq!(rows(&store, all()).await, []);
}

#[tokio::test]
async fn who_it_was_is_known_when_the_token_is_no_more() {
    let (_directory, store) = scratch();
    let ops = author("ops");
    let make = async || {
        let made = store.create_token(None, "ci".into(), Scope::Admin, None, ops.clone()).await;
        made.unwrap()
    };
    let (first, text) = make().await;
    store.note(by(first.id, "ci"), event(Action::WorkerStop, None)).await.unwrap();
    assert!(store.delete_token(None, first.id, ops.clone()).await.unwrap());
    let (second, _) = make().await;
    store.note(by(second.id, "ci"), event(Action::WorkerStart, None)).await.unwrap();
    let found = rows(&store, all()).await;
    let told: Vec<_> = found.iter().map(|row| (row.action, row.actor.clone())).collect();
    assert_eq!(
        told,
        [
            (Action::TokenCreate, ops.actor.clone()),
            (Action::WorkerStop, by(first.id, "ci").actor),
            (Action::TokenDelete, ops.actor.clone()),
            (Action::TokenCreate, ops.actor.clone()),
            (Action::WorkerStart, by(second.id, "ci").actor),
        ]
    );
    assert_ne!(first.id, second.id);
    let objects: Vec<_> = found.iter().filter_map(|row| row.object.clone()).collect();
    assert_eq!(objects, [first.id, first.id, second.id].map(|id| id.to_string()));
    // Neither the token nor what is kept of it is told.
    let digest = hearth_wire::TokenDigest::of(&text);
    let digest: String = digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let told = format!("{found:?}");
    assert!(!told.contains(&text) && !told.to_lowercase().contains(&digest), "{told}");
}

#[tokio::test]
async fn a_tenants_rows_are_its_own_and_stay_for_the_host_when_it_goes() {
    let (_directory, store) = scratch();
    let (acme, beta) = (tenant(&store, "acme", 4_001).await, tenant(&store, "beta", 4_002).await);
    for of in [&acme, &beta] {
        store.note(author("ops"), event(Action::WorkerStop, Some(of))).await.unwrap();
    }
    let own = |of: &Tenant| AuditQuery { whose: Whose::Tenant(of.id), ..all() };
    let named = |of: &Tenant| AuditQuery { whose: Whose::Named(of.name.clone()), ..all() };
    assert_eq!(rows(&store, own(&acme)).await.len(), 1);
    store.retire_tenant(acme.id, Timestamp::UNIX_EPOCH, author("ops")).await.unwrap();
    assert_eq!(rows(&store, own(&acme)).await, []);
    let heir = tenant(&store, "acme", 4_003).await;
    assert_eq!(rows(&store, own(&heir)).await, []);
    let past = rows(&store, named(&acme)).await;
    let told: Vec<_> = past.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(told, ["worker.stop", "tenant.delete"]);
    assert_eq!(past[1].before.as_ref().unwrap()["port"], 4_001);
    // One of which nobody was told leaves nothing.
    store.note(author("ops"), event(Action::TenantRestore, Some(&heir))).await.unwrap();
    store.delete_tenant(heir.id).await.unwrap();
    assert_eq!(rows(&store, named(&acme)).await, past);
    assert_eq!(rows(&store, own(&beta)).await.len(), 1);
}

#[tokio::test]
async fn pages_lead_to_older_ones() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    for action in [Action::WorkerStart, Action::WorkerStop, Action::WorkerStart] {
        store.note(author("ops"), event(action, Some(&acme))).await.unwrap();
    }
    let ids = async |query| {
        let AuditPage { rows, more } = store.audit(query).await.unwrap();
        (rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), more)
    };
    assert_eq!(ids(AuditQuery { limit: 2, ..all() }).await, (vec![2, 3], true));
    assert_eq!(ids(AuditQuery { limit: 2, before: Some(2), ..all() }).await, (vec![1], false));
    assert_eq!(ids(AuditQuery { before: Some(u64::MAX), ..all() }).await.0.len(), 3);
    for whose in [Whose::Everybodys, Whose::Tenant(acme.id), Whose::Named(acme.name.clone())] {
        let action = Some(Action::WorkerStart);
        assert_eq!(ids(AuditQuery { whose, action, ..all() }).await, (vec![1, 3], false));
    }
}

#[tokio::test]
async fn a_page_of_large_ones_is_short_and_each_is_bounded() {
    let (_directory, store) = scratch();
    let giant = |n: u64| {
        let mut sides = Sides::none();
        sides.add_after("n", n.into());
        sides.add_after("text", "x".repeat(TEXT_MAX_BYTES - 100).into());
        Event { sides, ..event(Action::TenantLimits, None) }
    };
    for n in 0..100 {
        store.note(author("ops"), giant(n)).await.unwrap();
    }
    let page = store.audit(all()).await.unwrap();
    assert!(page.more && page.rows.len() * TEXT_MAX_BYTES <= PAGE_BYTES + TEXT_MAX_BYTES);
    assert_eq!(page.rows.last().unwrap().after.as_ref().unwrap()["n"], 99);
}

#[tokio::test]
async fn rows_go_by_number_and_by_age_and_nobody_pushes_out_anothers() {
    let (directory, store) = scratch();
    let (acme, beta) = (tenant(&store, "acme", 4_001).await, tenant(&store, "beta", 4_002).await);
    store.note(author("ops"), event(Action::WorkerStop, Some(&beta))).await.unwrap();
    store.note(author("ops"), event(Action::TokenCreate, None)).await.unwrap();
    // As many as there may be, of which the first is long ago.
    let file = Connection::open(directory.path().join(crate::store::FILE)).unwrap();
    file.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?)
         INSERT INTO audit (at, kind, name, tenant, tenant_name, action)
         SELECT iif(n = 1, 0, ?), 'host', 'hearth', ?, 'acme', 'worker.stop' FROM n",
        (signed(TENANT_ROWS_MAX), millis(Timestamp::now()), acme.id.0),
    )
    .unwrap();
    let own = |of: &Tenant| AuditQuery { whose: Whose::Tenant(of.id), ..all() };
    let before = rows(&store, own(&acme)).await;
    assert_eq!(before.len() as u64, TENANT_ROWS_MAX);
    assert_eq!(before[0].at, Timestamp::UNIX_EPOCH);
    store.note(author("ops"), event(Action::WorkerStart, Some(&acme))).await.unwrap();
    let after = rows(&store, own(&acme)).await;
    assert_eq!(after[..after.len() - 1], before[1..]);
    assert_eq!(rows(&store, own(&beta)).await.len(), 1);
    assert_eq!(rows(&store, all()).await.len(), after.len() + 2);

    // By age, whosever they are.
    file.execute("UPDATE audit SET at = 5 WHERE tenant IS NULL OR tenant = ?", [beta.id.0])
        .unwrap();
    let year = Timestamp::from_millisecond(6).unwrap();
    store.purge(Timestamp::UNIX_EPOCH, year, vec![]).await.unwrap();
    assert_eq!(rows(&store, own(&beta)).await, []);
    assert_eq!(rows(&store, own(&acme)).await, after);
    store
        .purge(Timestamp::UNIX_EPOCH, Timestamp::now() + SignedDuration::from_secs(1), vec![])
        .await
        .unwrap();
    assert_eq!(rows(&store, all()).await, []);
    // What is gone by age or number had ids that are nobody else's.
    store.note(author("ops"), event(Action::WorkerStop, None)).await.unwrap();
    assert!(rows(&store, all()).await[0].id > after.last().unwrap().id);
}

/// A store as the version before wrote it.
#[tokio::test]
async fn a_store_from_before_there_was_an_audit_is_taken_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = Connection::open(directory.path().join(crate::store::FILE)).unwrap();
    for step in [
        include_str!("../migrations/0001_start.sql"),
        include_str!("../migrations/0002_options_and_limits.sql"),
        include_str!("../migrations/0003_users.sql"),
        include_str!("../migrations/0004_resting.sql"),
    ] {
        file.execute_batch(step).unwrap();
    }
    file.execute_batch(
        "PRAGMA user_version = 4;
         INSERT INTO tenants (id, name, port, generation, created_at) VALUES (3, 'acme', 4001, 2, 5);
         INSERT INTO generations VALUES (3, 2, 'upload', 'ci', 5);
         INSERT INTO tokens (id, tenant, name, scope, digest, created_at)
             VALUES (9, 3, 'owner', 'owner', zeroblob(32), 5);",
    )
    .unwrap();
    drop(file);
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(rows(&store, all()).await, []);
    let acme = store.tenant(&"acme".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(store.generations(acme.id, None, 1).await.unwrap().rows[0].by, "ci");
    assert!(store.delete_token(Some(acme.id), 9, author("ops")).await.unwrap());
    let found = rows(&store, all()).await;
    assert_eq!(sides(&found[0]).0, json!({ "name": "owner", "scope": "owner" }));
    store.close().await;
    let again = Store::open(directory.path()).unwrap();
    assert_eq!(rows(&again, all()).await, found);
}
