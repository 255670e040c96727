//! What comes with a build, and how a tenant's own functions are laid over it. Pure: the primary
//! lists by it what a tenant serves, and a worker serves by it.
//!
//! A bundle belongs to the build, so nothing of it is written for a tenant. A manifest says of it
//! only what the tenant's owner changed ([`Over`]), and names the bundle that it was written over;
//! where a later build has another one, that is what serves.
//!
//! What is a tenant's own goes first, so that no new build takes an address from it: a bundled
//! function is left out where an own one has its path, or takes what is below a path above it, and a
//! tenant's own root stays the root. Beside an own root all others are found, as ever.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{BundleDigest, ModuleDigest};
use crate::function::{HandlerKind, Version};
use crate::name::FunctionPath;
use crate::options::{OptionsPatch, PathMatch};

/// The version of a build, as its packages have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Build(String);

impl Build {
    pub const BYTES_MAX: usize = 64;

    /// Of the programs that this is part of.
    pub fn this() -> Self {
        Self(env!("CARGO_PKG_VERSION").to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a build's version is like 1.2.3")]
pub struct BuildError;

impl TryFrom<String> for Build {
    type Error = BuildError;

    fn try_from(text: String) -> Result<Self, BuildError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
        // So that it is no number, which is a version of the tenant's own.
        let is_build = text.starts_with(|first: char| first.is_ascii_digit())
            && text.contains('.')
            && text.len() <= Self::BYTES_MAX
            && text.bytes().all(is_plain);
        if is_build { Ok(Self(text)) } else { Err(BuildError) }
    }
}

impl From<Build> for String {
    fn from(Build(text): Build) -> String {
        text
    }
}

/// Which code of a function: a version that was uploaded, or what comes with a build. A number or
/// a text like `1.2.3`, wherever people read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FunctionVersion {
    Own(Version),
    Bundled(Build),
}

impl FunctionVersion {
    pub fn is_bundled(&self) -> bool {
        matches!(self, Self::Bundled(_))
    }

    /// What it takes beyond a number.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Bundled(Build(text)) => text.len(),
        }
    }
}

impl fmt::Display for FunctionVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(version) => version.fmt(f),
            Self::Bundled(Build(text)) => f.write_str(text),
        }
    }
}

impl From<Version> for FunctionVersion {
    fn from(version: Version) -> Self {
        Self::Own(version)
    }
}

/// Between processes, where a value does not say what it is.
#[derive(Serialize, Deserialize)]
enum Tagged {
    Own(Version),
    Bundled(Build),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Read {
    Own(Version),
    Bundled(Build),
}

impl Serialize for FunctionVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self, serializer.is_human_readable()) {
            (Self::Own(version), true) => version.serialize(serializer),
            (Self::Bundled(build), true) => build.serialize(serializer),
            (Self::Own(version), false) => Tagged::Own(*version).serialize(serializer),
            (Self::Bundled(build), false) => Tagged::Bundled(build.clone()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FunctionVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Ok(match Tagged::deserialize(deserializer)? {
                Tagged::Own(version) => Self::Own(version),
                Tagged::Bundled(build) => Self::Bundled(build),
            });
        }
        match Read::deserialize(deserializer) {
            Ok(Read::Own(version)) => Ok(Self::Own(version)),
            Ok(Read::Bundled(build)) => Ok(Self::Bundled(build)),
            Err(_) => Err(D::Error::custom("a version is a number, or a build's, like 1.2.3")),
        }
    }
}

/// Which code of a function is wanted: a version of the tenant's own by its number, or `bundled`,
/// whatever this build has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Own(Version),
    Bundled,
}

impl Wanted {
    const BUNDLED: &str = "bundled";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version is a number from 1 on, or `bundled` for what comes with Hearth")]
pub struct WantedError;

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        match text {
            Self::BUNDLED => Ok(Self::Bundled),
            number => number.parse().map(Self::Own).map_err(|_| WantedError),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(version) => version.fmt(f),
            Self::Bundled => f.write_str(Self::BUNDLED),
        }
    }
}

impl Serialize for Wanted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Own(version) => version.serialize(serializer),
            Self::Bundled => Self::BUNDLED.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Number(Version),
            Word(String),
        }
        match Said::deserialize(deserializer) {
            Ok(Said::Number(version)) => Ok(Self::Own(version)),
            Ok(Said::Word(word)) if word == Self::BUNDLED => Ok(Self::Bundled),
            Ok(Said::Word(_)) | Err(_) => Err(D::Error::custom(WantedError)),
        }
    }
}

