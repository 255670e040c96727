//! Which function, or which built-in, a request's path names. Pure.
//!
//! The path is taken as it was sent. What selects a function contains nothing encoded, so two
//! ways of writing one path cannot differ in what they reach; what a function takes below its
//! path, or as the root, may, and is only checked for what would climb out of it and for what is
//! the platform's, however that is written.
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
    /// What takes what no other function takes. Of two the first, though no tenant has two.
    root: Option<usize>,
}

impl Routes {
    pub fn new<'a>(functions: impl Iterator<Item = (&'a FunctionPath, PathMatch)>) -> Self {
        let mut routes = Self { functions: HashMap::new(), root: None };
        for (at, (path, kind)) in functions.enumerate() {
            routes.functions.insert(path.clone(), (at, kind));
            if kind == PathMatch::Root {
                routes.root.get_or_insert(at);
            }
        }
        routes
    }

    pub fn find(&self, path: &str) -> Route {
        let Some(relative) = path.strip_prefix('/') else { return Route::InvalidPath };
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
        if let Some((at, rest)) = self.above(relative) {
            let rest = decoded(rest);
            let refused = climbs(&rest) || is_upload(&rest);
            return if refused { Route::InvalidPath } else { Route::Function(at) };
        }
        if let Some(at) = self.root {
            let plain = decoded(relative);
            if !climbs(&plain) && !is_platforms(&plain) {
                return Route::Function(at);
            }
        }
        if whole.is_some() || path == "/" { Route::NotFound } else { Route::InvalidPath }
    }

    /// The nearest function above a path that takes what is below it, and the rest.
    fn above<'a>(&self, relative: &'a str) -> Option<(usize, &'a str)> {
        let mut above = relative;
        while let Some((prefix, _)) = above.rsplit_once('/') {
            if let Some(function) = parsed(prefix)
                && let Some(&(at, kind)) = self.functions.get(&function)
                && kind.takes_below()
            {
                // The trailing slash, too, is the function's to see, and is harmless.
                return Some((at, &relative[prefix.len() + 1..]));
            }
            above = prefix;
        }
        None
    }
}

/// What follows a function's own path in one that it was found by, with its slash. `None` where
/// the path is not below the function's, as a root's need not be.
pub fn below<'a>(path: &'a str, function: &FunctionPath) -> Option<&'a str> {
    let rest = path.strip_prefix(function.as_str())?;
    match rest {
        "" => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
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

/// Whether a decoded part of a path has a dot segment, a NUL or a backslash.
fn climbs(plain: &[u8]) -> bool {
    plain.iter().any(|byte| matches!(byte, 0 | b'\\'))
        || plain.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..")
}

/// Whether a decoded path without its leading slash is the platform's: its first segment is, or
/// it is an upload. However that is written, since what is sent there comes with a token.
fn is_platforms(plain: &[u8]) -> bool {
    let mut segments = plain.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty());
    segments.next().is_some_and(|first| first.starts_with(b"$")) || is_upload(plain)
}

