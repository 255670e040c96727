//! `hearth install` and `hearth uninstall`: this program as a service of systemd.
//!
//! What is to be done is a list of steps, which a dry run prints and any other run performs. Each
//! of them can be done again: an installation over another one changes what is different. The
//! units themselves are files of `ops/service`; owns nothing else of the system's.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::geteuid;

use super::consent::Consent;
use super::error::CliError;
use super::print::Print;
use super::replacing::Replacing;
use crate::app::Programs;
use crate::config::UserDirectories;
use crate::lock;
use crate::owner;
use crate::terminal::shell_word;

const SYSTEM_UNIT: &str = include_str!("../../../ops/service/hearth.service");
const USER_UNIT: &str = include_str!("../../../ops/service/hearth-user.service");
/// Where the units say that the program is.
const PROGRAM: &str = "/usr/local/bin/hearth";
/// Where they say that its settings are.
const SETTINGS: &str = "/etc/hearth/hearth.toml";
const USER_SETTINGS: &str = "%E/hearth/hearth.toml";
/// With which both units begin, so that nobody else's is overwritten or removed.
const MARK: &str = "# Hearth as a service of";
/// Is there where systemd runs this machine: see sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// Of these a system's service sees nothing, or other files.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Writes a unit, settings, a token for the admin and the data directory, each where it is missing, and starts the service. Settings and token that are there stay. Run it again after an upgrade.\n\nExample:\n  sudo hearth install\n  hearth install --user\n  hearth install --dry-run"
)]
pub struct InstallArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Stops the service and removes the unit. Data, settings and the admin's token stay, unless they are purged.\n\nExample:\n  sudo hearth uninstall\n  sudo hearth uninstall --purge"
)]
pub struct UninstallArgs {
    #[command(flatten)]
    place: Place,
    /// Remove data, settings and token as well
    #[arg(long)]
    purge: bool,
    /// Do not ask before purging
    #[arg(long, short, requires = "purge")]
    yes: bool,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// For this user's systemd in place of the system's
    #[arg(long)]
    user: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Write below this directory, as for an image, and start nothing
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// Where the parts of an installation are, as the service sees them.
struct Layout {
    unit: PathBuf,
    settings: PathBuf,
    token: PathBuf,
    data: PathBuf,
    user: bool,
}

/// One thing to be done.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Made where it is missing, for its owner alone.
    Directory {
        path: PathBuf,
        /// Of those above it that are missing.
        above: u32,
    },
    /// In the place of what is there.
    File {
        path: PathBuf,
        mode: u32,
        above: u32,
        content: String,
    },
    /// The same, only where there is nothing.
    Missing {
        path: PathBuf,
        mode: u32,
        content: Content,
    },
    RemoveFile(PathBuf),
    RemoveTree(PathBuf),
    /// Where it is there and nothing is in it.
    RemoveEmpty(PathBuf),
    Systemctl {
        user: bool,
        arguments: Vec<&'static str>,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    /// Made when it is written, and never shown.
    Token,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { path, .. } => write!(f, "make the directory {}", path.display()),
            Self::File { path, content, .. } => {
                write!(f, "write {}:\n{}", path.display(), indented(content))
            }
            Self::Missing { path, content: Content::Text(content), .. } => {
                write!(f, "write {}, unless it is there:\n{}", path.display(), indented(content))
            }
            Self::Missing { path, content: Content::Token, .. } => {
                write!(f, "write a new token to {}, unless it is there", path.display())
            }
            Self::RemoveFile(path) => write!(f, "remove {}", path.display()),
            Self::RemoveTree(path) => {
                write!(f, "remove {} with everything in it", path.display())
            }
            Self::RemoveEmpty(path) => {
                write!(f, "remove {}, if nothing is in it", path.display())
            }
            Self::Systemctl { user, arguments } => write!(f, "run {}", asked(*user, arguments)),
        }
    }
}

/// What is asked of systemd, as a command.
fn asked(user: bool, arguments: &[&str]) -> String {
    format!("systemctl {}{}", if user { "--user " } else { "" }, arguments.join(" "))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect()
}

