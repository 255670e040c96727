use super::*;
use crate::sealing::Key;
use crate::store::scratch::{author, scratch, tenant};
use crate::store::{AuditQuery, Tenant, Whose};

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("it does not open")]
    Closed,
}

fn name(text: &str) -> SettingName {
    text.parse().unwrap()
}

fn config(value: &str) -> Kept {
    Kept::Config(value.to_owned())
}

fn secret(tenant: &Tenant, key: &Key, of: &str, value: &str) -> Kept {
    let bytes = key.seal(&tenant.name, &name(of), &value.to_owned().into()).unwrap();
    Kept::Secret(Sealed { by: key.id(), bytes })
}

async fn set(store: &Store, tenant: &Tenant, settings: Vec<(&str, Kept)>) -> Result<()> {
    let kind = settings[0].1.kind();
    let set = settings.into_iter().map(|(of, kept)| (name(of), kept)).collect();
    let new = NewSettings { tenant: tenant.id, kind, set, removed: vec![] };
    store.change_settings(new, author("ops")).await
}

async fn remove(store: &Store, tenant: &Tenant, kind: SettingKind, of: &str) -> Result<()> {
    let (set, removed) = (vec![], vec![name(of)]);
    let new = NewSettings { tenant: tenant.id, kind, set, removed };
    store.change_settings(new, author("ops")).await
}

async fn names(store: &Store, tenant: &Tenant) -> Vec<(String, usize)> {
    let rows = store.settings(tenant.id).await.unwrap();
    rows.iter().map(|row| (row.name.to_string(), row.kept.length())).collect()
}

