//! Rows of tokens. Only a token's SHA-256 is kept; its text is given out once, by whoever asked
//! for it. What a token may do is `api/auth.rs`'s and the worker's to decide.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_wire::{Scope, TOKEN_PREFIX, TokenDigest, TokenGrant, is_token, limits};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use super::audit::{self, Action, Event, Sides};
use super::columns::{column, instant, millis, optional, parsed};
use super::database::change;
use super::error::{Result, StoreError};
use super::generations::{NewGeneration, commit};
use super::handle::{Asker, Store};
use super::ids::TenantId;
use super::known::Marked;
use crate::actor::Author;

/// A token's name goes into a header that functions read.
const NAME_MAX: usize = 64;

/// Whether a token can have this name: 1 to 64 printable ASCII characters.
pub fn is_token_name(name: &str) -> bool {
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    (1..=NAME_MAX).contains(&name.len()) && printable && name.trim() == name
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    pub id: i64,
    /// `None`: the host's own.
    pub tenant: Option<TenantId>,
    pub name: String,
    pub scope: Scope,
    pub created_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl TokenRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            tenant: row.get::<_, Option<i64>>("tenant")?.map(TenantId),
            name: row.get("name")?,
            scope: column(row, "scope", parsed)?,
            created_at: column(row, "created_at", instant)?,
            expires_at: column(row, "expires_at", |at| optional(at, instant))?,
        })
    }

    fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| now < at)
    }

    /// What the audit tells of it.
    fn told(&self) -> Map<String, Value> {
        let mut told = Map::from_iter([
            ("name".to_owned(), self.name.clone().into()),
            ("scope".to_owned(), self.scope.as_str().into()),
        ]);
        if let Some(at) = self.expires_at {
            told.insert("expires_at".to_owned(), at.to_string().into());
        }
        told
    }
}

/// Hears of every token that is removed from when this is made.
pub struct Removed {
    gone: broadcast::Receiver<Arc<[i64]>>,
    store: Store,
}

impl Removed {
    /// Waits until this one is.
    pub async fn wait(&mut self, id: i64) {
        loop {
            match self.gone.recv().await {
                Ok(ids) if ids.contains(&id) => return,
                Ok(_) => {}
                // What the store cannot say now is asked for again with the next that goes.
                Err(RecvError::Lagged(_)) => {
                    if matches!(self.store.is_token(id).await, Ok(false)) {
                        return;
                    }
                }
                // Not while this has a handle of the store.
                Err(RecvError::Closed) => return,
            }
        }
    }
}

impl Store {
    /// Hears of tokens that are removed from now on.
    pub fn removed(&self) -> Removed {
        Removed { gone: self.gone.subscribe(), store: self.clone() }
    }

    async fn is_token(&self, id: i64) -> Result<bool> {
        self.read(Asker::Host, move |db| {
            Ok(db.prepare_cached("SELECT 1 FROM tokens WHERE id = ?")?.exists([id])?)
        })
        .await
    }

    /// Whether this is a token of the host.
    pub fn is_admins(&self, digest: &TokenDigest) -> bool {
        self.admins.get().contains_key(digest)
    }

    /// Whether there is a token of the host that no worker could tell from a credential of the
    /// caller's own.
    pub fn has_unmarked_admin_token(&self) -> bool {
        self.admins.get().values().any(|marked| !marked)
    }

