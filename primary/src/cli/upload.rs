//! `hearth upload`: modules from files to a serving generation, and how to call what serves.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hearth_wire::{FunctionPath, OptionsPatch, TenantName, limits};
use http::{Method, header};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ureq::SendBody;

use super::client::{Call, Host, answer, query, segment};
use super::error::{CliError, usage};
use super::multipart::Multipart;
use super::print::{Print, bytes, escape};
use super::{options, sample};
use crate::api::functions::FunctionInfo;
use crate::api::tenants::TenantInfo;
use crate::config::ClientArgs;
use crate::terminal::escape_lines;
use crate::upload::{Uploaded, UploadedFunction};

/// From the last byte sent until the new generation serves; a large module compiles for long.
const SERVED: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "All files go live together, or none does. hello.wasm becomes the function /hello. With several files, the options are an object from file name to options.\n\nExample:\n  hearth upload hello.wasm\n  hearth upload a.wasm b.wasm.zst --options '{\"a.wasm\":{\"auth\":\"invoke\"}}'"
)]
pub struct UploadArgs {
    /// Components, as NAME.wasm or NAME.wasm.zst
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The directory that they become functions of
    #[arg(long, value_name = "DIR")]
    to: Option<FunctionPath>,
    /// Options over those that the modules declare
    #[arg(long, value_name = "JSON|@FILE")]
    options: Option<String>,
    /// Refuse what imports more than what it replaces
    #[arg(long)]
    same_imports: bool,
}

pub fn run(args: &UploadArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let mut body = Multipart::new();
    for path in &args.files {
        let name = file_name(path, args.to.as_ref())?;
        let named = |source| CliError::File { path: path.clone(), source };
        let file = File::open(path).map_err(named)?;
        let length = file.metadata().map_err(named)?.len();
        body.file(&name, file, length);
    }
    if let Some(options) = &args.options {
        body.json("options", &options_text(options, args.files.len())?);
    }
    if args.same_imports {
        body.json("same_imports", "true");
    }
    let body = body.end();
    if body.length() > limits::UPLOAD_MAX_BYTES {
        return Err(CliError::Refused(format!(
            "these files have {}, and an upload may have {}; compress them: zstd -19 NAME.wasm",
            bytes(body.length()),
            bytes(limits::UPLOAD_MAX_BYTES)
        )));
    }
    let host = Host::connect(client)?;
    let tenant = host.tenant()?;
    let dir = query(&[("dir", args.to.as_ref().map(FunctionPath::as_str))]);

    let (kind, length) = (body.content_type(), body.length().to_string());
    // Without `Expect`: not every proxy passes on what it is answered with as one can read it.
    let headers = [(header::CONTENT_TYPE, kind.as_str()), (header::CONTENT_LENGTH, &length)];
    let call = Call { headers: &headers, answer: Some(SERVED), silence: None };
    let mut body = Shown::new(body);
    let path = format!("/tenants/{tenant}/functions{dir}");
    let sent = host.call(Method::POST, &path, SendBody::from_reader(&mut body), &call);
    body.bar.finish_and_clear();
    let uploaded = answer(sent?)?;

    print.answer::<Uploaded>(&uploaded, |uploaded, out| {
        let Uploaded { uploaded: _, generation, functions, compile_ms, swap_ms } = uploaded;
        // A token that may only deploy does not get to see its tenant.
        let base = host
            .get(&format!("/tenants/{tenant}"))
            .and_then(|answer| answer.parse::<TenantInfo>())
            .map_or_else(
                |_| format!("{}/t/{tenant}", host.url()),
                |shown| host.tenant_url(&tenant, &shown.url),
            );
        let base = escape(base.trim_end_matches('/')).into_owned();
        for function in &functions {
            let UploadedFunction { path, version, size, stored, unchanged, unavailable, .. } =
                function;
            let (size, stored) = (bytes(*size), bytes(*stored));
            let state = if *unchanged { ", as it was" } else { "" };
            writeln!(out, "{path} is at version {version} ({size}, kept as {stored}{state}).")?;
            if let [one, others @ ..] = &unavailable[..] {
                let more = match others.len() {
                    0 => String::new(),
                    others => format!(" and {others} more"),
                };
                let one = escape(one);
                writeln!(
                    out,
                    "  A call fails if it needs {one}{more}: Hearth does not offer that."
                )?;
            }
            writeln!(out, "{}", escape_lines(&call_of(&host, &tenant, &base, path)))?;
        }
        writeln!(
            out,
            "Generation {generation} serves: {compile_ms} ms to compile, {swap_ms} ms to swap."
        )
    })
}

