use std::fs;
use std::path::Path;

use super::*;
use crate::store::FILE;
use crate::store::scratch::{author, tenant};

/// A host's share of this: its store and its key, in a directory.
async fn opened(data: &Path) -> (Store, Settings) {
    let store = Store::open(data).unwrap();
    let settings = Settings::open(store.clone(), KeyFile::new(data, None)).await.unwrap();
    (store, settings)
}

async fn set(
    (store, settings): &(Store, Settings),
    tenant: &Tenant,
    kind: SettingKind,
    name: &str,
    value: &str,
) -> Result<(), SettingsError> {
    if kind == SettingKind::Secret {
        settings.ready_to_seal().await?;
    }
    let rows = store.settings(tenant.id).await?;
    let value = Some(SettingValue::from(value.to_owned()));
    let plan = plan(&rows, kind, BTreeMap::from([(name.parse().unwrap(), value)]))?;
    settings.commit(tenant, plan, author("ops")).await
}

async fn told(
    settings: &Settings,
    tenant: &Tenant,
) -> Result<Vec<(String, String)>, SettingsError> {
    let told = settings.of(tenant).await?.into_iter();
    Ok(told.map(|it| (it.name.to_string(), it.value.as_str().to_owned())).collect())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn what_was_kept_is_told_again_after_another_start() {
    let data = tempfile::tempdir().unwrap();
    let host = opened(data.path()).await;
    let [acme, beta] = [tenant(&host.0, "acme", 4_001).await, tenant(&host.0, "beta", 4_002).await];
    set(&host, &acme, SettingKind::Config, "region", "eu").await.unwrap();
    assert!(!data.path().join("secrets.key").exists(), "nothing is secret yet");
    for (tenant, value) in [(&acme, "acme's secret"), (&beta, "beta's secret")] {
        set(&host, tenant, SettingKind::Secret, "KEY", value).await.unwrap();
    }
    host.0.close().await;
    let host = opened(data.path()).await;
    let of_acme = pairs(&[("KEY", "acme's secret"), ("region", "eu")]);
    assert_eq!(told(&host.1, &acme).await.unwrap(), of_acme);
    assert_eq!(told(&host.1, &beta).await.unwrap(), pairs(&[("KEY", "beta's secret")]));
    // Nothing of it lies there in the clear.
    for entry in fs::read_dir(data.path()).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"s secret"));
    }
}

#[tokio::test]
async fn a_sealed_secret_in_anothers_place_does_not_open() {
    let data = tempfile::tempdir().unwrap();
    let host = opened(data.path()).await;
    let [acme, beta] = [tenant(&host.0, "acme", 4_001).await, tenant(&host.0, "beta", 4_002).await];
    for tenant in [&acme, &beta] {
        set(&host, tenant, SettingKind::Secret, "KEY", "value").await.unwrap();
    }
    host.0.close().await;
    let db = rusqlite::Connection::open(data.path().join(FILE)).unwrap();
    db.execute_batch(
        "UPDATE settings SET sealed = (SELECT sealed FROM settings WHERE tenant = 1)
         WHERE tenant = 2",
    )
    .unwrap();
    drop(db);
    let host = opened(data.path()).await;
    assert!(told(&host.1, &acme).await.is_ok());
    let refused = told(&host.1, &beta).await;
    let Err(SettingsError::Closed(closed)) = refused else { panic!("{refused:?}") };
    assert_eq!(closed, [("KEY".parse().unwrap(), OpenError::Damaged)]);
}

#[tokio::test]
async fn without_the_key_whoever_needs_none_is_told_all_the_same() {
    let data = tempfile::tempdir().unwrap();
    let host = opened(data.path()).await;
    let [acme, beta, gamma] = [
        tenant(&host.0, "acme", 4_001).await,
        tenant(&host.0, "beta", 4_002).await,
        tenant(&host.0, "gamma", 4_003).await,
    ];
    set(&host, &acme, SettingKind::Secret, "KEY", "value").await.unwrap();
    set(&host, &beta, SettingKind::Config, "region", "eu").await.unwrap();
    host.0.close().await;
    let (key, away) = (data.path().join("secrets.key"), data.path().join("away"));
    fs::copy(&key, &away).unwrap();
    fs::remove_file(&key).unwrap();
    let other = Key::random().unwrap();
    for (put, why) in [
        (None, "is missing"),
        (Some(other.text().to_string()), "is not the one"),
        (Some("no key".to_owned()), "cannot be used"),
    ] {
        match put {
            Some(text) => fs::write(&key, text).unwrap(),
            None => assert!(!key.exists()),
        }
        let host = opened(data.path()).await;
        assert!(matches!(told(&host.1, &acme).await, Err(SettingsError::Closed(_))), "{why}");
        assert_eq!(told(&host.1, &beta).await.unwrap(), pairs(&[("region", "eu")]));
        assert_eq!(told(&host.1, &gamma).await.unwrap(), []);
        let refused = set(&host, &gamma, SettingKind::Secret, "KEY", "x").await.unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
        let refused = host.1.rekey(author("ops"), false).await;
        assert!(matches!(refused, Err(SettingsError::Lost(_))), "{refused:?}");
        host.0.close().await;
    }
    // The right one is back.
    fs::copy(&away, &key).unwrap();
    let host = opened(data.path()).await;
    assert_eq!(told(&host.1, &acme).await.unwrap(), pairs(&[("KEY", "value")]));
    host.0.close().await;

    // It is lost for good.
    fs::remove_file(&key).unwrap();
    let host = opened(data.path()).await;
    let done = host.1.rekey(author("ops"), true).await.unwrap();
    assert_eq!(done, Rekeyed { secrets: 0, forgotten: vec![acme.name.clone()] });
    assert_eq!(told(&host.1, &acme).await.unwrap(), []);
    set(&host, &acme, SettingKind::Secret, "KEY", "again").await.unwrap();
    assert_eq!(told(&host.1, &acme).await.unwrap(), pairs(&[("KEY", "again")]));
}

