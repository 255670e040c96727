//! `hearth-compile`: compiles one module and ends. The only program that holds a compiler, and
//! the only one that reads a stranger's module.
//!
//! Its standard input is its control socket: one request, one reply. It is asked for an artifact
//! of a module, or whether a function's options can be kept: its schemas, and whether instances
//! can be reused. It fences itself in before it looks at either, and closes its walls further
//! before it runs what it has compiled; the time it may take is also its starter's to bound. What
//! becomes of the artifact is the primary's business.

#[cfg(test)]
mod imports;
mod inspect;
mod options;
mod reuse;

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::{Context, bail};
use hearth_engine::{EngineKind, Purpose, fingerprint, fingerprints};
use hearth_host::Handler;
use hearth_schema::Checks;
use hearth_wire::limits::{MODULE_MAX_BYTES, OPTIONS_MAX_BYTES};
use hearth_wire::{
    CompileJob, CompileReply, CompileRequest, Diagnosis, EXIT_STARVED, HandlerKind, Options,
    SocketError, VERSION, complain,
};

use crate::inspect::Imports;
use crate::options::Watchdog;

/// A compiler that needs more memory than it may have ends by a code of its own.
#[global_allocator]
static MEMORY: hearth_jail::Bounded = hearth_jail::Bounded(EXIT_STARVED);

/// A diagnosis that quotes the module is cut at this.
const DETAIL_MAX_BYTES: usize = 2_000;
/// What three layers of options come to, with room.
const CHECKED_OPTIONS_MAX_BYTES: u64 = 4 * OPTIONS_MAX_BYTES as u64;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--version") {
        let _ = writeln!(io::stdout(), "hearth-compile {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("hearth-compile: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let control = hearth_jail::take_stdin().context("standard input is not a control socket")?;
    // Never closed but by the process's end: the filter trusts its number.
    let control = ManuallyDrop::new(control);
    // From the primary, which is trusted; the files that come with it are not.
    let Some((request, mut fds)) = hearth_wire::recv::<CompileRequest>(&*control)? else {
        return Ok(());
    };
    let namespaces = fds.split_off(request.job.files().min(fds.len()));
    hearth_jail::fence_compiler(request.uid, &namespaces, forbidden)?;
    drop(namespaces);
    let watchdog = Watchdog::start()?;
    hearth_jail::no_more_threads()?;
    let reply = match reply(&request, fds, &watchdog) {
        Ok(reply) => reply,
        Err(Failure::Ours(error)) if is_starved(error.chain()) => hearth_jail::leave(EXIT_STARVED),
        Err(Failure::Refused(diagnosis)) => CompileReply::Refused(diagnosis),
        Err(Failure::Ours(error)) if is_full(&error) => CompileReply::Full,
        Err(Failure::Ours(error)) => CompileReply::Failed { reason: format!("{error:#}") },
    };
    match hearth_wire::send(&*control, &reply, &[]) {
        Err(SocketError::TooLarge(_)) => {
            let detail = "the names of the module's imports are too long".to_owned();
            let refused = CompileReply::Refused(Diagnosis { detail, imports: Vec::new() });
            Ok(hearth_wire::send(&*control, &refused, &[])?)
        }
        sent => Ok(sent?),
    }
}

/// The last words of a compiler that made a call which its walls forbid. Runs within a signal.
fn forbidden(call: u32, message: &mut [u8]) -> usize {
    hearth_wire::encode_into(&CompileReply::Forbidden { call }, message)
}

/// Whose fault it is that there is no artifact.
enum Failure {
    /// The module's; the text is for its author.
    Refused(Diagnosis),
    Ours(anyhow::Error),
}

impl Failure {
    fn refused(detail: impl Into<String>) -> Self {
        Self::Refused(Diagnosis { detail: cut(detail.into()), imports: Vec::new() })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Ours(error.into())
    }
}

fn is_full(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// Whether there was no memory left, where that was no end of the process at once: for mappings.
fn is_starved<'a>(mut causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> bool {
    causes.any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
            || cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
    })
}

/// What could not be made of a module: for its fault, unless there was no memory for it.
fn refused<E>(error: E, why: impl FnOnce(&E) -> String) -> Failure
where
    E: Into<anyhow::Error>,
{
    let why = why(&error);
    let error = error.into();
    if is_starved(error.chain()) { Failure::Ours(error) } else { Failure::refused(why) }
}