/// What to run to call it.
fn call_of(host: &Host, tenant: &TenantName, base: &str, path: &FunctionPath) -> String {
    let asked = host.get(&format!("/tenants/{tenant}/functions/{}", segment(path)));
    match asked.and_then(|answer| answer.parse::<FunctionInfo>()) {
        Ok(function) => {
            let mut call = sample::call(base, path, &function.options);
            if call.starts_with("  hearth ") && host.names_tenant() {
                call.push_str(&format!(" --tenant {tenant}"));
            }
            call
        }
        // The host is of another version; it serves all the same.
        Err(_) => format!("  hearth invoke {}", path.relative()),
    }
}

/// The name that says where the function will be, checked before anything is sent.
fn file_name(path: &Path, to: Option<&FunctionPath>) -> Result<String, CliError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.strip_suffix(".wasm").or_else(|| name.strip_suffix(".wasm.zst"));
    let Some(stem) = stem else {
        return Err(usage(format!("{} is not named NAME.wasm or NAME.wasm.zst", path.display())));
    };
    match FunctionPath::within(to, stem) {
        Ok(_) => Ok(name.to_owned()),
        Err(error) => Err(usage(format!("{}: {error}", path.display()))),
    }
}

/// JSON, or that of a file; one file's options are checked here already.
fn options_text(given: &str, files: usize) -> Result<String, CliError> {
    let text = options::text(given)?;
    if files == 1 {
        OptionsPatch::parse(&text).map_err(|error| usage(format!("--options: {error}")))?;
    }
    Ok(text)
}

/// A body with a bar on standard error, where that is a terminal.
struct Shown {
    body: Multipart,
    bar: ProgressBar,
}

impl Shown {
    fn new(body: Multipart) -> Self {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(body.length()), target);
        let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}");
        bar.set_style(style.expect("a template that indicatif knows"));
        bar.set_message("uploading");
        Self { body, bar }
    }
}

impl Read for Shown {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.bar.inc(read as u64);
        if self.bar.position() >= self.body.length() && !self.bar.is_finished() {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            self.bar.set_style(style.expect("a template that indicatif knows"));
            self.bar.set_message("compiling and swapping");
            self.bar.enable_steady_tick(Duration::from_millis(100));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_for_its_function() {
        let name = |path: &str| file_name(Path::new(path), None).map_err(|e| e.to_string());
        assert_eq!(name("target/hello.wasm"), Ok("hello.wasm".to_owned()));
        assert_eq!(name("v1.2.wasm.zst"), Ok("v1.2.wasm.zst".to_owned()));
        for bad in ["hello", "hello.zst", ".wasm", "-x.wasm", "$upload.wasm", "dir/", "ä.wasm"] {
            assert!(name(bad).is_err(), "{bad}");
        }
        let deep = "a/b/c/d/e/f/g/h".parse().unwrap();
        assert!(file_name(Path::new("x.wasm"), Some(&deep)).is_err());
    }

    #[test]
    fn options_of_one_file_are_checked_here() {
        assert_eq!(options_text("{\"auth\":\"invoke\"}", 1).unwrap(), "{\"auth\":\"invoke\"}");
        let error = options_text("{\"metods\":[]}", 1).unwrap_err().to_string();
        assert!(
            error.starts_with("--options: unknown option `metods`; did you mean `methods`?"),
            "{error}"
        );
        assert!(options_text("{\"a.wasm\":{}}", 2).is_ok());
    }
}
