//! `hearth limits`: what a tenant may have, and what it has of that now.

use std::collections::BTreeMap;

use hearth_wire::Limit;

use super::client::Host;
use super::error::{CliError, usage};
use super::print::{OrDash, Print, Table};
use crate::api::limits::{LimitChanges, LimitInfo, LimitList};
use crate::config::ClientArgs;
use crate::terminal::complain;

const DEFAULT: &str = "default";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only the host's admin may set limits. They apply at once, and no connection is lost.\n\nExample:\n  hearth limits --tenant demo\n  hearth limits --tenant demo calls_running=16 rate_per_second=100\n  hearth limits --tenant demo calls_running=default"
)]
pub struct LimitsArgs {
    /// Limits to set, as NAME=NUMBER, or NAME=default
    #[arg(value_name = "NAME=NUMBER")]
    changes: Vec<String>,
}

pub fn run(args: &LimitsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let limits = parse_all(&args.changes)?;
    let host = Host::connect(client)?;
    let path = host.of_tenant("/limits")?;
    let answer = match limits.is_empty() {
        true => host.get(&path)?,
        false => host.patch(&path, &LimitChanges { limits })?,
    };
    let asked = limits_asked(&args.changes);
    let above = answer.parse::<LimitList>()?.limits.into_iter().filter(|limit| {
        asked.contains(&limit.name.as_str()) && limit.used.is_some_and(|used| used > limit.value)
    });
    for LimitInfo { name, value, used, .. } in above {
        complain(format_args!(
            "{name} is {value} now, and there are {} of them: what is there stays, and nothing is \
             added until there is room",
            used.unwrap_or_default()
        ));
    }
    print.answer::<LimitList>(&answer, |list, out| {
        let mut table = Table::new(["limit", "value", "", "used", "unit", "of what"]);
        for limit in list.limits {
            let set = if limit.set { "set" } else { "" };
            table.row([
                &limit.name,
                &limit.value,
                &set,
                &OrDash(limit.used),
                &limit.unit,
                &limit.about,
            ]);
        }
        table.write(out, "")
    })
}

fn limits_asked(changes: &[String]) -> Vec<&str> {
    changes.iter().filter_map(|change| Some(change.split_once('=')?.0)).collect()
}

fn parse_all(changes: &[String]) -> Result<BTreeMap<String, Option<u64>>, CliError> {
    let mut limits = BTreeMap::new();
    for change in changes {
        let (name, value) = parse(change)?;
        if limits.contains_key(&name) {
            return Err(usage(format!("{name:?} is set twice")));
        }
        limits.insert(name, value);
    }
    Ok(limits)
}

fn parse(change: &str) -> Result<(String, Option<u64>), CliError> {
    let wrong = || usage(format!("{change:?} is not a valid NAME=NUMBER, like functions=20"));
    let (name, value) = change.split_once('=').ok_or_else(wrong)?;
    let limit = Limit::find(name).map_err(|error| usage(error.to_string()))?;
    if value == DEFAULT {
        return Ok((name.to_owned(), None));
    }
    let Limit { unit, min, max, .. } = limit;
    match value.parse() {
        Ok(number) if (*min..=*max).contains(&number) => Ok((name.to_owned(), Some(number))),
        Ok(_) | Err(_) => Err(usage(format!(
            "{name} takes a whole number of {unit} from {min} to {max}, or {DEFAULT}, and not {value:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_name() {
        assert_eq!(parse("functions=20").unwrap(), ("functions".to_owned(), Some(20)));
        assert_eq!(parse("functions=default").unwrap(), ("functions".to_owned(), None));
        let all = |changes: &[&str]| {
            parse_all(&changes.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(all(&["functions=20", "versions=default"]).unwrap().len(), 2);
        assert!(all(&["functions=20", "functions=20"]).is_err());
        for wrong in ["functions", "functions=", "functions=many", "functions=-1", "nix=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let unknown = parse("function=1").unwrap_err().to_string();
        assert_eq!(unknown, "unknown limit `function`; did you mean `functions`?");
        for (wrong, said) in [
            (
                "calls_running=65",
                "calls_running takes a whole number of calls from 1 to 64, or default, and not \"65\"",
            ),
            (
                "rate_per_second=-1",
                "rate_per_second takes a whole number of calls/s from 0 to 1000000, or default, and not \"-1\"",
            ),
        ] {
            assert_eq!(parse(wrong).unwrap_err().to_string(), said);
        }
    }
}
