//! What comes with this build, and what a tenant serves of it: its own functions laid over the
//! bundle. `functions/bundle.json` says which component is mounted where, with which options; a
//! component is compiled once and loaded once, in the zygote, however often it is mounted.
//!
//! Nothing of it is written for a tenant: what its owner changed of it are rows of the store, and
//! the rest is the build's. How the two are laid over each other is `hearth_wire::Bundle`'s to say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use hearth_wire::limits::{COMPONENTS_MAX, MODULE_MAX_BYTES, MOUNTS_MAX};
use hearth_wire::{
    Build, Bundle, BundleDigest, Fingerprint, FunctionPath, FunctionVersion, HandlerKind, Limits,
    ModuleDigest, Mount, OptionsPatch, Over,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::artifacts::{Owner, declared};
use super::error::BundleError;
use super::served::Served;
use super::{GenerationError, Generations};
use crate::compile::memory;
use crate::files;
use crate::fleet::zygote::{Bundled, SPARES};
use crate::patience::blocking;
use crate::store::OwnFunctions;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
}

/// Where a bundle is had from.
pub enum Source {
    /// This program.
    Embedded,
    /// A directory with `bundle.json` and its components: what another build would bring.
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "for the tests of builds"))]
    Directory(PathBuf),
}

/// `bundle.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    mounts: Vec<WrittenMount>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMount {
    path: FunctionPath,
    component: String,
    #[serde(default)]
    options: Map<String, Value>,
}

/// One of its modules. It is in this program, and its artifact is made anew at each start: what
/// comes to lie in its place later is not used.
#[derive(Debug)]
struct Module {
    size: u64,
    stored: u64,
    kind: HandlerKind,
    imports: Vec<String>,
    declared: OptionsPatch,
    artifact: File,
    /// Which made it.
    engine: Fingerprint,
}

/// The bundle of this build, with what is known of its modules.
#[derive(Debug, Default)]
pub struct BuildBundle {
    /// As workers have it.
    pub mounts: Arc<Bundle>,
    modules: HashMap<ModuleDigest, Module>,
}

impl BuildBundle {
    /// What a tenant serves that has these functions of its own and changed that, by path.
    pub fn beneath(&self, own: &OwnFunctions) -> Vec<Served> {
        let kinds = own.live.iter().map(|row| (&row.path, row.options().resolve().path));
        let kinds: Vec<_> = kinds.collect();
        let mounted = self.mounts.beside(kinds, &own.over);
        let bundled = mounted.into_iter().map(|function| Served {
            yields: function.yields,
            set: function.set,
            ..self.served(function.mount)
        });
        let mut served: Vec<_> =
            bundled.chain(own.live.iter().cloned().map(Served::from)).collect();
        served.sort_by(|a, b| a.path.cmp(&b.path));
        served
    }

    /// One of its functions as nobody changed it.
    pub fn find(&self, path: &FunctionPath) -> Option<Served> {
        self.mounts.find(path).map(|mount| self.served(mount))
    }

    /// The paths of its functions, in lower case.
    pub fn folded(&self) -> Vec<String> {
        self.mounts.mounts.iter().map(|mount| mount.path.folded()).collect()
    }

    /// What of that is about this bundle: for the rest there is room in the store, and a manifest is
    /// bounded.
    pub fn changed(&self, over: &Over) -> Over {
        let known: HashSet<String> = self.folded().into_iter().collect();
        let mut changed = over.clone();
        changed.set.retain(|path, _| known.contains(&path.folded()));
        changed.removed.retain(|path| known.contains(&path.folded()));
        changed
    }

    pub fn version(&self) -> FunctionVersion {
        FunctionVersion::Bundled(self.mounts.build.clone())
    }

    /// The file that was made at the start, to be read from its beginning, and the engine that made
    /// it.
    pub(super) fn artifact(&self, sha256: ModuleDigest) -> io::Result<(File, Fingerprint)> {
        let Module { artifact, engine, .. } = &self.modules[&sha256];
        Ok((File::open(format!("/proc/self/fd/{}", artifact.as_raw_fd()))?, *engine))
    }

