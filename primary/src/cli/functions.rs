//! `hearth functions`, `versions`, `rollback`, `rm` and `invoke`: what a tenant serves.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use hearth_wire::{
    FunctionPath, FunctionVersion, GenerationNumber, Options, PathMatch, Wanted, limits,
};
use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use ureq::SendBody;

use super::client::{Call, Host, is_problem, query, segment};
use super::consent::Consent;
use super::error::{CliError, usage};
use super::generations;
use super::print::{OrDash, Print, Table, body_out, bytes, seconds};
use super::source::Source;
use crate::api::functions::{FunctionList, Rollback, VersionList};
use crate::config::ClientArgs;
use crate::terminal::mutter;
use crate::upload::Switched;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hearth versions hello")]
pub struct VersionsArgs {
    /// The function, like hello or jobs/nightly
    path: FunctionPath,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --generation, all functions and the options that were set for them come back together as they were then, or nothing does; hearth generations lists what there is. Only the tenant's owner may do that.\n\nExample:\n  hearth rollback hello 3\n  hearth rollback hello bundled\n  hearth rollback --generation 7"
)]
pub struct RollbackArgs {
    /// The function, like hello or jobs/nightly
    #[arg(required_unless_present = "generation")]
    path: Option<FunctionPath>,
    /// Which version, or `bundled` for what comes with Hearth [default: the one before the active
    /// one]
    version: Option<Wanted>,
    /// An earlier generation of the tenant, in place of one function
    #[arg(long, value_name = "N", conflicts_with_all = ["path", "version"])]
    generation: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only the tenant's owner may do this. The versions are kept for a while: hearth rollback PATH VERSION\nbrings one back. What comes with Hearth at the path serves again; to remove that lasts, until\nhearth rollback PATH bundled.\n\nExample:\n  hearth rm jobs/nightly"
)]
pub struct RmArgs {
    /// The function, like hello or jobs/nightly
    path: FunctionPath,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the body of the answer as it is. The exit status is 0 where the answer's is 2xx.\n\nExample:\n  hearth invoke hello -d '{\"name\":\"Ada\"}'\n  hearth invoke resize -d @request.json > answer.json\n  hearth invoke shop -X GET --below '/items/3?page=2' -H 'accept: text/csv'"
)]
pub struct InvokeArgs {
    /// The function, like hello or jobs/nightly
    path: FunctionPath,
    /// The body: JSON, @FILE, or - for standard input
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The request's method
    #[arg(long = "request", short = 'X', value_name = "METHOD", default_value = "POST")]
    method: String,
    /// What follows the function's path: a path below it, a query, or both
    #[arg(long, value_name = "/PATH?QUERY")]
    below: Option<String>,
    /// A header of the request; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header_line)]
    headers: Vec<(HeaderName, String)>,
}

/// What the exchange with the API needs for itself.
const OF_THE_EXCHANGE: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// A header as curl takes it.
fn header_line(line: &str) -> Result<(HeaderName, String), String> {
    let (name, value) = line.split_once(':').ok_or("a header is written `name: value`")?;
    let name: HeaderName =
        name.trim().parse().map_err(|_| format!("`{name}` is not a valid header name"))?;
    if OF_THE_EXCHANGE.contains(&name) {
        return Err(format!("`{name}` belongs to the exchange with the API and cannot be set"));
    }
    let value = value.trim();
    HeaderValue::from_str(value).map_err(|_| format!("`{value}` is not a valid header value"))?;
    Ok((name, value.to_owned()))
}

pub fn list(client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let answer = host.get(&host.of_tenant("/functions")?)?;
    print.answer::<FunctionList>(&answer, |list, out| {
        let mut table = Table::new(["path", "version", "methods", "auth", "size", "made", ""]);
        for function in list.functions {
            let Options { methods, path, auth, description, .. } = &function.options;
            let place = match path {
                PathMatch::Exact | PathMatch::Prefix => function.path.to_string(),
                PathMatch::Root => format!("{} (root)", function.path),
            };
            let origin = match (function.damaged, function.bundled) {
                (true, _) => "damaged: upload it again",
                (false, true) => "bundled",
                (false, false) => description,
            };
            table.row([
                &place,
                &function.version,
                &methods.join(","),
                auth,
                &bytes(function.size),
                &OrDash(function.created_at.map(seconds)),
                &origin,
            ]);
        }
        table.write(out, "There is no function yet; upload one: hearth upload FILE")
    })
}

