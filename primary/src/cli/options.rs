//! `hearth options`: a function's options, where each comes from, and setting them.

use hearth_wire::{FunctionPath, json};
use serde_json::{Map, Value};

use super::client::{Host, segment};
use super::print::{Print, escape};
use super::{CliError, usage};
use crate::api::functions::{FunctionInfo, OptionChanges, OptionLayers};
use crate::config::ClientArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is set goes over what the module declares and what came with the upload, and stays through uploads and rollbacks; null takes it away again.\n\nExample:\n  hearth options hello\n  hearth options hello --set '{\"auth\":\"invoke\",\"cors\":[\"https://app.example\"]}'\n  hearth options hello --set '{\"auth\":null}'"
)]
pub struct OptionsArgs {
    /// The function, like hello or jobs/nightly
    path: FunctionPath,
    /// Options to set
    #[arg(long, value_name = "JSON")]
    set: Option<String>,
}

pub fn run(args: &OptionsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let options = args.set.as_deref().map(parse).transpose()?;
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

fn parse(text: &str) -> Result<Map<String, Value>, CliError> {
    json::from_slice(text.as_bytes())
        .map_err(|error| usage(format!("--set does not take this as a JSON object: {error}")))
}
