//! `hearth token`: a tenant's tokens, and with the scope `admin` those of the host.

use clap::Subcommand;
use hearth_wire::Scope;
use jiff::Timestamp;

use super::client::Host;
use super::consent::Consent;
use super::print::{OrDash, Print, Table, escape, seconds};
use super::{CliError, usage};
use crate::api::tokens::{TokenList, TokenMade, TokenNew};
use crate::config::ClientArgs;

#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token; it is shown once
    #[command(
        after_help = "Scopes: owner (everything of a tenant), deploy, invoke, report; admin (the whole host).\n\nExample:\n  hearth token add ci --scope deploy --expires 90d"
    )]
    Add {
        /// What it is for
        name: String,
        #[arg(long)]
        scope: Scope,
        /// A duration from now, like 90d, or an instant, like 2030-01-01T00:00:00Z [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
    },
    /// List the tokens
    #[command(after_help = "Example:\n  hearth token list --tenant demo")]
    List {
        /// Those of the host
        #[arg(long)]
        admin: bool,
    },
    /// Remove a token; it is refused from then on
    #[command(after_help = "Example:\n  hearth token rm 3 --yes")]
    Rm {
        /// As `hearth token list` shows it
        id: i64,
        /// One of the host's
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

pub fn run(command: Tokens, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    if let Tokens::Rm { id, admin, consent } = &command {
        let whose = if *admin { "the host's token" } else { "the token" };
        consent.given(&format!("{whose} {id}"))?;
    }
    let host = Host::connect(client)?;
    let at = |admin: bool| {
        if admin { Ok("/tokens".to_owned()) } else { host.of_tenant("/tokens") }
    };
    match command {
        Tokens::Add { name, scope, expires } => {
            let expires_at = expires.map(|text| instant(&text, Timestamp::now())).transpose()?;
            let new = TokenNew { name, scope, expires_at };
            let answer = host.post(&at(scope == Scope::Admin)?, Some(&new))?;
            print.answer::<TokenMade>(&answer, |made, out| {
                let TokenMade { id, name, scope, created_at: _, expires_at, token } = made;
                write!(out, "Made the token {id}, {} ({scope})", escape(&name))?;
                match expires_at {
                    Some(at) => writeln!(out, ", good until {}.", seconds(at)),
                    None => writeln!(out, "."),
                }?;
                writeln!(out, "\nShown this once:\n  {}", escape(&token))
            })
        }
        Tokens::List { admin } => {
            let answer = host.get(&at(admin)?)?;
            print.answer::<TokenList>(&answer, |list, out| {
                let mut table = Table::new(["id", "name", "scope", "made", "expires"]);
                for token in list.tokens {
                    table.row([
                        &token.id,
                        &token.name,
                        &token.scope,
                        &seconds(token.created_at),
                        &OrDash(token.expires_at.map(seconds)),
                    ]);
                }
                table.write(out, "There is no token.")
            })
        }
        Tokens::Rm { id, admin, consent: _ } => {
            let answer = host.delete(&format!("{}/{id}", at(admin)?))?;
            print.raw(&answer.text)?;
            print.say(format_args!("Removed the token {id}; it is refused from now on."))
        }
    }
}

fn instant(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
    let refused =
        || usage("--expires takes a duration, like 90d, or an instant, like 2030-01-01T00:00:00Z");
    match humantime::parse_duration(text) {
        Ok(duration) => now.checked_add(duration).map_err(|_| refused()),
        Err(_) => text.parse().map_err(|_| refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_token_expires() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (text, at) in [
            ("90d", "2026-04-01T00:00:00Z"),
            ("1h 30m", "2026-01-01T01:30:00Z"),
            ("2030-01-01T00:00:00+01:00", "2029-12-31T23:00:00Z"),
        ] {
            assert_eq!(instant(text, now).unwrap(), at.parse().unwrap());
        }
        for bad in ["", "tomorrow", "90", "2030-01-01", "99999999y"] {
            assert!(instant(bad, now).is_err(), "{bad}");
        }
    }
}
