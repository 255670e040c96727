//! What SQLite says to `last_insert_rowid()` on a connection, which only its C interface can set.

use rusqlite::{Connection, ffi};

/// Sets what a connection answers as the row that it inserted last, for one that is lent to many.
pub fn set_last_insert_rowid(connection: &Connection, rowid: i64) {
    // SAFETY: the handle is open as long as the connection is borrowed; it is used on this thread
    // alone, since a connection cannot be shared; and the number is plain data of the connection's.
    unsafe { ffi::sqlite3_set_last_insert_rowid(connection.handle(), rowid) }
}
