use super::*;
use crate::sealing::Key;
use crate::store::scratch::{author, scratch, tenant};
use crate::store::{
    AuditQuery, Cause, Change, FILE, NewGeneration, NewSettings, Past, Sealed, Store, Whose,
    functions::tests::row,
};
use hearth_wire::{Fingerprint, SettingKind};

/// A copy of a store with something of everything, and a directory to rebuild it in.
async fn copied() -> (tempfile::TempDir, tempfile::TempDir) {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    tenant(&store, "beta", 4_002).await;
    store
        .create_token(Some(acme.id), "ci".into(), Scope::Deploy, None, author("ops"))
        .await
        .unwrap();
    store
        .create_token(None, "ops".into(), Scope::Admin, Some(Timestamp::now()), author("ops"))
        .await
        .unwrap();
    let set = OptionsPatch::parse(r#"{"auth":"owner"}"#).unwrap();
    let changes = vec![
        Change::Add(row("/a", 1)),
        Change::Add(row("/b/c", 7)),
        Change::Set { path: "/set".parse().unwrap(), options: set },
        Change::Hide { path: "/hidden".parse().unwrap() },
    ];
    let new = NewGeneration {
        tenant: acme.id,
        generation: GenerationNumber(3),
        cause: Cause::Upload,
        by: author("ci"),
        bundle: Default::default(),
        changes,
    };
    store.commit_generation(new).await.unwrap();
    let key = Key::random().unwrap();
    let bytes = key.seal(&acme.name, &"KEY".parse().unwrap(), &"s3cret".to_owned().into());
    let sealed = Kept::Secret(Sealed { by: key.id(), bytes: bytes.unwrap() });
    for (kind, name, kept) in [
        (SettingKind::Config, "region", Kept::Config("eu".to_owned())),
        (SettingKind::Secret, "KEY", sealed),
    ] {
        let set = vec![(name.parse().unwrap(), kept)];
        let new = NewSettings { tenant: acme.id, kind, set, removed: vec![] };
        store.change_settings(new, author("ops")).await.unwrap();
    }
    let gone = tenant(&store, "gone", 4_003).await;
    store.retire_tenant(gone.id, Timestamp::UNIX_EPOCH, author("ops")).await.unwrap();
    let there = tempfile::tempdir().unwrap();
    store.snapshot(there.path(), None).await.unwrap();
    (there, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn what_a_store_says_is_said_again() {
    let (there, again) = copied().await;
    rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
    let (old, new) = (Store::open(there.path()).unwrap(), Store::open(again.path()).unwrap());
    let names = |found: &Path| std::fs::read_dir(found).unwrap().count();
    let tenants = new.tenants().await.unwrap();
    let gone = "gone".parse().unwrap();
    assert!(old.name_freed_at(&gone).await.unwrap().is_some());
    assert_eq!(old.name_freed_at(&gone).await.unwrap(), new.name_freed_at(&gone).await.unwrap());
    assert_eq!(old.freed_ports().await.unwrap(), new.freed_ports().await.unwrap());
    for (one, other) in old.tenants().await.unwrap().into_iter().zip(&tenants) {
        assert_eq!(one, *other);
        assert_eq!(
            old.tokens(Some(one.id)).await.unwrap(),
            new.tokens(Some(one.id)).await.unwrap()
        );
        let live =
            (old.own_functions(one.id).await.unwrap(), new.own_functions(one.id).await.unwrap());
        assert_eq!(live.0, live.1);
        let told = (old.settings(one.id).await.unwrap(), new.settings(one.id).await.unwrap());
        assert_eq!(told.0, told.1);
        assert_eq!(told.0.len(), if one.name.as_str() == "acme" { 2 } else { 0 });
        let made = (
            old.generations(one.id, None, 9).await.unwrap(),
            new.generations(one.id, None, 9).await.unwrap(),
        );
        assert_eq!(made.0, made.1);
        for row in made.0.rows {
            let past = old.past(one.id, row.generation).await.unwrap();
            assert_eq!(past, new.past(one.id, row.generation).await.unwrap());
            assert!(matches!(&past, Past::Whole(all) if !all.is_empty()), "{past:?}");
        }
    }
    assert_eq!(tenants.len(), 2);
    let all = || AuditQuery { whose: Whose::Everybodys, action: None, before: None, limit: 100 };
    let audits = (old.audit(all()).await.unwrap(), new.audit(all()).await.unwrap());
    assert_eq!(audits.0, audits.1);
    assert_eq!(audits.0.rows.len(), 6, "{audits:?}");
    for tenant in &tenants {
        let own = || AuditQuery { whose: Whose::Tenant(tenant.id), ..all() };
        assert_eq!(old.audit(own()).await.unwrap(), new.audit(own()).await.unwrap());
    }
    assert_eq!(old.tokens(None).await.unwrap(), new.tokens(None).await.unwrap());
    assert_ne!(old.host_key().await.unwrap(), new.host_key().await.unwrap());
    new.close().await;
    assert_eq!(names(again.path()), 1, "no journal is left beside it");
}

#[tokio::test]
async fn the_id_of_a_token_that_is_gone_is_given_to_no_other() {
    let (there, again) = copied().await;
    let old = Store::open(there.path()).unwrap();
    let last = old.tokens(None).await.unwrap()[0].id;
    old.delete_token(None, last, author("ops")).await.unwrap();
    old.close().await;
    rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
    let new = Store::open(again.path()).unwrap();
    assert_eq!(new.tokens(None).await.unwrap(), []);
    let made = new.create_token(None, "next".into(), Scope::Admin, None, author("ops")).await;
    assert!(made.unwrap().0.id > last);
}

#[tokio::test]
async fn what_it_says_of_this_machine_is_not_taken() {
    let (there, again) = copied().await;
    let file = there.path().join(FILE);
    let db = Connection::open(&file).unwrap();
    db.execute_batch(
        "UPDATE tenants SET user = id; UPDATE tenants SET port = 22 WHERE name = 'acme';
         INSERT INTO host (key, value) VALUES ('key', x'00');
         INSERT INTO artifacts VALUES (1, printf('%064d', 0), '0101010101010101',
                                       zeroblob(32), 0);",
    )
    .unwrap();
    drop(db);
    rebuild(&file, &again.path().join(FILE)).unwrap();
    let store = Store::open(again.path()).unwrap();
    let tenants = store.tenants().await.unwrap();
    assert!(tenants.iter().all(|tenant| tenant.uid.is_none()));
    let digest = ModuleDigest::new([0; 32]);
    let engine = Fingerprint::new([1; 8]);
    assert_eq!(store.artifact(tenants[0].id, digest, vec![engine]).await.unwrap(), None);
    // The port that this host does not give goes, and the other one stays.
    let settled = store.settle_ports(4_000..=4_010).await.unwrap();
    assert_eq!(settled, [("acme".parse().unwrap(), 22, 4_000)]);
    let ports: Vec<_> = store.tenants().await.unwrap().iter().map(|it| it.port).collect();
    assert_eq!(ports, [4_000, 4_002]);
    // It is settled once: what the operator narrows later takes nobody's port away.
    assert_eq!(store.settle_ports(5_000..=5_000).await.unwrap(), []);
}

#[tokio::test]
async fn a_host_with_too_few_ports_says_so_and_changes_nothing() {
    let (there, again) = copied().await;
    rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
    let store = Store::open(again.path()).unwrap();
    let few = store.settle_ports(5_000..=5_000).await;
    assert!(matches!(few, Err(StoreError::Missing("port"))), "{few:?}");
    assert_eq!(store.ports().await.unwrap(), [4_001, 4_002].into());
    assert_eq!(store.settle_ports(5_000..=5_001).await.unwrap().len(), 2);
}

/// Each change of a sound store that no host ever made of one.
#[tokio::test]
async fn what_no_host_writes_is_refused() {
    let (there, _) = copied().await;
    let whole = std::fs::read(there.path().join(FILE)).unwrap();
    for (table, change) in [
        ("tenants", "UPDATE tenants SET created_at = 9223372036854775807"),
        ("tenants", "UPDATE tenants SET created_at = -9223372036854775808"),
        ("tenants", "UPDATE tenants SET port = 70000 WHERE name = 'acme'"),
        ("tenants", "UPDATE tenants SET port = 0 WHERE name = 'acme'"),
        ("tenants", "UPDATE tenants SET name = 'Acme' WHERE name = 'acme'"),
        ("tenants", "UPDATE tenants SET name = '../acme' WHERE name = 'acme'"),
        ("tenants", "UPDATE tenants SET id = 0 WHERE name = 'beta'"),
        ("tenants", "UPDATE tenants SET id = -5 WHERE name = 'beta'"),
        ("tenants", "UPDATE tenants SET id = 9223372036854775807 WHERE name = 'beta'"),
        ("tenants", "UPDATE tenants SET generation = 9223372036854775807"),
        ("tenants", "UPDATE tenants SET generation = -1"),
        ("tenants", "UPDATE tenants SET limits = '{\"memory\":1}'"),
        ("tenants", "UPDATE tenants SET limits = '{\"memory_mb\":1,\"memory_mb\":2}'"),
        ("tenants", "UPDATE tenants SET limits = '[]'"),
        ("generations", "UPDATE generations SET created_at = 9223372036854775807"),
        ("generations", "UPDATE generations SET generation = 4"),
        ("generations", "UPDATE generations SET cause = char(27) || '[2J'"),
        ("tokens", "UPDATE tokens SET expires_at = 9223372036854775807"),
        ("tokens", "UPDATE tokens SET name = 'a' || char(10) || 'b'"),
        ("audit", "UPDATE audit SET actor = 0 WHERE action = 'token.create'"),
        ("audit", "UPDATE audit SET actor = NULL"),
        ("audit", "UPDATE audit SET kind = 'ghost', actor = NULL"),
        ("audit", "UPDATE audit SET name = char(27) || '[2J'"),
        ("audit", "UPDATE audit SET action = 'tenant.praise'"),
        ("audit", "UPDATE audit SET object = char(10)"),
        ("audit", "UPDATE audit SET before = '[]'"),
        ("audit", "UPDATE audit SET after = '{\"a\":1,\"a\":2}'"),
        ("audit", "UPDATE audit SET after = '{\"a\":\"' || printf('%09000d', 0) || '\"}'"),
        ("audit", "UPDATE audit SET request_id = 'a b'"),
        ("audit", "UPDATE audit SET tenant_name = '..' WHERE tenant IS NULL"),
        ("audit", "UPDATE audit SET id = 9223372036854775807 WHERE id = 1"),
        ("tokens", "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'tokens'"),
        ("freed_ports", "INSERT INTO freed_ports VALUES (4009, 'Gone', 0)"),
        ("freed_names", "UPDATE freed_names SET freed_at = 9223372036854775807"),
        ("tokens", "UPDATE tokens SET name = ''"),
        ("tokens", "UPDATE tokens SET id = 9223372036854775807 WHERE name = 'ops'"),
        ("tokens", "UPDATE tokens SET scope = 'everything' WHERE name = 'ci'"),
        ("functions", "UPDATE functions SET folded = '/z' WHERE path = '/a'"),
        ("functions", "UPDATE functions SET path = '/../a', folded = '/../a' WHERE path = '/a'"),
        ("functions", "UPDATE functions SET latest = 4294967295"),
        ("functions", "UPDATE functions SET options = '{\"timeout_ms\":0}'"),
        ("functions", "UPDATE functions SET options = '{\"methods\":[\"TRACE\"]}'"),
        ("functions", "UPDATE functions SET options = '{\"auth\":\"owner\",\"auth\":\"public\"}'"),
        ("functions", "UPDATE functions SET active = NULL, removed_at = 9223372036854775807"),
        (
            "functions",
            "UPDATE functions SET hidden_at = 9223372036854775807 WHERE path = '/hidden'",
        ),
        ("functions", "UPDATE functions SET removed_at = 1 WHERE path = '/a'"),
        ("past_functions", "UPDATE past_functions SET since = 9223372036854775807"),
        ("past_functions", "UPDATE past_functions SET path = '/../x'"),
        ("past_functions", "UPDATE past_functions SET version = 9223372036854775807"),
        ("past_options", "UPDATE past_options SET options = '{\"nix\":1}'"),
        ("versions", "UPDATE versions SET created_at = 9223372036854775807"),
        ("versions", "UPDATE versions SET size = 9223372036854775807"),
        ("versions", "UPDATE versions SET stored = -1"),
        ("versions", "UPDATE versions SET kind = 'x'"),
        ("versions", "UPDATE versions SET sha256 = replace(printf('%064d', 0), '0', 'G')"),
        ("versions", "UPDATE versions SET declared = '{\"nix\":1}'"),
        ("versions", "UPDATE versions SET imports = '{}'"),
        ("settings", "UPDATE settings SET name = 'a b' WHERE name = 'KEY'"),
        ("settings", "UPDATE settings SET sealed = x'00' WHERE name = 'KEY'"),
        ("settings", "UPDATE settings SET sealed_by = x'00' WHERE name = 'KEY'"),
        ("settings", "UPDATE settings SET sealed = NULL WHERE name = 'KEY'"),
        ("settings", "UPDATE settings SET set_at = 9223372036854775807"),
        ("settings", "UPDATE settings SET value = printf('%016385d', 0) WHERE name = 'region'"),
        ("more than tables", "CREATE VIEW mine AS SELECT 1"),
        (
            "more than tables",
            "CREATE TRIGGER mine AFTER INSERT ON tokens BEGIN DELETE FROM tokens; END",
        ),
    ] {
        let (from, to) = (there.path().join("changed"), there.path().join("to"));
        std::fs::write(&from, &whole).unwrap();
        let db = Connection::open(&from).unwrap();
        // As somebody does who edits the file.
        db.execute_batch("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on;")
            .unwrap();
        db.execute_batch(change).unwrap();
        drop(db);
        let refused = rebuild(&from, &to).unwrap_err();
        let StoreError::Database(DatabaseError::Damaged(said)) = &refused else {
            panic!("{change}: {refused:?}")
        };
        // What breaks the tables' own checks is seen before a row is read.
        let by_checks = said.contains("CHECK constraint") || said.contains("that is not there");
        assert!(said.contains(table) || by_checks, "{change}: {said}");
        let _ = std::fs::remove_file(&to);
    }
    std::fs::write(there.path().join("changed"), &whole).unwrap();
    rebuild(&there.path().join("changed"), &there.path().join("to")).unwrap();
}