    /// Makes a change to the host's own tokens, or a tenant's.
    async fn change_tokens<T: Send + 'static>(
        &self,
        tenant: Option<TenantId>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let admins = self.admins.clone();
        self.run_change(Asker::of(tenant), move |db| {
            let changed = change(db, work);
            if tenant.is_some() {
                return changed;
            }
            // Also where it failed: nobody knows, then, what is there.
            let known = admins.read(db);
            changed.and_then(|changed| known.map(|()| changed))
        })
        .await
    }

    /// With the token's text, which nobody can learn again.
    ///
    /// The scope is `admin` exactly where there is no tenant. Expired tokens make room for new
    /// ones where there are [`limits::TOKENS_MAX`].
    pub async fn create_token(
        &self,
        tenant: Option<TenantId>,
        name: String,
        scope: Scope,
        expires_at: Option<Timestamp>,
        by: Author,
    ) -> Result<(TokenRow, String)> {
        let (text, digest) = random()?;
        self.change_tokens(tenant, move |db| {
            let now = Timestamp::now();
            let (adopted, marked) = (false, true);
            let new = New { tenant, name, scope, digest, adopted, marked, now, expires_at };
            let (row, expired) = make(db, new)?;
            let before = told_gone("expired_tokens", &expired);
            let object = Some(row.id.to_string());
            let sides = Sides::between(before, row.told());
            audit::note(db, &by, Event { action: Action::TokenCreate, tenant, object, sides })?;
            Ok((row, text))
        })
        .await
    }

    /// Makes a tenant's first generation the current one, and its owner's token: there are both, or
    /// none.
    pub async fn found_tenant(&self, first: NewGeneration) -> Result<String> {
        let (text, digest) = random()?;
        self.write(Asker::Host, move |db| {
            let new = New {
                tenant: Some(first.tenant),
                name: "owner".to_owned(),
                scope: Scope::Owner,
                digest,
                adopted: false,
                marked: true,
                now: Timestamp::now(),
                expires_at: None,
            };
            let by = first.by.clone();
            let mut event = commit(db, first)?;
            let (owner, _) = make(db, new)?;
            let port: u16 = db
                .prepare_cached("SELECT port FROM tenants WHERE id = ?")?
                .query_row([owner.tenant.map(|id| id.0)], |row| row.get(0))?;
            event.sides.add_after("port", port.into());
            event.sides.add_after("owner_token", owner.id.into());
            audit::note(db, &by, event)?;
            Ok(text)
        })
        .await
    }

    /// Makes the operator's own token an admin's. The one that was adopted before ends, so that
    /// changing the configuration revokes it.
    pub async fn adopt_admin_token(&self, token: &str) -> Result<()> {
        let (digest, marked) = (TokenDigest::of(token), is_token(token.as_bytes()));
        let replaced = self
            .change_tokens(None, move |db| {
                let replaced: Vec<i64> = db
                    .prepare_cached(
                        "DELETE FROM tokens WHERE adopted AND digest <> ? RETURNING id",
                    )?
                    .query_map([digest.as_bytes()], |row| row.get(0))?
                    .collect::<rusqlite::Result<_>>()?;
                db.execute(
                    "UPDATE tokens SET marked = ? WHERE digest = ?",
                    (marked, digest.as_bytes()),
                )?;
                let known = db
                    .prepare_cached("SELECT 1 FROM tokens WHERE digest = ? AND tenant IS NULL")?
                    .exists([digest.as_bytes()])?;
                let mut adopted = None;
                if !known {
                    let new = New {
                        tenant: None,
                        name: "configured".to_owned(),
                        scope: Scope::Admin,
                        digest,
                        adopted: true,
                        marked,
                        now: Timestamp::now(),
                        expires_at: None,
                    };
                    adopted = Some(insert(db, new)?);
                }
                if replaced.is_empty() && adopted.is_none() {
                    return Ok(replaced);
                }
                let before = told_gone("replaced_tokens", &replaced);
                let sides = Sides::between(
                    before,
                    adopted.as_ref().map(TokenRow::told).unwrap_or_default(),
                );
                let object = adopted.map(|row| row.id.to_string());
                let event = Event { action: Action::TokenAdopt, tenant: None, object, sides };
                audit::note(db, &Author::host(), event)?;
                Ok(replaced)
            })
            .await?;
        self.gone.tell(&replaced);
        Ok(())
    }

    /// Oldest first, expired ones too.
    pub async fn tokens(&self, tenant: Option<TenantId>) -> Result<Vec<TokenRow>> {
        self.read(Asker::of(tenant), move |db| {
            let mut statement =
                db.prepare_cached("SELECT * FROM tokens WHERE tenant IS ? ORDER BY id")?;
            let rows = statement.query_map([tenant.map(|id| id.0)], TokenRow::of)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Whether there was such a token.
    pub async fn delete_token(
        &self,
        tenant: Option<TenantId>,
        id: i64,
        by: Author,
    ) -> Result<bool> {
        let known = self
            .change_tokens(tenant, move |db| {
                let gone = db
                    .prepare_cached("DELETE FROM tokens WHERE tenant IS ? AND id = ? RETURNING *")?
                    .query_row((tenant.map(|id| id.0), id), TokenRow::of)
                    .optional()?;
                let Some(gone) = gone else { return Ok(false) };
                let (object, sides) = (Some(id.to_string()), Sides::only_before(gone.told()));
                audit::note(db, &by, Event { action: Action::TokenDelete, tenant, object, sides })?;
                Ok(true)
            })
            .await?;
        if known {
            self.gone.tell(&[id]);
        }
        Ok(known)
    }

    /// `None` also for one that has expired.
    pub async fn token_by_digest(&self, digest: TokenDigest) -> Result<Option<TokenRow>> {
        self.read(Asker::Token(digest), move |db| {
            let mut statement = db.prepare_cached("SELECT * FROM tokens WHERE digest = ?")?;
            let row = statement.query_row([digest.as_bytes()], TokenRow::of).optional()?;
            Ok(row.filter(|row| row.is_live(Timestamp::now())))
        })
        .await
    }

    /// Whether anybody can administer this host.
    pub async fn has_admin_token(&self) -> Result<bool> {
        let admins = self.tokens(None).await?;
        let now = Timestamp::now();
        Ok(admins.iter().any(|token| token.is_live(now)))
    }

    /// The tenant's live tokens, as its worker is told of them.
    pub async fn grants(&self, tenant: TenantId) -> Result<Vec<TokenGrant>> {
        self.read(Asker::Tenant(tenant), move |db| {
            let now = Timestamp::now();
            let mut statement =
                db.prepare_cached("SELECT * FROM tokens WHERE tenant = ? ORDER BY id")?;
            let rows = statement.query_map([tenant.0], |row| {
                let digest = TokenDigest::new(row.get("digest")?);
                Ok((TokenRow::of(row)?, digest))
            })?;
            let mut grants = Vec::new();
            for row in rows {
                let (token, digest) = row?;
                if token.is_live(now) {
                    let TokenRow { name, scope, expires_at, .. } = token;
                    let expires_at = expires_at.map(Timestamp::as_second);
                    grants.push(TokenGrant { digest, scope, name, expires_at });
                }
            }
            Ok(grants)
        })
        .await
    }
}

struct New {
    tenant: Option<TenantId>,
    name: String,
    scope: Scope,
    digest: TokenDigest,
    adopted: bool,
    marked: Marked,
    now: Timestamp,
    expires_at: Option<Timestamp>,
}

/// A token's text, and what is kept of it.
fn random() -> Result<(String, TokenDigest)> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(StoreError::Random)?;
    let text = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let digest = TokenDigest::of(&text);
    Ok((text, digest))
}

/// What the audit tells of tokens that went with a change, by their ids.
fn told_gone(why: &str, ids: &[i64]) -> Map<String, Value> {
    (!ids.is_empty()).then(|| (why.to_owned(), json!(ids))).into_iter().collect()
}

/// Inserts it where there is room. Tells which expired ones made that.
fn make(db: &Connection, new: New) -> Result<(TokenRow, Vec<i64>)> {
    let New { tenant, now, .. } = new;
    if let Some(id) = tenant
        && !db.prepare_cached("SELECT 1 FROM tenants WHERE id = ?")?.exists([id.0])?
    {
        return Err(StoreError::Missing("tenant"));
    }
    let mut expired = Vec::new();
    if count(db, tenant)? >= limits::TOKENS_MAX {
        let sql = "DELETE FROM tokens WHERE tenant IS ? AND expires_at <= ? RETURNING id";
        expired = db
            .prepare_cached(sql)?
            .query_map((tenant.map(|id| id.0), millis(now)), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
    }
    if count(db, tenant)? >= limits::TOKENS_MAX {
        return Err(StoreError::TooMany { what: "tokens", max: limits::TOKENS_MAX });
    }
    Ok((insert(db, new)?, expired))
}

fn insert(db: &Connection, new: New) -> Result<TokenRow> {
    let New { tenant, name, scope, digest, adopted, marked, now, expires_at } = new;
    db.execute(
        "INSERT INTO tokens (tenant, name, scope, digest, adopted, marked, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tenant.map(|id| id.0),
            name,
            scope.as_str(),
            digest.as_bytes(),
            adopted,
            marked,
            millis(now),
            expires_at.map(millis),
        ),
    )?;
    let id = db.last_insert_rowid();
    Ok(db.query_row("SELECT * FROM tokens WHERE id = ?", [id], TokenRow::of)?)
}

fn count(db: &Connection, tenant: Option<TenantId>) -> Result<usize> {
    let count: i64 = db
        .prepare_cached("SELECT count(*) FROM tokens WHERE tenant IS ?")?
        .query_row([tenant.map(|id| id.0)], |row| row.get(0))?;
    Ok(usize::try_from(count).expect("a count is not negative"))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::store::database::DatabaseError;
    use crate::store::known::GONE;
    use crate::store::scratch::{author, scratch, tenant};

    fn soon() -> Option<Timestamp> {
        Some(Timestamp::now() + SignedDuration::from_hours(1))
    }

    fn past() -> Option<Timestamp> {
        Some(Timestamp::now() - SignedDuration::from_secs(1))
    }

    #[tokio::test]
    async fn a_token_is_known_by_its_text_until_it_is_deleted() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let (row, text) = store
            .create_token(Some(acme), "ci".into(), Scope::Deploy, None, author("ops"))
            .await
            .unwrap();
        assert!(text.starts_with("hearth_") && text.len() == 50, "{text}");
        let known = store.token_by_digest(TokenDigest::of(&text)).await.unwrap();
        assert_eq!(known, Some(row.clone()));
        assert_eq!(store.token_by_digest(TokenDigest::of("hearth_x")).await.unwrap(), None);
        assert_eq!(store.tokens(Some(acme)).await.unwrap(), std::slice::from_ref(&row));
        assert_eq!(store.tokens(None).await.unwrap(), []);

        assert!(!store.delete_token(None, row.id, author("ops")).await.unwrap());
        assert!(store.delete_token(Some(acme), row.id, author("ops")).await.unwrap());
        assert!(!store.delete_token(Some(acme), row.id, author("ops")).await.unwrap());
        assert_eq!(store.token_by_digest(TokenDigest::of(&text)).await.unwrap(), None);
    }

    /// However it goes, and also for who comes late to all of it.
    #[tokio::test]
    async fn whoever_goes_by_a_token_hears_that_it_went() {
        use futures_util::FutureExt;
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let made = async |tenant, name: &str| {
            let scope = if tenant == Some(acme) { Scope::Deploy } else { Scope::Admin };
            let by = author("ops");
            store.create_token(tenant, name.into(), scope, None, by).await.unwrap().0.id
        };
        let (one, other) = (made(Some(acme), "one").await, made(None, "other").await);
        let (mut of_one, mut of_other) = (store.removed(), store.removed());
        assert!(store.delete_token(Some(acme), one, author("ops")).await.unwrap());
        of_one.wait(one).await;
        assert_eq!(of_other.wait(other).now_or_never(), None);
        for _ in 0..2 * GONE {
            let id = made(Some(acme), "more").await;
            store.delete_token(Some(acme), id, author("ops")).await.unwrap();
        }
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(1), of_other.wait(other))
                .await
                .is_err()
        );
        let mut late = store.removed();
        assert!(store.delete_token(None, other, author("ops")).await.unwrap());
        for _ in 0..2 * GONE {
            let id = made(Some(acme), "more").await;
            store.delete_token(Some(acme), id, author("ops")).await.unwrap();
        }
        late.wait(other).await;
        of_other.wait(other).await;

        let last = made(Some(acme), "last").await;
        let mut of_last = store.removed();
        store.retire_tenant(acme, Timestamp::UNIX_EPOCH, author("ops")).await.unwrap();
        of_last.wait(last).await;
    }

    #[tokio::test]
    async fn an_expired_token_is_nobody_s() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        for (expires_at, live) in [(soon(), true), (past(), false), (None, true)] {
            let (_, text) = store
                .create_token(Some(acme), "t".into(), Scope::Invoke, expires_at, author("ops"))
                .await
                .unwrap();
            let known = store.token_by_digest(TokenDigest::of(&text)).await.unwrap();
            assert_eq!(known.is_some(), live, "{expires_at:?}");
        }
        let grants = store.grants(acme).await.unwrap();
        assert_eq!(grants.len(), 2);
        assert!(grants[0].expires_at.is_some());
        assert_eq!((grants[1].scope, grants[1].expires_at), (Scope::Invoke, None));
        assert_eq!(store.tokens(Some(acme)).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn there_are_only_so_many_and_expired_ones_make_room() {
        let (_directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let make = |expires_at| {
            store.create_token(Some(acme), "t".into(), Scope::Invoke, expires_at, author("ops"))
        };
        make(past()).await.unwrap();
        for _ in 1..limits::TOKENS_MAX {
            make(None).await.unwrap();
        }
        make(None).await.unwrap();
        let refused = make(None).await;
        assert!(
            matches!(refused, Err(StoreError::TooMany { what: "tokens", max: limits::TOKENS_MAX })),
            "{refused:?}"
        );
        assert_eq!(store.grants(acme).await.unwrap().len(), limits::TOKENS_MAX);
        let other = tenant(&store, "beta", 4_002).await.id;
        store
            .create_token(Some(other), "t".into(), Scope::Invoke, None, author("ops"))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_tenant_s_token_needs_its_tenant() {
        let (_directory, store) = scratch();
        let nobody = store
            .create_token(Some(TenantId(9)), "t".into(), Scope::Owner, None, author("ops"))
            .await;
        assert!(matches!(nobody, Err(StoreError::Missing("tenant"))), "{nobody:?}");
        let mixed = store.create_token(None, "t".into(), Scope::Owner, None, author("ops")).await;
        assert!(matches!(mixed, Err(StoreError::Database(DatabaseError::Sqlite(_)))), "{mixed:?}");
    }

    #[tokio::test]
    async fn the_operator_s_token_is_adopted_once_and_replaced() {
        let (_directory, store) = scratch();
        assert!(!store.has_admin_token().await.unwrap());
        let (made, _) = store
            .create_token(None, "admin".into(), Scope::Admin, None, author("ops"))
            .await
            .unwrap();
        for token in ["first-first-first", "first-first-first", "second-second-second"] {
            store.adopt_admin_token(token).await.unwrap();
            let known = store.token_by_digest(TokenDigest::of(token)).await.unwrap().unwrap();
            assert_eq!((known.tenant, known.scope), (None, Scope::Admin));
            assert_eq!(store.tokens(None).await.unwrap().len(), 2);
        }
        let first = TokenDigest::of("first-first-first");
        assert_eq!(store.token_by_digest(first).await.unwrap(), None);
        assert!(store.has_admin_token().await.unwrap());
        assert_eq!(store.tokens(None).await.unwrap()[0], made);
    }

    #[tokio::test]
    async fn who_is_an_admin_is_known_without_asking() {
        let (directory, store) = scratch();
        let acme = tenant(&store, "acme", 4_001).await.id;
        let (_, owners) = store
            .create_token(Some(acme), "t".into(), Scope::Owner, None, author("ops"))
            .await
            .unwrap();
        let (row, made) = store
            .create_token(None, "t".into(), Scope::Admin, past(), author("ops"))
            .await
            .unwrap();
        let is_admins = |store: &Store, token: &str| store.is_admins(&TokenDigest::of(token));
        assert!(is_admins(&store, &made) && !is_admins(&store, &owners));
        assert!(!store.has_unmarked_admin_token());
        for (token, marked) in [("chosen-by-somebody", false), ("hearth_chosen-too", true)] {
            store.adopt_admin_token(token).await.unwrap();
            assert!(is_admins(&store, token) && is_admins(&store, &made));
            assert_eq!(store.has_unmarked_admin_token(), !marked, "{token}");
        }
        assert!(!is_admins(&store, "chosen-by-somebody"));
        store.close().await;
        let store = Store::open(directory.path()).unwrap();
        assert!(is_admins(&store, &made) && is_admins(&store, "hearth_chosen-too"));
        store.delete_token(None, row.id, author("ops")).await.unwrap();
        assert!(!is_admins(&store, &made) && is_admins(&store, "hearth_chosen-too"));
    }
}
