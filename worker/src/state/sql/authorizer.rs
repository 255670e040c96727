//! What a guest's statement may do, as a pure decision on each thing that SQLite asks about while it
//! reads the statement: all of its own database, and nothing that leads out of it, that changes how a
//! connection behaves which others have too, or that is the platform's.

use rusqlite::hooks::{AuthAction, AuthContext};

/// What the platform may keep in a tenant's database has such a name.
const PLATFORMS: &str = "_hearth_";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// On a connection that is the guest's alone.
    OnItsOwn,
    Refuse(String),
}

/// Whose connection a statement is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Everybody's in turn.
    Shared,
    /// One guest's.
    Guest,
}

/// Those that only tell, whatever is asked about.
const TELLING: &[&str] = &[
    "collation_list",
    "foreign_key_check",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
];
/// Those that tell where nothing is to be set.
const ASKED: &[&str] = &[
    "application_id",
    "data_version",
    "defer_foreign_keys",
    "encoding",
    "foreign_keys",
    "freelist_count",
    "journal_mode",
    "page_count",
    "page_size",
    "recursive_triggers",
    "schema_version",
    "user_version",
];
/// Those that set what is the database's.
const SET: &[&str] = &["application_id", "user_version"];
/// Those that set what is the connection's, with what everybody's connections have.
const SET_ON_ITS_OWN: &[(&str, bool)] =
    &[("defer_foreign_keys", false), ("foreign_keys", true), ("recursive_triggers", false)];

/// Virtual tables that keep to their own database.
const MODULES: &[&str] = &["fts5", "fts5vocab", "rtree", "rtree_i32"];
/// Functions that run code from elsewhere.
const FUNCTIONS: &[&str] = &["fts3_tokenizer", "load_extension"];

pub fn decide(asked: &AuthContext<'_>, holder: Holder) -> Decision {
    if about(&asked.action).into_iter().any(is_platforms) {
        return Decision::Refuse(format!("names that begin with {PLATFORMS} are the platform's"));
    }
    match decide_action(&asked.action) {
        Decision::Allow if asked.database_name == Some("temp") && is_change(&asked.action) => {
            on_its_own(holder)
        }
        Decision::OnItsOwn => on_its_own(holder),
        decision => decision,
    }
}

fn on_its_own(holder: Holder) -> Decision {
    match holder {
        Holder::Shared => Decision::OnItsOwn,
        Holder::Guest => Decision::Allow,
    }
}

fn decide_action(action: &AuthAction<'_>) -> Decision {
    match action {
        AuthAction::Select
        | AuthAction::Recursive
        | AuthAction::Read { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Update { .. }
        | AuthAction::Delete { .. }
        | AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::CreateTrigger { .. }
        | AuthAction::CreateView { .. }
        | AuthAction::AlterTable { .. }
        | AuthAction::DropTable { .. }
        | AuthAction::DropIndex { .. }
        | AuthAction::DropTrigger { .. }
        | AuthAction::DropView { .. }
        | AuthAction::DropVtable { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Analyze { .. } => Decision::Allow,
        AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTrigger { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. }
        // On everybody's connection it would end what others do.
        | AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. } => Decision::OnItsOwn,
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, *pragma_value),
        AuthAction::CreateVtable { module_name, .. } => match is_in(module_name, MODULES) {
            true => Decision::Allow,
            false => Decision::Refuse(format!("the module {module_name} is not available")),
        },
        AuthAction::Function { function_name } => match is_in(function_name, FUNCTIONS) {
            false => Decision::Allow,
            true => Decision::Refuse(format!("the function {function_name} is not available")),
        },
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Decision::Refuse("another file cannot be attached to a database".to_owned())
        }
        // What a newer SQLite may come to ask.
        _ => Decision::Refuse("the statement does something that is not available".to_owned()),
    }
}

fn pragma(name: &str, value: Option<&str>) -> Decision {
    let preset = SET_ON_ITS_OWN.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    match (value, preset) {
        _ if is_in(name, TELLING) => Decision::Allow,
        (None, _) if is_in(name, ASKED) => Decision::Allow,
        (Some(_), _) if is_in(name, SET) => Decision::Allow,
        (Some(value), Some((_, preset))) if is_on(value) == Some(*preset) => Decision::Allow,
        (Some(_), Some(_)) => Decision::OnItsOwn,
        (Some(_), None) if is_in(name, ASKED) => {
            Decision::Refuse(format!("PRAGMA {name} can be asked for and not set"))
        }
        _ => Decision::Refuse(format!("PRAGMA {name} is not available")),
    }
}

/// As SQLite reads such a value; `None` for what it reads in another way.
fn is_on(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Some(true),
        "off" | "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn is_change(action: &AuthAction<'_>) -> bool {
    !matches!(action, AuthAction::Read { .. } | AuthAction::Select | AuthAction::Function { .. })
}

