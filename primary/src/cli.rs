//! The command line: what can be said, who answers it, and how it ends.
//!
//! `hearth up` hands its settings to `app`; every other command is a client of the management
//! API, or works in a function's directory. Exit status 0 done, 1 refused or failed (the reason
//! on standard error), 2 wrong usage.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{ClientArgs, UpArgs, Written};
use crate::terminal::{self, complain};

mod audit;
mod backup;
mod build;
mod client;
mod consent;
mod doctor;
mod error;
mod follow;
mod functions;
mod generations;
mod kv;
mod limits;
mod login;
mod logs;
mod multipart;
mod new;
mod options;
mod print;
mod replacing;
mod sample;
mod secret;
mod secrets;
mod service;
mod settings;
mod source;
mod sql;
mod tenants;
mod tokens;
mod transport;
mod upload;
mod workers;

use error::{CliError, chain};
use print::Print;

#[derive(Debug, Parser)]
#[command(
    name = "hearth",
    version,
    about = "A platform for WebAssembly functions: the host and its command line",
    arg_required_else_help = true,
    after_help = "Example:\n  hearth up                                       run the host\n  hearth login                                    be its client\n  hearth new hello && cd hello && hearth build    write a function\n  hearth upload hello.wasm                        serve it"
)]
struct Cli {
    /// Print JSON: what the API answered
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the host
    #[command(
        after_help = "Each option is also a variable (--tenant-bind is HEARTH_TENANT_BIND) and a key of the file of --config (tenant-bind = \"127.0.0.1\"), where it may also stand in a section ([tenants], below it bind = \"127.0.0.1\"). An option takes precedence over a variable, and a variable over the file.\n\nExample:\n  hearth up --data /var/lib/hearth --listen 127.0.0.1:3400"
    )]
    Up(Box<UpArgs>),
    /// Store the address of a host and a token for it
    Login(login::LoginArgs),
    /// Add, list, show and remove tenants
    #[command(subcommand)]
    Tenant(tenants::Tenants),
    /// Add, list and remove tokens
    #[command(subcommand)]
    Token(tokens::Tokens),
    /// Make a function's directory from a template
    New(new::NewArgs),
    /// Build the function of the current directory
    Build(build::BuildArgs),
    /// Upload modules and serve them
    Upload(upload::UploadArgs),
    /// List the functions that are served
    #[command(after_help = "Example:\n  hearth functions --tenant demo")]
    Functions,
    /// List the versions of a function
    Versions(functions::VersionsArgs),
    /// Serve an earlier version of a function, or an earlier generation, again
    Rollback(functions::RollbackArgs),
    /// List what was served, generation by generation
    Generations(generations::GenerationsArgs),
    /// Remove a function
    Rm(functions::RmArgs),
    /// Show a function's options, and set them
    Options(options::OptionsArgs),
    /// Show a tenant's limits and what it has of them, and set them
    Limits(limits::LimitsArgs),
    /// Show a tenant's configuration, and set it
    Config(settings::ConfigArgs),
    /// Set, list and remove secrets
    #[command(subcommand)]
    Secret(secrets::Secrets),
    /// Call a function
    Invoke(functions::InvokeArgs),
    /// List, read, set and remove what functions keep by key
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Run a statement on a database of functions, or import and export one
    Sql(sql::SqlArgs),
    /// Show what functions wrote
    Logs(logs::LogsArgs),
    /// Show the last calls
    Calls(logs::CallsArgs),
    /// Show who changed what
    Audit(audit::AuditArgs),
    /// List, start, restart and stop workers
    #[command(subcommand)]
    Worker(workers::Workers),
    /// Back the whole host up to a file
    Backup(backup::BackupArgs),
    /// Restore a backup: into an empty data directory, or tenants into a host that serves
    Restore(backup::RestoreArgs),
    /// Install the host as a service of systemd
    Install(service::InstallArgs),
    /// Stop the service and remove it
    Uninstall(service::UninstallArgs),
    /// Check this machine, these settings and the host
    Doctor(Box<doctor::DoctorArgs>),
    /// Print a script that completes these commands in a shell
    #[command(
        after_help = "Example:\n  hearth completions bash > ~/.local/share/bash-completion/completions/hearth"
    )]
    Completions { shell: clap_complete::Shell },
}

/// Commands that talk to no host.
const ALONE: [&str; 6] = ["up", "new", "build", "install", "uninstall", "completions"];

/// All that can be said. How a host is reached can be said with every command, and is no help with
/// one that reaches none.
fn command() -> clap::Command {
    let command = Cli::command();
    let connection = ClientArgs::augment_args(clap::Command::new("connection"));
    let hidden: Vec<_> = connection.get_arguments().map(|arg| arg.clone().hide(true)).collect();
    ALONE.iter().fold(command, |command, alone| {
        command.mut_subcommand(alone, |alone| alone.args(hidden.clone()))
    })
}