pub fn install(args: &InstallArgs, print: Print) -> Result<(), CliError> {
    if args.place.acts_on_this_system() {
        must_be_root(args.place.user, "install")?;
    }
    let program = std::env::current_exe().map_err(CliError::Output)?;
    Programs::beside_this().map_err(|error| CliError::Up(error.into()))?;
    let layout = Layout::of(&args.place)?;
    let is_seen = layout.user || args.place.root.is_some();
    if let Some(hidden) = HIDDEN.iter().find(|dir| !is_seen && program.starts_with(dir)) {
        return Err(CliError::Refused(format!(
            "a service of the system cannot run what is below {hidden}: copy hearth, hearth-worker and hearth-compile to /usr/local/bin and install from there, or install with --user"
        )));
    }
    for path in [&program, &layout.settings] {
        if path.to_str().is_none() {
            return Err(CliError::Refused(format!(
                "{} is not UTF-8, and cannot stand in a unit",
                path.display()
            )));
        }
    }
    if args.place.acts_on_this_system() {
        systemd(layout.user).map_err(|why| {
            CliError::Refused(format!(
                "nothing was written, since {why}. Without it: hearth up --data DIR, in any supervisor; or install --root DIR, which writes the files alone"
            ))
        })?;
    }
    let steps = layout.install(&program);
    args.place.perform(&layout, steps, print)?;
    if args.place.dry_run {
        return Ok(());
    }
    let token = shell_word(&layout.token.to_string_lossy()).into_owned();
    print.say(format_args!("Installed. Its settings are in {}.", layout.settings.display()))?;
    print.say(format_args!("Sign in:\n  hearth login --token-file {token}"))?;
    if layout.user {
        print.say(format_args!(
            "It ends with your last session, unless:\n  loginctl enable-linger $USER"
        ))?;
    }
    Ok(())
}

pub fn uninstall(args: &UninstallArgs, print: Print) -> Result<(), CliError> {
    if args.place.acts_on_this_system() {
        must_be_root(args.place.user, "uninstall")?;
    }
    let mut layout = Layout::of(&args.place)?;
    let made = layout.data.clone();
    match args.place.data_of(&layout) {
        Ok(data) => layout.data = data,
        Err(error) if args.purge => return Err(error),
        Err(_) => {}
    }
    let data = layout.data.display();
    if args.purge {
        must_be_hearths(&args.place.at(&layout.data))?;
    }
    if args.purge && !args.place.dry_run {
        Consent::said(args.yes).given(&format!("{data} with all tenants, functions and logs"))?;
    }
    let mut steps = layout.uninstall(args.purge);
    if args.purge && made != layout.data {
        steps.push(Step::RemoveEmpty(made));
    }
    let systemd = match args.place.acts_on_this_system() {
        true => systemd(layout.user),
        false => Ok(()),
    };
    if let Err(why) = &systemd {
        print.say(format_args!(
            "Nothing is asked of systemd, since {why}: a host that runs goes on until it is told to stop."
        ))?;
        steps.retain(|step| !matches!(step, Step::Systemctl { .. }));
        // What nobody stops would write on into what is removed.
        if args.purge && layout.data.is_dir() {
            lock::take(&layout.data).map_err(|error| CliError::Refused(error.to_string()))?;
        }
    }
    args.place.perform(&layout, steps, print)?;
    if args.place.dry_run {
        return Ok(());
    }
    match args.purge {
        true => print.say(format_args!("Uninstalled, with its settings and all data in {data}.")),
        false => print.say(format_args!(
            "Uninstalled. Its data stays in {data}, its settings in {}.",
            layout.settings.display()
        )),
    }
}

/// What the system's service needs is root's alone.
fn must_be_root(user: bool, command: &str) -> Result<(), CliError> {
    match user || geteuid().is_root() {
        true => Ok(()),
        false => Err(CliError::Refused(format!(
            "a service of the system is root's: sudo \"$(command -v hearth)\" {command}, or for yourself: hearth {command} --user"
        ))),
    }
}

