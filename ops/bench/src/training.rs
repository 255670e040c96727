//! What a worker's recorded run is made of: calls of every kind that tenants make much of, in
//! process, by a worker that records. A sealed worker could write no record down.

use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::Setup;
use crate::host::Host;
use crate::others;

struct Calls {
    /// One of the tests' functions.
    function: &'static str,
    body: &'static [u8],
    count: u32,
    /// As `measure-call` has them; all of them where none is named.
    kind: Option<&'static str>,
}

const SOME_KILOBYTES: &[u8] = &[b'a'; 4 << 10];

/// JSON in and out; a body of some kilobytes there and back; a body and an answer that are held
/// against schemas; pieces as they come; and the same on WASI 0.3, which waits a millisecond each.
const MIX: [Calls; 5] = [
    Calls { function: others::FUNCTION, body: others::BODY, count: 10_000, kind: None },
    Calls { function: "echo", body: SOME_KILOBYTES, count: 5_000, kind: None },
    Calls { function: "declares_schemas", body: br#"{"declared":true}"#, count: 5_000, kind: None },
    Calls { function: "streams", body: SOME_KILOBYTES, count: 5_000, kind: Some("fresh") },
    Calls { function: "wasip3_hello", body: b"{}", count: 1_000, kind: None },
];

/// A host writes down the generation that they are calls of.
pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let host = Host::start(&setup.programs, &[])?;
    let mut modules = Vec::new();
    for Calls { function, .. } in MIX {
        modules.push((function, setup.guest(function)?));
    }
    let modules: Vec<_> = modules.iter().map(|(name, module)| (*name, &**module)).collect();
    let (release, worker) = (host.generation_of(&modules)?, setup.measuring_worker()?);
    for Calls { function, body, count, kind } in MIX {
        let mut command = Command::new(&worker);
        command.arg("measure-call").arg(&release).arg(format!("/{function}"));
        command.arg(str::from_utf8(body)?).arg(count.to_string()).args(kind);
        let ended = command.stdout(Stdio::null()).status()?;
        ensure!(ended.success(), "the calls of {function} ended with {ended}");
    }
    Ok(())
}