    fn served(&self, mount: &Mount) -> Served {
        let module = &self.modules[&mount.sha256];
        Served {
            path: mount.path.clone(),
            version: self.version(),
            sha256: mount.sha256,
            size: module.size,
            stored: module.stored,
            kind: module.kind,
            imports: module.imports.clone(),
            declared: mount.declared.clone(),
            uploaded: mount.options.clone(),
            set: OptionsPatch::default(),
            yields: false,
            created_at: None,
            created_by: "hearth".to_owned(),
        }
    }
}

impl Generations {
    /// Compiles what comes with this build. What is to be loaded before any worker is
    /// forked is told. To be called once, before anything is served.
    pub async fn assemble(&self, source: Source) -> Result<Bundled, GenerationError> {
        let read = move || -> Result<_, GenerationError> {
            Ok(match source {
                Source::Embedded => {
                    let components = embedded::COMPONENTS.iter();
                    let components = components.map(|(name, it)| (*name, it.to_vec()));
                    (embedded::BUNDLE.to_vec(), components.map(owned).collect())
                }
                Source::Directory(from) => {
                    let mut components = BTreeMap::new();
                    for entry in fs::read_dir(&from)? {
                        let path = entry?.path();
                        let name = path.file_name().and_then(|name| name.to_str());
                        let Some(name) = name.and_then(|it| it.strip_suffix(".wasm.zst")) else {
                            continue;
                        };
                        components.insert(name.to_owned(), fs::read(&path)?);
                    }
                    (fs::read(from.join("bundle.json"))?, components)
                }
            })
        };
        let (json, components): (Vec<u8>, BTreeMap<String, Vec<u8>>) = blocking(read).await?;
        let written: Written = serde_json::from_slice(&json).map_err(BundleError::Json)?;
        let names = components.keys().map(String::as_str).collect();
        check(&written, &names)?;
        let mut modules = HashMap::new();
        let mut named = HashMap::new();
        let mut artifacts = Vec::new();
        for (name, packed) in components {
            let (inner, owner) = (self.inner.clone(), Owner::Bundled);
            let turn = self.inner.compiler.turn(owner.id()).await;
            let most = MODULE_MAX_BYTES;
            let refused = |source: GenerationError| BundleError::Component {
                name: name.clone(),
                source: Box::new(source),
            };
            let ingested = blocking(move || inner.modules.ingest(&packed[..], most)).await;
            let mut arrived = ingested.map_err(|error| refused(error.into()))?;
            let (sha256, size, stored) = (arrived.sha256, arrived.size, arrived.stored);
            named.insert(name.clone(), sha256);
            // Two names may be of one component.
            if modules.contains_key(&sha256) {
                continue;
            }
            arrived.raw.rewind()?;
            let compiling = self.inner.clone().compile(owner, &turn, sha256, &arrived.raw, None);
            let (compiled, _) = compiling.await.map_err(refused)?;
            let declared = declared(&compiled).map_err(refused)?;
            let engine = compiled.engine;
            let path = self.inner.artifact(&Owner::Bundled, sha256, engine);
            let artifact = files::open(&path)?;
            artifacts.push((sha256, engine, artifact.try_clone()?.into()));
            let (kind, imports) = (compiled.kind, compiled.imports);
            let module = Module { size, stored, kind, imports, declared, artifact, engine };
            modules.insert(sha256, module);
        }
        let bundle = BuildBundle { mounts: Arc::new(mounted(written, &named, &modules)?), modules };
        let json = written_out(&bundle.mounts)?.into();
        self.inner.bundle.set(Arc::new(bundle)).expect("a build has one bundle");
        Ok(Bundled { json, artifacts, spares: SPARES })
    }

    /// What comes with this build.
    pub fn bundle(&self) -> &Arc<BuildBundle> {
        self.inner.bundle.get().expect("it is assembled before anything is served")
    }
}

fn owned((name, module): (&str, Vec<u8>)) -> (String, Vec<u8>) {
    (name.to_owned(), module)
}

