//! One generation as its worker serves it: the manifest laid over the build's bundle, and each
//! function linked and ready to be instantiated. Immutable; the next generation is another
//! process's.
//!
//! Reads the release directory by its descriptor alone and only while the worker starts.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use hearth_engine::EngineKind;
use hearth_host::Handler;
use hearth_schema::{Checks, SchemaError};
use hearth_wire::limits::FUNCTIONS_MAX;
use hearth_wire::{
    Fingerprint, FunctionVersion, GenerationNumber, Limits, Manifest, ManifestFunction,
    ModuleDigest, Mount, Over, Routes, Serves, Start,
};
use rustix::fs::{Mode, OFlags, openat};
use wasmtime::Engine;

use crate::engines::HandlerError;
use crate::zygote::Base;

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
    /// What comes with this build, and nobody's besides.
    pub fn bundled(base: &Base) -> Self {
        let mut manifest = Manifest {
            tenant: "nobody".parse().expect("it is a name"),
            generation: GenerationNumber::NONE,
            limits: Limits::default(),
            bundle: base.bundle.digest,
            over: Over::default(),
            functions: Vec::new(),
        };
        lay(&mut manifest, base);
        let linked = |function: &ManifestFunction| base.handlers.get(&function.sha256);
        let handlers =
            manifest.functions.iter().map(|function| linked(function).map(hearth_host::share));
        let handlers = handlers.collect();
        let routes = Routes::new(manifest.functions.iter().map(|f| (&f.path, f.options.path)));
        let checks = manifest.functions.iter().map(|_| OnceLock::new()).collect();
        Self { manifest, routes, handlers, checks }
    }

    /// What a function's instances are made from. A damaged one has none, and no call gets so far.
    pub fn handler(&self, number: usize) -> &Handler {
        self.handlers[number].as_ref().expect("calls of what is damaged are refused")
    }

    /// Those that its functions run in.
    pub fn engines(&self) -> Vec<Engine> {
        let mut engines: Vec<Engine> = Vec::new();
        for engine in self.handlers.iter().flatten().map(hearth_host::engine) {
            if !engines.iter().any(|found| Engine::same(found, engine)) {
                engines.push(engine.clone());
            }
        }
        engines
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
    #[error("the manifest has {0} functions, more than {FUNCTIONS_MAX}")]
    TooMany(usize),
    #[error("{path} cannot be served")]
    Handler { path: String, source: HandlerError },
}

pub fn load(base: &Base, release: &OwnedFd, start: &Start) -> Result<Generation, GenerationError> {
    let mut manifest = read_manifest(release)?;
    let ours = format!("{} generation {}", start.tenant, start.generation);
    let theirs = format!("{} generation {}", manifest.tenant, manifest.generation);
    if ours != theirs {
        return Err(GenerationError::Other { ours, theirs });
    }
    if manifest.functions.len() > FUNCTIONS_MAX {
        return Err(GenerationError::TooMany(manifest.functions.len()));
    }
    match start.serves {
        Serves::Functions => lay(&mut manifest, base),
        Serves::State => manifest.functions.clear(),
    }
    let handlers = handlers(base, release, &manifest)?;
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
            engine: handlers.get(sha256).map(made_by),
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

fn made_by(handler: &Handler) -> Fingerprint {
    hearth_engine::fingerprint(EngineKind::of(hearth_host::engine(handler)))
}

/// Of each function, in their order. What several have of one module is loaded once.
fn handlers(
    base: &Base,
    release: &OwnedFd,
    manifest: &Manifest,
) -> Result<Vec<Option<Handler>>, GenerationError> {
    let mut own: HashMap<ModuleDigest, Handler> = HashMap::new();
    let handlers = manifest.functions.iter().map(|function| {
        let Some(made_by) = function.engine else { return Ok(None) };
        let sha256 = &function.sha256;
        if let Some(linked) = base.handlers.get(sha256).or_else(|| own.get(sha256)) {
            return Ok(Some(hearth_host::share(linked)));
        }
        let name = function.artifact();
        let file =
            open(release, &name).map_err(|source| GenerationError::Read { file: name, source })?;
        let handler = base.engines.load(&file, made_by).map_err(|source| {
            GenerationError::Handler { path: function.path.to_string(), source }
        })?;
        own.insert(*sha256, hearth_host::share(&handler));
        Ok(Some(handler))
    });
    handlers.collect()
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