/// The functions that come with a build: which component is mounted where, with which options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    pub digest: BundleDigest,
    pub build: Build,
    /// In the order of their paths; no two that differ only in case.
    pub mounts: Vec<Mount>,
}

impl Default for Bundle {
    /// Nothing.
    fn default() -> Self {
        Self { digest: BundleDigest::new([0; 32]), build: Build::this(), mounts: Vec::new() }
    }
}

/// One component at one path. The same one may be at others, with other options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub path: FunctionPath,
    pub sha256: ModuleDigest,
    pub kind: HandlerKind,
    /// By the module.
    pub declared: OptionsPatch,
    /// By the bundle, over that.
    pub options: OptionsPatch,
}

/// What a tenant's owner changed of what is bundled. Paths are as they were written last, and may
/// be those of no function that there is: an earlier build had it, or a later one will.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Over {
    /// Over the options that module and bundle say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<FunctionPath, OptionsPatch>,
    /// Not served.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed: BTreeSet<FunctionPath>,
}

impl Over {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A bundled function as one tenant has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted<'a> {
    pub mount: &'a Mount,
    pub set: OptionsPatch,
    /// It would be the root, and another function is.
    pub yields: bool,
}

impl Mounted<'_> {
    /// All layers, the one set last on top.
    pub fn options(&self) -> OptionsPatch {
        let Mount { declared, options, .. } = self.mount;
        let all = OptionsPatch::of_layers(declared, options, &self.set);
        if self.yields { all.without_root() } else { all }
    }

    fn kind(&self) -> PathMatch {
        let Mount { declared, options, .. } = self.mount;
        self.set.path.or(options.path).or(declared.path).unwrap_or_default()
    }
}

impl Bundle {
    pub fn find(&self, path: &FunctionPath) -> Option<&Mount> {
        let folded = path.folded();
        self.mounts.iter().find(|mount| mount.path.folded() == folded)
    }