/// For zygotes to read, this one and those after it.
fn written_out(bundle: &Bundle) -> Result<File, GenerationError> {
    let mut file = memory()?;
    file.write_all(&serde_json::to_vec(bundle).expect("it is plain data"))?;
    file.rewind()?;
    Ok(file)
}

fn check(written: &Written, components: &HashSet<&str>) -> Result<(), BundleError> {
    if written.mounts.len() > MOUNTS_MAX {
        return Err(BundleError::Mounts(written.mounts.len()));
    }
    if components.len() > COMPONENTS_MAX {
        return Err(BundleError::Components(components.len()));
    }
    let mut paths = HashSet::new();
    for WrittenMount { path, component, options: _ } in &written.mounts {
        if !paths.insert(path.folded()) {
            return Err(BundleError::Twice(path.clone()));
        }
        if !components.contains(&**component) {
            let component = component.clone();
            return Err(BundleError::NoComponent { path: path.clone(), component });
        }
    }
    let is_mounted = |name: &str| written.mounts.iter().any(|mount| mount.component == name);
    match components.iter().find(|name| !is_mounted(name)) {
        Some(name) => Err(BundleError::Nowhere((*name).to_owned())),
        None => Ok(()),
    }
}

fn mounted(
    written: Written,
    components: &HashMap<String, ModuleDigest>,
    modules: &HashMap<ModuleDigest, Module>,
) -> Result<Bundle, BundleError> {
    let mut mounts = Vec::new();
    for WrittenMount { path, component, options } in written.mounts {
        let sha256 = components[&component];
        let module = &modules[&sha256];
        let refused = |source| BundleError::Options { path: path.clone(), source };
        let options = OptionsPatch::from_object(options).map_err(refused)?;
        let declared = module.declared.clone();
        let both = options.clone().over(declared.clone());
        both.check(&Limits::default()).map_err(refused)?;
        mounts.push(Mount { path, sha256, kind: module.kind, declared, options });
    }
    mounts.sort_by(|a, b| a.path.cmp(&b.path));
    let said = serde_json::to_vec(&mounts).expect("it is plain data");
    let digest = BundleDigest::new(Sha256::digest(said).into());
    Ok(Bundle { digest, build: Build::this(), mounts })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(json: &str, components: &[&str]) -> Result<(), String> {
        let written: Written =
            serde_json::from_str(json).map_err(|error| format!("bundle.json: {error}"))?;
        check(&written, &components.iter().copied().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bundle_that_contradicts_itself_is_refused() {
        let mount = |path: &str| format!(r#"{{"path":"{path}","component":"a"}}"#);
        let of = |paths: &[&str]| {
            let mounts: Vec<_> = paths.iter().map(|path| mount(path)).collect();
            format!(r#"{{"mounts":[{}]}}"#, mounts.join(","))
        };
        assert_eq!(checked(&of(&["/a", "/b"]), &["a"]), Ok(()));
        let refused = |json: &str, components: &[&str], why: &str| {
            let said = checked(json, components).unwrap_err();
            assert!(said.contains(why), "{said}");
        };
        refused(&of(&["/a", "/A"]), &["a"], "/A is mounted twice");
        refused(&of(&["/a"]), &[], "no component a");
        refused(&of(&["/a"]), &["a", "b"], "b is mounted nowhere");
        refused(&of(&["/a b"]), &["a"], "bundle.json");
        refused(r#"{"mounts":[],"more":1}"#, &[], "bundle.json");
        let many: Vec<_> = (0..=MOUNTS_MAX).map(|it| format!("/p{it}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        refused(&of(&many), &["a"], "101 mounts");
    }

    #[test]
    fn what_this_build_brings_is_sound() {
        let written: Written = serde_json::from_slice(embedded::BUNDLE).unwrap();
        let names = embedded::COMPONENTS.iter().map(|(name, _)| *name).collect();
        check(&written, &names).unwrap();
        for mount in written.mounts {
            OptionsPatch::from_object(mount.options).unwrap();
        }
    }
}
