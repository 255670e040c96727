//! `hearth secret`: a tenant's secrets, which nobody reads again but its functions; and the host's key
//! for them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read};

use clap::Subcommand;
use hearth_wire::limits::SETTING_VALUE_MAX_BYTES;
use hearth_wire::{SettingName, SettingValue};
use zeroize::Zeroizing;

use super::client::{Host, PAGE_MAX};
use super::consent::Consent;
use super::error::{CliError, usage};
use super::print::{Print, Table, seconds};
use super::secret::read_hidden;
use super::settings::tell;
use crate::api::settings::{Rekey, RekeyDone, SecretChanges, SecretList, SettingsChanged};
use crate::config::ClientArgs;

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Set a secret: asked for, or from standard input
    #[command(
        after_help = "At a terminal the secret is asked for, and not shown. Otherwise it is all of standard input; one line end at its end is not part of it. It is never an argument, which others on this machine could read. A change applies at once, and no connection is lost.\n\nExample:\n  hearth secret set API_KEY\n  hearth secret set TLS_KEY < key.pem"
    )]
    Set {
        /// By which functions ask for it
        name: SettingName,
    },
    /// List the names of secrets
    #[command(after_help = "Example:\n  hearth secret list --tenant demo")]
    List,
    /// Remove a secret; functions do not find it from then on
    #[command(after_help = "Example:\n  hearth secret rm API_KEY --yes")]
    Rm {
        name: SettingName,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a new key for all secrets of the host, and seal them with it
    #[command(
        after_help = "Only the host's admin may do this. Nothing is interrupted, and a crash meanwhile loses nothing. Earlier backups need the earlier key: keep it with them. --forget is for a key that is lost for good: what it sealed is removed, and its tenants serve again without these secrets.\n\nExample:\n  hearth secret rekey"
    )]
    Rekey {
        /// Remove secrets that the host's key does not open
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

pub fn run(command: Secrets, client: &ClientArgs, print: Print) -> Result<(), CliError> {
    let host = Host::connect(client)?;
    match command {
        Secrets::Set { name } => {
            let path = host.of_tenant("/secrets")?;
            let value = read(&name)?;
            let secrets = BTreeMap::from([(name, Some(value))]);
            let answer = host.patch(&path, &SecretChanges { secrets })?;
            tell(&answer.parse()?);
            print.answer::<SettingsChanged>(&answer, |changed, out| {
                changed.set.iter().try_for_each(|name| writeln!(out, "Set the secret {name}."))
            })
        }
        Secrets::List => {
            let answer = host.get(&format!("{}?limit={PAGE_MAX}", host.of_tenant("/secrets")?))?;
            print.answer::<SecretList>(&answer, |list, out| {
                let mut table = Table::new(["name", "set", ""]);
                for secret in list.secrets {
                    let opens = if secret.opens { "" } else { "cannot be opened" };
                    table.row([&secret.name, &seconds(secret.set_at), &opens]);
                }
                table.write(out, "There is no secret.")
            })
        }
        Secrets::Rm { name, consent } => {
            let path = host.of_tenant("/secrets")?;
            consent.given(&format!("the secret {name}"))?;
            let secrets = BTreeMap::from([(name, None)]);
            let answer = host.patch(&path, &SecretChanges { secrets })?;
            tell(&answer.parse()?);
            print.answer::<SettingsChanged>(&answer, |changed, out| {
                changed
                    .removed
                    .iter()
                    .try_for_each(|name| writeln!(out, "Removed the secret {name}."))
            })
        }
        Secrets::Rekey { forget, consent } => {
            if forget {
                consent.given("all secrets that the host's key does not open")?;
            }
            let answer = host.post("/secrets/rekey", Some(&Rekey { forget }))?;
            print.answer::<RekeyDone>(&answer, |done, out| {
                let RekeyDone { secrets, forgotten } = done;
                writeln!(out, "Made a new key, and sealed {secrets} secrets with it.")?;
                for tenant in forgotten {
                    writeln!(out, "Forgot secrets of the tenant {tenant}: set them again.")?;
                }
                Ok(())
            })
        }
    }
}

/// What is typed and not shown, or all of standard input.
fn read(name: &SettingName) -> Result<SettingValue, CliError> {
    let named = |source| CliError::File { path: "standard input".into(), source };
    let stdin = io::stdin();
    // Of a value with the end of a line, one byte more than is taken.
    let most = SETTING_VALUE_MAX_BYTES + 3;
    let bytes = match stdin.is_terminal() {
        true => {
            let line = read_hidden(&format!("Value of {name}: "), most).map_err(named)?;
            Zeroizing::new(line.into_bytes())
        }
        false => {
            let mut bytes = Zeroizing::new(Vec::with_capacity(most));
            stdin.lock().take(most as u64).read_to_end(&mut bytes).map_err(named)?;
            bytes
        }
    };
    value(name, &bytes)
}

fn value(name: &SettingName, bytes: &[u8]) -> Result<SettingValue, CliError> {
    let text = str::from_utf8(bytes).map_err(|_| {
        usage("a secret must be text (UTF-8); encode anything else, for example in base64")
    })?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    let value = SettingValue::from(text.to_owned());
    if text.is_empty() {
        return Err(usage(format!(
            "there is no value for {name}: type one, or give it on standard input"
        )));
    }
    match value.fits() {
        true => Ok(value),
        false => {
            let most = SETTING_VALUE_MAX_BYTES >> 10;
            Err(usage(format!("the value of {name} is above {most} KiB")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_secret() {
        let name = "KEY".parse().unwrap();
        let taken = |bytes: &[u8]| match value(&name, bytes) {
            Ok(value) => Ok(value.as_str().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        for (given, kept) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a\nb\n", "a\nb"),
            (" a ", " a "),
        ] {
            assert_eq!(taken(given.as_bytes()), Ok(kept.to_owned()));
        }
        for (given, said) in [
            (&b""[..], "there is no value for KEY"),
            (b"\n", "there is no value"),
            (b"\xff", "must be text"),
            (&[b'x'; SETTING_VALUE_MAX_BYTES + 1], "above 16 KiB"),
        ] {
            assert!(taken(given).unwrap_err().contains(said));
        }
        assert!(taken(&[b'x'; SETTING_VALUE_MAX_BYTES]).is_ok());
    }
}
