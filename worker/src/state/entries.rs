//! The file of the key-value stores: its tables, and each thing that is done in them, on a connection
//! that is given. Times are milliseconds since 1970; an entry is gone at its instant, whether or not
//! it has been swept.

use hearth_wire::KeptName;
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;

/// A store's number is never given again: who has opened one that was removed writes into no other.
/// An entry's number is its place in lists by number. What is looked at without the value stands
/// before it, since a long value lies in pages of its own. By its version a compare-and-swap knows an
/// entry again: drawn with each write, so that what is removed and made again is another one.
pub const STEPS: &[&str] = &["
    CREATE TABLE stores (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE entries (
        number INTEGER PRIMARY KEY,
        store INTEGER NOT NULL,
        key BLOB NOT NULL,
        version INTEGER NOT NULL,
        expires INTEGER,
        value BLOB NOT NULL,
        UNIQUE (store, key)
    ) STRICT;
    CREATE INDEX entries_by_number ON entries (store);
    CREATE INDEX entries_that_expire ON entries (expires) WHERE expires IS NOT NULL;
"];

/// Keys are UTF-8, in which this byte does not occur.
const BEHIND_ALL_KEYS: &[u8] = &[0xFF];
/// Expired entries that are removed at once.
const SWEPT_AT_ONCE: i64 = 256;

/// A store that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store(i64);

impl Store {
    /// One that was opened before.
    pub fn numbered(number: i64) -> Self {
        Self(number)
    }

    pub fn number(self) -> i64 {
        self.0
    }
}

/// What a compare-and-swap compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(Option<i64>);

impl Version {
    /// `None` of an entry that was not there.
    pub fn numbered(number: Option<i64>) -> Self {
        Self(number)
    }

    pub fn number(self) -> Option<i64> {
        self.0
    }
}

/// An entry as a compare-and-swap sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    pub version: Version,
    pub value: Option<Vec<u8>>,
}

/// Some keys, in order, each with its entry's number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    pub keys: Vec<(String, u64)>,
    pub has_more: bool,
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    Start,
    /// By key.
    Key(String),
    /// By number, of those behind it.
    Number(u64),
}

/// How much a list may be at once.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub keys: usize,
    /// Of keys together. One more than fits is never there, and one always is.
    pub bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Value(Vec<u8>),
    /// There is one, of more bytes than are read here.
    Longer,
}

pub fn find(db: &Connection, name: &KeptName) -> Result<Option<Store>, Fault> {
    let mut statement = db.prepare_cached("SELECT id FROM stores WHERE name = ?")?;
    Ok(statement.query_row([name.as_str()], |row| row.get(0).map(Store)).optional()?)
}

pub fn make(db: &Connection, name: &KeptName, most: u64) -> Result<Store, Fault> {
    if let Some(store) = find(db, name)? {
        return Ok(store);
    }
    let stores: i64 = db.query_row("SELECT count(*) FROM stores", [], |row| row.get(0))?;
    if stores.cast_unsigned() >= most {
        return Err(Fault::TooMany { what: "stores", most });
    }
    db.execute("INSERT INTO stores (name) VALUES (?)", [name.as_str()])?;
    Ok(Store(db.last_insert_rowid()))
}

/// With all that is in it. Says whether there was one.
pub fn remove(db: &Connection, name: &KeptName) -> Result<bool, Fault> {
    let Some(store) = find(db, name)? else { return Ok(false) };
    db.execute("DELETE FROM entries WHERE store = ?", [store.0])?;
    db.execute("DELETE FROM stores WHERE id = ?", [store.0])?;
    Ok(true)
}

pub fn stores(
    db: &Connection,
    after: Option<&KeptName>,
    limit: usize,
) -> Result<Vec<KeptName>, Fault> {
    let sql = "SELECT name FROM stores WHERE name > ? ORDER BY name LIMIT ?";
    names(db, sql, after, limit)
}

/// Names by a statement, from behind one of them.
pub fn names(
    db: &Connection,
    sql: &str,
    after: Option<&KeptName>,
    limit: usize,
) -> Result<Vec<KeptName>, Fault> {
    let mut statement = db.prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or("", KeptName::as_str);
    let names = statement.query_map(params![after, limit], |row| row.get::<_, String>(0))?;
    names.map(|name| name?.parse().map_err(Fault::from)).collect()
}

