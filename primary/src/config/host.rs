//! The host itself: where its data is, whose it is, and how much must stand between tenants.

use std::path::PathBuf;

use super::kinds::{path, whole, word};
use super::settings::settings;
use crate::isolation::Level;

settings! {
    /// The host itself. These have no section: they stand at the top of the file.
    Host in "":
    /// Where everything is kept that Hearth keeps
    one data: PathBuf, "data" "data" "DIR" = "./hearth-data", path("a directory");
    /// A file with the admin token, in place of one made at the first start
    maybe admin_token_file: PathBuf, "admin-token-file" "admin-token-file" "FILE", path("a file");
    /// The file of the key that seals secrets, in place of one made in the data directory
    maybe secrets_key: PathBuf, "secrets-key" "secrets-key" "FILE", path("a file");
    /// Refuse to start below this level of isolation: A, B or C; `auto` takes what the machine
    /// offers and says what that is
    one isolation: Level, "isolation" "isolation" "LEVEL" = "auto", word(LEVELS);
    /// Write one line of JSON to this descriptor once it serves
    maybe ready_fd: i32, "ready-fd" "ready-fd" "N",
        whole("the number of an open descriptor,", 1..=i32::MAX);
}

/// The least that is good enough.
const LEVELS: &[(&str, Level)] =
    &[("auto", Level::D), ("A", Level::A), ("B", Level::B), ("C", Level::C)];

#[cfg(test)]
pub mod examples {
    use crate::config::settings::{Bad, Good};

    pub const GOOD: &[Good] = &[
        ("data", ["/a", "/b", "c"], ["data=/a ", "data=/b ", "data=c "]),
        (
            "admin-token-file",
            ["/a", "/b", "/c"],
            [" admin-token-file=/a ", " admin-token-file=/b ", " admin-token-file=/c "],
        ),
        (
            "secrets-key",
            ["/a", "/b", "/c"],
            [" secrets-key=/a ", " secrets-key=/b ", " secrets-key=/c "],
        ),
        ("isolation", ["A", "auto", "C"], [" isolation=A ", " isolation=auto ", " isolation=C "]),
        ("ready-fd", ["1", "3", "10"], [" ready-fd=1 ", " ready-fd=3 ", " ready-fd=10 "]),
    ];

    pub const BAD: &[Bad] = &[
        ("data", "", "must be a directory, not ``"),
        ("admin-token-file", "", "must be a file"),
        ("secrets-key", "", "must be a file"),
        ("isolation", "D", "must be one of auto, A, B, C, not `D`"),
        ("isolation", "b", "must be one of auto, A, B, C, not `b`"),
        ("ready-fd", "0", "must be the number of an open descriptor, from 1"),
    ];
}
