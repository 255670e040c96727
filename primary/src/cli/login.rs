//! `hearth login`: checks a token against its host and stores both.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::client::Host;
use super::print::{Print, escape};
use super::{CliError, usage};
use crate::config::{Client, ClientArgs, Login};

/// A longer line is no token.
const LINE_MAX_BYTES: u64 = 4 << 10;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The token is read from standard input, and not shown when that is a terminal.\n\nExample:\n  hearth login http://127.0.0.1:3400\n  hearth login https://hearth.example.org < token.txt"
)]
pub struct LoginArgs {
    /// The host's front door [default: as --url]
    address: Option<String>,
}

pub fn run(args: LoginArgs, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let address = match (args.address, &client.url) {
        (Some(_), Some(_)) => return Err(usage("say the address once: as ADDRESS or with --url")),
        (Some(address), None) => address,
        (None, _) => Client::gather(&ClientArgs { token_file: None, ..client.clone() })?.url,
    };
    let token = match &client.token_file {
        Some(_) => {
            let args = ClientArgs { url: Some(address.clone()), ..client.clone() };
            Client::gather(&args)?.token.unwrap_or_default()
        }
        None => read_token(&address)
            .map_err(|source| CliError::File { path: "standard input".into(), source })?,
    };
    let login = Login::new(&address, &token)?;
    let host = Host::of(login.client());
    let answer = host.get("/whoami")?;
    let path = login.store()?;
    if host.url().starts_with("http://") && !host.is_local() {
        eprintln!(
            "hearth: over http:// the token can be read on its way; https:// keeps it secret"
        );
    }
    print.answer::<crate::api::auth::Whoami>(&answer, |who, out| {
        let (url, name, scope) = (host.url(), escape(&who.name), who.scope);
        match &who.tenant {
            Some(tenant) => writeln!(out, "{url} knows you as {name} ({scope} of {tenant})."),
            None => writeln!(out, "{url} knows you as {name} ({scope})."),
        }?;
        writeln!(out, "Stored in {}.", path.display())
    })
}

/// One line of standard input; what is typed is not shown.
fn read_token(address: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    let mut read = || stdin.lock().take(LINE_MAX_BYTES).read_line(&mut line);
    if stdin.is_terminal() {
        eprint!("Token for {}: ", escape(address));
        let shown = tcgetattr(stdin.as_fd())?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
        let read = read();
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &shown)?;
        eprintln!();
        read?;
    } else {
        read()?;
    }
    Ok(line)
}
