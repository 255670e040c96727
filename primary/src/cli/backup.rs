//! `hearth backup` and `hearth restore`: the whole host or one tenant to a file, and back.
//!
//! A backup is read to its end and checked while it arrives, and is given its name only then.
//! Restoring into a directory needs no host, and must have none on it; into a host, it is a call
//! of the API like any other.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, Method};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::Mode;
use rustix::process::umask;
use serde::Serialize;
use ureq::SendBody;

use super::client::{Call, Host, answer, query};
use super::error::{CliError, chain, usage};
use super::print::{Print, body_out, bytes, escape, seconds};
use super::replacing::Replacing;
use super::source::STDIO;
use crate::api::backup::{RestoredTenant, RestoredTenants, SECRETS_KEY};
use crate::app::Programs;
use crate::backup::archive::{self, LeftOut};
use crate::backup::restore::{self, Restored};
use crate::config::ClientArgs;
use crate::keyfile::KeyFile;
use crate::owner;
use crate::sealing::Key;
use crate::terminal::{complain, shell_word};
use crate::tree::Trees;

/// Until the host has its copy of the store.
const BEGUN: Duration = Duration::from_secs(600);
/// The host packs a tenant's files in between.
const SILENCE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The host goes on serving. The file holds tenants, tokens (their digests), functions, versions, modules, configuration, logs and state, and secrets as they are sealed: without the host's secrets.key nobody can read them, so keep that as well, and apart. Only the host's admin may do this; with --tenant the file holds that tenant alone, and the tenant's owner may do it too. An existing file of that name is replaced once the new one is complete; a device or a pipe gets the backup as it comes.\n\nExample:\n  hearth backup hearth.tar.zst\n  hearth backup demo.tar.zst --tenant demo\n  hearth backup - | ssh elsewhere 'cat > hearth.tar.zst'"
)]
pub struct BackupArgs {
    /// Where to; `-` is standard output
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --data, everything is restored into an empty directory; run it as the user that the host runs as, while no host uses the directory. Without --data, the running host takes over the tenants that it does not have, or the one of --tenant, and keeps those that it has; only the host's admin may do this. In both cases the whole backup is checked before any of it is used. Secrets are in it sealed: --secrets-key names the key that opens them, where this host has another.\n\nExample:\n  hearth restore hearth.tar.zst --data /var/lib/hearth\n  hearth restore hearth.tar.zst --tenant demo"
)]
pub struct RestoreArgs {
    /// What `hearth backup` wrote; `-` is standard input
    file: PathBuf,
    /// A data directory that is empty or not there yet
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The key that the backup's secrets are sealed with: the secrets.key of the host that made it
    #[arg(long, value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// Leave secrets out, as where their key is lost
    #[arg(long, conflicts_with_all = ["secrets_key", "data"])]
    without_secrets: bool,
}

/// What is told of either, for programs.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    hearth: &'a str,
    made_at: jiff::Timestamp,
    bytes: u64,
    modules: u64,
    left_out: &'a [LeftOut],
}

pub fn backup(args: &BackupArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    if args.file == Path::new(STDIO) && io::stdout().is_terminal() {
        return Err(usage(
            "a backup cannot be shown on a terminal; name a file, or pass it on: hearth backup - | …",
        ));
    }
    let host = Host::connect(client)?;
    let mut out = Out::open(&args.file)?;
    let call = Call { answer: Some(BEGUN), silence: Some(SILENCE), ..Call::default() };
    // Only what was said here and now, as for a restore.
    let path = match &client.tenant {
        Some(_) => host.of_tenant("/backup")?,
        None => "/backup".to_owned(),
    };
    let response = host.call(Method::GET, &path, SendBody::none(), &call)?;
    let bar = bar("backing up", None);
    let mut passing = Passing {
        inner: response.into_body().into_reader(),
        out: &mut out,
        failed: false,
        bytes: 0,
    };
    let read = archive::read(bar.wrap_read(&mut passing), &mut |_, _, _| Ok(()));
    let (failed, length) = (passing.failed, passing.bytes);
    bar.finish_and_clear();
    let named = |source| CliError::File { path: args.file.clone(), source };
    let whole = match read {
        Err(archive::ArchiveError::Read(source)) if failed => return Err(named(source)),
        read => read.map_err(|error| host.cut(CliError::Backup(error)))?,
    };
    out.finish().map_err(named)?;
    let summary = Summary {
        hearth: &whole.head.hearth,
        made_at: whole.head.made_at,
        bytes: length,
        modules: whole.modules,
        left_out: &whole.left_out,
    };
    warn(&whole.left_out);
    if args.file == Path::new(STDIO) {
        return Ok(());
    }
    tell(
        print,
        &summary,
        format_args!(
            "Backed up to {} ({}, modules: {}), and checked.",
            args.file.display(),
            bytes(length),
            whole.modules
        ),
    )
}

