use std::sync::Arc;

use hearth_wire::TenantName;
use jiff::Timestamp;

use super::*;
use crate::store::functions::tests::{generation, row};
use crate::store::scratch::{author, scratch, tenant};
use crate::store::settings::Taking;
use crate::store::{Cause, Change, NewGeneration, Tenant};

fn path(path: &str) -> FunctionPath {
    path.parse().unwrap()
}

fn options(text: &str) -> OptionsPatch {
    OptionsPatch::parse(text).unwrap()
}

async fn commit(store: &Store, tenant: &Tenant, number: u64, changes: Vec<Change>) {
    store.commit_generation(generation(tenant.id, number, changes)).await.unwrap();
}

/// What is kept of a generation: `/a@1`, with `-` where what is bundled was removed, `set` and `gone`
/// where it is so.
async fn told(store: &Store, tenant: &Tenant, number: u64) -> String {
    let past = match store.past(tenant.id, GenerationNumber(number)).await.unwrap() {
        Past::Nothing => return "nothing".to_owned(),
        Past::Name => return "name".to_owned(),
        Past::Whole(past) => past,
    };
    let told = past.values().map(|function| {
        let PastFunction { path, version, hidden, set, gone } = function;
        let version = version.map_or(String::new(), |version| format!("@{version}"));
        let is_set = *set != OptionsPatch::default();
        let words = [(*hidden, "-"), (is_set, " set"), (*gone, " gone")];
        let words = words.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word);
        format!("{path}{version}{}", words.collect::<String>())
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Which of its generations can serve again.
async fn whole(store: &Store, tenant: &Tenant) -> Vec<u64> {
    let page = store.generations(tenant.id, None, 1_000).await.unwrap();
    page.rows.iter().filter(|row| row.whole).map(|row| row.generation.0).collect()
}

#[tokio::test]
async fn what_each_generation_served_is_known() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let set = |text| Change::Set { path: path("/a"), options: options(text) };
    for (number, changes) in (1..).zip([
        vec![Change::Add(row("/a", 1)), Change::Add(row("/jobs/b", 1))],
        vec![Change::Add(row("/a", 2))],
        vec![set(r#"{"auth":"owner"}"#), Change::Hide { path: path("/hello") }],
        vec![Change::Remove { path: path("/a") }],
        vec![],
        vec![Change::Switch { path: path("/a"), version: 1 }, set("{}")],
        vec![Change::Bundled { path: path("/hello") }, Change::Add(row("/A", 3))],
    ]) {
        commit(&store, &acme, number, changes).await;
    }
    for (number, expected) in [
        (0, "nothing"),
        (1, "/a@1, /jobs/b@1"),
        (2, "/a@2, /jobs/b@1"),
        (3, "/a@2 set, /hello-, /jobs/b@1"),
        (4, "/a set, /hello-, /jobs/b@1"),
        (5, "/a set, /hello-, /jobs/b@1"),
        (6, "/a@1, /hello-, /jobs/b@1"),
        (7, "/A@3, /hello, /jobs/b@1"),
        (8, "nothing"),
        (u64::MAX, "nothing"),
    ] {
        assert_eq!(told(&store, &acme, number).await, expected, "{number}");
    }
    assert_eq!(whole(&store, &acme).await, [7, 6, 5, 4, 3, 2, 1]);
    let page = store.generations(acme.id, Some(GenerationNumber(5)), 3).await.unwrap();
    let changed = page.rows.iter().map(|row| {
        let all = row.changed.iter();
        let one = |it: &ChangedFunction| format!("{}@{}", it.path, it.version.unwrap_or(0));
        all.map(one).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(changed.collect::<Vec<_>>(), ["/a@0", "/a@2 /hello@0", "/a@2"]);
}

#[tokio::test]
async fn a_function_returns_to_what_it_was() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let back = |at: &str, version, hidden, set: &str, removed| {
        let (path, options) = (path(at), options(set));
        vec![Change::Return { path, version, hidden, options, removed }]
    };
    let set = r#"{"auth":"owner"}"#;
    commit(&store, &acme, 1, vec![Change::Add(row("/a", 1)), Change::Add(row("/a", 2))]).await;
    commit(&store, &acme, 2, back("/a", Some(1), false, set, false)).await;
    let function = store.function(acme.id, &path("/a")).await.unwrap().unwrap();
    assert_eq!((function.active, function.set), (Some(1), options(set)));
    commit(&store, &acme, 3, back("/a", None, true, "{}", true)).await;
    let function = store.function(acme.id, &path("/a")).await.unwrap().unwrap();
    assert_eq!(function.active, None);
    assert!(function.removed_at.is_some() && function.hidden_at.is_some());
    commit(&store, &acme, 4, back("/a", Some(2), false, "{}", false)).await;
    let function = store.function(acme.id, &path("/a")).await.unwrap().unwrap();
    assert_eq!((function.active, function.removed_at, function.hidden_at), (Some(2), None, None));
    assert_eq!(told(&store, &acme, 2).await, "/a@1 set");
    assert_eq!(told(&store, &acme, 3).await, "/a-");

    let missing = back("/a", Some(7), false, "{}", false);
    assert!(store.commit_generation(generation(acme.id, 5, missing)).await.is_err());
    // What is bundled and was changed, and is as the build has it again, has no row.
    commit(&store, &acme, 5, back("/hello", None, false, set, false)).await;
    assert!(store.function(acme.id, &path("/hello")).await.unwrap().is_some());
    commit(&store, &acme, 6, back("/hello", None, false, "{}", false)).await;
    assert_eq!(store.function(acme.id, &path("/hello")).await.unwrap(), None);
}

#[tokio::test]
async fn a_generation_of_which_a_version_is_gone_is_not_whole() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let kept = acme.limits().versions;
    for number in 1..=kept + 2 {
        commit(&store, &acme, number, vec![Change::Add(row("/a", number as Version))]).await;
    }
    let expected: Vec<u64> = (3..=kept + 2).rev().collect();
    assert_eq!(whole(&store, &acme).await, expected);

    // What is forgotten with its versions stays so, though its numbers come again.
    let removed = kept + 3;
    commit(&store, &acme, removed, vec![Change::Remove { path: path("/a") }]).await;
    store.purge(Timestamp::MAX, Timestamp::UNIX_EPOCH, vec![]).await.unwrap();
    assert_eq!(store.function(acme.id, &path("/a")).await.unwrap(), None);
    for version in 1..=3 {
        let changes = vec![Change::Add(row("/a", version))];
        commit(&store, &acme, removed + u64::from(version), changes).await;
    }
    assert_eq!(told(&store, &acme, 3).await, "/a@3 gone");
    assert_eq!(whole(&store, &acme).await, [removed + 3, removed + 2, removed + 1, removed]);
}

#[tokio::test]
async fn what_no_listed_generation_needs_is_forgotten() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    for number in 1..=600 {
        let changes = match number {
            1 => vec![Change::Add(row("/stays", 1))],
            number if number % 2 == 0 => vec![Change::Add(row(&format!("/f{number}"), 1))],
            number => vec![Change::Remove { path: path(&format!("/f{}", number - 1)) }],
        };
        commit(&store, &acme, number, changes).await;
    }
    let rows: i64 = store
        .read(Asker::Host, |db| {
            Ok(db.query_row("SELECT count(*) FROM past_functions", [], |row| row.get(0))?)
        })
        .await
        .unwrap();
    // One for each listed generation, and what stays.
    assert!((490..=502).contains(&rows), "{rows}");
    assert_eq!(told(&store, &acme, 100).await, "nothing");
    assert_eq!(told(&store, &acme, 101).await, "/stays@1");
    assert!(told(&store, &acme, 102).await.starts_with("/f102@1"));
}

#[tokio::test]
async fn large_options_of_earlier_generations_are_bounded() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    commit(&store, &acme, 1, vec![Change::Add(row("/a", 1))]).await;
    for number in 2..=30_u64 {
        let long = format!(r#"{{"description":"{number} {}"}}"#, "x".repeat(200 << 10));
        let options = serde_json::from_str(&long).unwrap();
        let changes = vec![Change::Set { path: path("/a"), options }];
        commit(&store, &acme, number, changes).await;
    }
    assert_eq!(told(&store, &acme, 1).await, "name");
    assert_eq!(told(&store, &acme, 30).await, "/a@1 set");
    let whole = whole(&store, &acme).await;
    assert!((15..=21).contains(&whole.len()), "{whole:?}");
    assert_eq!(whole[0], 30);
}

#[tokio::test]
async fn a_tenant_that_is_restored_elsewhere_has_its_generations() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    commit(&store, &acme, 1, vec![Change::Add(row("/a", 1))]).await;
    let options = options(r#"{"auth":"owner"}"#);
    let new = NewGeneration {
        tenant: acme.id,
        generation: GenerationNumber(2),
        cause: Cause::Return(GenerationNumber(1)),
        by: author("ci"),
        bundle: Arc::default(),
        changes: vec![Change::Add(row("/a", 2)), Change::Set { path: path("/a"), options }],
    };
    store.commit_generation(new).await.unwrap();
    let there = tempfile::tempdir().unwrap();
    store.snapshot(there.path(), None).await.unwrap();

    let (_elsewhere, other) = scratch();
    let file = there.path().join(crate::store::FILE);
    let name: TenantName = acme.name.clone();
    let made =
        other.import(file, vec![(name, 4_002)], Taking::Without, author("ops")).await.unwrap();
    for number in 0..=2 {
        let (there, here) =
            (told(&store, &acme, number).await, told(&other, &made[0], number).await);
        assert_eq!(there, here, "{number}");
    }
    assert_eq!(told(&other, &made[0], 2).await, "/a@2 set");
    let page = other.generations(made[0].id, None, 1).await.unwrap();
    assert_eq!((&*page.rows[0].cause, page.rows[0].whole), ("rollback", true));
    store.delete_tenant(acme.id).await.unwrap();
    assert_eq!(told(&store, &acme, 2).await, "nothing");
}
