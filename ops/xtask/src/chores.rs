//! Says what is being done, does it, and says how long it took. Owns nothing else; what a
//! command prints goes to the terminal unchanged.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

pub(crate) struct Chores {
    begun: Instant,
    done: Vec<(String, Duration)>,
}

impl Chores {
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), done: Vec::new() }
    }

    /// One step, whose name reads well after "failed:".
    pub(crate) fn step<T>(
        &mut self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        eprintln!("xtask: {name} ...");
        let begun = Instant::now();
        let value = work().with_context(|| format!("failed: {name}"))?;
        let took = begun.elapsed();
        eprintln!("xtask: {name}: {}", spoken(took));
        self.done.push((name.to_owned(), took));
        Ok(value)
    }

    /// One step that is one command.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        self.step(name, || succeed(command))
    }

    pub(crate) fn end(self, outcome: &str) {
        let width = self.done.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        eprintln!();
        for (name, took) in &self.done {
            eprintln!("  {name:width$}  {:>9}", spoken(*took));
        }
        eprintln!("xtask: {outcome} in {}\n", spoken(self.begun.elapsed()));
    }
}

pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} could not be run", command.get_program().display()))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn spoken(took: Duration) -> String {
    match took.as_secs() {
        seconds @ 60.. => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{:.1} s", took.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        for (milliseconds, text) in
            [(0, "0.0 s"), (1_249, "1.2 s"), (59_900, "59.9 s"), (61_000, "1 min 01 s")]
        {
            assert_eq!(spoken(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn a_command_that_fails_is_named() {
        let error = succeed(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert_eq!(error, r#""sh" "-c" "exit 3" ended with exit status: 3"#);
        assert!(succeed(&mut Command::new("/nowhere/at-all")).is_err());
    }
}