pub fn run() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|said| Cli::from_arg_matches(&said));
    let Cli { json, client, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    match dispatch(command, &client, Print::new(json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whether anybody reads it is no matter: the reason is told beside it.
            if let (CliError::Problem(said), true) = (&error, json) {
                let _ = Print::new(json).raw(&said.json);
            }
            end(&error)
        }
    }
}

fn dispatch(command: Command, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    match command {
        Command::Up(args) => up(*args),
        Command::Login(args) => login::run(args, client, print),
        Command::Tenant(command) => tenants::run(command, client, print),
        Command::Token(command) => tokens::run(command, client, print),
        Command::New(args) => new::run(args, print),
        Command::Build(args) => build::run(&args, print),
        Command::Upload(args) => upload::run(&args, client, print),
        Command::Functions => functions::list(client, print),
        Command::Versions(args) => functions::versions(&args, client, print),
        Command::Rollback(args) => functions::rollback(&args, client, print),
        Command::Generations(args) => generations::list(&args, client, print),
        Command::Rm(args) => functions::remove(&args, client, print),
        Command::Options(args) => options::run(&args, client, print),
        Command::Limits(args) => limits::run(&args, client, print),
        Command::Config(args) => settings::run(&args, client, print),
        Command::Secret(command) => secrets::run(command, client, print),
        Command::Invoke(args) => functions::invoke(&args, client),
        Command::Kv(command) => kv::run(command, client, print),
        Command::Sql(args) => sql::run(args, client, print),
        Command::Logs(args) => logs::logs(&args, client, print),
        Command::Calls(args) => logs::calls(&args, client, print),
        Command::Audit(args) => audit::run(&args, client, print),
        Command::Worker(command) => workers::run(command, client, print),
        Command::Backup(args) => backup::backup(&args, client, print),
        Command::Restore(args) => backup::restore(&args, client, print),
        Command::Install(args) => service::install(&args, print),
        Command::Uninstall(args) => service::uninstall(&args, print),
        Command::Doctor(args) => doctor::run(*args, client, print),
        Command::Completions { shell } => {
            // Into memory first: it panics where nobody reads to the end.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut self::command(), "hearth", &mut script);
            Ok(io::stdout().write_all(&script)?)
        }
    }
}

fn up(args: UpArgs) -> Result<(), CliError> {
    let written = Written::gather(args)?;
    crate::app::up(written).map_err(|error| match error.downcast() {
        Ok(config) => CliError::Config(config),
        Err(error) => CliError::Up(error.into()),
    })
}

fn end(error: &CliError) -> ExitCode {
    match error {
        // Whoever reads the output has read enough.
        CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        CliError::Told => {}
        error => complain(format_args!("{}", chain(error))),
    }
    match error {
        CliError::Usage(_) | CliError::Config(_) => ExitCode::from(2),
        CliError::Login(_)
        | CliError::Refused(_)
        | CliError::Problem(_)
        | CliError::Unreachable { .. }
        | CliError::Broken { .. }
        | CliError::Encryption { .. }
        | CliError::Cut(_)
        | CliError::Answer(_)
        | CliError::File { .. }
        | CliError::Backup(_)
        | CliError::Restore(_)
        | CliError::Output(_)
        | CliError::Up(_)
        | CliError::Told => ExitCode::FAILURE,
    }
}

