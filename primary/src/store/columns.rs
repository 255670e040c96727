//! Columns as the types that they were parsed into, and back.

use hearth_wire::GenerationNumber;
use jiff::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};

/// Instants are kept as milliseconds since the epoch.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

pub(super) fn instant(value: ValueRef<'_>) -> FromSqlResult<Timestamp> {
    Timestamp::from_millisecond(value.as_i64()?).map_err(FromSqlError::other)
}

pub(super) fn optional<T>(
    value: ValueRef<'_>,
    read: impl FnOnce(ValueRef<'_>) -> FromSqlResult<T>,
) -> FromSqlResult<Option<T>> {
    match value {
        ValueRef::Null => Ok(None),
        value => read(value).map(Some),
    }
}

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("sizes and counts stay far below 2^63")
}

pub(super) fn unsigned(value: ValueRef<'_>) -> FromSqlResult<u64> {
    u64::try_from(value.as_i64()?).map_err(FromSqlError::other)
}

pub(super) fn generation_number(value: ValueRef<'_>) -> FromSqlResult<GenerationNumber> {
    unsigned(value).map(GenerationNumber)
}

pub(super) fn bytes<const N: usize>(value: ValueRef<'_>) -> FromSqlResult<[u8; N]> {
    value.as_blob()?.try_into().map_err(FromSqlError::other)
}

/// What is kept as text and was parsed before it was written.
pub(super) fn parsed<T>(value: ValueRef<'_>) -> FromSqlResult<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    value.as_str()?.parse().map_err(FromSqlError::other)
}

pub(super) fn json<T: serde::de::DeserializeOwned>(value: ValueRef<'_>) -> FromSqlResult<T> {
    serde_json::from_str(value.as_str()?).map_err(FromSqlError::other)
}

/// A column as the type that it was parsed into, with the column named where it does not fit.
pub(super) fn column<T>(
    row: &rusqlite::Row<'_>,
    name: &str,
    read: impl FnOnce(ValueRef<'_>) -> FromSqlResult<T>,
) -> rusqlite::Result<T> {
    let index = row.as_ref().column_index(name)?;
    let value = row.get_ref(index)?;
    let kind = value.data_type();
    read(value)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, kind, Box::new(error)))
}