#[tokio::test]
async fn settings_are_a_tenants_own_and_one_of_two_kinds() {
    let (_directory, store) = scratch();
    let [acme, beta] = [tenant(&store, "acme", 4_001).await, tenant(&store, "beta", 4_002).await];
    let key = Key::random().unwrap();
    set(&store, &acme, vec![("b", config("two")), ("a", config(""))]).await.unwrap();
    set(&store, &acme, vec![("KEY", secret(&acme, &key, "KEY", "s3cret"))]).await.unwrap();
    let all = [("KEY".to_owned(), 6), ("a".to_owned(), 0), ("b".to_owned(), 3)];
    assert_eq!(names(&store, &acme).await, all);
    assert_eq!(names(&store, &beta).await, []);
    assert_eq!(store.tenants_with_settings().await.unwrap(), [acme.id]);

    // In the place of one of the same name, and never of the other kind.
    set(&store, &acme, vec![("b", config("three"))]).await.unwrap();
    let as_secret = secret(&acme, &key, "a", "x");
    let refused = set(&store, &acme, vec![("new", as_secret.clone()), ("a", as_secret)]).await;
    assert!(matches!(refused, Err(StoreError::Exists)), "{refused:?}");
    let refused = set(&store, &acme, vec![("KEY", config("x"))]).await;
    assert!(matches!(refused, Err(StoreError::Exists)), "{refused:?}");
    for (kind, of) in [(SettingKind::Config, "KEY"), (SettingKind::Secret, "a")] {
        let refused = remove(&store, &acme, kind, of).await;
        assert!(matches!(refused, Err(StoreError::Missing(_))), "{refused:?}");
    }
    remove(&store, &acme, SettingKind::Config, "a").await.unwrap();
    let all = [("KEY".to_owned(), 6), ("b".to_owned(), 5)];
    assert_eq!(names(&store, &acme).await, all);

    store.delete_tenant(acme.id).await.unwrap();
    assert!(store.sealed_by().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_audit_names_what_was_set_and_no_value() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let key = Key::random().unwrap();
    set(&store, &acme, vec![("region", config("eu-north")), ("x", config(""))]).await.unwrap();
    set(&store, &acme, vec![("KEY", secret(&acme, &key, "KEY", "s3cret-s3cret"))]).await.unwrap();
    remove(&store, &acme, SettingKind::Secret, "KEY").await.unwrap();
    let query =
        AuditQuery { whose: Whose::Tenant(acme.id), action: None, before: None, limit: 100 };
    let rows = store.audit(query).await.unwrap().rows;
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.before, None);
            let after = serde_json::to_string(row.after.as_ref().unwrap()).unwrap();
            (row.action.as_str(), row.object.clone(), after)
        })
        .collect();
    let key = Some("KEY".to_owned());
    assert_eq!(
        told,
        [
            ("tenant.config", None, r#"{"set":["region","x"]}"#.to_owned()),
            ("tenant.secrets", key.clone(), r#"{"set":["KEY"]}"#.to_owned()),
            ("tenant.secrets", key, r#"{"removed":["KEY"]}"#.to_owned()),
        ]
    );
}

#[tokio::test]
async fn there_are_no_more_than_can_be_told() {
    let (_directory, store) = scratch();
    let acme = tenant(&store, "acme", 4_001).await;
    let many = |count: usize| (0..count).map(|n| (name(&format!("n{n}")), config(""))).collect();
    let change =
        |set| NewSettings { tenant: acme.id, kind: SettingKind::Config, set, removed: vec![] };
    let refused =
        store.change_settings(change(many(limits::SETTINGS_MAX + 1)), author("ops")).await;
    assert!(matches!(refused, Err(StoreError::TooMany { .. })), "{refused:?}");
    assert_eq!(names(&store, &acme).await, [], "none of them is kept");
    store.change_settings(change(many(limits::SETTINGS_MAX)), author("ops")).await.unwrap();
    let large = config(&"x".repeat(limits::SETTINGS_MAX_BYTES));
    let refused = set(&store, &acme, vec![("n0", large)]).await;
    assert!(matches!(refused, Err(StoreError::TooMany { .. })), "{refused:?}");
}

#[tokio::test]
async fn all_secrets_are_sealed_anew_or_none() {
    let (_directory, store) = scratch();
    let [acme, beta] = [tenant(&store, "acme", 4_001).await, tenant(&store, "beta", 4_002).await];
    let [old, new, lost] = [(); 3].map(|()| Key::random().unwrap());
    for tenant in [&acme, &beta] {
        let secrets = (0..STEP).map(|number| {
            let of = format!("KEY{number}");
            (name(&of), secret(tenant, &old, &of, &format!("value {number}")))
        });
        let (set, removed) = (secrets.collect(), vec![]);
        let change = NewSettings { tenant: tenant.id, kind: SettingKind::Secret, set, removed };
        store.change_settings(change, author("ops")).await.unwrap();
    }
    set(&store, &beta, vec![("region", config("eu"))]).await.unwrap();
    let anew = {
        let (old, new) = (old.clone(), new.clone());
        move |tenant: &TenantName, of: &SettingName, sealed: &Sealed| {
            let value = old.open(tenant, of, sealed.by, &sealed.bytes);
            let value = value.map_err(|_| Failed::Closed)?;
            let bytes = new.seal(tenant, of, &value).unwrap();
            Ok(Some(Sealed { by: new.id(), bytes }))
        }
    };

    // One that does not open, behind many that do.
    set(&store, &beta, vec![("LOST", secret(&beta, &lost, "LOST", "x"))]).await.unwrap();
    let refused = store.reseal(author("ops"), anew.clone()).await;
    assert!(matches!(refused, Err(Failed::Closed)), "{refused:?}");
    let otherwise = store.sealed_otherwise(Some(old.id())).await.unwrap();
    assert_eq!(otherwise, BTreeMap::from([(beta.name.clone(), 1)]), "nothing was changed");

    let forgetting = {
        let anew = anew.clone();
        move |tenant: &TenantName, of: &SettingName, sealed: &Sealed| {
            anew(tenant, of, sealed).or(Ok::<_, Failed>(None))
        }
    };
    let (sealed, whose) = store.reseal(author("ops"), forgetting).await.unwrap();
    assert_eq!((sealed, whose), (u64::from(2 * STEP), vec![beta.name.clone()]));
    assert_eq!(store.sealed_by().await.unwrap(), [new.id()]);
    assert!(store.sealed_otherwise(Some(new.id())).await.unwrap().is_empty());
    assert_eq!(store.sealed_otherwise(None).await.unwrap().len(), 2);
    for tenant in [&acme, &beta] {
        let rows = store.settings(tenant.id).await.unwrap();
        let secrets = rows.iter().filter_map(|row| match &row.kept {
            Kept::Secret(sealed) => Some((&row.name, sealed)),
            Kept::Config(_) => None,
        });
        let mut count = 0;
        for (of, sealed) in secrets {
            let number = of.as_str().strip_prefix("KEY").unwrap();
            let value = new.open(&tenant.name, of, sealed.by, &sealed.bytes).unwrap();
            assert_eq!(value.as_str(), format!("value {number}"));
            count += 1;
        }
        assert_eq!(count, STEP);
    }
}