/// Help that was asked for, or what is wrong with a command. Nobody may be there to read it.
fn explain(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() {
        terminal::mutter(&terminal::help(&text, terminal::error_width()));
    } else {
        let text = terminal::help(&text, terminal::output_width());
        let _ = io::stdout().write_all(text.as_bytes());
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let said = command().try_get_matches_from(line.split(' '))?;
        Cli::from_arg_matches(&said)
    }

    #[test]
    fn the_tree_of_commands_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn help_has_no_option_that_does_nothing() {
        let mut command = command();
        command.build();
        for command in command.get_subcommands_mut().filter(|it| !it.has_subcommands()) {
            let help = command.render_long_help().to_string();
            let is_alone = ALONE.contains(&command.get_name());
            assert_ne!(help.contains("--token-file"), is_alone, "{}", command.get_name());
        }
        let said = parse("hearth up --url http://h").unwrap();
        assert_eq!(said.client.url.as_deref(), Some("http://h"));
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            if command.has_subcommands() {
                command.get_subcommands().for_each(check);
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let example = help.split_once("Example:\n").unwrap_or_default().1;
                assert!(example.contains("hearth "), "{}", command.get_name());
            }
        }
        Cli::command().get_subcommands().for_each(check);
    }

    /// However narrow the terminal is, no line of help is longer, and no command in it broken.
    #[test]
    fn help_fits_a_terminal_of_eighty_columns() {
        fn check(command: &mut clap::Command) {
            for text in [command.render_help(), command.render_long_help()] {
                let text = text.to_string();
                let shown = terminal::help(&text, Some(80));
                for line in shown.lines() {
                    assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
                }
                let commands = |text: &str| {
                    let lines = text.lines().filter(|line| line.starts_with("  hearth "));
                    lines.map(str::to_owned).collect::<Vec<_>>()
                };
                assert_eq!(commands(&text), commands(&shown), "{}", command.get_name());
            }
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn what_can_be_said() {
        for line in [
            "hearth up --listen 127.0.0.1:0 --trusted-proxy 10.0.0.0/8 --trusted-proxy ::1",
            "hearth login http://127.0.0.1:3400",
            "hearth tenant add demo",
            "hearth tenant list --json",
            "hearth --json tenant show demo",
            "hearth tenant rm demo --yes",
            "hearth token add ci --scope deploy --expires 30d",
            "hearth token list --tenant demo",
            "hearth token rm 3",
            "hearth token rm 3 --yes",
            "hearth new hello",
            "hearth new hello --lang rust",
            "hearth build",
            "hearth upload a.wasm b.wasm.zst --to jobs --options {}",
            "hearth functions --url http://h --token-file /t --tenant demo --ca-file /c",
            "hearth versions /hello",
            "hearth rollback hello 3",
            "hearth rollback --generation 7",
            "hearth generations -n 20 --before 7",
            "hearth upload a.wasm --same-imports",
            "hearth rm jobs/nightly",
            "hearth rm jobs/nightly -y",
            "hearth invoke hello -d {}",
            "hearth invoke hello -d @f",
            "hearth invoke hello -d -",
            "hearth invoke hello -X put --below /a?b=c -H x-a:1 -H x-b:",
            "hearth options hello",
            "hearth options hello --set {}",
            "hearth limits",
            "hearth limits functions=3 calls_running=default",
            "hearth config",
            "hearth config region=eu greeting= --rm old --rm older",
            "hearth secret set API_KEY --tenant demo",
            "hearth secret list --json",
            "hearth secret rm API_KEY --yes",
            "hearth secret rekey",
            "hearth secret rekey --forget --yes",
            "hearth logs -f",
            "hearth logs hello -n 5",
            "hearth calls -f hello",
            "hearth audit",
            "hearth audit -n 20 --action token.create --before 7 --tenant demo --json",
            "hearth kv list",
            "hearth kv list default --prefix users/ -n 5 --after users/7 --json",
            "hearth kv get default users/7",
            "hearth kv set default users/7 @f --expires 30m",
            "hearth kv set default users/7",
            "hearth kv rm default users/7",
            "hearth kv rm default --yes",
            "hearth kv export default",
            "hearth sql",
            "hearth sql -n 5 --after default",
            "hearth sql default -",
            "hearth sql default select -p 1 -p -2 --json",
            "hearth sql import default -",
            "hearth sql export default f.sql",
            "hearth sql export default",
            "hearth worker list",
            "hearth worker restart --tenant demo",
            "hearth backup -",
            "hearth backup /tmp/hearth.tar.zst --json",
            "hearth backup demo.tar.zst --tenant demo",
            "hearth restore hearth.tar.zst",
            "hearth restore hearth.tar.zst --tenant demo",
            "hearth restore hearth.tar.zst --data /tmp",
            "hearth restore hearth.tar.zst --data /tmp --secrets-key key",
            "hearth restore hearth.tar.zst --tenant demo --without-secrets",
            "hearth install --user --dry-run",
            "hearth uninstall --purge --yes --root /mnt",
            "hearth doctor --data /tmp",
            "hearth completions zsh",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for line in [
            "hearth",
            "hearth sing",
            "hearth up --colour",
            "hearth upload",
            "hearth versions ../x",
            "hearth invoke hello -H nonsense",
            "hearth invoke hello -H host:other",
            "hearth versions $upload",
            "hearth rollback hello last",
            "hearth rollback",
            "hearth rollback hello --generation 7",
            "hearth token add ci --scope everything",
            "hearth tenant add Demo",
            "hearth secret set",
            "hearth secret set a=b",
            "hearth secret set KEY value",
            "hearth config --rm",
            "hearth config --rm a=b",
            "hearth backup",
            "hearth uninstall --yes",
            "hearth completions ksh",
            "hearth kv get default",
            "hearth kv list a/b",
            "hearth kv list --prefix users/",
            "hearth kv list -n 0",
            "hearth sql import default",
            "hearth sql default select -n 5",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn an_error_is_told_with_its_causes_once() {
        let source = io::Error::other("no such thing");
        let error = CliError::File { path: "a.wasm".into(), source };
        assert_eq!(chain(&error), "a.wasm: no such thing");
        let error = CliError::Config(ConfigError::TwoAdminTokens);
        assert_eq!(chain(&error), ConfigError::TwoAdminTokens.to_string());
    }
}