/// What is purged is a data directory, or nothing is in it, whatever settings name.
fn must_be_hearths(data: &Path) -> Result<(), CliError> {
    match owner::is_data(data) {
        Ok(true) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(false) => Err(CliError::Refused(format!(
            "{} is not a data directory of Hearth, and is not removed; nothing was changed. Correct `data` in the settings, or uninstall without --purge",
            data.display()
        ))),
        Err(source) => Err(CliError::File { path: data.to_owned(), source }),
    }
}

/// Whether systemd can be asked for anything, or why not.
fn systemd(user: bool) -> Result<(), String> {
    if !Path::new(BOOTED).is_dir() {
        return Err("systemd does not run this machine".to_owned());
    }
    let arguments = ["show-environment"];
    let asked = asked(user, &arguments);
    let mut command = Command::new("systemctl");
    command.args(user.then_some("--user")).args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{asked} could not be run ({error})"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{asked} failed: {}", last_line(&output.stderr))),
    }
}

fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    super::print::escape(said.trim().lines().next_back().unwrap_or_default()).into_owned()
}

/// A path as one word of a unit's command line: see systemd.service(5), "Command lines", for the
/// quotes, and systemd.unit(5), "Specifiers", for what `%` means.
fn unit_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+".contains(&b);
    if text.bytes().all(is_plain) {
        return text.into_owned();
    }
    let mut word = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => word.extend(['\\', c]),
            '%' | '$' => word.extend([c, c]),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    word.push_str(&format!("\\x{byte:02x}"));
                }
            }
            c => word.push(c),
        }
    }
    word.push('"');
    word
}

impl Layout {
    fn of(place: &Place) -> Result<Self, CliError> {
        if !place.user {
            return Ok(Self {
                unit: "/etc/systemd/system/hearth.service".into(),
                settings: "/etc/hearth/hearth.toml".into(),
                token: "/etc/hearth/admin-token".into(),
                data: "/var/lib/hearth".into(),
                user: false,
            });
        }
        let UserDirectories { config, data } = UserDirectories::find()?;
        Ok(Self {
            unit: config.join("systemd/user/hearth.service"),
            settings: config.join("hearth/hearth.toml"),
            token: config.join("hearth/admin-token"),
            data: data.join("hearth"),
            user: true,
        })
    }

    fn install(&self, program: &Path) -> Vec<Step> {
        let template = if self.user { USER_UNIT } else { SYSTEM_UNIT };
        let settings = if self.user { USER_SETTINGS } else { SETTINGS };
        let unit = template.replace(
            &format!("{PROGRAM} up --config {settings}"),
            &format!(
                "{} up --config {}",
                unit_word(program),
                if self.user { unit_word(&self.settings) } else { settings.to_owned() }
            ),
        );
        let parent = |path: &Path| path.parent().expect("it lies in a directory").to_owned();
        // A user's own directories are that user's; the system's are for everybody to read.
        let above = if self.user { 0o700 } else { 0o755 };
        let systemctl = |arguments| Step::Systemctl { user: self.user, arguments };
        vec![
            Step::Directory { path: parent(&self.settings), above },
            Step::Directory { path: self.data.clone(), above },
            Step::Missing { path: self.token.clone(), mode: 0o600, content: Content::Token },
            Step::Missing {
                path: self.settings.clone(),
                mode: 0o600,
                content: Content::Text(self.first_settings()),
            },
            Step::File { path: self.unit.clone(), mode: 0o644, above, content: unit },
            systemctl(vec!["daemon-reload"]),
            systemctl(vec!["enable", "hearth.service"]),
            // Starts it where it does not run, and runs what is installed now where it does.
            systemctl(vec!["restart", "hearth.service"]),
        ]
    }

    fn uninstall(&self, purge: bool) -> Vec<Step> {
        let systemctl = |arguments| Step::Systemctl { user: self.user, arguments };
        let mut steps = vec![
            systemctl(vec!["disable", "--now", "hearth.service"]),
            Step::RemoveFile(self.unit.clone()),
            systemctl(vec!["daemon-reload"]),
        ];
        if purge {
            steps.push(Step::RemoveTree(self.data.clone()));
            // Not their directory: what `hearth login` stored is there, too, and is the user's.
            steps.push(Step::RemoveFile(self.settings.clone()));
            steps.push(Step::RemoveFile(self.token.clone()));
        }
        steps
    }

