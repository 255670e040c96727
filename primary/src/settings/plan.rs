//! What a change of a tenant's settings comes to: what is set and what is removed, or why it cannot be.
//! Pure.

use std::collections::BTreeMap;

use hearth_wire::{SettingKind, SettingName, SettingValue, limits};

use super::error::SettingsError;
use crate::store::{Kept, SettingRow};

/// Of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub kind: SettingKind,
    pub set: Vec<(SettingName, SettingValue)>,
    pub removed: Vec<SettingName>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    pub fn touches(&self, name: &SettingName) -> bool {
        self.removed.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }
}

/// What is `None` is removed. Configuration that is so already is left out; of a secret nobody knows.
pub fn plan(
    rows: &[SettingRow],
    kind: SettingKind,
    changes: BTreeMap<SettingName, Option<SettingValue>>,
) -> Result<Plan, SettingsError> {
    let mut plan = Plan { kind, set: Vec::new(), removed: Vec::new() };
    for (name, value) in changes {
        let found = rows.iter().find(|row| row.name == name).map(|row| &row.kept);
        if let Some(kept) = found
            && kept.kind() != kind
        {
            return Err(match kept.kind() {
                SettingKind::Config => SettingsError::IsConfig(name),
                SettingKind::Secret => SettingsError::IsSecret(name),
            });
        }
        match (value, found) {
            (Some(value), _) if !value.fits() => return Err(SettingsError::Value(name)),
            (Some(value), Some(Kept::Config(before))) if *before == value.as_str() => {}
            (Some(value), _) => plan.set.push((name, value)),
            (None, Some(_)) => plan.removed.push(name),
            (None, None) => {
                return Err(match kind {
                    SettingKind::Config => SettingsError::NoConfig(name),
                    SettingKind::Secret => SettingsError::NoSecret(name),
                });
            }
        }
    }
    bound(rows, &plan)?;
    Ok(plan)
}

fn bound(rows: &[SettingRow], plan: &Plan) -> Result<(), SettingsError> {
    let size = |name: &SettingName, value: usize| name.as_str().len() + value;
    let stays = rows.iter().filter(|row| !plan.touches(&row.name));
    let stays = stays.map(|row| size(&row.name, row.kept.length()));
    let set = plan.set.iter().map(|(name, value)| size(name, value.as_str().len()));
    let sizes: Vec<usize> = stays.chain(set).collect();
    if sizes.len() > limits::SETTINGS_MAX {
        return Err(SettingsError::TooMany);
    }
    match sizes.iter().sum::<usize>() > limits::SETTINGS_MAX_BYTES {
        true => Err(SettingsError::TooLarge),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::sealing::{KeyId, OVERHEAD_BYTES};
    use crate::store::Sealed;
    use SettingKind::{Config, Secret};

    fn name(text: &str) -> SettingName {
        text.parse().unwrap()
    }

    fn row(of: &str, kept: Kept) -> SettingRow {
        SettingRow { name: name(of), kept, set_at: Timestamp::UNIX_EPOCH }
    }

    fn config(of: &str, value: &str) -> SettingRow {
        row(of, Kept::Config(value.to_owned()))
    }

    fn secret(of: &str, length: usize) -> SettingRow {
        let bytes = vec![0; length + OVERHEAD_BYTES];
        row(of, Kept::Secret(Sealed { by: KeyId::new([0; 8]), bytes }))
    }

    fn planned(
        rows: &[SettingRow],
        kind: SettingKind,
        changes: &[(&str, Option<&str>)],
    ) -> Result<(Vec<String>, Vec<String>), String> {
        let changes = changes
            .iter()
            .map(|(of, value)| (name(of), value.map(|value| SettingValue::from(value.to_owned()))));
        let plan = plan(rows, kind, changes.collect()).map_err(|error| error.to_string())?;
        let set = plan.set.iter().map(|(of, value)| format!("{of}={}", value.as_str()));
        let removed = plan.removed.iter().map(ToString::to_string);
        Ok((set.collect(), removed.collect()))
    }

    #[test]
    fn what_is_other_is_set_and_what_is_null_goes() {
        let rows = [config("a", "1"), config("b", "2"), secret("K", 9)];
        let changes = [("a", Some("1")), ("b", None), ("c", Some("")), ("d", Some("4"))];
        let (set, removed) = planned(&rows, Config, &changes).unwrap();
        assert_eq!((set, removed), (vec!["c=".into(), "d=4".into()], vec!["b".into()]));
        let (set, removed) = planned(&rows, Secret, &[("K", Some("x")), ("L", Some("y"))]).unwrap();
        assert_eq!((set, removed), (vec!["K=x".into(), "L=y".into()], vec![]));
        assert_eq!(planned(&rows, Config, &[]).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_name_is_one_or_the_other() {
        let rows = [config("a", "1"), secret("K", 9)];
        for (kind, changes, said) in [
            (Config, [("K", Some("x"))], "K is a secret of this tenant already"),
            (Config, [("K", None)], "K is a secret"),
            (Secret, [("a", Some("x"))], "a is configuration of this tenant already"),
            (Secret, [("a", None)], "a is configuration"),
            (Secret, [("b", None)], "there is no secret b"),
            (Config, [("b", None)], "there is no configuration b"),
        ] {
            let refused = planned(&rows, kind, &changes).unwrap_err();
            assert!(refused.starts_with(said), "{refused}");
        }
    }

    #[test]
    fn every_bound_holds_at_its_edge() {
        let long = "x".repeat(limits::SETTING_VALUE_MAX_BYTES);
        assert!(planned(&[], Secret, &[("a", Some(&long))]).is_ok());
        let longer = format!("{long}x");
        let refused = planned(&[], Secret, &[("a", Some(&longer))]).unwrap_err();
        assert_eq!(refused, "the value of a is above 16 KiB");

        let many: Vec<_> = (0..limits::SETTINGS_MAX).map(|n| secret(&format!("n{n}"), 1)).collect();
        assert!(planned(&many, Secret, &[("n0", Some("x"))]).is_ok());
        assert!(planned(&many, Config, &[("a", Some("x"))]).unwrap_err().contains("256 names"));
        assert!(planned(&many[1..], Config, &[("a", Some("x"))]).is_ok());

        // 15 of them whole, and what is left with their names.
        let whole: Vec<_> =
            (10..25).map(|n| secret(&format!("n{n}"), limits::SETTING_VALUE_MAX_BYTES)).collect();
        let names = 15 * 3 + 1;
        let left = limits::SETTINGS_MAX_BYTES - 15 * limits::SETTING_VALUE_MAX_BYTES - names;
        let (rest, more) = ("x".repeat(left), "x".repeat(left + 1));
        assert!(planned(&whole, Secret, &[("r", Some(&rest))]).is_ok());
        let refused = planned(&whole, Secret, &[("r", Some(&more))]).unwrap_err();
        assert!(refused.contains("256 KiB together"), "{refused}");
        assert!(planned(&whole, Secret, &[("r", Some(&more)), ("n10", None)]).is_ok());
    }
}