fn is_upload(plain: &[u8]) -> bool {
    let mut segments = plain.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty());
    segments.next_back() == Some(b"$upload")
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

    fn routes_of(functions: &[(&str, PathMatch)]) -> Routes {
        let parsed: Vec<_> =
            functions.iter().map(|(path, kind)| (path.parse().unwrap(), *kind)).collect();
        Routes::new(parsed.iter().map(|(path, kind)| (path, *kind)))
    }

    fn routes() -> Routes {
        routes_of(&[
            ("/hello", PathMatch::Exact),
            ("/files", PathMatch::Prefix),
            ("/files/deep", PathMatch::Prefix),
            ("/files/deep/exact", PathMatch::Exact),
            ("/jobs/nightly", PathMatch::Exact),
        ])
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
            ("/files/%24x", Function(1)),
            ("/files/%24upload", InvalidPath),
            ("/files/%24upload/", InvalidPath),
            ("/files/a/$upload//", InvalidPath),
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

    fn with_root() -> Routes {
        routes_of(&[
            ("/hello", PathMatch::Exact),
            ("/files", PathMatch::Prefix),
            ("/site/app", PathMatch::Root),
            ("/site", PathMatch::Prefix),
        ])
    }

    #[test]
    fn a_root_takes_what_no_other_function_takes_and_nothing_of_the_platforms() {
        use Route::{Function, InvalidPath, NotFound};
        const ROOT: Route = Function(2);
        for (path, route) in [
            ("/", ROOT),
            ("//", ROOT),
            ("/hello", Function(0)),
            ("/hello/", Function(0)),
            ("/hello//", ROOT),
            ("/hello/more", ROOT),
            ("/Hello", ROOT),
            ("/hell%6f", ROOT),
            ("//hello", ROOT),
            ("/files/a", Function(1)),
            ("/site", Function(3)),
            ("/site/x", Function(3)),
            ("/site/app", ROOT),
            ("/site/app/", ROOT),
            ("/site/app/x", ROOT),
            ("/users/j%C3%BCrgen/", ROOT),
            ("/a/b/c/d/e/f/g/h/i/j", ROOT),
            ("/rooms/%24event", ROOT),
            ("/.well-known/acme", ROOT),
            ("/a%2fb", ROOT),
            ("/a/$b/c", ROOT),
            ("/..", InvalidPath),
            ("/%2e%2e/hello", InvalidPath),
            ("/a/..%2fhello", InvalidPath),
            ("/a\\b", InvalidPath),
            ("/a%00", InvalidPath),
            ("/files/../x", InvalidPath),
            ("/$health", Route::Builtin(Builtin::Health)),
            ("/$health/", Route::Builtin(Builtin::Health)),
            ("/$upload", Route::Builtin(Builtin::Upload { dir: None })),
            ("/$nothing", NotFound),
            ("/a/$nothing", NotFound),
            ("/$", NotFound),
            ("/$x/y", InvalidPath),
            ("/%24health", InvalidPath),
            ("/%24upload", InvalidPath),
            ("/%24upload/x", InvalidPath),
            ("/a/%24uploa%64", InvalidPath),
            ("/a%2f$upload", InvalidPath),
            ("/a/$upload//", InvalidPath),
            ("//$upload", InvalidPath),
            ("//%24upload", InvalidPath),
            ("", InvalidPath),
            ("*", InvalidPath),
        ] {
            assert_eq!(with_root().find(path), route, "{path}");
        }
    }

    #[test]
    fn what_follows_a_functions_own_path() {
        let function = "/site/app".parse().unwrap();
        for (path, rest) in [
            ("/site/app", Some("/")),
            ("/site/app/", Some("/")),
            ("/site/app/a//b/", Some("/a//b/")),
            ("/site/app//x", Some("//x")),
            ("/site/apple", None),
            ("/site", None),
            ("/", None),
        ] {
            assert_eq!(below(path, &function), rest, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_root_changes_nothing_of_what_others_take(path in "[/a-z%.$\\\\]{0,14}") {
            let without = routes().find(&path);
            let functions = [
                ("/hello", PathMatch::Exact),
                ("/files", PathMatch::Prefix),
                ("/files/deep", PathMatch::Prefix),
                ("/files/deep/exact", PathMatch::Exact),
                ("/jobs/nightly", PathMatch::Exact),
                ("/ground", PathMatch::Root),
            ];
            let parsed: Vec<_> =
                functions.map(|(path, kind)| (path.parse().unwrap(), kind)).into();
            let with = Routes::new(parsed.iter().map(|(path, kind)| (path, *kind))).find(&path);
            match with {
                Route::Function(5) => {
                    prop_assert!(matches!(without, Route::NotFound | Route::InvalidPath));
                }
                other => prop_assert_eq!(other, without),
            }
        }

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
