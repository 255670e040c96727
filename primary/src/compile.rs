//! The client of `hearth-compile`: one process for each new module, bounded in number, time and
//! (by itself) memory. It gets two descriptors and a request, and answers once.
//!
//! What is compiled and where the artifact goes is `release`'s to say.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use hearth_wire::{
    Channel, CompileReply, CompileRequest, Diagnosis, HandlerKind, SocketError, VERSION, pair,
};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Longer than any module within the upload's bounds took to compile (a JavaScript engine: 17 s
/// of one core), so that a compiler that hangs is noticed.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The module's fault.
    #[error("{}", .0.detail)]
    Refused(Diagnosis),
    #[error("the compiler failed: {0}")]
    Failed(String),
    #[error("the compiler could not be started")]
    Spawn(#[source] io::Error),
    #[error("the conversation with the compiler broke")]
    Socket(#[from] SocketError),
}

pub struct Compiled {
    pub kind: HandlerKind,
    pub imports: Vec<String>,
    /// What the module declares of itself, unparsed.
    pub options: Option<String>,
}

pub struct Compiler {
    program: PathBuf,
    /// The engine that will load the artifacts.
    pub engine: String,
    /// Compilations at once; each takes a core.
    permits: Arc<Semaphore>,
}

impl Compiler {
    pub fn new(program: PathBuf, engine: String, at_once: usize) -> Self {
        Self { program, engine, permits: Arc::new(Semaphore::new(at_once)) }
    }

    pub async fn compile(&self, module: &File, artifact: &File) -> Result<Compiled, CompileError> {
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let (ours, theirs) = pair().map_err(CompileError::Spawn)?;
        let mut child = Command::new(&self.program)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(CompileError::Spawn)?;
        let conversation = async {
            let channel = Channel::new(ours).map_err(SocketError::from)?;
            let request = CompileRequest { version: VERSION, engine: self.engine.clone() };
            channel.send(&request, &[module.as_fd(), artifact.as_fd()]).await?;
            channel.recv::<CompileReply>().await
        };
        let reply = match tokio::time::timeout(DEADLINE, conversation).await {
            Ok(reply) => reply?,
            Err(_) => return Err(CompileError::Refused(too_much())),
        };
        match reply {
            Some((CompileReply::Compiled { kind, imports, options, .. }, _)) => {
                Ok(Compiled { kind, imports, options })
            }
            Some((CompileReply::Refused(diagnosis), _)) => Err(CompileError::Refused(diagnosis)),
            Some((CompileReply::Failed { reason }, _)) => Err(CompileError::Failed(reason)),
            None => {
                let status = child.wait().await.map_err(CompileError::Spawn)?;
                match status.code() {
                    // Ended by one of its own limits: that is about the module.
                    None => Err(CompileError::Refused(too_much())),
                    Some(code) => Err(CompileError::Failed(format!("it exited with code {code}"))),
                }
            }
        }
    }
}

fn too_much() -> Diagnosis {
    let detail =
        "compiling this module took more time or memory than a module may take; make it smaller";
    Diagnosis { detail: detail.to_owned() }
}
