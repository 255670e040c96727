//! Back to an earlier generation: its functions and what was set for them, together or not at all.
//! Configuration, secrets and limits are the tenant's and not a generation's, and stay. What is
//! bundled is the build's: of that comes back what the tenant's owner had changed of it.

use std::collections::{BTreeMap, HashMap};

use hearth_wire::{FunctionPath, FunctionVersion, GenerationNumber, OptionsPatch, Version};

use super::Uploads;
use super::answers::{Returned, ReturnedFunction};
use super::error::UploadError;
use super::plan::{Planned, count_functions};
use crate::actor::Author;
use crate::generations;
use crate::store::{
    Cause, Change, FunctionRow, OwnFunctions, Past, PastFunction, Tenant, VersionRow,
};

/// The versions that are kept of each function, by its path in lower case.
type Kept = HashMap<String, Vec<VersionRow>>;

impl Uploads {
    /// Serves what an earlier generation served, as a new one.
    pub async fn return_to(
        &self,
        tenant: &Tenant,
        generation: GenerationNumber,
        by: &Author,
    ) -> Result<Returned, UploadError> {
        let rolled_back_to = generation;
        let planned = self.plan_return(tenant, generation).await;
        let (functions, generation, swap) = self.carry_out(tenant, planned, by).await?;
        let swap_ms = swap.as_millis() as u64;
        Ok(Returned { generation, rolled_back_to, functions, swap_ms })
    }

    /// With what becomes other by that.
    async fn plan_return(
        &self,
        tenant: &Tenant,
        generation: GenerationNumber,
    ) -> Result<(Planned, Vec<ReturnedFunction>), UploadError> {
        let (tenant, changing) = self.lock(tenant).await?;
        let past = match self.store.past(tenant.id, generation).await? {
            Past::Nothing => return Err(UploadError::NoGeneration(generation)),
            Past::Name => return Err(UploadError::ForgottenGeneration(generation)),
            Past::Whole(past) => past,
        };
        let mut kept = Kept::new();
        for (folded, function) in past.iter().filter(|(_, function)| function.version.is_some()) {
            let versions = self.store.versions(tenant.id, &function.path).await?;
            kept.insert(folded.clone(), versions);
        }
        let now = self.store.functions(tenant.id).await?;
        let bundle = self.generations.bundle().clone();
        let is_bundled = |path: &FunctionPath| bundle.find(path).is_some();
        let back = back(now, past, kept, is_bundled);
        let Back { own, changes, switched } = back.map_err(|(path, version)| {
            UploadError::BrokenGeneration { generation, path, version }
        })?;
        for version in switched {
            self.generations.must_be_whole(&tenant, &version.into()).await?;
        }
        count_functions(&tenant, &own)?;
        let served = bundle.beneath(&own);
        let returned = |change: &Change| match change {
            Change::Return { path, .. } => {
                let serves = generations::one(&served, path);
                let version: Option<FunctionVersion> = serves.map(|it| it.version.clone());
                Some(ReturnedFunction { path: path.clone(), version })
            }
            _ => None,
        };
        let functions = changes.iter().filter_map(returned).collect();
        let cause = Cause::Return(generation);
        Ok((Planned { tenant, changing, own, changes, cause }, functions))
    }
}

/// What a tenant has once an earlier generation serves again.
#[derive(Debug)]
struct Back {
    own: OwnFunctions,
    /// By path.
    changes: Vec<Change>,
    /// Versions that serve then and do not now.
    switched: Vec<VersionRow>,
}

