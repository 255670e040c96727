//! A copy of the store that a backup can hold, and a look into one before it is put to use.
//!
//! The copy is made by SQLite's online backup over a connection of its own, within one read
//! transaction: it is the store at one instant, and neither the store's thread nor a writer waits
//! for it. What vouches for artifacts stays behind: artifacts are no part of a backup, and their
//! key must not lie about in one. So do the tenants' users, which are this machine's.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use hearth_wire::{ModuleDigest, SettingName, TenantName};
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

use super::columns::{column, parsed};
use super::database::{DatabaseError, check, read_only, version};
use super::error::{Result, StoreError};
use super::handle::Store;
use super::migrations::SCHEMA;
use super::rebuild::rebuild_one;
use super::settings::{self, Kept, Sealed, SettingRow};
use crate::sealing::KeyId;

/// The store's, in a data directory and in a backup.
pub const FILE: &str = "hearth.db";
/// Pages that are copied in one step; between two, others have the file.
const STEP: i32 = 512;

/// What a copy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// With their ports.
    pub tenants: BTreeMap<TenantName, u16>,
    pub modules: HashSet<ModuleDigest>,
    /// Of tenants that have any, how many. They are sealed.
    pub secrets: BTreeMap<TenantName, u64>,
}

impl Store {
    /// Makes a copy of the store in this directory, under its own name, and tells what it names. Of one
    /// tenant alone it has that tenant's rows, made anew, and no byte of anybody else's.
    pub async fn snapshot(&self, directory: &Path, only: Option<&TenantName>) -> Result<Contents> {
        let (file, copy) = (self.database.file().to_owned(), directory.join(FILE));
        let only = only.cloned();
        let copied = tokio::task::spawn_blocking(move || {
            match only {
                None => snapshot(&file, &copy)?,
                Some(tenant) => rebuild_one(&at_one_instant(&file)?, &copy, &tenant)?,
            }
            inspect(&copy)
        });
        // It is cancelled only where the host ends.
        copied.await.map_err(|_| DatabaseError::Closed)?
    }
}

fn snapshot(file: &Path, copy: &Path) -> Result<()> {
    let source = at_one_instant(file)?;
    let mut target = Connection::open(copy)?;
    Backup::new(&source, &mut target)?.run_to_completion(STEP, Duration::ZERO, None)?;
    drop(source);
    target.pragma_update(None, "journal_mode", "delete")?;
    target.execute_batch(
        "DELETE FROM artifacts;
         DELETE FROM host WHERE key = 'key';
         UPDATE tenants SET user = NULL;
         VACUUM;",
    )?;
    target.close().map_err(|(_, error)| error)?;
    Ok(())
}

/// The store as it is now: from here on writers go on, and this connection does not see it.
fn at_one_instant(file: &Path) -> Result<Connection> {
    let source = read_only(file)?;
    source.execute_batch("BEGIN")?;
    source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(source)
}

/// Checks a copy from its first page to its last, and tells what it names.
pub fn inspect(copy: &Path) -> Result<Contents> {
    let db = read_only(copy)?;
    db.pragma_update(None, "trusted_schema", false)?;
    version(&db, &SCHEMA)?;
    check(&db)?;
    let tenants = db
        .prepare("SELECT name, port FROM tenants")?
        .query_map([], |row| Ok((column(row, "name", parsed)?, row.get("port")?)))?
        .collect::<rusqlite::Result<_>>()?;
    let modules = db
        .prepare("SELECT DISTINCT sha256 FROM versions")?
        .query_map([], |row| column(row, "sha256", parsed))?
        .collect::<rusqlite::Result<_>>()?;
    let secrets = settings::sealed_otherwise(&db, None)?;
    Ok(Contents { tenants, modules, secrets })
}

/// The keys that sealed anything in a data directory, as far as its file says so by itself: what a
/// host that runs has not moved there yet is not looked at, and nothing is written.
pub fn sealed_by_at_rest(data: &Path) -> Vec<KeyId> {
    let file = data.join(FILE);
    let Some(path) = file.to_str().filter(|_| file.is_file()) else { return Vec::new() };
    let path = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let opened = Connection::open_with_flags(format!("file:{path}?immutable=1"), flags);
    let keys = opened.and_then(|db| settings::keys(&db));
    // An older store has no such table.
    keys.unwrap_or_default()
}

