//! Whether what a command deletes is meant. A person is asked; a script says `--yes`, since nobody
//! notices in time what it deletes by accident.

use std::io::{self, BufRead, IsTerminal};

use super::error::{CliError, usage};
use crate::terminal::ask;

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Consent {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Consent {
    /// Where `--yes` is not for all that a command does.
    pub fn said(yes: bool) -> Self {
        Self { yes }
    }

    /// Whether nobody is asked, so that nothing has to be found out for the question.
    pub fn is_given(self) -> bool {
        self.yes
    }

    /// `what` is removed for good, or nothing is.
    pub fn given(self, what: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(usage(format!(
                "this would remove {what}, and nobody can be asked; say --yes as well"
            )));
        }
        ask(format_args!("Remove {what}? [y/N] "));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::Refused("nothing was removed".to_owned())),
        }
    }
}