    fn first_settings(&self) -> String {
        let quoted = |path: &Path| toml::Value::String(path.to_string_lossy().into_owned());
        format!(
            "# Settings of the service hearth: the options of `hearth up`, which says what they mean.\n\
             # In force after: systemctl {user}restart hearth\n\
             data = {}\n\
             admin-token-file = {}\n\
             listen = \"127.0.0.1:3400\"\n\
             # tenant-bind = \"127.0.0.1\"\n\
             # tenant-ports = \"3411-13410\"\n\
             # domain = \"apps.example.org\"\n\
             # trusted-proxy = \"127.0.0.1\"\n\
             # idle = \"60s\"\n",
            quoted(&self.data),
            quoted(&self.token),
            user = if self.user { "--user " } else { "" },
        )
    }
}

impl Place {
    /// Where a path is at this moment.
    fn at(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Whether what is done is done here and now, and not below another root, or not at all.
    fn acts_on_this_system(&self) -> bool {
        self.root.is_none() && !self.dry_run
    }

    /// Where the settings say that the data is, where they say so.
    fn data_of(&self, layout: &Layout) -> Result<PathBuf, CliError> {
        let settings = self.at(&layout.settings);
        let text = match fs::read_to_string(&settings) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(layout.data.clone());
            }
            text => text.map_err(|source| CliError::File { path: settings.clone(), source })?,
        };
        let wrong = |why: &str| {
            CliError::Refused(format!(
                "{}: {why}; nothing was changed. Correct it, so that it is known where the data is",
                settings.display()
            ))
        };
        let table: toml::Table = text.parse().map_err(|_| wrong("it is not TOML"))?;
        match table.get("data") {
            None => Ok(layout.data.clone()),
            Some(toml::Value::String(data)) if Path::new(data).is_absolute() => Ok(data.into()),
            Some(_) => Err(wrong("`data` is not an absolute path")),
        }
    }

    fn perform(&self, layout: &Layout, steps: Vec<Step>, print: Print) -> Result<(), CliError> {
        let unit = self.at(&layout.unit);
        if let Ok(found) = fs::read_to_string(&unit)
            && !found.starts_with(MARK)
        {
            return Err(CliError::Refused(format!(
                "{} was not written by hearth; move it away first",
                unit.display()
            )));
        }
        let is_asked =
            |step: &&Step| !matches!(step, Step::Systemctl { .. }) || self.root.is_none();
        for step in steps.iter().filter(is_asked) {
            if self.dry_run {
                print.say(format_args!("{step}"))?;
                continue;
            }
            self.act(step, &layout.settings)?;
        }
        if self.root.is_some() {
            print.say(format_args!("Below another root systemd is not asked for anything."))?;
        }
        Ok(())
    }

    fn act(&self, step: &Step, settings: &Path) -> Result<(), CliError> {
        let named = |path: &Path| {
            let path = path.to_owned();
            move |source| CliError::File { path, source }
        };
        match step {
            Step::Directory { path, above } => {
                let path = self.at(path);
                directory(&path, 0o700, *above).map_err(named(&path))
            }
            Step::File { path, mode, above, content } => {
                let path = self.at(path);
                let parent = path.parent().expect("it lies in a directory");
                directory(parent, *above, *above).map_err(named(parent))?;
                write(&path, *mode, content).map_err(named(&path))
            }
            Step::Missing { path, mode, content } => {
                let path = self.at(path);
                if path.exists() {
                    return Ok(());
                }
                let text = match content {
                    Content::Text(text) => text.clone(),
                    Content::Token => new_token()?,
                };
                write(&path, *mode, &text).map_err(named(&path))
            }
            Step::RemoveFile(path) => {
                let path = self.at(path);
                gone(fs::remove_file(&path)).map_err(named(&path))
            }
            Step::RemoveTree(path) => {
                let path = self.at(path);
                gone(fs::remove_dir_all(&path)).map_err(named(&path))
            }
            Step::RemoveEmpty(path) => match fs::remove_dir(self.at(path)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                removed => gone(removed).map_err(named(path)),
            },
            Step::Systemctl { user, arguments } => systemctl(arguments, *user, settings),
        }
    }
}

