//! `hearth config`: a tenant's configuration, which its functions read by name.

use std::collections::BTreeMap;

use hearth_wire::SettingName;
use hearth_wire::limits::SETTING_VALUE_MAX_BYTES;

use super::client::{Host, PAGE_MAX};
use super::error::{CliError, usage};
use super::print::{Print, Table, seconds};
use crate::api::settings::{ConfigChanges, ConfigList, SettingsChanged};
use crate::config::ClientArgs;
use crate::terminal::complain;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Functions read it through wasi:config, as variables of Spin, or with config::get of the SDK. Anybody who may look at the tenant may read it: what is secret is set with `hearth secret set`. A change applies at once, and no connection is lost.\n\nExample:\n  hearth config --tenant demo\n  hearth config region=eu greeting='Good day'\n  hearth config --rm greeting"
)]
pub struct ConfigArgs {
    /// Configuration to set, as NAME=VALUE
    #[arg(value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Configuration to remove; may be given again
    #[arg(long, value_name = "NAME")]
    rm: Vec<SettingName>,
}

pub fn run(args: &ConfigArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let changes = changes(args)?;
    let host = Host::connect(client)?;
    let path = host.of_tenant("/config")?;
    if changes.is_empty() {
        let answer = host.get(&format!("{path}?limit={PAGE_MAX}"))?;
        return print.answer::<ConfigList>(&answer, |list, out| {
            let mut table = Table::new(["name", "value", "set"]);
            for config in list.config {
                table.row([&config.name, &config.value, &seconds(config.set_at)]);
            }
            table.write(out, "There is no configuration.")
        });
    }
    let config = changes.into_iter().map(|(name, value)| (name, value.map(Into::into)));
    let answer = host.patch(&path, &ConfigChanges { config: config.collect() })?;
    tell(&answer.parse()?);
    print.answer::<SettingsChanged>(&answer, |changed, out| {
        let SettingsChanged { set, removed, unserved: _ } = changed;
        if set.is_empty() && removed.is_empty() {
            return writeln!(out, "It is so already.");
        }
        for name in set {
            writeln!(out, "Set {name}.")?;
        }
        for name in removed {
            writeln!(out, "Removed {name}.")?;
        }
        Ok(())
    })
}

/// On standard error: that nothing serves must be seen even where nobody reads the rest.
pub fn tell(changed: &SettingsChanged) {
    if let Some(why) = &changed.unserved {
        complain(format_args!("it is kept, and {why}"));
    }
}

fn changes(args: &ConfigArgs) -> Result<BTreeMap<SettingName, Option<String>>, CliError> {
    let mut changes = BTreeMap::new();
    let removed = args.rm.iter().map(|name| Ok((name.clone(), None)));
    for change in args.set.iter().map(|text| parse(text)).chain(removed) {
        let (name, value) = change?;
        if changes.contains_key(&name) {
            return Err(usage(format!("{name} is named twice")));
        }
        changes.insert(name, value);
    }
    Ok(changes)
}

fn parse(text: &str) -> Result<(SettingName, Option<String>), CliError> {
    let wrong = || usage(format!("{text:?} is not a valid NAME=VALUE, like region=eu"));
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let name: SettingName = name.parse().map_err(|error| usage(format!("{name:?}: {error}")))?;
    match value.len() <= SETTING_VALUE_MAX_BYTES {
        true => Ok((name, Some(value.to_owned()))),
        false => {
            let most = SETTING_VALUE_MAX_BYTES >> 10;
            Err(usage(format!("the value of {name} is above {most} KiB")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(set: &[&str], rm: &[&str]) -> Result<Vec<(String, Option<String>)>, String> {
        let set = set.iter().map(ToString::to_string).collect();
        let args = ConfigArgs { set, rm: rm.iter().map(|name| name.parse().unwrap()).collect() };
        let changes = changes(&args).map_err(|error| error.to_string())?;
        Ok(changes.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    }

    #[test]
    fn what_is_set_and_what_is_removed() {
        let (value, removed) = (|text: &str| Some(text.to_owned()), None);
        assert_eq!(
            said(&["b=1", "a=x=y z", "c="], &["d"]).unwrap(),
            [
                ("a".to_owned(), value("x=y z")),
                ("b".to_owned(), value("1")),
                ("c".to_owned(), value("")),
                ("d".to_owned(), removed),
            ]
        );
        assert_eq!(said(&["a=1", "a=2"], &[]).unwrap_err(), "a is named twice");
        assert_eq!(said(&["a=1"], &["a"]).unwrap_err(), "a is named twice");
        for wrong in ["a", "=1", "a b=1", ""] {
            assert!(said(&[wrong], &[]).is_err(), "{wrong}");
        }
        let long = format!("a={}", "x".repeat(SETTING_VALUE_MAX_BYTES + 1));
        assert_eq!(said(&[&long], &[]).unwrap_err(), "the value of a is above 16 KiB");
    }
}
