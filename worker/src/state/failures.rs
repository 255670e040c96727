//! What failed of a tenant's files for as long as this worker lives: known to everybody who writes
//! there, on whatever connection, and told to the operator once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_wire::complain;

use super::fault::Fault;
use super::place::DatabaseFile;

/// Cloned, they are the same.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<HashSet<(DatabaseFile, Fault)>>>);

impl Failures {
    /// Whether nothing more may be written to a file, since a sync of it failed.
    pub fn is_over(&self, file: DatabaseFile) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&(file, Fault::ReadOnly))
    }

    /// Takes note of what lasts; whatever else went wrong is of one statement alone. What a worker says
    /// on its standard error is in the host's log.
    pub fn note(&self, file: DatabaseFile, fault: &Fault) {
        let name = file.name();
        match fault {
            Fault::ReadOnly if self.is_new(file, fault) => complain(format_args!(
                "hearth-worker: the disk failed a sync of state/{name}: nothing more is written to it \
                 until its tenant has another worker; check the disk, then restart the worker"
            )),
            Fault::Damaged(_) if self.is_new(file, fault) => complain(format_args!(
                "hearth-worker: state/{name} is damaged: restore it from a backup; what else its \
                 tenant has is served"
            )),
            _ => {}
        }
    }

    fn is_new(&self, file: DatabaseFile, fault: &Fault) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert((file, fault.clone()))
    }
}