/// Of what it has now, what it had then, and the versions that are kept. Fails with the first version
/// that is not.
fn back(
    now: Vec<FunctionRow>,
    then: BTreeMap<String, PastFunction>,
    mut kept: Kept,
    is_bundled: impl Fn(&FunctionPath) -> bool,
) -> Result<Back, (FunctionPath, Version)> {
    let mut now: BTreeMap<_, _> = now.into_iter().map(|row| (row.path.folded(), row)).collect();
    let mut all: BTreeMap<_, _> = now
        .iter()
        .map(|(folded, row)| (folded.clone(), PastFunction::untouched(row.path.clone())))
        .collect();
    all.extend(then);
    let mut back = Back { own: OwnFunctions::default(), changes: Vec::new(), switched: Vec::new() };
    for (folded, PastFunction { path, version, hidden, set, gone }) in all {
        let (active, was_hidden, was_set) = match now.remove(&folded) {
            Some(row) => (row.active, row.hidden_at.is_some(), row.set),
            None => (None, false, OptionsPatch::default()),
        };
        match version {
            Some(version) => {
                let kept = kept.remove(&folded).unwrap_or_default();
                let row = kept.into_iter().find(|row| !gone && row.version == version);
                let row = row.ok_or_else(|| (path.clone(), version))?;
                let row = VersionRow { path: path.clone(), set: set.clone(), ..row };
                if active != Some(version) {
                    back.switched.push(row.clone());
                }
                back.own.live.push(row);
            }
            None if hidden => drop(back.own.over.removed.insert(path.clone())),
            None if set != OptionsPatch::default() => {
                drop(back.own.over.set.insert(path.clone(), set.clone()));
            }
            None => {}
        }
        let is_bundled = is_bundled(&path);
        // Options of what serves neither then nor now are nobody's.
        let is_other = (active, was_hidden) != (version, hidden)
            || set != was_set && (version.is_some() || is_bundled);
        if is_other {
            let removed = version.is_none() && (hidden || !is_bundled);
            let options = set;
            back.changes.push(Change::Return { path, version, hidden, options, removed });
        }
    }
    Ok(back)
}

#[cfg(test)]
mod tests {
    use hearth_wire::{HandlerKind, ModuleDigest};
    use jiff::Timestamp;

    use super::*;

    fn path(path: &str) -> FunctionPath {
        path.parse().unwrap()
    }

    fn options(text: &str) -> OptionsPatch {
        OptionsPatch::parse(text).unwrap()
    }

    fn row(at: &str, version: Version) -> VersionRow {
        VersionRow {
            path: path(at),
            version,
            sha256: ModuleDigest::new([version as u8; 32]),
            size: 9,
            stored: 8,
            kind: HandlerKind::Handler,
            imports: vec![],
            declared: OptionsPatch::default(),
            uploaded: OptionsPatch::default(),
            set: OptionsPatch::default(),
            created_at: Timestamp::UNIX_EPOCH,
            created_by: "ci".to_owned(),
        }
    }

