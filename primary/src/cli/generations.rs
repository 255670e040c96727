//! `hearth generations`, and `hearth rollback --generation`: what a tenant has served, and that it
//! serves it again.

use std::io::{self, Write};

use hearth_wire::{FunctionVersion, GenerationNumber};

use super::client::{Host, PAGE_MAX, query};
use super::error::CliError;
use super::print::{Print, Table, seconds};
use crate::api::generations::{GenerationFunction, GenerationInfo, GenerationPage, Return};
use crate::config::ClientArgs;
use crate::upload::Returned;

/// Functions of one generation that a line has room for.
const SHOWN: usize = 4;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each upload, rollback, removal, and change of options or limits is a generation. The last 500 are listed. One that is marked `not whole` cannot serve again, since a version of a function is no longer kept.\n\nExample:\n  hearth generations -n 20\n  hearth rollback --generation 7"
)]
pub struct GenerationsArgs {
    /// How many of the last generations [default: 100]
    #[arg(long = "number", short = 'n', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX))]
    most: Option<u32>,
    /// Only generations before this one: what the last answer says of older ones
    #[arg(long, value_name = "GENERATION")]
    before: Option<u64>,
}

pub fn list(args: &GenerationsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let GenerationsArgs { most, before } = args;
    let host = Host::connect(client)?;
    let (limit, before) = (most.map(|most| most.to_string()), before.map(|it| it.to_string()));
    let query = query(&[("before", before.as_deref()), ("limit", limit.as_deref())]);
    let answer = host.get(&host.of_tenant(&format!("/generations{query}"))?)?;
    print.answer::<GenerationPage>(&answer, write)
}

fn write(page: GenerationPage, out: &mut dyn Write) -> io::Result<()> {
    let GenerationPage { generations, next } = page;
    let mut table = Table::new(["generation", "", "cause", "changed", "made", "by"]);
    for generation in &generations {
        let GenerationInfo { generation, cause, by, created_at, current, whole, changed } =
            generation;
        let state = match (current, whole) {
            (true, _) => "current",
            (false, true) => "",
            (false, false) => "not whole",
        };
        table.row([generation, &state, cause, &told(changed), &seconds(*created_at), by]);
    }
    table.write(out, "There is no generation that matches.")?;
    match next {
        Some(next) => writeln!(out, "Older ones: hearth generations --before {next}"),
        None => Ok(()),
    }
}

/// What a generation changed: `/a@3`, and `/a` where no version of the tenant's own served.
fn told(changed: &[GenerationFunction]) -> String {
    let one = |function: &GenerationFunction| match function.version {
        Some(version) => format!("{}@{version}", function.path),
        None => function.path.to_string(),
    };
    let mut told: Vec<_> = changed.iter().take(SHOWN).map(one).collect();
    match changed.len() {
        0 => "-".to_owned(),
        all if all > SHOWN => {
            told.push(format!("{} more", all - SHOWN));
            told.join(", ")
        }
        _ => told.join(", "),
    }
}

pub fn return_to(
    generation: GenerationNumber,
    client: &ClientArgs,
    print: Print,
) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let answer = host.post(&host.of_tenant("/rollback")?, Some(&Return { generation }))?;
    print.answer::<Returned>(&answer, |returned, out| {
        let Returned { generation, rolled_back_to, functions, swap_ms } = returned;
        for function in &functions {
            match &function.version {
                Some(FunctionVersion::Own(version)) => {
                    writeln!(out, "{} is at version {version}.", function.path)?;
                }
                Some(FunctionVersion::Bundled(_)) => {
                    writeln!(out, "{} is the one that comes with Hearth.", function.path)?;
                }
                None => writeln!(out, "{} is gone.", function.path)?,
            }
        }
        if functions.is_empty() {
            return writeln!(
                out,
                "Generation {generation} serves already what generation {rolled_back_to} served."
            );
        }
        writeln!(
            out,
            "Generation {generation} serves what generation {rolled_back_to} served ({swap_ms} ms)."
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_as_a_table() {
        let functions: Vec<_> =
            (1..=6).map(|n| json!({ "path": format!("/f{n}"), "version": n })).collect();
        let row = |number: u64, whole: bool, changed| {
            json!({
                "generation": number, "cause": "upload", "by": "ci",
                "created_at": "2026-01-02T03:04:05Z", "current": number == 9, "whole": whole,
                "changed": changed,
            })
        };
        let bundled = json!([{ "path": "/hello", "version": null }]);
        let page = json!({
            "generations": [
                row(9, true, json!(functions)), row(8, true, bundled), row(7, false, json!([])),
            ],
            "next": 7,
        });
        let mut out = Vec::new();
        write(serde_json::from_value(page).unwrap(), &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[1].contains("current") && lines[1].contains("/f4@4, 2 more"), "{said}");
        assert!(lines[2].contains("/hello") && !lines[2].contains("not whole"), "{said}");
        assert!(lines[3].contains("not whole"), "{said}");
        assert!(said.ends_with("Older ones: hearth generations --before 7\n"), "{said}");
    }
}