/// Reads no more of a value than `most` bytes, and nothing of one that is longer.
pub fn get(
    db: &Connection,
    store: Store,
    key: &str,
    now: i64,
    most: usize,
) -> Result<Found, Fault> {
    let mut statement = db.prepare_cached(
        "SELECT expires, CASE WHEN length(value) <= ?3 THEN value END
         FROM entries WHERE store = ?1 AND key = ?2",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![store.0, key.as_bytes(), most])?;
    let Some(row) = rows.next()? else { return Ok(Found::Nothing) };
    if !is_live(row.get(0)?, now) {
        return Ok(Found::Nothing);
    }
    Ok(row.get::<_, Option<Vec<u8>>>(1)?.map_or(Found::Longer, Found::Value))
}

/// Until when an entry is there. `None` where it is not.
pub fn expires(
    db: &Connection,
    store: Store,
    key: &str,
    now: i64,
) -> Result<Option<Option<i64>>, Fault> {
    let mut statement =
        db.prepare_cached("SELECT expires FROM entries WHERE store = ? AND key = ?")?;
    let found: Option<Option<i64>> =
        statement.query_row(params![store.0, key.as_bytes()], |row| row.get(0)).optional()?;
    Ok(found.filter(|expires| is_live(*expires, now)))
}

pub fn current(db: &Connection, store: Store, key: &str, now: i64) -> Result<Current, Fault> {
    let mut statement = db.prepare_cached(
        "SELECT expires, version, value FROM entries WHERE store = ? AND key = ?",
    )?;
    let mut rows = statement.query(params![store.0, key.as_bytes()])?;
    match rows.next()? {
        Some(row) if is_live(row.get(0)?, now) => {
            Ok(Current { version: Version(Some(row.get(1)?)), value: Some(row.get(2)?) })
        }
        _ => Ok(Current { version: Version(None), value: None }),
    }
}

pub fn set(
    db: &Connection,
    store: Store,
    key: &str,
    value: &[u8],
    expires: Option<i64>,
) -> Result<(), Fault> {
    let mut statement = db.prepare_cached(
        "INSERT INTO entries (store, key, version, expires, value)
             SELECT ?1, ?2, random(), ?3, ?4 WHERE EXISTS (SELECT 1 FROM stores WHERE id = ?1)
         ON CONFLICT (store, key) DO UPDATE SET
             version = excluded.version, expires = excluded.expires, value = excluded.value",
    )?;
    match statement.execute(params![store.0, key.as_bytes(), expires, value])? {
        0 => Err(Fault::NoStore),
        _ => Ok(()),
    }
}

/// Whether it was there.
pub fn delete(db: &Connection, store: Store, key: &str, now: i64) -> Result<bool, Fault> {
    let mut statement =
        db.prepare_cached("DELETE FROM entries WHERE store = ? AND key = ? RETURNING expires")?;
    let gone: Option<Option<i64>> =
        statement.query_row(params![store.0, key.as_bytes()], |row| row.get(0)).optional()?;
    Ok(gone.is_some_and(|expires| is_live(expires, now)))
}

/// Eight bytes, the least first. What is not there, or empty, counts as 0.
pub fn increment(
    db: &Connection,
    store: Store,
    key: &str,
    delta: i64,
    now: i64,
) -> Result<i64, Fault> {
    let was = current(db, store, key, now)?.value.unwrap_or_default();
    let was = match &was[..] {
        [] => 0,
        bytes => i64::from_le_bytes(bytes.try_into().map_err(|_| Fault::NotACounter)?),
    };
    let number = was.checked_add(delta).ok_or(Fault::Overflow)?;
    let expires = expires(db, store, key, now)?.flatten();
    set(db, store, key, &number.to_le_bytes(), expires)?;
    Ok(number)
}

/// Sets the value where the entry is as it was; else says how it is.
pub fn swap(
    db: &Connection,
    store: Store,
    key: &str,
    was: Version,
    value: &[u8],
    now: i64,
) -> Result<Result<(), Current>, Fault> {
    let current = current(db, store, key, now)?;
    if current.version != was {
        return Ok(Err(current));
    }
    set(db, store, key, value, None)?;
    Ok(Ok(()))
}

/// Gives an entry another time. Whether there is one.
pub fn expire(
    db: &Connection,
    store: Store,
    key: &str,
    expires: Option<i64>,
    now: i64,
) -> Result<bool, Fault> {
    let mut statement = db.prepare_cached(
        "UPDATE entries SET expires = ?3
         WHERE store = ?1 AND key = ?2 AND (expires IS NULL OR expires > ?4)",
    )?;
    Ok(statement.execute(params![store.0, key.as_bytes(), expires, now])? > 0)
}

/// Keys that begin with `prefix`: by key, or by number where it goes on behind one.
pub fn keys(
    db: &Connection,
    store: Store,
    prefix: &str,
    after: &After,
    page: Page,
    now: i64,
) -> Result<Keys, Fault> {
    let mut statement = db.prepare_cached(match after {
        After::Start | After::Key(_) => {
            "SELECT key, number FROM entries
             WHERE store = ?1 AND key > ?2 AND key >= ?3 AND key < ?4
                 AND (expires IS NULL OR expires > ?5)
             ORDER BY key"
        }
        After::Number(_) => {
            "SELECT key, number FROM entries
             WHERE store = ?1 AND number > ?2 AND +key >= ?3 AND +key < ?4
                 AND (expires IS NULL OR expires > ?5)
             ORDER BY number"
        }
    })?;
    let end = behind(prefix);
    let mut rows = match after {
        After::Number(number) => {
            let number = i64::try_from(*number).unwrap_or(i64::MAX);
            statement.query(params![store.0, number, prefix.as_bytes(), end, now])?
        }
        After::Key(key) => {
            statement.query(params![store.0, key.as_bytes(), prefix.as_bytes(), end, now])?
        }
        // Before the empty key, which is one.
        After::Start => statement.query(params![store.0, -1, prefix.as_bytes(), end, now])?,
    };
    let (mut keys, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let key = String::from_utf8(row.get(0)?).map_err(|_| Fault::Broken)?;
        bytes += key.len();
        if keys.len() == page.keys || (bytes > page.bytes && !keys.is_empty()) {
            return Ok(Keys { keys, has_more: true });
        }
        keys.push((key, row.get::<_, i64>(1)?.cast_unsigned()));
    }
    Ok(Keys { keys, has_more: false })
}

/// Removes some of what has expired. Whether that was all.
pub fn sweep(db: &Connection, now: i64) -> Result<bool, Fault> {
    let mut statement = db.prepare_cached(
        "DELETE FROM entries WHERE number IN
             (SELECT number FROM entries WHERE expires <= ? ORDER BY expires LIMIT ?)",
    )?;
    Ok(statement.execute(params![now, SWEPT_AT_ONCE])? < SWEPT_AT_ONCE as usize)
}

/// Whether anything has.
pub fn has_expired(db: &Connection, now: i64) -> Result<bool, Fault> {
    Ok(db.prepare_cached("SELECT 1 FROM entries WHERE expires <= ? LIMIT 1")?.exists([now])?)
}

fn is_live(expires: Option<i64>, now: i64) -> bool {
    expires.is_none_or(|expires| expires > now)
}

/// What is behind all that begins so.
fn behind(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // No byte of UTF-8 is the largest there is.
        Some(last) => *last += 1,
        None => end = BEHIND_ALL_KEYS.to_vec(),
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = usize::MAX;

    fn database() -> (Connection, Store) {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(STEPS[0]).unwrap();
        let store = make(&db, &"default".parse().unwrap(), 64).unwrap();
        (db, store)
    }

    fn value(db: &Connection, store: Store, key: &str, now: i64) -> Option<Vec<u8>> {
        match get(db, store, key, now, ALL).unwrap() {
            Found::Value(value) => Some(value),
            Found::Nothing => None,
            Found::Longer => panic!("it was to be read whole"),
        }
    }

    fn listed(db: &Connection, store: Store, prefix: &str, after: After, keys: usize) -> Keys {
        super::keys(db, store, prefix, &after, Page { keys, bytes: ALL }, 0).unwrap()
    }

    fn names_of(keys: Keys) -> Vec<String> {
        keys.keys.into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn stores_are_made_once_told_apart_by_case_and_counted() {
        let (db, store) = database();
        let name = |name: &str| name.parse::<KeptName>().unwrap();
        assert_eq!(make(&db, &name("default"), 64).unwrap(), store);
        let other = make(&db, &name("Default"), 64).unwrap();
        assert_ne!(other, store);
        set(&db, store, "a", b"1", None).unwrap();
        assert_eq!(value(&db, other, "a", 0), None);
        let refused = make(&db, &name("third"), 2).unwrap_err();
        assert_eq!(refused, Fault::TooMany { what: "stores", most: 2 });
        assert_eq!(make(&db, &name("Default"), 2).unwrap(), other);
        assert_eq!(find(&db, &name("third")).unwrap(), None);
        assert_eq!(stores(&db, None, 9).unwrap(), [name("Default"), name("default")]);
        assert_eq!(stores(&db, Some(&name("Default")), 9).unwrap(), [name("default")]);
        assert_eq!(stores(&db, None, 1).unwrap(), [name("Default")]);
    }

    #[test]
    fn what_is_set_is_there_until_it_is_deleted() {
        let (db, store) = database();
        for (key, bytes) in [("", &b""[..]), ("a\0b", &[0, 255]), ("ä", b"x"), ("a", b"y")] {
            set(&db, store, key, b"before", None).unwrap();
            set(&db, store, key, bytes, None).unwrap();
            assert_eq!(value(&db, store, key, 0).as_deref(), Some(bytes), "{key:?}");
        }
        assert!(delete(&db, store, "a", 0).unwrap());
        assert!(!delete(&db, store, "a", 0).unwrap());
        assert_eq!(value(&db, store, "a", 0), None);
        assert_eq!(value(&db, store, "a\0b", 0).unwrap(), [0, 255]);
    }

    #[test]
    fn a_long_value_is_left_to_whoever_has_time() {
        let (db, store) = database();
        set(&db, store, "long", &[7; 100_000], None).unwrap();
        assert_eq!(get(&db, store, "long", 0, 99_999).unwrap(), Found::Longer);
        assert_eq!(value(&db, store, "long", 0).unwrap().len(), 100_000);
    }

    #[test]
    fn an_entry_is_gone_at_its_instant_for_whoever_asks() {
        let (db, store) = database();
        set(&db, store, "a", &5_i64.to_le_bytes(), Some(1_000)).unwrap();
        let version = current(&db, store, "a", 999).unwrap().version;
        assert!(value(&db, store, "a", 999).is_some());
        assert_eq!(expires(&db, store, "a", 999).unwrap(), Some(Some(1_000)));
        assert!(!has_expired(&db, 999).unwrap());

        assert!(value(&db, store, "a", 1_000).is_none());
        assert!(has_expired(&db, 1_000).unwrap());
        assert_eq!(expires(&db, store, "a", 1_000).unwrap(), None);
        assert_eq!(current(&db, store, "a", 1_000).unwrap().value, None);
        assert!(!expire(&db, store, "a", None, 1_000).unwrap());
        let page = Page { keys: 9, bytes: ALL };
        for after in [After::Start, After::Number(0)] {
            assert_eq!(keys(&db, store, "", &after, page, 999).unwrap().keys.len(), 1);
            assert_eq!(keys(&db, store, "", &after, page, 1_000).unwrap(), Keys::default());
        }
        let swapped = swap(&db, store, "a", version, b"x", 1_000).unwrap();
        assert_eq!(swapped.unwrap_err().value, None);
        // It counts from 0 again, and the new one stays.
        assert_eq!(increment(&db, store, "a", 2, 1_000).unwrap(), 2);
        assert_eq!(expires(&db, store, "a", 9_999).unwrap(), Some(None));
    }

    #[test]
    fn a_time_is_changed_kept_and_taken_away() {
        let (db, store) = database();
        set(&db, store, "a", b"", Some(1_000)).unwrap();
        assert!(expire(&db, store, "a", Some(2_000), 0).unwrap());
        increment(&db, store, "a", 1, 1_500).unwrap();
        assert_eq!(expires(&db, store, "a", 1_500).unwrap(), Some(Some(2_000)));
        assert!(expire(&db, store, "a", None, 1_500).unwrap());
        assert_eq!(expires(&db, store, "a", 9_999).unwrap(), Some(None));
        expire(&db, store, "a", Some(3_000), 1_500).unwrap();
        set(&db, store, "a", b"", None).unwrap();
        assert_eq!(expires(&db, store, "a", 9_999).unwrap(), Some(None));
        assert!(!expire(&db, store, "b", None, 0).unwrap());
    }

    #[test]
    fn what_has_expired_is_swept_a_part_at_a_time() {
        let (db, store) = database();
        for at in 0..SWEPT_AT_ONCE + 10 {
            set(&db, store, &at.to_string(), b"", Some(at)).unwrap();
        }
        set(&db, store, "stays", b"", None).unwrap();
        assert!(!sweep(&db, 300).unwrap());
        assert!(sweep(&db, 261).unwrap());
        let left = db.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0));
        assert_eq!(left.unwrap(), 5);
    }

    #[test]
    fn a_counter_is_eight_bytes_the_least_first() {
        let (db, store) = database();
        assert_eq!(increment(&db, store, "n", 258, 0).unwrap(), 258);
        assert_eq!(value(&db, store, "n", 0).unwrap(), [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(increment(&db, store, "n", -300, 0).unwrap(), -42);
        set(&db, store, "empty", b"", None).unwrap();
        assert_eq!(increment(&db, store, "empty", 1, 0).unwrap(), 1);
        set(&db, store, "text", b"1234567", None).unwrap();
        assert_eq!(increment(&db, store, "text", 1, 0), Err(Fault::NotACounter));
        set(&db, store, "most", &i64::MAX.to_le_bytes(), None).unwrap();
        assert_eq!(increment(&db, store, "most", 1, 0), Err(Fault::Overflow));
        assert_eq!(value(&db, store, "most", 0).unwrap(), i64::MAX.to_le_bytes());
    }

    #[test]
    fn a_swap_takes_what_nobody_wrote_since() {
        let (db, store) = database();
        let absent = current(&db, store, "a", 0).unwrap();
        assert_eq!(swap(&db, store, "a", absent.version, b"1", 0).unwrap(), Ok(()));
        let late = swap(&db, store, "a", absent.version, b"2", 0).unwrap().unwrap_err();
        assert_eq!(late.value.as_deref(), Some(&b"1"[..]));
        assert_eq!(swap(&db, store, "a", late.version, b"2", 0).unwrap(), Ok(()));
        // Removed and made again, with the same value: another entry.
        let before = current(&db, store, "a", 0).unwrap();
        delete(&db, store, "a", 0).unwrap();
        set(&db, store, "a", b"2", None).unwrap();
        assert!(swap(&db, store, "a", before.version, b"3", 0).unwrap().is_err());
        assert_eq!(value(&db, store, "a", 0).unwrap(), b"2");
    }

    #[test]
    fn keys_come_in_pages_in_either_order() {
        let (db, store) = database();
        for key in ["b", "", "ba", "a", "c", "bé"] {
            set(&db, store, key, b"", None).unwrap();
        }
        assert_eq!(
            names_of(listed(&db, store, "", After::Start, 9)),
            ["", "a", "b", "ba", "bé", "c"]
        );
        assert_eq!(names_of(listed(&db, store, "b", After::Start, 9)), ["b", "ba", "bé"]);
        assert_eq!(names_of(listed(&db, store, "b", After::Key("b".to_owned()), 9)), ["ba", "bé"]);
        let first = listed(&db, store, "", After::Start, 2);
        assert!(first.has_more);
        assert_eq!(names_of(first), ["", "a"]);
        assert!(!listed(&db, store, "", After::Start, 6).has_more);

        let first = listed(&db, store, "", After::Number(0), 4);
        let last = first.keys.last().unwrap().1;
        assert_eq!(names_of(first), ["b", "", "ba", "a"]);
        assert_eq!(names_of(listed(&db, store, "", After::Number(last), 9)), ["c", "bé"]);

        let page = Page { keys: 9, bytes: 2 };
        let short = keys(&db, store, "", &After::Key("a".to_owned()), page, 0).unwrap();
        assert_eq!((short.has_more, names_of(short)), (true, vec!["b".to_owned()]));
        let page = Page { keys: 9, bytes: 0 };
        let one = keys(&db, store, "", &After::Key("a".to_owned()), page, 0).unwrap();
        assert_eq!(names_of(one), ["b"]);
    }
}