/// Makes a directory where there is none, and those above it, each with its own rights whatever the
/// umask is.
fn directory(path: &Path, mode: u32, above: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory(parent, above, above)?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whole, and with its rights from its first instant.
fn write(path: &Path, mode: u32, content: &str) -> io::Result<()> {
    let mut file = Replacing::open(path)?;
    file.allow(mode)?;
    file.write_all(content.as_bytes())?;
    file.finish()
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn new_token() -> Result<String, CliError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| CliError::Up(Box::new(error)))?;
    Ok(format!("hearth_{}\n", URL_SAFE_NO_PAD.encode(secret)))
}

fn systemctl(arguments: &[&str], user: bool, settings: &Path) -> Result<(), CliError> {
    let mut command = Command::new("systemctl");
    command.args(user.then_some("--user")).args(arguments).stdin(Stdio::null());
    let asked = asked(user, arguments);
    let output = command.output().map_err(|error| {
        CliError::Refused(format!(
            "{asked} could not be run ({error}); what came before it is done"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let why = last_line(&output.stderr);
    // What is not there need not be stopped.
    if arguments.first() == Some(&"disable") && why.contains("does not exist") {
        return Ok(());
    }
    let journal = if user { "journalctl --user -u hearth" } else { "journalctl -u hearth" };
    let settings = shell_word(&settings.to_string_lossy()).into_owned();
    Err(CliError::Refused(format!(
        "{asked} failed, and what came before it is done: {why}; `{journal}` may say more, and by hand: hearth up --config {settings}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(user: bool) -> Layout {
        Layout {
            unit: "/u/hearth.service".into(),
            settings: "/c/hearth.toml".into(),
            token: "/c/admin-token".into(),
            data: "/d \"x\"".into(),
            user,
        }
    }

    #[test]
    fn both_units_run_the_program_that_installs_them() {
        for user in [false, true] {
            let steps = layout(user).install(Path::new("/opt/hearth"));
            let unit = steps.iter().find_map(|step| match step {
                Step::File { content, .. } => Some(content),
                _ => None,
            });
            let unit = unit.unwrap();
            assert!(unit.starts_with(MARK), "{unit}");
            let start = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
            let settings = if user { "/c/hearth.toml" } else { "/etc/hearth/hearth.toml" };
            assert_eq!(start, format!("ExecStart=/opt/hearth up --config {settings}"));
            let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
            assert!(stop.parse::<u64>().unwrap() > crate::drain::DEADLINE.as_secs());
        }
    }

    #[test]
    fn a_path_is_one_word_of_a_unit() {
        for (path, word) in [
            ("/opt/hearth", "/opt/hearth"),
            ("/home/a b/hearth", "\"/home/a b/hearth\""),
            ("/home/100%/$x", "\"/home/100%%/$$x\""),
            ("/home/\"a\\b\"", "\"/home/\\\"a\\\\b\\\"\""),
            ("/home/ä\n", "\"/home/ä\\x0a\""),
            ("/home/a;b", "\"/home/a;b\""),
        ] {
            assert_eq!(unit_word(Path::new(path)), word);
        }
    }

    #[test]
    fn the_first_settings_are_settings() {
        let settings: toml::Table = layout(false).first_settings().parse().unwrap();
        assert_eq!(settings["data"].as_str(), Some("/d \"x\""));
        assert_eq!(settings["admin-token-file"].as_str(), Some("/c/admin-token"));
    }

    #[test]
    fn data_and_settings_go_only_where_they_are_purged() {
        let removes = |purge| {
            let steps = layout(false).uninstall(purge);
            steps.iter().filter(|step| !matches!(step, Step::Systemctl { .. })).count()
        };
        assert_eq!((removes(false), removes(true)), (1, 4));
    }
}