/// Has somebody look at each secret of a copy, until one is refused.
pub fn sealed<E: From<StoreError>>(
    copy: &Path,
    mut look: impl FnMut(&TenantName, &SettingName, &Sealed) -> Result<(), E>,
) -> Result<(), E> {
    let db = read_only(copy).map_err(StoreError::from)?;
    let mut found = db
        .prepare(
            "SELECT settings.*, tenants.name AS tenant_name FROM settings
             JOIN tenants ON tenants.id = settings.tenant WHERE sealed IS NOT NULL",
        )
        .map_err(StoreError::from)?;
    let mut rows = found.query([]).map_err(StoreError::from)?;
    while let Some(row) = rows.next().map_err(StoreError::from)? {
        let tenant = column(row, "tenant_name", parsed).map_err(StoreError::from)?;
        let setting = SettingRow::of(row).map_err(StoreError::from)?;
        if let Kept::Secret(sealed) = &setting.kept {
            look(&tenant, &setting.name, sealed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::{author, scratch, tenant};
    use hearth_wire::{Fingerprint, Scope};

    #[tokio::test]
    async fn a_copy_is_the_store_without_what_vouches_for_artifacts() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let module = ModuleDigest::new([1; 32]);
        store.put_artifact(acme, module, Fingerprint::new([1; 8]), [7; 32]).await.unwrap();
        let key = store.host_key().await.unwrap();

        let there = tempfile::tempdir().unwrap();
        let contents = store.snapshot(there.path(), None).await.unwrap();
        assert_eq!(contents.tenants, BTreeMap::from([("acme".parse().unwrap(), 4_001)]));
        assert_eq!((contents.modules, contents.secrets), (HashSet::new(), BTreeMap::new()));
        let names: Vec<_> = std::fs::read_dir(there.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let bytes = std::fs::read(there.path().join(FILE)).unwrap();
        assert!(!bytes.windows(32).any(|window| window == key || window == [7; 32]));

        let copy = Store::open(there.path()).unwrap();
        assert_eq!(copy.tenants().await.unwrap(), store.tenants().await.unwrap());
        assert_ne!(copy.host_key().await.unwrap(), key);
    }

    #[tokio::test]
    async fn a_copy_of_one_tenant_has_nothing_of_another_and_nothing_of_the_host() {
        let (_directory, store) = scratch();
        for (number, name) in ["acme", "zebra-corp", "other-inc"].into_iter().enumerate() {
            let id = tenant(&store, name, 4_001 + number as u16).await.id;
            let token = format!("token-of-{name}");
            store.create_token(Some(id), token, Scope::Deploy, None, author("ops")).await.unwrap();
        }
        let admin = "token-of-the-host".to_owned();
        store.create_token(None, admin, Scope::Admin, None, author("ops")).await.unwrap();
        let there = tempfile::tempdir().unwrap();
        let acme = "acme".parse().unwrap();
        let contents = store.snapshot(there.path(), Some(&acme)).await.unwrap();
        assert_eq!(contents.tenants, BTreeMap::from([(acme.clone(), 4_001)]));
        let names: Vec<_> = std::fs::read_dir(there.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let bytes = std::fs::read(there.path().join(FILE)).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|it| it == text.as_bytes());
        assert!(has("acme") && has("token-of-acme"));
        for strange in ["zebra-corp", "other-inc", "token-of-the-host"] {
            assert!(!has(strange), "{strange}");
        }
        // It is taken for what a whole one is taken for.
        let again = tempfile::tempdir().unwrap();
        crate::store::rebuild(&there.path().join(FILE), &again.path().join(FILE)).unwrap();
        let (old, new) = (store.tenant(&acme).await.unwrap().unwrap(), Store::open(again.path()));
        let new = new.unwrap();
        let found = new.tenant(&acme).await.unwrap().unwrap();
        assert_eq!((found.port, found.generation), (old.port, old.generation));
        assert_eq!(new.tokens(Some(found.id)).await.unwrap().len(), 1);

        let nobody = tempfile::tempdir().unwrap();
        let nobody = store.snapshot(nobody.path(), Some(&"nobody".parse().unwrap())).await;
        assert!(matches!(nobody, Err(StoreError::Missing("tenant"))), "{nobody:?}");
    }

    #[tokio::test]
    async fn what_is_no_whole_store_is_refused() {
        let (_directory, store) = scratch();
        for number in 0..200 {
            tenant(&store, &format!("t{number}"), 4_001 + number).await;
        }
        let there = tempfile::tempdir().unwrap();
        store.snapshot(there.path(), None).await.unwrap();
        let copy = there.path().join(FILE);
        let whole = std::fs::read(&copy).unwrap();

        std::fs::write(&copy, b"something else").unwrap();
        assert!(inspect(&copy).is_err());
        let mut torn = whole.clone();
        torn[4_096..8_192].fill(0xff);
        std::fs::write(&copy, torn).unwrap();
        assert!(inspect(&copy).is_err());
        std::fs::write(&copy, &whole).unwrap();
        let db = Connection::open(&copy).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        assert!(matches!(
            inspect(&copy),
            Err(StoreError::Database(DatabaseError::TooNew { found: 99, .. }))
        ));
    }
}
