//! `hearth options`: a function's options, where each comes from, and setting them.

use std::fs::File;
use std::io::Read;

use hearth_wire::{FunctionPath, json, limits};
use serde_json::{Map, Value};

use super::client::{Host, segment};
use super::error::{CliError, usage};
use super::print::{Print, escape};
use crate::api::functions::{FunctionInfo, OptionChanges, OptionLayers};
use crate::config::ClientArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Options that are set here take precedence over those of the module and of the upload, and stay through uploads and rollbacks; null removes one again.\n\nExample:\n  hearth options hello\n  hearth options hello --set '{\"auth\":\"invoke\",\"cors\":[\"https://app.example\"]}'\n  hearth options hello --set '{\"auth\":null}'"
)]
pub struct OptionsArgs {
    /// The function, like hello or jobs/nightly
    path: FunctionPath,
    /// Options to set
    #[arg(long, value_name = "JSON|@FILE")]
    set: Option<String>,
}

pub fn run(args: &OptionsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let options = args.set.as_deref().map(|given| parse(&text(given)?)).transpose()?;
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/functions/{}", segment(&args.path)))?;
    let answer = match options {
        None => host.get(&path)?,
        Some(options) => host.patch(&path, &OptionChanges { options })?,
    };
    print.answer::<FunctionInfo>(&answer, |function, out| {
        let OptionLayers { declared, uploaded, set } = &function.layers;
        for (title, value) in [
            ("In force", serde_json::to_string_pretty(&function.options)),
            ("Declared by the module", serde_json::to_string_pretty(declared)),
            ("Over that, by the upload", serde_json::to_string_pretty(uploaded)),
            ("Over that, set since", serde_json::to_string_pretty(set)),
        ] {
            let value = value.expect("options are plain data");
            let lines: Vec<_> = value.lines().map(|line| escape(line).to_string()).collect();
            writeln!(out, "{title}:\n{}", lines.join("\n"))?;
        }
        Ok(())
    })
}

/// As it was given, or that of a file.
pub fn text(given: &str) -> Result<String, CliError> {
    let Some(path) = given.strip_prefix('@') else { return Ok(given.to_owned()) };
    let named = |source| CliError::File { path: path.into(), source };
    let mut text = String::new();
    // What is larger is refused for that by whoever reads it.
    let bound = limits::OPTIONS_MAX_BYTES as u64 + 1;
    let mut file = File::open(path).map_err(named)?.take(bound);
    file.read_to_string(&mut text).map_err(named)?;
    Ok(text)
}

fn parse(text: &str) -> Result<Map<String, Value>, CliError> {
    json::from_slice(text.as_bytes())
        .map_err(|error| usage(format!("--set does not take this as a JSON object: {error}")))
}