pub fn restore(args: &RestoreArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    if args.data.is_some() && client.tenant.is_some() {
        return Err(usage(
            "--data takes everything that the backup has; to have one tenant of it, restore into a host that serves: --tenant without --data",
        ));
    }
    if args.data.is_some() && client.url.is_some() {
        return Err(usage(
            "--data restores into a directory of this machine and asks no host; leave --url out, or leave --data out to restore into the host at that address",
        ));
    }
    let named = |source| CliError::File { path: args.file.clone(), source };
    let (source, length): (Box<dyn Read>, _) = if args.file == Path::new(STDIO) {
        (Box::new(io::stdin().lock()), None)
    } else {
        let file = File::open(&args.file).map_err(named)?;
        let metadata = file.metadata().map_err(named)?;
        if metadata.is_dir() {
            return Err(named(io::ErrorKind::IsADirectory.into()));
        }
        (Box::new(file), metadata.is_file().then_some(metadata.len()))
    };
    let key = args.secrets_key.as_deref().map(read_key).transpose()?;
    let bar = bar("restoring", length);
    match &args.data {
        Some(data) => into_directory(data, key.as_ref(), bar.wrap_read(source), &bar, print),
        None => {
            let secrets = (key.as_ref(), args.without_secrets);
            into_host(client, secrets, bar.wrap_read(source), &bar, print)
        }
    }
}

fn read_key(path: &Path) -> Result<Key, CliError> {
    let refused = |error: &dyn std::error::Error| CliError::Refused(chain(error));
    let found = KeyFile::new(Path::new("."), Some(path)).read();
    let found = found.map_err(|error| refused(&error))?;
    found.ok_or_else(|| CliError::Refused(format!("there is no file {}", path.display())))
}

fn into_directory(
    data: &Path,
    key: Option<&Key>,
    source: impl Read,
    bar: &ProgressBar,
    print: Print,
) -> Result<(), CliError> {
    umask(Mode::RWXG | Mode::RWXO);
    let programs = Programs::beside_this().map_err(|error| CliError::Up(error.into()))?;
    owner::check_empty(data).map_err(|error| CliError::Refused(error.to_string()))?;
    let restored = restore::restore(source, data, &Trees::new(&programs.worker), key);
    let read = bar.position();
    bar.finish_and_clear();
    let Restored { whole, tenants } = restored.map_err(CliError::Restore)?;
    let summary = Summary {
        hearth: &whole.head.hearth,
        made_at: whole.head.made_at,
        bytes: read,
        modules: whole.modules,
        left_out: &whole.left_out,
    };
    warn(&whole.left_out);
    tell(
        print,
        &summary,
        format_args!(
            "Restored what was there on {} into {data} (tenants: {tenants}, modules: {}).\nStart the host on it:\n  hearth up --data {data}\nEach function is compiled again when its tenant is first called.",
            seconds(whole.head.made_at),
            whole.modules,
            data = shell_word(&data.to_string_lossy()),
        ),
    )
}

fn into_host(
    client: &ClientArgs,
    (key, without_secrets): (Option<&Key>, bool),
    source: impl Read,
    bar: &ProgressBar,
    print: Print,
) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    // Only what was said here and now: a variable that is meant for other commands must not
    // leave tenants out.
    let without = without_secrets.then_some("true");
    let asked = query(&[("tenant", client.tenant.as_deref()), ("without_secrets", without)]);
    let key = key.map(Key::text);
    let headers = key.iter().map(|key| (HeaderName::from_static(SECRETS_KEY), key.trim_end()));
    let headers: Vec<_> = headers.collect();
    let call = Call { headers: &headers, answer: Some(BEGUN), ..Call::default() };
    let mut source = source;
    let body = SendBody::from_reader(&mut source);
    let sent = host.call(Method::POST, &format!("/restore{asked}"), body, &call);
    bar.finish_and_clear();
    print.answer::<RestoredTenants>(&answer(sent?)?, |tenants, out| {
        let RestoredTenants { restored, kept } = tenants;
        for RestoredTenant { name, port: _, url } in restored {
            let url = host.tenant_url(&name, &url);
            writeln!(out, "Restored the tenant {name}. Its functions are at {}", escape(&url))?;
        }
        for name in kept {
            writeln!(out, "The tenant {name} is there, and stays as it is.")?;
        }
        Ok(())
    })
}

fn tell(
    print: Print,
    summary: &Summary<'_>,
    said: std::fmt::Arguments<'_>,
) -> Result<(), CliError> {
    if print.json() {
        return print.raw(&serde_json::to_string(summary).expect("it is plain data"));
    }
    print.say(said)
}

/// On standard error: what is missing must be seen even where nobody reads the rest.
fn warn(left_out: &[LeftOut]) {
    for missing in left_out {
        complain(format_args!("{missing}"));
    }
}

pub(super) fn bar(message: &'static str, length: Option<u64>) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(length, target);
    let style = match length {
        Some(_) => "{msg} {bar:30} {bytes}/{total_bytes}",
        None => "{spinner} {msg} {bytes} {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(style).expect("a template that indicatif knows"));
    bar.set_message(message);
    bar
}

/// Where a backup goes, or whatever else a command fetches.
pub(super) enum Out {
    File(Replacing),
    /// What a terminal would obey is escaped there.
    Stdout(Box<dyn Write>),
}

impl Out {
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        if path == Path::new(STDIO) {
            return Ok(Self::Stdout(body_out()));
        }
        if path.is_dir() {
            return Err(usage(format!("{} is a directory; name a file", path.display())));
        }
        Replacing::open(path)
            .map(Self::File)
            .map_err(|source| CliError::File { path: path.to_owned(), source })
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout(mut out) => out.flush(),
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Stdout(out) => out.flush(),
        }
    }
}

/// Keeps what it hands on.
struct Passing<'a, R> {
    inner: R,
    out: &'a mut Out,
    /// Whether it was the keeping that failed.
    failed: bool,
    bytes: u64,
}

impl<R: Read> Read for Passing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.bytes += got as u64;
        let kept = self.out.write_all(&buffer[..got]);
        self.failed |= kept.is_err();
        kept.map(|()| got)
    }
}
