//! What a rollback goes back to. Pure.

use hearth_wire::{FunctionPath, Version, Wanted};

use super::error::UploadError;
use crate::store::FunctionRow;

/// What serves after a rollback to `to`, or to what was before: of these versions that are kept, the
/// newest first, and of what is bundled at that path, which is before all of them.
pub fn before(
    path: &FunctionPath,
    row: Option<&FunctionRow>,
    versions: &[Version],
    is_bundled: bool,
    to: Option<Wanted>,
) -> Result<Wanted, UploadError> {
    let path = || path.clone();
    let newest = versions.first().copied();
    match to {
        Some(Wanted::Own(version)) if versions.contains(&version) => Ok(Wanted::Own(version)),
        Some(Wanted::Own(version)) => Err(UploadError::NoVersion { path: path(), version }),
        Some(Wanted::Bundled) if is_bundled => Ok(Wanted::Bundled),
        Some(Wanted::Bundled) => Err(UploadError::NotBundled(path())),
        None => {
            let (active, removed, hidden) =
                row.map_or((None, None, None), |row| (row.active, row.removed_at, row.hidden_at));
            if let Some(active) = active {
                let older = versions.iter().find(|version| **version < active).copied();
                return match older {
                    Some(older) => Ok(Wanted::Own(older)),
                    None if is_bundled && hidden.is_none() => Ok(Wanted::Bundled),
                    None => Err(UploadError::NoOlder { path: path(), active: Wanted::Own(active) }),
                };
            }
            // What was removed last comes back, and was active then.
            match (newest, removed, hidden) {
                (Some(newest), Some(removed), hidden) if hidden.is_none_or(|it| it <= removed) => {
                    Ok(Wanted::Own(newest))
                }
                (_, _, Some(_)) if is_bundled => Ok(Wanted::Bundled),
                (_, _, None) if is_bundled => {
                    Err(UploadError::NoOlder { path: path(), active: Wanted::Bundled })
                }
                (Some(newest), ..) => Ok(Wanted::Own(newest)),
                (None, ..) => Err(UploadError::NoFunction(path())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::OptionsPatch;
    use jiff::Timestamp;

    fn told(row: (Option<Version>, Option<i64>, Option<i64>), versions: &[Version]) -> String {
        let (active, removed, hidden) = row;
        let at = |at| Timestamp::from_millisecond(at).unwrap();
        let path: FunctionPath = "/a".parse().unwrap();
        let row = FunctionRow {
            path: path.clone(),
            active,
            set: OptionsPatch::default(),
            removed_at: removed.map(at),
            hidden_at: hidden.map(at),
        };
        let said = |is_bundled| match before(&path, Some(&row), versions, is_bundled, None) {
            Ok(wanted) => wanted.to_string(),
            Err(error) => error.to_string(),
        };
        format!("{} | {}", said(true), said(false))
    }

    #[test]
    fn what_was_before() {
        // The tenant's own: the one before it, and before all of them what is bundled.
        assert_eq!(told((Some(3), None, None), &[4, 3, 1]), "1 | 1");
        assert_eq!(told((Some(1), None, None), &[2, 1]), "bundled | /a has no version before 1");
        // What was taken away does not come back by itself.
        let none = "/a has no version before 1 | /a has no version before 1";
        assert_eq!(told((Some(1), None, Some(7)), &[1]), none);
        // A removal is taken back, the last one first.
        assert_eq!(told((None, Some(7), None), &[2, 1]), "2 | 2");
        assert_eq!(told((None, Some(7), Some(7)), &[2, 1]), "2 | 2");
        assert_eq!(told((None, Some(7), Some(8)), &[2, 1]), "bundled | 2");
        assert_eq!(told((None, None, Some(8)), &[]), "bundled | there is no function at /a");
        // What is bundled serves, and nothing is before it. Where no build has it any more, the
        // newest that there was comes back.
        assert_eq!(told((None, None, None), &[2, 1]), "/a has no version before bundled | 2");
    }

    #[test]
    fn what_is_named_is_had_or_refused() {
        let path: FunctionPath = "/a".parse().unwrap();
        let to = |wanted: &str, is_bundled| {
            let wanted = wanted.parse().unwrap();
            match before(&path, None, &[2], is_bundled, Some(wanted)) {
                Ok(wanted) => wanted.to_string(),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(to("2", true), "2");
        assert_eq!(to("3", true), "/a has no version 3");
        assert_eq!(to("bundled", true), "bundled");
        assert_eq!(to("bundled", false), "no function at /a comes with Hearth");
    }
}