/// What a thing that is made, changed or read is called, and what it belongs to.
fn about<'a>(action: &AuthAction<'a>) -> [&'a str; 2] {
    match action {
        AuthAction::CreateIndex { index_name: name, table_name: of }
        | AuthAction::CreateTempTrigger { trigger_name: name, table_name: of }
        | AuthAction::CreateTrigger { trigger_name: name, table_name: of }
        | AuthAction::DropIndex { index_name: name, table_name: of }
        | AuthAction::DropTrigger { trigger_name: name, table_name: of } => [name, of],
        AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateTempTable { table_name: name }
        | AuthAction::CreateTempView { view_name: name }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::CreateVtable { table_name: name, .. }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::DropView { view_name: name }
        | AuthAction::DropVtable { table_name: name, .. }
        | AuthAction::AlterTable { table_name: name, .. }
        | AuthAction::Read { table_name: name, .. }
        | AuthAction::Insert { table_name: name }
        | AuthAction::Update { table_name: name, .. }
        | AuthAction::Delete { table_name: name } => [name, ""],
        _ => [""; 2],
    }
}

fn is_platforms(name: &str) -> bool {
    name.get(..PLATFORMS.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(PLATFORMS))
}

fn is_in(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| other.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use rusqlite::hooks::TransactionOperation;

    use super::*;

    fn of(action: AuthAction<'_>, holder: Holder) -> Decision {
        decide(&AuthContext { action, database_name: Some("main"), accessor: None }, holder)
    }

    #[test]
    fn pragmas_of_the_list_and_no_other() {
        let asked = |pragma_name, pragma_value| {
            of(AuthAction::Pragma { pragma_name, pragma_value }, Holder::Shared)
        };
        for (name, value) in [
            ("table_info", Some("t")),
            ("TABLE_LIST", None),
            ("user_version", None),
            ("user_version", Some("7")),
            ("foreign_keys", None),
            ("foreign_keys", Some("ON")),
            ("recursive_triggers", Some("off")),
            ("journal_mode", None),
        ] {
            assert_eq!(asked(name, value), Decision::Allow, "{name} {value:?}");
        }
        for (name, value) in [
            ("foreign_keys", Some("0")),
            ("foreign_keys", Some("maybe")),
            ("defer_foreign_keys", Some("1")),
            ("recursive_triggers", Some("yes")),
        ] {
            assert_eq!(asked(name, value), Decision::OnItsOwn, "{name} {value:?}");
            let owned = AuthAction::Pragma { pragma_name: name, pragma_value: value };
            assert_eq!(of(owned, Holder::Guest), Decision::Allow);
        }
        for (name, value) in [
            ("writable_schema", Some("1")),
            ("writable_schema", None),
            ("temp_store_directory", Some("/tmp")),
            ("max_page_count", Some("99")),
            ("journal_mode", Some("delete")),
            ("page_size", Some("512")),
            ("synchronous", Some("off")),
            ("locking_mode", Some("exclusive")),
            ("database_list", None),
            ("hard_heap_limit", Some("0")),
            ("trusted_schema", Some("1")),
            ("mmap_size", Some("1")),
            ("wal_checkpoint", None),
            ("key", Some("x")),
        ] {
            for holder in [Holder::Shared, Holder::Guest] {
                let action = AuthAction::Pragma { pragma_name: name, pragma_value: value };
                assert!(matches!(of(action, holder), Decision::Refuse(_)), "{name} {value:?}");
            }
        }
    }

    #[test]
    fn what_is_the_connections_needs_one() {
        for action in [
            AuthAction::Transaction { operation: TransactionOperation::Begin },
            AuthAction::Transaction { operation: TransactionOperation::Rollback },
            AuthAction::Savepoint { operation: TransactionOperation::Begin, savepoint_name: "a" },
            AuthAction::CreateTempTable { table_name: "t" },
        ] {
            assert_eq!(of(action, Holder::Shared), Decision::OnItsOwn);
            assert_eq!(of(action, Holder::Guest), Decision::Allow);
        }
        let temp = AuthContext {
            action: AuthAction::CreateVtable { table_name: "t", module_name: "fts5" },
            database_name: Some("temp"),
            accessor: None,
        };
        assert_eq!(decide(&temp, Holder::Shared), Decision::OnItsOwn);
    }

    #[test]
    fn names_of_the_platforms_are_nobodys() {
        for name in ["_hearth_", "_HEARTH_rooms", "_hearth_ä"] {
            let read = AuthAction::Read { table_name: name, column_name: "a" };
            assert!(matches!(of(read, Holder::Guest), Decision::Refuse(_)), "{name}");
        }
        for name in ["_hearth", "hearth_", "ä_hearth_", "_heart_ä"] {
            let read = AuthAction::Read { table_name: name, column_name: "a" };
            assert_eq!(of(read, Holder::Shared), Decision::Allow, "{name}");
        }
    }
}