fn reply(
    request: &CompileRequest,
    fds: Vec<OwnedFd>,
    watchdog: &Watchdog,
) -> Result<CompileReply, Failure> {
    let CompileRequest { version, engines, job, uid: _ } = request;
    let own = fingerprints();
    if (*version, engines) != (VERSION, &own) {
        return Err(Failure::Ours(anyhow::anyhow!(
            "hearth-compile speaks version {VERSION} for the engines {own:?}, and was asked for \
             version {version} and the engines {engines:?}: install all programs from one build"
        )));
    }
    match *job {
        CompileJob::Compile => {
            let [module, artifact, declared] = files(fds)?;
            compile(module, &artifact, &declared, watchdog)
        }
        CompileJob::Check { engine } => {
            let [options, artifact] = files(fds)?;
            let kind = EngineKind::made(engine).context("the artifact is of another engine")?;
            check(options, artifact, kind, watchdog)
        }
    }
}

fn compile(
    module: File,
    artifact: &File,
    declared: &File,
    watchdog: &Watchdog,
) -> Result<CompileReply, Failure> {
    let bytes = read(module.take(MODULE_MAX_BYTES + 1))?;
    if bytes.len() as u64 > MODULE_MAX_BYTES {
        return Err(Failure::refused(format!(
            "the module is larger than {} MiB",
            MODULE_MAX_BYTES >> 20
        )));
    }
    let Imports { all: imports, unavailable } = inspect::imports(&bytes).map_err(|refusal| {
        let detail = cut(refusal.to_string());
        Failure::Refused(Diagnosis { detail, imports: refusal.imports() })
    })?;

    let engine = inspect::engine(&bytes, &imports);
    let compiler = hearth_engine::engine(engine, Purpose::Compile).map_err(anyhow::Error::from)?;
    let code = compiler.precompile_component(&bytes);
    let code = code.map_err(|error| refused(error, inspect::refused_by_compiler))?;
    drop((bytes, compiler));
    write(artifact, &code).context("the artifact cannot be written")?;
    let artifact_bytes = code.len() as u64;

    // From here on as a worker does it, so that what passes here loads and links there.
    let runner = hearth_engine::engine(engine, Purpose::Run).map_err(anyhow::Error::from)?;
    let component = hearth_engine::load_bytes(&runner, &code)
        .map_err(|error| refused(error, inspect::refused_by_pool))?;
    drop(code);
    let linkers = hearth_host::linkers(&runner).map_err(anyhow::Error::from)?;
    let handler = hearth_host::prepare(&linkers, &component)
        .map_err(|error| refused(error, inspect::refused_by_linker))?;
    let kind = match &handler {
        Handler::P2(_) => HandlerKind::IncomingHandler,
        Handler::P3(_) => HandlerKind::Handler,
    };
    hearth_jail::seal_compiler()?;
    let options = options::declared(&runner, watchdog, &handler, &component)
        .map_err(|refusal| Failure::refused(refusal.to_string()))?;
    if let Some(options) = options {
        if options.len() > OPTIONS_MAX_BYTES {
            return Err(Failure::refused(format!(
                "the options that the module declares are longer than {} KiB",
                OPTIONS_MAX_BYTES >> 10
            )));
        }
        write(declared, options.as_bytes()).context("the options cannot be written")?;
    }
    let engine = fingerprint(engine);
    Ok(CompileReply::Compiled { engine, kind, imports, unavailable, artifact_bytes })
}

fn check(
    options: File,
    artifact: File,
    engine: EngineKind,
    watchdog: &Watchdog,
) -> Result<CompileReply, Failure> {
    let json = read(options.take(CHECKED_OPTIONS_MAX_BYTES))?;
    let options: Options = serde_json::from_slice(&json).context("the options do not parse")?;
    Checks::compile(&options.schema).map_err(|error| Failure::refused(error.to_string()))?;
    if options.reuse > 1 {
        let runner = hearth_engine::engine(engine, Purpose::Run).map_err(anyhow::Error::from)?;
        let component = hearth_engine::load_bytes(&runner, &read(artifact)?)?;
        let linkers = hearth_host::linkers(&runner).map_err(anyhow::Error::from)?;
        let handler = hearth_host::prepare(&linkers, &component)?;
        hearth_jail::seal_compiler()?;
        reuse::probe(&runner, watchdog, &handler)
            .map_err(|refusal| Failure::refused(refusal.to_string()))?;
    }
    Ok(CompileReply::Checked)
}

fn files<const N: usize>(fds: Vec<OwnedFd>) -> anyhow::Result<[File; N]> {
    match <[OwnedFd; N]>::try_from(fds) {
        Ok(fds) => Ok(fds.map(File::from)),
        Err(fds) => bail!("the request came with {} files instead of {N}", fds.len()),
    }
}

fn read(mut file: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("a file cannot be read")?;
    Ok(bytes)
}

fn write(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.flush()
}

fn cut(mut detail: String) -> String {
    if detail.len() > DETAIL_MAX_BYTES {
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
        detail.push('…');
    }
    detail
}
