//! That a file can be read at once: none is longer than [`MOST`] lines, but those whose head says
//! why, in a sentence of its `//!` comment that begins with "This file is long because".

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::sources;

const MOST: usize = 700;
const REASON: &str = "This file is long because ";

pub(crate) fn check() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for file in sources::all()? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        wrong.extend(fault(&file, &text));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("files that cannot be read at once:\n  {}", wrong.join("\n  "))
}

fn fault(file: &Path, text: &str) -> Option<String> {
    let (name, lines) = (sources::name(file), text.lines().count());
    (lines > MOST && !says_why(text)).then(|| {
        format!(
            "{name} has {lines} lines, more than {MOST}: split it, or say in its head \"{REASON}…\""
        )
    })
}

/// Whether the comment at the head of a file has the sentence.
fn says_why(text: &str) -> bool {
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let head: Vec<_> = head.flat_map(str::split_whitespace).collect();
    head.join(" ").contains(REASON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_says_why_in_its_head() {
        let code = |lines| "let x;\n".repeat(lines);
        let at = |text: &str| fault(Path::new("a.rs"), text);
        assert_eq!(at(&code(MOST)), None);
        let told = at(&code(MOST + 1)).unwrap();
        assert!(told.starts_with("a.rs has 701 lines, more than 700: "), "{told}");
        let head = "//! A machine. This file is long\n//! because it is one.\n\n";
        assert_eq!(at(&[head, &code(MOST)].concat()), None);
        let late = "\n//! This file is long because it is one.\n";
        assert!(at(&[late, &code(MOST)].concat()).is_some(), "that is not its head");
        assert!(at(&["//! This file is long.\n", &code(MOST)].concat()).is_some());
    }
}
