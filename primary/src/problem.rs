//! Errors as what is answered and what is logged: the one place that makes problems and lines of
//! the log of what the parts behind addresses say of themselves ([`Fault`]). An error is logged once, by
//! whoever answers it or ends its work.

use std::error::Error;

use axum::response::Response;
use hearth_wire::{Problem, RequestId};
use tracing::{error, warn};

use crate::fault::{Fault, Logged, Verdict};
use crate::refusal::refuse;

/// What the caller is told.
pub fn of(fault: &dyn Fault) -> Problem {
    let Verdict { code, told, imports, .. } = fault.verdict();
    Problem { imports, ..Problem::new(code, told) }
}

/// Logs it with its causes, of which the caller learns nothing, where it is the operator's to know.
pub fn log(fault: &dyn Fault) {
    let Verdict { told, logged, .. } = fault.verdict();
    let error = fault as &(dyn Error + 'static);
    match logged {
        Logged::No => {}
        Logged::Warning => warn!(error, "{told}"),
        Logged::Error => error!(error, "{told}"),
    }
}

/// What the caller is told, of an error that nobody has logged yet.
pub fn tell(fault: &dyn Fault) -> Problem {
    log(fault);
    of(fault)
}

/// The same as the answer to a request.
pub fn answer(fault: &dyn Fault, id: &RequestId) -> Response {
    refuse(tell(fault), fault.verdict().retry_after, id)
}

#[cfg(test)]
mod tests {
    use std::io;

    use hearth_wire::{Code, Diagnosis, GenerationNumber};

    use super::*;
    use crate::backup::BackupError;
    use crate::backup::restore::RestoreError;
    use crate::compile::CompileError;
    use crate::fault::Blame;
    use crate::fleet::{FleetError, SwapError, Unbound};
    use crate::generations::GenerationError;
    use crate::generations::modules::IngestError;
    use crate::generations::room::NoRoom;
    use crate::logs::LogsError;
    use crate::provision::ProvisionError;
    use crate::store::StoreError;
    use crate::store::database::DatabaseError;
    use crate::upload::UploadError;

    const SECRET: &str = "/srv/hearth/of-the-hosts-own";

    fn of_kind(kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, SECRET)
    }

    fn sqlite(code: i32) -> rusqlite::Error {
        let error = rusqlite::ffi::Error::new(code);
        rusqlite::Error::SqliteFailure(error, Some(SECRET.to_owned()))
    }

    fn full() -> StoreError {
        sqlite(rusqlite::ffi::SQLITE_FULL).into()
    }

    fn failed() -> StoreError {
        sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC).into()
    }

    fn broken() -> StoreError {
        sqlite(rusqlite::ffi::SQLITE_ERROR).into()
    }

    fn refused() -> GenerationError {
        let imports = vec!["wasi:sockets/tcp".to_owned()];
        CompileError::Refused(Diagnosis { detail: "it imports too much".to_owned(), imports })
            .into()
    }

    fn quota() -> NoRoom {
        NoRoom::Quota { needed: 2_000_000, limit: 1 << 20 }
    }

    fn damaged() -> GenerationError {
        GenerationError::Damaged { path: "/hello".parse().unwrap(), version: 3.into() }
    }

    fn in_module(source: GenerationError) -> UploadError {
        UploadError::Module { file: "hello.wasm".to_owned(), source }
    }

    fn swap(source: SwapError) -> UploadError {
        let current = GenerationNumber(7);
        UploadError::Swap { current, source }
    }

    /// What is told of each, wherever it comes up, and whose fault it is.
    #[test]
    fn each_error_says_whose_fault_it_is_and_nothing_of_the_host() {
        use Blame::{Caller, Function, Host, Limit};
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
        let data = || SECRET.into();
        let table: Vec<(Box<dyn Fault>, Blame, Code, &str)> = vec![
            // The host's disk, however deep.
            (Box::new(full()), Host, Code::StorageFull, "the host's disk is full"),
            (Box::new(failed()), Host, Code::StorageFull, "the host's disk failed"),
            (
                Box::new(UploadError::from(full())),
                Host,
                Code::StorageFull,
                "the host's disk is full; nothing changed",
            ),
            (
                Box::new(UploadError::from(failed())),
                Host,
                Code::StorageFull,
                "the host's disk failed: if the change is there shows when Hearth starts again",
            ),
            (
                Box::new(in_module(IngestError::Disk(of_kind(StorageFull)).into())),
                Host,
                Code::StorageFull,
                "hello.wasm: the host's disk is full",
            ),
            (
                Box::new(in_module(NoRoom::Host.into())),
                Host,
                Code::StorageFull,
                "hello.wasm: the host's disk is full",
            ),
            (
                Box::new(in_module(CompileError::Full.into())),
                Host,
                Code::StorageFull,
                "hello.wasm: the host's disk is full",
            ),
            (
                Box::new(GenerationError::from(of_kind(QuotaExceeded))),
                Host,
                Code::StorageFull,
                "the host's disk is full",
            ),
            (
                Box::new(ProvisionError::from(GenerationError::from(of_kind(StorageFull)))),
                Host,
                Code::StorageFull,
                "the host's disk is full",
            ),
            (
                Box::new(ProvisionError::from(full())),
                Host,
                Code::StorageFull,
                "the host's disk is full",
            ),
            (
                Box::new(BackupError::from(of_kind(StorageFull))),
                Host,
                Code::StorageFull,
                "the host's disk is full",
            ),
            (
                Box::new(RestoreError::Disk { data: data(), source: of_kind(StorageFull) }),
                Host,
                Code::StorageFull,
                "the host's disk is full",
            ),
            (Box::new(DatabaseError::ReadOnly), Host, Code::StorageFull, "start Hearth again"),
            (
                Box::new(ProvisionError::from(StoreError::from(DatabaseError::ReadOnly))),
                Host,
                Code::StorageFull,
                "start Hearth again",
            ),
            // A limit is the tenant's, whoever comes upon it.
            (Box::new(GenerationError::from(quota())), Limit, Code::StorageFull, "`disk_bytes`"),
            (
                Box::new(UploadError::from(GenerationError::from(quota()))),
                Limit,
                Code::StorageFull,
                "`disk_bytes`",
            ),
            (
                Box::new(in_module(IngestError::NoRoom(quota()).into())),
                Limit,
                Code::StorageFull,
                "hello.wasm: the tenant may have 1 MiB on disk",
            ),
            (
                Box::new(LogsError::TooManyFollowers(32)),
                Limit,
                Code::TooManyRequests,
                "follow this",
            ),
            // A module that the disk has changed.
            (Box::new(damaged()), Host, Code::ModuleDamaged, "/hello@3 is damaged"),
            (
                Box::new(UploadError::from(damaged())),
                Host,
                Code::ModuleDamaged,
                "/hello@3 is damaged",
            ),
            // The host's own failures are not explained.
            (Box::new(broken()), Host, Code::Internal, "the host's store failed"),
            (
                Box::new(UploadError::from(broken())),
                Host,
                Code::Internal,
                "the host's store failed; nothing changed",
            ),
            (
                Box::new(GenerationError::from(broken())),
                Host,
                Code::Internal,
                "its operator finds why",
            ),
            (
                Box::new(GenerationError::from(of_kind(NotFound))),
                Host,
                Code::Internal,
                "its operator finds why",
            ),
            (
                Box::new(GenerationError::from(StoreError::Missing("tenant"))),
                Host,
                Code::Internal,
                "its operator finds why",
            ),
            (
                Box::new(in_module(CompileError::Failed(SECRET.to_owned()).into())),
                Host,
                Code::Internal,
                "hello.wasm: the host's compiler failed",
            ),
            (
                Box::new(ProvisionError::from(refused())),
                Host,
                Code::Internal,
                "the tenant could not be made or removed",
            ),
            (
                Box::new(BackupError::from(refused())),
                Host,
                Code::Internal,
                "the host's log says why",
            ),
            (
                Box::new(LogsError::Read(of_kind(NotFound))),
                Host,
                Code::Internal,
                "the journal could not be read",
            ),
            (
                Box::new(StoreError::from(DatabaseError::Closed)),
                Host,
                Code::WorkerUnavailable,
                "going down",
            ),
            (
                Box::new(FleetError::Unbound(Unbound::Taken(4_001))),
                Host,
                Code::WorkerUnavailable,
                "port 4001 is used",
            ),
            // The module's.
            (Box::new(in_module(refused())), Function, Code::InvalidModule, "it imports too much"),
            // Whoever asked.
            (
                Box::new(UploadError::OptionsRefused {
                    path: "/hello".parse().unwrap(),
                    source: refused(),
                }),
                Caller,
                Code::BadRequest,
                "/hello: it imports too much",
            ),
            (
                Box::new(in_module(IngestError::Empty.into())),
                Caller,
                Code::InvalidModule,
                "hello.wasm: the file is empty",
            ),
            (Box::new(swap(SwapError::Busy)), Caller, Code::Conflict, "generation 7 still serves"),
            (Box::new(BackupError::Busy), Caller, Code::Conflict, "one at a time"),
            (
                Box::new(RestoreError::from(broken())),
                Caller,
                Code::BadRequest,
                "the backup's store is damaged",
            ),
        ];
        for (fault, blame, code, told) in table {
            let problem = of(&*fault);
            assert_eq!((problem.code, fault.verdict().blame), (code, blame), "{fault:?}");
            assert!(problem.detail.contains(told), "{fault:?}: {}", problem.detail);
            assert!(!problem.detail.contains(SECRET), "{}", problem.detail);
        }
        assert_eq!(of(&in_module(refused())).imports, ["wasi:sockets/tcp"]);
    }
}
