//! Which function, or which built-in, a request's path names. Pure.
//!
//! The path is taken as it was sent. What selects a function contains nothing encoded, so two
//! ways of writing one path cannot differ in what they reach; the rest below a function that
//! takes a prefix may, and is only checked for what would climb out of it.
//!
//! Methods, tokens and sizes are others' to judge.

use std::collections::HashMap;

use crate::name::FunctionPath;
use crate::options::PathMatch;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The number of the function in its manifest.
    Function(usize),
    Builtin(Builtin),
    NotFound,
    InvalidPath,
}

/// What the platform answers by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Builtin {
    Health,
    Functions,
    OpenApi,
    /// For the management API alone.
    Usage,
    Upload {
        dir: Option<FunctionPath>,
    },
}

pub struct Routes {
    functions: HashMap<FunctionPath, (usize, PathMatch)>,
}

impl Routes {
    pub fn new<'a>(functions: impl Iterator<Item = (&'a FunctionPath, PathMatch)>) -> Self {
        let numbered = functions.enumerate().map(|(at, (path, kind))| (path.clone(), (at, kind)));
        Self { functions: numbered.collect() }
    }

    pub fn find(&self, path: &str) -> Route {
        let Some(relative) = path.strip_prefix('/') else { return Route::InvalidPath };
        if relative.is_empty() {
            return Route::NotFound;
        }
        let relative = relative.strip_suffix('/').unwrap_or(relative);
        let (dir, last) = match relative.rsplit_once('/') {
            Some((dir, last)) => (Some(dir), last),
            None => (None, relative),
        };
        if let Some(name) = last.strip_prefix('$') {
            return builtin(dir, name);
        }
        let whole = parsed(relative);
        if let Some(whole) = &whole
            && let Some(&(at, _)) = self.functions.get(whole)
        {
            return Route::Function(at);
        }
        let mut above = relative;
        while let Some((prefix, _)) = above.rsplit_once('/') {
            if let Some(function) = parsed(prefix)
                && let Some(&(at, PathMatch::Prefix)) = self.functions.get(&function)
            {
                // The trailing slash, too, is the function's to see, and is harmless.
                let rest = &relative[prefix.len() + 1..];
                return if climbs(rest) { Route::InvalidPath } else { Route::Function(at) };
            }
            above = prefix;
        }
        if whole.is_some() { Route::NotFound } else { Route::InvalidPath }
    }
}

/// A path whose leading slash is taken off already: a second one is none.
fn parsed(relative: &str) -> Option<FunctionPath> {
    if relative.starts_with('/') { None } else { relative.parse().ok() }
}

fn builtin(dir: Option<&str>, name: &str) -> Route {
    let dir = match dir.map(parsed) {
        None => None,
        Some(Some(dir)) => Some(dir),
        Some(None) => return Route::InvalidPath,
    };
    match (name, dir) {
        ("upload", dir) => Route::Builtin(Builtin::Upload { dir }),
        ("health", None) => Route::Builtin(Builtin::Health),
        ("functions", None) => Route::Builtin(Builtin::Functions),
        ("openapi.json", None) => Route::Builtin(Builtin::OpenApi),
        ("usage", None) => Route::Builtin(Builtin::Usage),
        _ => Route::NotFound,
    }
}

/// Whether a part of a path has a dot segment, a NUL or a backslash, encoded or not.
fn climbs(rest: &str) -> bool {
    let plain = decoded(rest);
    plain.iter().any(|byte| matches!(byte, 0 | b'\\'))
        || plain.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..")
}

fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit =
            |offset: usize| bytes.get(at + offset).and_then(|&b| char::from(b).to_digit(16));
        match (bytes[at], digit(1), digit(2)) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn routes() -> Routes {
        let functions = [
            ("/hello", PathMatch::Exact),
            ("/files", PathMatch::Prefix),
            ("/files/deep", PathMatch::Prefix),
            ("/files/deep/exact", PathMatch::Exact),
            ("/jobs/nightly", PathMatch::Exact),
        ];
        let parsed: Vec<_> = functions.map(|(path, kind)| (path.parse().unwrap(), kind)).into();
        Routes::new(parsed.iter().map(|(path, kind)| (path, *kind)))
    }

    #[test]
    fn what_a_path_names() {
        use Route::{Function, InvalidPath, NotFound};
        let dir = |dir: &str| Some(dir.parse().unwrap());
        for (path, route) in [
            ("/hello", Function(0)),
            ("/hello/", Function(0)),
            ("/hello//", InvalidPath),
            ("/hello/more", NotFound),
            ("/Hello", NotFound),
            ("/helloo", NotFound),
            ("/files", Function(1)),
            ("/files/", Function(1)),
            ("/files/a/b", Function(1)),
            ("/files/a%20b", Function(1)),
            ("/files//a", Function(1)),
            ("/filesystem", NotFound),
            ("/files/deep", Function(2)),
            ("/files/deep/x", Function(2)),
            ("/files/deeper", Function(1)),
            ("/files/deep/exact", Function(3)),
            ("/files/deep/exact/x", Function(2)),
            ("/files/../hello", InvalidPath),
            ("/files/%2e%2E/hello", InvalidPath),
            ("/files/a/.%2e", InvalidPath),
            ("/files/..%2fhello", InvalidPath),
            ("/files/a%5Cb", InvalidPath),
            ("/files/a%00", InvalidPath),
            ("/files/%zz", Function(1)),
            ("/files/...", Function(1)),
            ("/jobs/nightly", Function(4)),
            ("/jobs", NotFound),
            ("/", NotFound),
            ("", InvalidPath),
            ("*", InvalidPath),
            ("//hello", InvalidPath),
            ("/../hello", InvalidPath),
            ("/./hello", InvalidPath),
            ("/%2e%2e/hello", InvalidPath),
            ("/hello%2f", InvalidPath),
            ("/hell%6f", InvalidPath),
            ("/a\\b", InvalidPath),
            ("/a/b/c/d/e/f/g/h/i", InvalidPath),
            ("/$health", Route::Builtin(Builtin::Health)),
            ("/$functions", Route::Builtin(Builtin::Functions)),
            ("/$openapi.json", Route::Builtin(Builtin::OpenApi)),
            ("/$upload", Route::Builtin(Builtin::Upload { dir: None })),
            ("/jobs/$upload", Route::Builtin(Builtin::Upload { dir: dir("/jobs") })),
            ("/files/$upload", Route::Builtin(Builtin::Upload { dir: dir("/files") })),
            ("/../$upload", InvalidPath),
            ("//jobs/$upload", InvalidPath),
            ("//$upload", InvalidPath),
            ("//files/x", InvalidPath),
            ("/jobs/$health", NotFound),
            ("/$nothing", NotFound),
            ("/$", NotFound),
            ("/$x/hello", InvalidPath),
        ] {
            assert_eq!(routes().find(path), route, "{path}");
        }
    }

    proptest! {
        #[test]
        fn only_written_paths_reach_exact_functions(path in "[/a-zA-Z%.$\\\\]{0,12}") {
            if let Route::Function(0) = routes().find(&path) {
                prop_assert!(path == "/hello" || path == "/hello/");
            }
        }

        #[test]
        fn nothing_climbs(
            before in "(/[a-z%]{0,3}){0,2}",
            dots in prop_oneof![Just(".."), Just("%2e."), Just(".%2E"), Just("%2e%2e"), Just(".")],
            after in "(/[a-z]{0,3}){0,2}",
        ) {
            let path = format!("/files{before}/{dots}{after}");
            prop_assert_eq!(routes().find(&path), Route::InvalidPath, "{}", path);
        }

        #[test]
        fn any_text_has_a_route(path in ".{0,40}") {
            routes().find(&path);
        }
    }
}
