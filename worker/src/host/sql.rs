//! The databases that one function may use, as its interfaces ask for them: those that its option
//! `databases` allows, of its tenant's.

use std::sync::Arc;

use hearth_host::sql::{
    Answer, BatchError, Connection, Databases, Done, Rows, SqlError, Statement, Value,
};
use hearth_wire::KeptName;

use crate::generation::Generation;
use crate::state::sql::{Asked, Bounds, Session, Sql};
use crate::state::{DatabaseFile, Fault, State};

#[derive(Clone)]
pub struct Granted {
    state: State,
    sql: Sql,
    generation: Arc<Generation>,
    /// By its number there.
    function: usize,
}

impl Granted {
    pub fn new(state: State, sql: Sql, generation: Arc<Generation>, function: usize) -> Self {
        Self { state, sql, generation, function }
    }

    /// The database of that name, made where it is not there.
    async fn database(&self, name: &str) -> Result<DatabaseFile, SqlError> {
        let Ok(name) = name.parse::<KeptName>() else { return Err(SqlError::NoSuchDatabase) };
        let options = &self.generation.manifest.functions[self.function].options;
        if !options.databases.allows(&name) {
            return Err(SqlError::AccessDenied);
        }
        self.state.database(&name).await.map_err(refusal)
    }
}

impl Databases for Granted {
    fn open(&self, name: String) -> Answer<Result<Arc<dyn Connection>, SqlError>> {
        let granted = self.clone();
        Box::pin(async move {
            let session = granted.sql.session(granted.database(&name).await?);
            Ok(Arc::new(session) as Arc<dyn Connection>)
        })
    }

    fn batch(&self, name: String, batch: Vec<Statement>) -> Answer<Result<Vec<Done>, BatchError>> {
        let granted = self.clone();
        Box::pin(async move {
            let database = granted.database(&name).await.map_err(|error| match error {
                SqlError::NoSuchDatabase => BatchError::NoSuchDatabase,
                SqlError::AccessDenied => BatchError::AccessDenied,
                SqlError::Full => BatchError::Full,
                SqlError::Failed(said) => BatchError::Failed(said),
            })?;
            granted.sql.batch(database, batch).await
        })
    }
}

impl Connection for Session {
    fn execute(&self, sql: String, parameters: Vec<Value>) -> Answer<Result<Rows, SqlError>> {
        let session = self.clone();
        Box::pin(async move {
            let ran = session.run(Asked { sql, parameters }, Bounds::default()).await;
            ran.map(|outcome| outcome.rows).map_err(refusal)
        })
    }

    fn last_insert_rowid(&self) -> i64 {
        self.counts().last_insert_rowid
    }

    fn changes(&self) -> u64 {
        self.counts().changes
    }
}

fn refusal(fault: Fault) -> SqlError {
    match fault {
        Fault::Full => SqlError::Full,
        fault => SqlError::Failed(fault.to_string()),
    }
}