#[tokio::test]
async fn a_new_key_opens_everything_and_the_old_one_nothing() {
    let data = tempfile::tempdir().unwrap();
    let host = opened(data.path()).await;
    let acme = tenant(&host.0, "acme", 4_001).await;
    set(&host, &acme, SettingKind::Secret, "KEY", "value").await.unwrap();
    let key = data.path().join("secrets.key");
    let old = fs::read(&key).unwrap();
    let done = host.1.rekey(author("ops"), false).await.unwrap();
    assert_eq!(done, Rekeyed { secrets: 1, forgotten: vec![] });
    assert_ne!(fs::read(&key).unwrap(), old);
    assert_eq!(told(&host.1, &acme).await.unwrap(), pairs(&[("KEY", "value")]));
    set(&host, &acme, SettingKind::Secret, "MORE", "more").await.unwrap();
    host.0.close().await;
    let host = opened(data.path()).await;
    let both = pairs(&[("KEY", "value"), ("MORE", "more")]);
    assert_eq!(told(&host.1, &acme).await.unwrap(), both);
    host.0.close().await;
    fs::write(&key, old).unwrap();
    let host = opened(data.path()).await;
    assert!(told(&host.1, &acme).await.is_err());
}

/// As a host leaves it that dies between any two steps.
#[test]
fn the_key_is_the_one_that_sealed_whichever_of_both_that_is() {
    let [old, new, other] = [(); 3].map(|()| Key::random().unwrap());
    let id = |key: &Key| vec![key.id()];
    let had = |key: &Key| Keyring::Had(key.clone());
    for (read, beside, sealed_by, keyring, becomes) in [
        (None, None, vec![], Keyring::Unmade, New::IsNone),
        (None, Some(&new), vec![], Keyring::Unmade, New::IsNone),
        (Some(&old), None, vec![], had(&old), New::IsNone),
        (Some(&old), Some(&new), vec![], had(&old), New::IsNone),
        (Some(&old), Some(&new), id(&old), had(&old), New::IsNone),
        (Some(&old), Some(&new), id(&new), had(&new), New::IsTheKey),
        (Some(&new), None, id(&new), had(&new), New::IsNone),
        (None, Some(&new), id(&new), had(&new), New::IsTheKey),
        (Some(&old), Some(&new), id(&other), Keyring::Unusable(Unusable::Other), New::Stays),
        (None, None, id(&old), Keyring::Unusable(Unusable::Missing), New::Stays),
        (Some(&old), None, [id(&other), id(&old)].concat(), had(&old), New::IsNone),
    ] {
        let chosen = choose(Ok(read.cloned()), beside.cloned(), &sealed_by);
        assert_eq!(chosen, (keyring, becomes));
    }
}

#[tokio::test]
async fn secrets_of_a_backup_are_taken_by_who_has_their_key() {
    let data = tempfile::tempdir().unwrap();
    let host = opened(data.path()).await;
    let (acme, key): (TenantName, SettingName) = ("acme".parse().unwrap(), "KEY".parse().unwrap());
    let theirs = Key::random().unwrap();
    let bytes = theirs.seal(&acme, &key, &"value".to_owned().into()).unwrap();
    let sealed = Sealed { by: theirs.id(), bytes };
    let Taking::Sealed(take) = host.1.taking(None).await.unwrap() else { panic!() };
    let refused = take(&acme, &key, &sealed);
    assert!(matches!(&refused, Err(StoreError::Sealed(tenant)) if *tenant == acme));
    let Taking::Sealed(take) = host.1.taking(Some(theirs)).await.unwrap() else { panic!() };
    let taken = take(&acme, &key, &sealed).unwrap();
    assert_ne!(taken.by, sealed.by);
    // It is this host's own from then on.
    let Taking::Sealed(take) = host.1.taking(None).await.unwrap() else { panic!() };
    assert!(take(&acme, &key, &taken).is_ok());
}
