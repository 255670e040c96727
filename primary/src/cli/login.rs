//! `hearth login`: checks a token against its host and stores both.

use std::io::{self, BufRead, IsTerminal, Read};

use super::client::Host;
use super::error::{CliError, usage};
use super::print::{Print, escape};
use super::secret::read_hidden;
use crate::config::{Client, ClientArgs, Login};
use crate::terminal::complain;

/// A longer line is no token.
const LINE_MAX_BYTES: usize = 4 << 10;

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
        (Some(address), None) => Some(address),
        (None, url) => url.clone(),
    };
    if let Some(address) = &address {
        Login::check(address)?;
    }
    // What was stored before may be damaged, and is about to be replaced.
    let (address, ca_file) = Client::to_log_in(&ClientArgs { url: address, ..client.clone() })?;
    let token = match &client.token_file {
        Some(file) => Login::read_token(file)?,
        None => read_token(&address)
            .map_err(|source| CliError::File { path: "standard input".into(), source })?,
    };
    Host::of(Client::bare(address.clone(), ca_file.clone()))?.is_api()?;
    let login = Login::new(&address, &token, ca_file)?;
    let host = Host::of(login.client())?;
    let answer = host.get("/whoami")?;
    let path = login.store()?;
    if host.url().starts_with("http://") && !host.is_local() {
        complain(format_args!(
            "over http:// the token can be read on its way; https:// keeps it secret"
        ));
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
    if stdin.is_terminal() {
        let question = format!("Token for {}: ", escape(address));
        return read_hidden(&question, LINE_MAX_BYTES);
    }
    let mut line = String::new();
    stdin.lock().take(LINE_MAX_BYTES as u64).read_line(&mut line)?;
    Ok(line)
}