pub fn versions(args: &VersionsArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/functions/{}/versions", segment(&args.path)))?;
    let answer = host.get(&path)?;
    print.answer::<VersionList>(&answer, |list, out| {
        let mut table = Table::new(["version", "", "sha256", "size", "stored", "made", "by"]);
        for version in list.versions {
            let sha256 = version.sha256.to_string();
            table.row([
                &version.version,
                &match (version.active, version.damaged) {
                    (true, true) => "active, damaged",
                    (true, false) => "active",
                    (false, true) => "damaged",
                    (false, false) => "",
                },
                &&sha256[..12],
                &bytes(version.size),
                &bytes(version.stored),
                &OrDash(version.created_at.map(seconds)),
                &if version.bundled { "bundled" } else { &version.created_by },
            ]);
        }
        table.write(out, "There is no version.")?;
        if list.active.is_none() {
            writeln!(out, "\n{} was removed; hearth rollback brings a version back.", list.path)?;
        }
        Ok(())
    })
}

pub fn rollback(args: &RollbackArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let path = match (&args.path, args.generation) {
        (Some(path), None) => path,
        (_, Some(generation)) => {
            return generations::return_to(GenerationNumber(generation), client, print);
        }
        (None, None) => return Err(usage("name a function, or a generation with --generation")),
    };
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/functions/{}/rollback", segment(path)))?;
    let answer = host.post(&path, Some(&Rollback { version: args.version }))?;
    print.answer::<Switched>(&answer, |switched, out| {
        let Switched { path, version, generation, swap_ms } = switched;
        let version = OrDash(version);
        writeln!(out, "{path} is at version {version} (generation {generation}, {swap_ms} ms).")
    })
}

pub fn remove(args: &RmArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    args.consent.given(&format!("the function {}", args.path))?;
    let host = Host::connect(client)?;
    let path = host.of_tenant(&format!("/functions/{}", segment(&args.path)))?;
    let answer = host.delete(&path)?;
    print.answer::<Switched>(&answer, |switched, out| {
        let Switched { path, version, generation, swap_ms } = switched;
        let left = match version {
            Some(FunctionVersion::Bundled(_)) => "is the one that comes with Hearth again",
            Some(FunctionVersion::Own(_)) | None => "is gone",
        };
        writeln!(out, "{path} {left} (generation {generation}, {swap_ms} ms).")
    })
}

/// As long as a call may take, and a wake before it.
const CALL: Duration = Duration::from_millis(limits::TIMEOUT_MS_MAX as u64 + 30_000);

pub fn invoke(args: &InvokeArgs, client: &ClientArgs) -> Result<(), CliError> {
    let mut source = Source::json(args.data.as_deref())?;
    let host = Host::connect(client)?;
    let method = args.method.to_ascii_uppercase();
    // To the API, a call is a POST where nothing else is said.
    let query = query(&[
        ("method", Some(method.as_str()).filter(|method| *method != "POST")),
        ("below", args.below.as_deref()),
    ]);
    let path = host.of_tenant(&format!("/functions/{}/invoke{query}", segment(&args.path)))?;
    let length = source.length.map(|length| length.to_string());
    let own = args.headers.iter().map(|(name, value)| (name.clone(), value.as_str()));
    let mut headers: Vec<_> = own.collect();
    if !args.headers.iter().any(|(name, _)| *name == header::CONTENT_TYPE) {
        headers.push((header::CONTENT_TYPE, "application/json"));
    }
    if let Some(length) = &length {
        headers.push((header::CONTENT_LENGTH, length));
    }
    let call = Call { headers: &headers, answer: Some(CALL), silence: None };
    let body = SendBody::from_reader(&mut source.reader);
    let response = host.call_any(Method::POST, &path, body, &call)?;
    let status = response.status();
    // A function's own answer has its version, be it a problem or not.
    let by_function = response.headers().contains_key(hearth_wire::header::VERSION);
    if !by_function && !status.is_success() && is_problem(&response) {
        return Err(host.refused(response));
    }
    let mut body = response.into_body().into_reader();
    let mut out = body_out();
    let mut chunk = vec![0; 16 << 10];
    let mut last = b'\n';
    loop {
        let read = body.read(&mut chunk).map_err(|error| host.cut(CliError::Cut(error)))?;
        let Some(end) = chunk[..read].last() else { break };
        last = *end;
        out.write_all(&chunk[..read])?;
        // What streams is seen when it comes.
        out.flush()?;
    }
    drop(out);
    if status.is_success() {
        return Ok(());
    }
    if last != b'\n' && is_one_place() {
        mutter("\n");
    }
    Err(CliError::Refused(format!("the function answered {status}")))
}

/// Whether what is told of an answer stands where the answer does.
fn is_one_place() -> bool {
    let of = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok()
    };
    let (out, error) = (io::stdout(), io::stderr());
    let (out, error) = (of(out.as_fd()), of(error.as_fd()));
    out.is_some() && out == error
}
