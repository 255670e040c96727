//! The client of `hearth-compile`: one process for each new module, and for options that must be
//! tried before they are kept; bounded in number, time and (by itself) memory. It gets a request
//! with its files, and answers once. Whoever wants one waits for a turn, which is fair: however
//! much one tenant has to compile, another's turn comes after at most one of each who waits.
//!
//! What is compiled and where the artifact goes is `generations`' to say.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use hearth_wire::limits::OPTIONS_MAX_BYTES;
use hearth_wire::{
    Channel, Code, CompileJob, CompileReply, CompileRequest, Diagnosis, EXIT_STARVED, Fingerprint,
    HandlerKind, Options, SocketError, VERSION, needs_state, pair,
};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::process::Command;
use tracing::error;

use crate::fair::{Fair, Turn};
use crate::fault::{Disk, Fault, Verdict};
use crate::isolation::Level;
use crate::stderr::{self, Speaker};
use crate::store::TenantId;
use crate::telemetry;

/// Longer than any module within the upload's bounds took to compile (a JavaScript engine: 17 s
/// of one core), so that a compiler that hangs is noticed.
const DEADLINE: Duration = Duration::from_secs(120);

/// SIGSYS, of a process that could not say which call it was.
const FORBIDDEN: i32 = 31;

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module's fault, or that of its options.
    #[error("{}", .0.detail)]
    Refused(Diagnosis),
    #[error("the compiler failed: {0}")]
    Failed(String),
    #[error("there is no room on the disk for what the compiler made")]
    Full,
    #[error("the compiler could not be started")]
    Spawn(#[source] io::Error),
    #[error("the conversation with the compiler broke")]
    Socket(#[from] SocketError),
    #[error("a file for the compiler could not be made")]
    File(#[from] io::Error),
    #[error("the compiler answered another question: {0:?}")]
    Unexpected(CompileReply),
}

impl Fault for CompileError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Refused(Diagnosis { detail, imports, .. }) => Verdict {
                imports: imports.clone(),
                ..Verdict::function(Code::InvalidModule, detail)
            },
            Self::Full => Disk::Full.into(),
            Self::Failed(_)
            | Self::Spawn(_)
            | Self::Socket(_)
            | Self::File(_)
            | Self::Unexpected(_) => Verdict::of_host(
                self,
                "the host's compiler failed; its operator finds why in the log",
            ),
        }
    }
}

pub struct Compiled {
    /// The engine that made the artifact, and alone can load it.
    pub engine: Fingerprint,
    pub kind: HandlerKind,
    pub imports: Vec<String>,
    /// Of these, what is not offered here.
    pub unavailable: Vec<String>,
    /// What the module declares of itself, unparsed.
    pub options: Option<String>,
}

pub struct Compiler {
    program: PathBuf,
    /// The engines that load artifacts. Which one a module needs, the compiler says.
    pub engines: Vec<Fingerprint>,
    /// Whom it runs as, where the host can choose.
    uid: Option<u32>,
    /// Which it joins, in this order, in place of making some.
    namespaces: Vec<OwnedFd>,
    turns: Fair<TenantId>,
    /// What of the machine's walls a module may need and not find here.
    isolation: Level,
}

/// The right to have one compiler at a time.
pub type Compiling = Turn<TenantId>;

impl Compiler {
    /// Each takes a core while it runs. One tenant has at most half of them, and there are two at
    /// the least, so that nobody waits for what one other has compiled.
    pub fn new(
        program: PathBuf,
        engines: Vec<Fingerprint>,
        uid: Option<u32>,
        namespaces: Vec<OwnedFd>,
        cores: usize,
        isolation: Level,
    ) -> Self {
        let at_once = cores.max(2);
        let turns = Fair::new(at_once, at_once / 2);
        Self { program, engines, uid, namespaces, turns, isolation }
    }

    pub async fn turn(&self, tenant: TenantId) -> Compiling {
        self.turns.turn(tenant).await
    }

    pub async fn compile(
        &self,
        _turn: &Compiling,
        module: &File,
        artifact: &File,
    ) -> Result<Compiled, CompileError> {
        let mut declared = memory()?;
        let reply = self.ask(CompileJob::Compile, &[module, artifact, &declared]).await?;
        let CompileReply::Compiled { engine, kind, imports, unavailable, artifact_bytes: _ } =
            reply
        else {
            return Err(CompileError::Unexpected(reply));
        };
        let mut options = String::new();
        declared.rewind()?;
        declared.take(OPTIONS_MAX_BYTES as u64).read_to_string(&mut options)?;
        // What is not theirs would be kept and never found.
        if !self.engines.contains(&engine) {
            return Err(CompileError::Failed(format!("it made an artifact for {engine}")));
        }
        if self.isolation == Level::D {
            refuse_state(&imports)?;
        }
        let options = (!options.is_empty()).then_some(options);
        Ok(Compiled { engine, kind, imports, unavailable, options })
    }

