//! `/tenants/{tenant}/sql`: a tenant's databases, as its worker has them.
//!
//! A statement that may write is noted when it is done. Whether one may is judged by its first
//! word, and what is not known to read counts as writing; the worker alone knows SQL.

use axum::extract::{Request, State};
use axum::response::Response;
use hearth_wire::{Scope, StateAddress};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};

use super::auth::AtTenant;
use super::error::Refusal;
use super::kv::NamedSchema;
use super::openapi::{ProblemSchema, TenantParam};
use super::request::{Params, StatementBody, refuse_packed};
use super::state::{Asked, Change, InDatabase, JSON, PageParams, TEXT, ask, change};
use crate::invoke::Calls;
use crate::store::{Action, Store};

// Never made: how `hearth_wire::DatabaseList` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = DatabaseList)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct DatabaseListSchema {
    /// By name.
    #[schema(value_type = Vec<NamedSchema>)]
    databases: (),
    /// The `after` of the next page, where there could be one.
    next: Option<String>,
}

// Never made: how `hearth_wire::SqlAsked` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = SqlStatement)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct StatementSchema {
    /// One statement.
    #[schema(example = "select id, name from users where id > ?")]
    statement: String,
    /// A value for each `?`: null, a number, text, true or false, or a blob as
    /// `{"base64": "…"}`.
    #[schema(required = false, value_type = Vec<Value>, example = json!([7]))]
    parameters: (),
}

// Never made: how `hearth_wire::SqlAnswered` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = SqlResult)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct ResultSchema {
    columns: Vec<String>,
    /// Each with a value for each column, written as parameters are. A number without end is
    /// `{"real": "Infinity"}` or `{"real": "-Infinity"}`.
    #[schema(value_type = Vec<Vec<Value>>)]
    rows: (),
    /// Rows that it has changed.
    changes: u64,
    last_insert_rowid: i64,
    /// Whether there are more rows than an answer may have.
    truncated: bool,
}

// Never made: how `hearth_wire::SqlImported` looks.
#[derive(utoipa::ToSchema)]
#[schema(as = SqlImported)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct ImportedSchema {
    /// How many were carried out.
    statements: u64,
}

/// The `{tenant}` and `{database}` of an address.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "read by the derive only")]
pub struct DatabaseParams {
    #[param(pattern = "^[a-z0-9][a-z0-9-]{0,62}$", example = "demo")]
    tenant: String,
    #[param(pattern = "^[A-Za-z0-9_.-]{1,64}$", example = "default")]
    database: String,
}

/// The databases that the tenant has
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/sql", operation_id = "list_databases", tag = "state",
    params(TenantParam, PageParams),
    responses((status = 200, description = "A page of databases", body = DatabaseListSchema)),
)]
pub async fn list_databases(
    at: AtTenant,
    Params(params): Params<PageParams>,
    State(calls): State<Calls>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let asked = Asked::page(StateAddress::Databases, &params.page()?);
    ask(&calls, &tenant, &headers, asked, JSON).await
}

/// Carry out one statement
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/sql/{database}", operation_id = "execute_sql",
    tag = "state", params(DatabaseParams), request_body = StatementSchema,
    responses(
        (status = 200, description = "Its rows, and what it has changed", body = ResultSchema),
        (status = 507, description = "The tenant has as much on disk as it may", body = ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn execute_sql(
    at: AtTenant,
    InDatabase(database): InDatabase,
    State(calls): State<Calls>,
    State(store): State<Store>,
    headers: HeaderMap,
    StatementBody(asked): StatementBody,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    let changes = may_write(&asked.statement);
    let body = serde_json::to_vec(&asked).expect("a statement is plain data").into();
    let address = StateAddress::Database(database.clone());
    let asked = Asked { method: Method::POST, body, ..Asked::get(address) };
    // Its body is written anew, and has a length of its own.
    let mut headers = headers;
    headers.remove(CONTENT_LENGTH);
    if !changes {
        return ask(&calls, &tenant, &headers, asked, JSON).await;
    }
    let told = Change { action: Action::SqlExecute, object: database, by: caller.author };
    change(calls, store, tenant, headers, asked, told).await
}

/// Carry out a text of statements
///
/// All of them in one transaction, or none. A refusal says at which statement, and in which line.
#[utoipa::path(
    post, path = "/api/v1/tenants/{tenant}/sql/{database}/import", operation_id = "import_sql",
    tag = "state", params(DatabaseParams),
    request_body(content = String, content_type = "application/sql"),
    responses(
        (status = 200, description = "All are carried out", body = ImportedSchema),
        (status = 507, description = "The tenant has as much on disk as it may", body = ProblemSchema, content_type = "application/problem+json"),
    ),
)]
pub async fn import_sql(
    at: AtTenant,
    InDatabase(database): InDatabase,
    State(calls): State<Calls>,
    State(store): State<Store>,
    request: Request,
) -> Result<Response, Refusal> {
    let (tenant, caller) = at.permit(Scope::Owner)?;
    refuse_packed(request.headers())?;
    let (head, body) = request.into_parts();
    let address = StateAddress::Import(database.clone());
    let asked = Asked { method: Method::POST, body, ..Asked::get(address) };
    let told = Change { action: Action::SqlImport, object: database, by: caller.author };
    change(calls, store, tenant, head.headers, asked, told).await
}

