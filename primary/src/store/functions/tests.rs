use std::sync::Arc;

use hearth_wire::GenerationNumber;

use super::*;
use crate::store::scratch::{author, scratch, tenant};
use crate::store::{Cause, NewGeneration};

pub(in crate::store) fn row(path: &str, version: Version) -> VersionRow {
    VersionRow {
        path: path.parse().unwrap(),
        version,
        sha256: ModuleDigest::new([version as u8; 32]),
        size: 1_000,
        stored: 300,
        kind: HandlerKind::IncomingHandler,
        imports: vec!["wasi:io/poll@0.2.6".into()],
        declared: OptionsPatch::parse(r#"{"methods":["GET"],"auth":"invoke"}"#).unwrap(),
        uploaded: OptionsPatch::parse(r#"{"auth":"public"}"#).unwrap(),
        set: OptionsPatch::default(),
        created_at: Timestamp::from_millisecond(1_700_000_000_123).unwrap(),
        created_by: "ci".into(),
    }
}

pub(in crate::store) fn generation(
    tenant: TenantId,
    number: u64,
    changes: Vec<Change>,
) -> NewGeneration {
    NewGeneration {
        tenant,
        generation: GenerationNumber(number),
        cause: Cause::Upload,
        by: author("ci"),
        bundle: Arc::default(),
        changes,
    }
}

#[tokio::test]
async fn a_commit_is_read_back_as_it_was_written() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let (b, a) = (row("/jobs/b", 1), row("/a", 1));
    let changes = vec![Change::Add(b.clone()), Change::Add(a.clone())];
    store.commit_generation(generation(acme.id, 1, changes)).await.unwrap();

    assert_eq!(store.own_functions(acme.id).await.unwrap().live, [a, b.clone()]);
    assert_eq!(store.tenant(&acme.name).await.unwrap().unwrap().generation, GenerationNumber(1));
    let generations = store.generations(acme.id, None, 9).await.unwrap().rows;
    let told: Vec<_> = generations.iter().map(|g| (g.generation, &*g.cause, &*g.by)).collect();
    assert_eq!(told, [(GenerationNumber(1), "upload", "ci")]);
    assert_eq!(store.latest_version(acme.id, &b.path).await.unwrap(), 1);
    assert_eq!(store.latest_version(acme.id, &"/nix".parse().unwrap()).await.unwrap(), 0);
    assert_eq!(store.live_modules().await.unwrap(), HashSet::from([b.sha256]));
    assert_eq!(store.module_after(None).await.unwrap(), Some(b.sha256));
    assert_eq!(store.module_after(Some(b.sha256)).await.unwrap(), None);
    let artifacts = HashSet::from([(acme.name, b.sha256)]);
    assert_eq!(store.live_artifacts().await.unwrap(), artifacts);
}

#[tokio::test]
async fn paths_that_differ_in_case_are_one_function() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let beta = tenant(&store, "beta", 4_002).await;
    for tenant in [acme.id, beta.id] {
        let changes = vec![Change::Add(row("/hello", 1))];
        store.commit_generation(generation(tenant, 1, changes)).await.unwrap();
    }
    let again = vec![Change::Add(row("/HELLO", 1))];
    let again = store.commit_generation(generation(acme.id, 2, again)).await;
    assert!(matches!(again, Err(StoreError::Exists)), "{again:?}");
    let next = vec![Change::Add(row("/Hello", 2))];
    store.commit_generation(generation(acme.id, 2, next)).await.unwrap();

    let found = store.function(acme.id, &"/hELLO".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((found.path.as_str(), found.active), ("/Hello", Some(2)));
    let live = store.own_functions(acme.id).await.unwrap().live;
    assert_eq!(live.len(), 1);
    let versions = store.versions(acme.id, &"/hello".parse().unwrap()).await.unwrap();
    assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn a_removed_function_can_come_back_until_it_is_purged() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let path: FunctionPath = "/a".parse().unwrap();
    let add = |version| Change::Add(row("/a", version));
    let remove = Change::Remove { path: path.clone() };
    let back = Change::Switch { path: path.clone(), version: 1 };
    for (number, change) in (1..).zip([add(1), add(2), remove.clone()]) {
        store.commit_generation(generation(acme.id, number, vec![change])).await.unwrap();
    }
    assert_eq!(store.own_functions(acme.id).await.unwrap().live, []);
    let removed = store.function(acme.id, &path).await.unwrap().unwrap();
    assert_eq!(removed.active, None);
    assert!(removed.removed_at.is_some());

    store.commit_generation(generation(acme.id, 4, vec![back])).await.unwrap();
    assert_eq!(store.own_functions(acme.id).await.unwrap().live, [row("/a", 1)]);
    assert_eq!(store.latest_version(acme.id, &path).await.unwrap(), 2);

    store.commit_generation(generation(acme.id, 5, vec![remove])).await.unwrap();
    assert_eq!(store.purge(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, vec![]).await.unwrap(), 0);
    let later = Timestamp::now() + jiff::SignedDuration::from_secs(1);
    assert_eq!(store.purge(later, Timestamp::UNIX_EPOCH, vec![]).await.unwrap(), 1);
    assert_eq!(store.function(acme.id, &path).await.unwrap(), None);
    assert_eq!(store.live_modules().await.unwrap(), HashSet::new());
}

#[tokio::test]
async fn old_versions_go_but_never_the_active_one() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let path: FunctionPath = "/a".parse().unwrap();
    let kept = 5;
    let mut limits = LimitsPatch::default();
    limits.change([("versions".to_owned(), Some(kept.into()))]).unwrap();
    let limits = vec![Change::Limits(limits)];
    store.commit_generation(generation(acme.id, 1, limits)).await.unwrap();
    for version in 1..=kept {
        let changes = vec![Change::Add(row("/a", version))];
        let number = u64::from(version) + 1;
        store.commit_generation(generation(acme.id, number, changes)).await.unwrap();
    }
    // Added and switched back at once, so that the oldest is active while there are too many.
    let changes = vec![
        Change::Add(row("/a", kept + 1)),
        Change::Add(row("/a", kept + 2)),
        Change::Switch { path: path.clone(), version: 1 },
    ];
    store.commit_generation(generation(acme.id, 100, changes)).await.unwrap();
    let versions = store.versions(acme.id, &path).await.unwrap();
    let numbers: Vec<_> = versions.iter().map(|v| v.version).collect();
    let expected: Vec<_> = (4..=kept + 2).rev().chain([1]).collect();
    assert_eq!(numbers, expected);
    assert_eq!(numbers.len(), kept as usize);
    assert_eq!(store.own_functions(acme.id).await.unwrap().live, [row("/a", 1)]);
}