    /// Whether a function can have these options. Asked only where a jail is needed to tell.
    pub async fn check(
        &self,
        tenant: TenantId,
        options: &Options,
        (artifact, engine): (&File, Fingerprint),
    ) -> Result<(), CompileError> {
        if options.schema.is_empty() && options.reuse == 1 {
            return Ok(());
        }
        let _turn = self.turn(tenant).await;
        let mut file = memory()?;
        file.write_all(&serde_json::to_vec(options).expect("options are plain data"))?;
        file.rewind()?;
        match self.ask(CompileJob::Check { engine }, &[&file, artifact]).await? {
            CompileReply::Checked => Ok(()),
            other => Err(CompileError::Unexpected(other)),
        }
    }

    async fn ask(&self, job: CompileJob, files: &[&File]) -> Result<CompileReply, CompileError> {
        let (ours, theirs) = pair().map_err(CompileError::Spawn)?;
        let errors = stderr::listen(Speaker::compiler()).map_err(CompileError::Spawn)?;
        let mut child = Command::new(&self.program)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors))
            // A key pressed at the host's terminal is the host's alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(CompileError::Spawn)?;
        let conversation = async {
            let channel = Channel::new(ours).map_err(SocketError::from)?;
            let (engines, uid) = (self.engines.clone(), self.uid);
            let request = CompileRequest { version: VERSION, engines, job, uid };
            let files = files.iter().map(|file| file.as_fd());
            let files: Vec<_> = files.chain(self.namespaces.iter().map(AsFd::as_fd)).collect();
            channel.send(&request, &files).await?;
            channel.recv::<CompileReply>().await
        };
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let reply = match tokio::time::timeout_at(deadline, conversation).await {
            Ok(reply) => reply?,
            Err(_) => return Err(CompileError::Refused(too_much())),
        };
        match reply {
            Some((CompileReply::Refused(diagnosis), _)) => Err(CompileError::Refused(diagnosis)),
            Some((CompileReply::Full, _)) => Err(CompileError::Full),
            Some((CompileReply::Failed { reason }, _)) => Err(CompileError::Failed(reason)),
            Some((CompileReply::Forbidden { call }, _)) => {
                let call = telemetry::sandbox_violation(None, call);
                error!(call, "sandbox violation of a compiler");
                Err(CompileError::Failed(format!("it made the system call {call}")))
            }
            Some((reply, _)) => Ok(reply),
            None => {
                // One that closes its socket and lives on has no more time than any.
                let ended = tokio::time::timeout_at(deadline, child.wait()).await;
                let status = match ended {
                    Ok(status) => status.map_err(CompileError::Spawn)?,
                    Err(_) => return Err(CompileError::Refused(too_much())),
                };
                match status.code() {
                    None if status.signal() == Some(FORBIDDEN) => {
                        Err(CompileError::Failed("it made a forbidden system call".to_owned()))
                    }
                    // Ended by one of its own limits: that is about the module.
                    None => Err(CompileError::Refused(too_much())),
                    Some(code) if code == i32::from(EXIT_STARVED) => {
                        Err(CompileError::Refused(too_much()))
                    }
                    Some(code) => Err(CompileError::Failed(format!("it exited with code {code}"))),
                }
            }
        }
    }
}

/// A worker of this machine's can keep nothing: see `Level::D`.
fn refuse_state(imports: &[String]) -> Result<(), CompileError> {
    let imports: Vec<_> = imports.iter().filter(|it| needs_state(it)).cloned().collect();
    if imports.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "this module imports {}, and this host can keep no state: its kernel has no Landlock \
         (isolation level D), without which nothing would keep a tenant's files apart; have the \
         host's admin enable Landlock",
        imports.join(", ")
    );
    Err(CompileError::Refused(Diagnosis { detail, imports }))
}

/// A file that is nowhere but in memory.
pub fn memory() -> io::Result<File> {
    Ok(memfd_create("options", MemfdFlags::CLOEXEC)?.into())
}

fn too_much() -> Diagnosis {
    let detail =
        "this module or its options took more time or memory than they may take; make them smaller";
    Diagnosis { detail: detail.to_owned(), imports: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_state_is_refused_by_name_where_there_is_none() {
        let named =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(refuse_state(&named(&["wasi:http/types@0.2.0"])).is_ok());
        let all = ["wasi:http/types@0.2.0", "wasi:keyvalue/store@0.2.0-draft2"];
        let refused = refuse_state(&named(&all)).unwrap_err().verdict();
        assert_eq!(refused.imports, named(&all[1..]));
        assert!(refused.told.contains("wasi:keyvalue/store") && refused.told.contains("Landlock"));
    }
}
