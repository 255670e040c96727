//! What a program of ours says where it has nobody else to say it to.

use std::fmt::Arguments;
use std::io::{self, Write};

/// One line on standard error. That it cannot be written, since its reader has left or the disk is
/// full, is no reason to end, as it would be for `eprintln!`.
pub fn complain(line: Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
