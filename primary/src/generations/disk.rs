//! How much of the disk some directories take.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What `st_blocks` counts in, whatever the file system's own block is.
const BLOCK_BYTES: u64 = 512;

/// Bytes of all files below, each file once however many links it has. What goes away meanwhile
/// is nothing.
pub(super) fn allocated(dirs: &[&Path]) -> io::Result<u64> {
    let mut left: Vec<PathBuf> = dirs.iter().map(|&dir| dir.to_owned()).collect();
    let mut counted = HashSet::new();
    let mut bytes = 0_u64;
    while let Some(dir) = left.pop() {
        let Some(entries) = there(fs::read_dir(&dir))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(metadata) = there(entry.metadata())? else { continue };
            if metadata.is_dir() {
                left.push(entry.path());
            } else if counted.insert((metadata.dev(), metadata.ino())) {
                bytes = metadata.blocks().saturating_mul(BLOCK_BYTES).saturating_add(bytes);
            }
        }
    }
    Ok(bytes)
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        // What lies in the place of a directory holds nothing of its.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("deep")).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(a.join("deep/file"), vec![7; 100_000]).unwrap();
        let once = allocated(&[&a]).unwrap();
        assert!(once >= 100_000, "{once}");
        fs::hard_link(a.join("deep/file"), b.join("link")).unwrap();
        assert_eq!(allocated(&[&a, &b]).unwrap(), once);
        assert_eq!(allocated(&[&dir.path().join("nix")]).unwrap(), 0);
    }
}
