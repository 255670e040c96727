//! Which of a tenant's databases has which number, and so which file: a name never becomes a path.

use hearth_wire::KeptName;
use rusqlite::{Connection, OptionalExtension};

use super::entries::names;
use super::fault::Fault;
use super::place::DatabaseFile;

pub const STEPS: &[&str] = &["
    CREATE TABLE databases (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
"];

pub fn find(db: &Connection, name: &KeptName) -> Result<Option<DatabaseFile>, Fault> {
    let mut statement = db.prepare_cached("SELECT number FROM databases WHERE name = ?")?;
    let number = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
    Ok(number.map(DatabaseFile::Numbered))
}

pub fn make(db: &Connection, name: &KeptName, most: u64) -> Result<DatabaseFile, Fault> {
    if let Some(found) = find(db, name)? {
        return Ok(found);
    }
    let (count, last): (u64, u32) =
        db.query_row("SELECT count(*), coalesce(max(number), 0) FROM databases", [], |row| {
            Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
        })?;
    if count >= most {
        return Err(Fault::TooMany { what: "databases", most });
    }
    let number = last + 1;
    db.execute("INSERT INTO databases (number, name) VALUES (?, ?)", (number, name.as_str()))?;
    Ok(DatabaseFile::Numbered(number))
}

pub fn databases(
    db: &Connection,
    after: Option<&KeptName>,
    limit: usize,
) -> Result<Vec<KeptName>, Fault> {
    let sql = "SELECT name FROM databases WHERE name > ? ORDER BY name LIMIT ?";
    names(db, sql, after, limit)
}

/// The highest number that there is.
pub fn last(db: &Connection) -> Result<u32, Fault> {
    let sql = "SELECT coalesce(max(number), 0) FROM databases";
    Ok(db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_number_of_its_own() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(STEPS[0]).unwrap();
        let name = |name: &str| name.parse::<KeptName>().unwrap();
        let one = make(&db, &name("default"), 2).unwrap();
        let two = make(&db, &name(".."), 2).unwrap();
        assert_eq!([one, two], [DatabaseFile::Numbered(1), DatabaseFile::Numbered(2)]);
        assert_eq!(make(&db, &name("default"), 2).unwrap(), one);
        let refused = make(&db, &name("Default"), 2).unwrap_err();
        assert_eq!(refused, Fault::TooMany { what: "databases", most: 2 });
        assert_eq!(find(&db, &name("Default")).unwrap(), None);
        assert_eq!(databases(&db, None, 9).unwrap(), [name(".."), name("default")]);
        assert_eq!(databases(&db, Some(&name("..")), 9).unwrap(), [name("default")]);
        assert_eq!(last(&db).unwrap(), 2);
    }
}
