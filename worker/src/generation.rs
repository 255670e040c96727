//! One generation as its worker serves it: the manifest laid over the build's bundle, and each
//! function linked and ready to be instantiated. Immutable; the next generation is another
//! process's.
//!
//! Reads the release directory by its descriptor alone and only while the worker starts.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use hearth_host::{Handler, LinkError};
use hearth_schema::{Checks, SchemaError};
use hearth_wire::limits::FUNCTIONS_MAX;
use hearth_wire::{FunctionVersion, Manifest, ManifestFunction, Mount, Start};
use rustix::fs::{Mode, OFlags, openat};

use crate::zygote::Base;
use hearth_wire::Routes;

/// A hundred functions with the longest options, and as many that are bundled and were changed.
const MANIFEST_MAX_BYTES: u64 = 64 << 20;

pub struct Generation {
    /// With what is bundled among its functions.
    pub manifest: Manifest,
    pub routes: Routes,
    /// In the manifest's order, as the routes number them.
    handlers: Vec<Option<Handler>>,
    /// Compiled when they are needed first: a worker that starts has many, and uses few.
    checks: Vec<OnceLock<Arc<Checks>>>,
}

impl Generation {
    /// What a function's instances are made from. A damaged one has none, and no call gets so far.
    pub fn handler(&self, number: usize) -> &Handler {
        self.handlers[number].as_ref().expect("calls of what is damaged are refused")
    }

    /// The schemas of a function by its number. `None` where it has none.
    pub fn checks(&self, number: usize) -> Result<Option<&Arc<Checks>>, SchemaError> {
        let schemas = &self.manifest.functions[number].options.schema;
        if schemas.is_empty() {
            return Ok(None);
        }
        let kept = &self.checks[number];
        if kept.get().is_none() {
            // Where another call was first, its checks are as good.
            let _ = kept.set(Arc::new(Checks::compile(schemas)?));
        }
        Ok(kept.get())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    #[error("{file} cannot be read")]
    Read { file: String, source: io::Error },
    #[error("the manifest does not parse")]
    Manifest(#[source] serde_json::Error),
    #[error("the manifest is of {theirs}, and this worker was started for {ours}")]
    Other { ours: String, theirs: String },
    #[error("the artifacts are made by the engine {theirs}, and this one is {ours}")]
    Engine { ours: String, theirs: String },
    #[error("the manifest has {0} functions, more than {FUNCTIONS_MAX}")]
    TooMany(usize),
    #[error("{path} does not load")]
    Load { path: String, source: hearth_engine::LoadError },
    #[error("{path} does not link")]
    Link { path: String, source: LinkError },
}

pub fn load(base: &Base, release: &OwnedFd, start: &Start) -> Result<Generation, GenerationError> {
    let mut manifest = read_manifest(release)?;
    let ours = format!("{} generation {}", start.tenant, start.generation);
    let theirs = format!("{} generation {}", manifest.tenant, manifest.generation);
    if ours != theirs {
        return Err(GenerationError::Other { ours, theirs });
    }
    let engine = hearth_engine::fingerprint();
    // Where nothing is its own, the engine of an earlier build made none of it.
    if manifest.engine != engine && !manifest.functions.is_empty() {
        return Err(GenerationError::Engine { ours: engine, theirs: manifest.engine });
    }
    if manifest.functions.len() > FUNCTIONS_MAX {
        return Err(GenerationError::TooMany(manifest.functions.len()));
    }
    lay(&mut manifest, base);
    let handlers = manifest.functions.iter().map(|function| match function.damaged {
        true => Ok(None),
        false => handler(base, release, function).map(Some),
    });
    let handlers = handlers.collect::<Result<_, _>>()?;
    let routes = Routes::new(manifest.functions.iter().map(|f| (&f.path, f.options.path)));
    let checks = manifest.functions.iter().map(|_| OnceLock::new()).collect();
    Ok(Generation { manifest, routes, handlers, checks })
}

/// Adds what this build has to what is the tenant's own, whichever bundle the manifest was written
/// over.
fn lay(manifest: &mut Manifest, base: &Base) {
    let Base { bundle, handlers, .. } = base;
    let own = manifest.functions.iter().map(|function| (&function.path, function.options.path));
    let mounted = bundle.beside(own, &manifest.over);
    let mounted = mounted.into_iter().map(|function| {
        let options = function.options().resolve().within(&manifest.limits);
        let Mount { path, sha256, kind, declared: _, options: _ } = function.mount;
        ManifestFunction {
            path: path.clone(),
            version: FunctionVersion::Bundled(bundle.build.clone()),
            sha256: *sha256,
            kind: *kind,
            options,
            damaged: !handlers.contains_key(sha256),
        }
    });
    let mounted: Vec<_> = mounted.collect();
    manifest.functions.extend(mounted);
    manifest.functions.sort_by(|a, b| a.path.cmp(&b.path));
}

fn read_manifest(release: &OwnedFd) -> Result<Manifest, GenerationError> {
    let read = |source| GenerationError::Read { file: Manifest::FILE.to_owned(), source };
    let mut bytes = Vec::new();
    open(release, Manifest::FILE)
        .and_then(|file| {
            // Room for all of it and for seeing that it was all: two reads.
            let size = file.metadata()?.len().min(MANIFEST_MAX_BYTES);
            bytes.reserve_exact(size as usize + 1);
            file.take(MANIFEST_MAX_BYTES).read_to_end(&mut bytes)
        })
        .map_err(read)?;
    serde_json::from_slice(&bytes).map_err(GenerationError::Manifest)
}

fn handler(
    base: &Base,
    release: &OwnedFd,
    function: &ManifestFunction,
) -> Result<Handler, GenerationError> {
    let path = || function.path.to_string();
    if let Some(linked) = base.handlers.get(&function.sha256) {
        return Ok(hearth_host::share(linked));
    }
    let name = function.artifact();
    let file =
        open(release, &name).map_err(|source| GenerationError::Read { file: name, source })?;
    let component = hearth_engine::load(&base.engine, &file)
        .map_err(|source| GenerationError::Load { path: path(), source })?;
    hearth_host::prepare(&base.linker, &component)
        .map_err(|source| GenerationError::Link { path: path(), source })
}

fn open(release: &OwnedFd, name: &str) -> io::Result<File> {
    // A pipe in its place would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(openat(release.as_fd(), name, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "what lies there is not a file")),
    }
}