/// A database as a text of statements
///
/// Which make it anew, as it was at one moment. It is whole only if its last line is `COMMIT;`.
#[utoipa::path(
    get, path = "/api/v1/tenants/{tenant}/sql/{database}/export", operation_id = "export_sql",
    tag = "state", params(DatabaseParams),
    responses((status = 200, description = "The text, as it is made", body = String, content_type = "text/plain")),
)]
pub async fn export_sql(
    at: AtTenant,
    InDatabase(database): InDatabase,
    State(calls): State<Calls>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (tenant, _) = at.permit(Scope::Owner)?;
    let asked = Asked::get(StateAddress::Export(database));
    ask(&calls, &tenant, &headers, asked, TEXT).await
}

/// Whether a statement could change anything, as far as its first word tells.
fn may_write(statement: &str) -> bool {
    const READS: [&str; 3] = ["select", "values", "explain"];
    let mut rest = statement.trim_start();
    // What stands before a statement and is none.
    loop {
        let after = match rest {
            comment if comment.starts_with("--") => comment.split_once('\n').map(|(_, rest)| rest),
            comment if comment.starts_with("/*") => comment.split_once("*/").map(|(_, rest)| rest),
            _ => break,
        };
        rest = after.unwrap_or_default().trim_start();
    }
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let first = &rest[..end];
    let is_one = rest.trim_end().trim_end_matches(';').split(';').count() == 1;
    !(is_one && READS.iter().any(|word| first.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use hearth_wire::{DatabaseList, SqlAnswered, SqlAsked, SqlImported, SqlValue};
    use utoipa::PartialSchema;

    use super::super::openapi::tests::{keys, properties};
    use super::*;

    #[test]
    fn what_is_said_is_described_as_it_is_sent() {
        let list = DatabaseList { databases: vec![], next: Some(String::new()) };
        assert_eq!(properties(DatabaseListSchema::schema()), keys(list));
        let asked = SqlAsked { statement: String::new(), parameters: vec![SqlValue::Null] };
        assert_eq!(properties(StatementSchema::schema()), keys(asked));
        let answered = SqlAnswered {
            columns: vec![],
            rows: vec![],
            changes: 0,
            last_insert_rowid: 0,
            truncated: false,
        };
        assert_eq!(properties(ResultSchema::schema()), keys(answered));
        assert_eq!(properties(ImportedSchema::schema()), keys(SqlImported { statements: 1 }));
    }

    #[test]
    fn what_is_not_known_to_read_may_write() {
        for reads in [
            "select 1",
            "  SELECT * FROM a;",
            "-- why\n/* and how */ values (1)",
            "explain query plan delete from a",
            "select(1)",
        ] {
            assert!(!may_write(reads), "{reads}");
        }
        for writes in [
            "",
            "insert into a values (1)",
            "with b as (select 1) delete from a",
            "pragma user_version = 7",
            "selects",
            "select 1; delete from a",
            "-- select",
            "/* select 1",
            "begin",
        ] {
            assert!(may_write(writes), "{writes}");
        }
    }
}
