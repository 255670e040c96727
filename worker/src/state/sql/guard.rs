//! How a connection to a tenant's database is set up, once, and what its hooks answer while a guest's
//! statement runs on it. What the platform itself runs on the same connection, transactions above all,
//! is not asked about.
//!
//! The hooks find the statement that runs by its thread, since a connection is lent to one guest after
//! another, and each has a time and numbers of its own.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthContext, Authorization};
use rusqlite::limits::Limit;

use super::authorizer::{self, Decision, Holder};

/// A string, a blob or a row.
pub const VALUE_MAX_BYTES: usize = 4 << 20;
/// A statement's text.
pub const SQL_MAX_BYTES: usize = 1 << 20;
/// As text in a script, in which a blob takes two letters a byte.
pub const SCRIPT_SQL_MAX_BYTES: usize = 12 << 20;
pub const PARAMETERS_MAX: usize = 1_000;
/// Of SQLite's machine, between two looks at the clock: about 20 us.
const STEPS: i32 = 1_000;
/// Of these, between two at the disk.
const LOOKS: u32 = 128;

const LIMITS: &[(Limit, usize)] = &[
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_MAX_BYTES),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_MAX_BYTES),
    (Limit::SQLITE_LIMIT_COLUMN, 1_000),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 200),
    (Limit::SQLITE_LIMIT_VDBE_OP, 500_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 100),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, PARAMETERS_MAX),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 32),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// What SQLite tells of a connection, as a guest's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub last_insert_rowid: i64,
    /// By the last statement that could change rows.
    pub changes: u64,
    pub total_changes: u64,
}

/// Whether anybody still waits for an answer.
#[derive(Debug, Clone, Default)]
pub struct Gone(Arc<AtomicBool>);

impl Gone {
    /// Nobody does.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a statement was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Late,
    Gone,
    Full,
}

/// A statement while it runs.
pub struct Running {
    pub holder: Holder,
    pub counts: Counts,
    pub until: Instant,
    pub gone: Gone,
    /// As far as is known.
    pub changes: bool,
}

/// What came of the questions about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub wants_its_own: bool,
    pub refused: Option<String>,
    pub stopped: Option<Stopped>,
}

thread_local! {
    static RUNNING: RefCell<Option<(Running, Said)>> = const { RefCell::new(None) };
}

/// Sets a connection up for guests' statements. `is_full`: whether one that changes something has
/// written as much as there is room for.
pub fn set_up(
    connection: &mut Connection,
    mut is_full: impl FnMut() -> bool + Send + 'static,
) -> rusqlite::Result<()> {
    for (limit, most) in LIMITS {
        connection.set_limit(*limit, i32::try_from(*most).unwrap_or(i32::MAX))?;
    }
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
        // The writer empties WALs, after the replies.
        (DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true),
    ] {
        connection.set_db_config(config, on)?;
    }
    connection.authorizer(Some(|asked: AuthContext<'_>| authorize(&asked)))?;
    let mut looks = 0_u32;
    let is_over = move || {
        looks = looks.wrapping_add(1);
        is_over(|| looks.is_multiple_of(LOOKS) && is_full())
    };
    connection.progress_handler(STEPS, Some(is_over))?;
    // Those of SQLite's would count what others did on the same connection. `last_insert_rowid()` can
    // be set, and is.
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("changes", 0, flags, |_| Ok(counted(|it| it.changes)))?;
    connection
        .create_scalar_function("total_changes", 0, flags, |_| Ok(counted(|it| it.total_changes)))
}

/// Lets statements be as long as a script's may be, or no longer.
pub fn allow_long(connection: &Connection, allow: bool) -> rusqlite::Result<()> {
    let most = if allow { SCRIPT_SQL_MAX_BYTES } else { SQL_MAX_BYTES };
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, most).map(|_| ())
}

/// Does what a guest's statement takes, and tells what the hooks said meanwhile. Never within itself.
pub fn during<T>(running: Running, work: impl FnOnce() -> T) -> (T, Said) {
    /// However the work ends.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            RUNNING.take();
        }
    }

    RUNNING.replace(Some((running, Said::default())));
    let over = Over;
    let done = work();
    let said = RUNNING.take().map(|(_, said)| said).unwrap_or_default();
    drop(over);
    (done, said)
}

/// The statement that runs changes something.
pub fn changes() {
    RUNNING.with_borrow_mut(|running| {
        if let Some((running, _)) = running {
            running.changes = true;
        }
    });
}

/// Does what is the platform's own while a guest's statement runs: nothing is asked about it.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let running = RUNNING.take();
    let done = work();
    RUNNING.replace(running);
    done
}

fn authorize(asked: &AuthContext<'_>) -> Authorization {
    RUNNING.with_borrow_mut(|running| {
        let Some((running, said)) = running else { return Authorization::Allow };
        match authorizer::decide(asked, running.holder) {
            Decision::Allow => return Authorization::Allow,
            Decision::OnItsOwn => said.wants_its_own = true,
            Decision::Refuse(why) => {
                said.refused.get_or_insert(why);
            }
        }
        Authorization::Deny
    })
}

/// Whether the statement that runs is to be stopped.
fn is_over(mut is_full: impl FnMut() -> bool) -> bool {
    RUNNING.with_borrow_mut(|running| {
        let Some((running, said)) = running else { return false };
        if running.gone.is_set() {
            said.stopped = Some(Stopped::Gone);
        } else if Instant::now() >= running.until {
            said.stopped = Some(Stopped::Late);
        } else if running.changes && is_full() {
            said.stopped = Some(Stopped::Full);
        }
        said.stopped.is_some()
    })
}

fn counted(which: fn(&Counts) -> u64) -> i64 {
    let count = RUNNING.with_borrow(|it| it.as_ref().map_or(0, |(it, _)| which(&it.counts)));
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// So long from now.
pub fn within(time: Duration) -> Instant {
    Instant::now() + time
}
