//! What a command is given to send: as it stands on the line, of a file, or of standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::{CliError, usage};

/// Standard input, or standard output, in the place of a file.
pub const STDIO: &str = "-";

/// A request's body.
pub struct Source {
    pub reader: Box<dyn Read>,
    /// None where it is not known before it was read.
    pub length: Option<u64>,
}

impl Source {
    pub fn text(text: &str) -> Self {
        let bytes = text.as_bytes().to_vec();
        Self { length: Some(bytes.len() as u64), reader: Box::new(io::Cursor::new(bytes)) }
    }

    pub fn stdin() -> Self {
        Self { reader: Box::new(io::stdin().lock()), length: None }
    }

    /// A file, or standard input where it is named so.
    pub fn file(path: &Path) -> Result<Self, CliError> {
        if path == Path::new(STDIO) {
            return Ok(Self::stdin());
        }
        let named = |source| CliError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(named)?;
        let meta = file.metadata().map_err(named)?;
        if meta.is_dir() {
            return Err(named(io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self { length: meta.is_file().then_some(meta.len()), reader: Box::new(file) })
    }

    /// `@FILE`, `-`, or what stands there.
    pub fn of(given: &str) -> Result<Self, CliError> {
        match (given, given.strip_prefix('@')) {
            (STDIO, _) => Ok(Self::stdin()),
            (_, Some(path)) => Self::file(Path::new(path)),
            (text, None) => Ok(Self::text(text)),
        }
    }

    /// The same, where what stands there is JSON. Nothing where nothing is given.
    pub fn json(given: Option<&str>) -> Result<Self, CliError> {
        let given = given.unwrap_or_default();
        if !given.is_empty() && given != STDIO && !given.starts_with('@') {
            let json: Result<&serde_json::value::RawValue, _> = serde_json::from_str(given);
            json.map_err(|error| usage(format!("-d takes JSON, @FILE or -: {error}")))?;
        }
        Self::of(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: Result<Source, CliError>) -> Result<(String, Option<u64>), CliError> {
        let mut source = source?;
        let mut text = String::new();
        source.reader.read_to_string(&mut text).unwrap();
        Ok((text, source.length))
    }

    #[test]
    fn where_a_body_comes_from() {
        assert_eq!(read(Source::json(None)).unwrap(), (String::new(), Some(0)));
        let object = read(Source::json(Some("{\"a\": 1}"))).unwrap();
        assert_eq!(object, ("{\"a\": 1}".to_owned(), Some(8)));
        assert!(matches!(read(Source::json(Some("{a}"))), Err(CliError::Usage(_))));
        assert_eq!(read(Source::of("{a}")).unwrap(), ("{a}".to_owned(), Some(3)));
        assert_eq!(read(Source::of("")).unwrap(), (String::new(), Some(0)));
        assert!(matches!(read(Source::of("@/nowhere/at/all")), Err(CliError::File { .. })));
        assert!(matches!(read(Source::of("@/tmp")), Err(CliError::File { .. })));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no JSON").unwrap();
        let data = format!("@{}", file.path().display());
        assert_eq!(read(Source::json(Some(&data))).unwrap(), ("no JSON".to_owned(), Some(7)));
    }
}
