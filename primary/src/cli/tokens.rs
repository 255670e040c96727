//! `hearth token`: a tenant's tokens, and with the scope `admin` those of the host.

use clap::Subcommand;
use hearth_wire::Scope;
use jiff::Timestamp;

use super::client::Host;
use super::consent::Consent;
use super::error::{CliError, usage};
use super::print::{OrDash, Print, Table, escape, seconds};
use crate::api::tokens::{TokenInfo, TokenList, TokenMade, TokenNew};
use crate::config::ClientArgs;

#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token; it is shown once
    #[command(
        after_help = "Scopes of a tenant: owner may do all of the following, and remove functions, set options and hand out tokens; deploy uploads, rolls back and reads logs; invoke calls functions whose auth is invoke, also by hearth invoke; report calls functions whose auth is report, and nothing else, as something that only sends its figures in does. A token of the host: admin, for all of it.\n\nExample:\n  hearth token add ci --scope deploy --expires 90d"
    )]
    Add {
        /// What it is for
        name: String,
        /// What it may do: one of owner, deploy, invoke, report, admin
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
    let host = Host::connect(client)?;
    let at = |admin: bool| {
        if admin { Ok("/tokens".to_owned()) } else { host.of_tenant("/tokens") }
    };
    if let Tokens::Rm { id, admin, consent } = &command
        && !consent.is_given()
    {
        let whose = if *admin { "the host's token" } else { "the token" };
        let list: TokenList = host.get(&at(*admin)?)?.parse()?;
        match list.tokens.iter().find(|token| token.id == *id) {
            Some(TokenInfo { name, scope, .. }) => {
                consent.given(&format!("{whose} {id}, {name} ({scope})"))?;
            }
            None => return Err(CliError::Refused(format!("there is no token {id}"))),
        }
    }
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
                let now = Timestamp::now();
                let mut table = Table::new(["id", "name", "scope", "made", "expires"]);
                for token in list.tokens {
                    table.row([
                        &token.id,
                        &token.name,
                        &token.scope,
                        &seconds(token.created_at),
                        &OrDash(token.expires_at.map(|at| until(at, now))),
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

fn until(at: Timestamp, now: Timestamp) -> String {
    let past = if at <= now { " (expired)" } else { "" };
    format!("{}{past}", seconds(at))
}

/// When something expires: so long after now, or then.
pub(super) fn instant(text: &str, now: Timestamp) -> Result<Timestamp, CliError> {
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
    fn what_has_expired_says_so() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let past = now - jiff::SignedDuration::from_secs(1);
        assert_eq!(until(past, now), "2025-12-31 23:59:59Z (expired)");
        assert!(!until(now + jiff::SignedDuration::from_secs(1), now).contains("expired"));
    }

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