#[tokio::test]
async fn what_was_set_stays_through_uploads_and_rollbacks() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let path: FunctionPath = "/a".parse().unwrap();
    let set = OptionsPatch::parse(r#"{"auth":"owner"}"#).unwrap();
    for (number, change) in (1..).zip([
        Change::Add(row("/a", 1)),
        Change::Set { path: path.clone(), options: set.clone() },
        Change::Add(row("/a", 2)),
        Change::Remove { path: path.clone() },
        Change::Switch { path: path.clone(), version: 1 },
    ]) {
        store.commit_generation(generation(acme.id, number, vec![change])).await.unwrap();
    }
    let live = store.own_functions(acme.id).await.unwrap().live;
    assert_eq!(live, [VersionRow { set, ..row("/a", 1) }]);
    let options = live[0].options().resolve();
    assert_eq!((options.methods, options.auth.to_string()), (vec!["GET".into()], "owner".into()));
}

#[tokio::test]
async fn a_tenant_goes_with_its_functions() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let changes = vec![Change::Add(row("/a", 1))];
    store.commit_generation(generation(acme.id, 1, changes)).await.unwrap();
    store.delete_tenant(acme.id).await.unwrap();
    assert_eq!(store.live_modules().await.unwrap(), HashSet::new());
    assert_eq!(store.generations(acme.id, None, 9).await.unwrap().rows, []);
}