    /// What is served of it beside a tenant's own functions, in the order of paths.
    pub fn beside<'a, 'o>(
        &'a self,
        own: impl IntoIterator<Item = (&'o FunctionPath, PathMatch)>,
        over: &Over,
    ) -> Vec<Mounted<'a>> {
        let (mut taken, mut above, mut root) = (HashSet::new(), Vec::new(), false);
        for (path, kind) in own {
            root |= kind == PathMatch::Root;
            if kind.takes_below() {
                above.push(path.folded() + "/");
            }
            taken.insert(path.folded());
        }
        taken.extend(over.removed.iter().map(FunctionPath::folded));
        let set: BTreeMap<_, _> = over.set.iter().map(|(path, set)| (path.folded(), set)).collect();
        let mounted = self.mounts.iter().filter_map(|mount| {
            let folded = mount.path.folded();
            let is_left_out =
                taken.contains(&folded) || above.iter().any(|above| folded.starts_with(above));
            let set = set.get(&folded).copied().cloned().unwrap_or_default();
            (!is_left_out).then_some(Mounted { mount, set, yields: false })
        });
        let mut mounted: Vec<_> = mounted.collect();
        // What its owner made the root goes before what the bundle says.
        mounted.sort_by_key(|it| it.set.path != Some(PathMatch::Root));
        for function in mounted.iter_mut().filter(|function| function.kind() == PathMatch::Root) {
            function.yields = std::mem::replace(&mut root, true);
        }
        mounted.sort_by(|a, b| a.mount.path.cmp(&b.mount.path));
        mounted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FunctionPath {
        text.parse().unwrap()
    }

    fn options(text: &str) -> OptionsPatch {
        OptionsPatch::parse(text).unwrap()
    }

    fn bundle(mounts: &[(&str, &str)]) -> Bundle {
        let mounts = mounts.iter().map(|(at, said)| Mount {
            path: path(at),
            sha256: ModuleDigest::new([1; 32]),
            kind: HandlerKind::Handler,
            declared: options(r#"{"auth":"deploy","description":"declared"}"#),
            options: options(said),
        });
        Bundle { mounts: mounts.collect(), ..Bundle::default() }
    }

    fn served(bundle: &Bundle, own: &[(&str, PathMatch)], over: &Over) -> Vec<(String, PathMatch)> {
        let own: Vec<_> = own.iter().map(|(at, kind)| (path(at), *kind)).collect();
        let mounted = bundle.beside(own.iter().map(|(path, kind)| (path, *kind)), over);
        let told = mounted.iter();
        told.map(|it| (it.mount.path.to_string(), it.options().resolve().path)).collect()
    }

    #[test]
    fn what_is_a_tenants_own_goes_first() {
        use PathMatch::{Exact, Prefix, Root};
        let bundle = bundle(&[
            ("/a", "{}"),
            ("/hb", r#"{"path":"prefix"}"#),
            ("/hb/ping", "{}"),
            ("/site", r#"{"path":"root"}"#),
        ]);
        let all = [("/a", Exact), ("/hb", Prefix), ("/hb/ping", Exact), ("/site", Root)];
        let told = |these: &[(&str, PathMatch)]| -> Vec<(String, PathMatch)> {
            these.iter().map(|(path, kind)| ((*path).to_owned(), *kind)).collect()
        };
        let without = Over::default();
        let at = |own: &[(&str, PathMatch)]| served(&bundle, own, &without);
        assert_eq!(at(&[]), told(&all));
        assert_eq!(at(&[("/b", Exact), ("/hb/ping/deep", Exact)]), told(&all));
        // One path, however it is written.
        assert_eq!(at(&[("/A", Exact)]), told(&all[1..]));
        // What is below an own prefix stays its own; an exact one takes its own path alone.
        assert_eq!(at(&[("/hb", Prefix)]), told(&[all[0], all[3]]));
        assert_eq!(at(&[("/hb", Exact)]), told(&[all[0], all[2], all[3]]));
        assert_eq!(at(&[("/h", Prefix)]), told(&all));
        // There is one root, and it is the tenant's.
        assert_eq!(at(&[("/z", Root)]), told(&[all[0], all[1], all[2], ("/site", Prefix)]));
        assert_eq!(at(&[("/hb", Root)]), told(&[all[0], ("/site", Prefix)]));
    }

    #[test]
    fn what_the_owner_changed_is_laid_over_it() {
        let bundle =
            bundle(&[("/a", r#"{"auth":"owner","reuse":7}"#), ("/b", r#"{"path":"root"}"#)]);
        let mut over = Over::default();
        over.set.insert(path("/A"), options(r#"{"auth":"invoke","path":"root"}"#));
        over.set.insert(path("/nix"), options(r#"{"path":"root"}"#));
        let mounted = bundle.beside([], &over);
        let a = mounted[0].options().resolve();
        assert_eq!((a.auth.to_string().as_str(), a.reuse, a.path), ("invoke", 7, PathMatch::Root));
        assert_eq!(a.description, "declared");
        // What its owner made the root goes before what the bundle says.
        assert_eq!(mounted[1].options().resolve().path, PathMatch::Prefix);
        over.removed.insert(path("/a"));
        over.removed.insert(path("/gone"));
        let left = bundle.beside([], &over);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].options().resolve().path, PathMatch::Root);
    }

    #[test]
    fn a_version_is_a_number_or_a_builds() {
        for (version, json) in [
            (FunctionVersion::Own(3), "3"),
            (
                FunctionVersion::Bundled("1.2.3-rc.1+x".to_owned().try_into().unwrap()),
                "\"1.2.3-rc.1+x\"",
            ),
        ] {
            assert_eq!(serde_json::to_string(&version).unwrap(), json);
            assert_eq!(serde_json::from_str::<FunctionVersion>(json).unwrap(), version);
            let bytes = postcard::to_allocvec(&version).unwrap();
            assert_eq!(postcard::from_bytes::<FunctionVersion>(&bytes).unwrap(), version);
            assert_eq!(format!("\"{version}\"").replace("\"3\"", "3"), json);
        }
        for not in ["\"3\"", "\"\"", "\"1.2 3\"", "\"v1.2\"", "-1", "null", "\"1.\\u001b\""] {
            assert!(serde_json::from_str::<FunctionVersion>(not).is_err(), "{not}");
        }
        assert!(Build::try_from("1.".repeat(33)).is_err());
        assert_eq!(Build::try_from(Build::this().0).unwrap(), Build::this());
    }

    #[test]
    fn what_is_wanted_is_a_number_or_the_bundled_one() {
        for (wanted, text, json) in
            [(Wanted::Own(3), "3", "3"), (Wanted::Bundled, "bundled", "\"bundled\"")]
        {
            assert_eq!(text.parse(), Ok(wanted));
            assert_eq!(wanted.to_string(), text);
            assert_eq!(serde_json::to_string(&wanted).unwrap(), json);
            assert_eq!(serde_json::from_str::<Wanted>(json).unwrap(), wanted);
        }
        for not in ["", "Bundled", "0.1.0", "-1", "3x"] {
            assert_eq!(not.parse::<Wanted>(), Err(WantedError), "{not}");
        }
    }
}