    /// As it is written: its path, its active version, `-` where it is hidden, and its `auth`.
    type Written<'a> = (&'a str, Option<Version>, &'a str, Option<&'a str>);

    fn set(auth: Option<&str>) -> OptionsPatch {
        auth.map_or_else(OptionsPatch::default, |auth| options(&format!(r#"{{"auth":"{auth}"}}"#)))
    }

    /// What changes, and what the tenant then has, where each function has the versions 1 to 3 and
    /// `/bundled` comes with the build.
    fn told(now: &[Written<'_>], then: &[Written<'_>]) -> (Vec<String>, Vec<String>) {
        let at = |is_hidden: &str| (is_hidden == "-").then_some(Timestamp::UNIX_EPOCH);
        let rows = now.iter().map(|(at_path, active, hidden, auth)| FunctionRow {
            path: path(at_path),
            active: *active,
            set: set(*auth),
            removed_at: None,
            hidden_at: at(hidden),
        });
        let past = then.iter().map(|(at_path, version, hidden, auth)| {
            let (path, hidden) = (path(at_path), *hidden == "-");
            let past =
                PastFunction { path, version: *version, hidden, set: set(*auth), gone: false };
            (past.path.folded(), past)
        });
        let kept = then
            .iter()
            .map(|(at, ..)| (path(at).folded(), vec![row(at, 3), row(at, 2), row(at, 1)]));
        let is_bundled = |path: &FunctionPath| path.as_str() == "/bundled";
        let back = back(rows.collect(), past.collect(), kept.collect(), is_bundled).unwrap();
        let changes = back.changes.iter().map(|change| {
            let Change::Return { path, version, hidden, options, removed } = change else {
                panic!("{change:?}")
            };
            let version = version.map_or("none".to_owned(), |version| version.to_string());
            let mut told = format!("{path} {version}");
            for (is_so, word) in [
                (*hidden, "hidden"),
                (*removed, "removed"),
                (*options != OptionsPatch::default(), "set"),
            ] {
                if is_so {
                    told += &format!(" {word}");
                }
            }
            told
        });
        let live = back.own.live.iter().map(|row| {
            let set = if row.set == OptionsPatch::default() { "" } else { " set" };
            format!("{}@{}{set}", row.path, row.version)
        });
        let removed = back.own.over.removed.iter().map(|path| format!("{path} removed"));
        let over = back.own.over.set.keys().map(|path| format!("{path} set"));
        (changes.collect(), live.chain(removed).chain(over).collect())
    }

    #[test]
    fn what_was_comes_back_and_what_was_not_goes() {
        let nothing: &[&str] = &[];
        for (now, then, changes, own) in [
            (&[][..], &[][..], nothing, nothing),
            // As it is.
            (
                &[("/a", Some(2), "", Some("owner"))],
                &[("/a", Some(2), "", Some("owner"))],
                &[],
                &["/a@2 set"],
            ),
            (&[("/a", Some(2), "", None)], &[("/a", Some(1), "", None)], &["/a 1"], &["/a@1"]),
            // Other options alone.
            (
                &[("/a", Some(2), "", None)],
                &[("/a", Some(2), "", Some("owner"))],
                &["/a 2 set"],
                &["/a@2 set"],
            ),
            // It was removed since, came since, and one goes by another spelling.
            (
                &[("/a", None, "", None), ("/b", Some(1), "", Some("owner"))],
                &[("/a", Some(3), "", None)],
                &["/a 3", "/b none removed"],
                &["/a@3"],
            ),
            (&[("/a", None, "", None)], &[("/A", Some(3), "", None)], &["/A 3"], &["/A@3"]),
            // What is bundled: mounted over since, hidden then, hidden since, set then.
            (&[("/bundled", Some(1), "", Some("owner"))], &[], &["/bundled none"], &[]),
            (
                &[("/bundled", Some(1), "", None)],
                &[("/bundled", None, "-", None)],
                &["/bundled none hidden removed"],
                &["/bundled removed"],
            ),
            (&[("/bundled", None, "-", None)], &[], &["/bundled none"], &[]),
            (
                &[],
                &[("/bundled", None, "", Some("owner"))],
                &["/bundled none set"],
                &["/bundled set"],
            ),
            // What served neither then nor now stays as it is, whatever was set for it.
            (&[("/a", None, "", Some("owner"))], &[], &[], &[]),
        ] {
            let (changed, had) = told(now, then);
            assert_eq!((&changed[..], &had[..]), (&owned(changes)[..], &owned(own)[..]), "{now:?}");
        }
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn a_version_that_is_gone_keeps_all_of_it_from_coming_back() {
        let past = |version, gone| {
            let set = OptionsPatch::default();
            let past =
                PastFunction { path: path("/a"), version: Some(version), hidden: false, set, gone };
            BTreeMap::from([("/a".to_owned(), past)])
        };
        let kept = || Kept::from([("/a".to_owned(), vec![row("/a", 2)])]);
        for (version, gone, comes) in [(2, false, true), (1, false, false), (2, true, false)] {
            let back = back(vec![], past(version, gone), kept(), |_| false);
            match back {
                Ok(back) => assert!(comes && back.switched == back.own.live, "{version}"),
                Err(missing) => {
                    assert!(!comes, "{version}");
                    assert_eq!(missing, (path("/a"), version));
                }
            }
        }
    }
}
