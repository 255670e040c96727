//! What is said of a name that nobody knows: which known one was meant, where one is near.

use std::fmt;

/// A longer name was not mistyped, and is not said again whole.
const NAME_MAX_BYTES: usize = 64;

/// A name that is in no table. Says which one is near or, where none is, which there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown(String);

impl Unknown {
    /// `what` is the word for one of them, as in "option".
    pub fn new<'a>(
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Self {
        let near = nearest(name, known.clone().into_iter().map(|known| (known, known)));
        let known = || known.into_iter().collect::<Vec<_>>().join(", ");
        Self::placed(what, name, "", near, known)
    }

    /// With where it was written, as in " in hearth.toml", and where more is known than a list of
    /// names says.
    pub fn placed(
        what: &str,
        name: &str,
        place: &str,
        near: Option<&str>,
        known: impl FnOnce() -> String,
    ) -> Self {
        let mut end = name.len().min(NAME_MAX_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let cut = if end < name.len() { "…" } else { "" };
        let name = &name[..end];
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known {what}s: {}", known()),
        };
        Self(format!("unknown {what} `{name}{cut}`{place}; {hint}"))
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

/// What stands beside the known name to which this one is so near that it was probably meant: a third
/// of the letters may be wrong, and case and `-` or `_` do not matter.
pub fn nearest<'a, T>(name: &str, known: impl IntoIterator<Item = (&'a str, T)>) -> Option<T> {
    if name.len() > NAME_MAX_BYTES {
        return None;
    }
    let name = folded(name);
    let near = known.into_iter().filter_map(|(known, beside)| {
        let known = folded(known);
        let wrong = strsim::osa_distance(&name, &known);
        (wrong <= name.len().max(known.len()) / 3).then_some((wrong, beside))
    });
    near.min_by_key(|(wrong, _)| *wrong).map(|(_, beside)| beside)
}

fn folded(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["methods", "timeout_ms", "auth", "path", "max_body"];

    #[test]
    fn what_is_near_was_meant() {
        for (name, meant) in [
            ("metods", Some("methods")),
            ("method", Some("methods")),
            ("Methods", Some("methods")),
            ("timeout-ms", Some("timeout_ms")),
            ("timeoutms", Some("timeout_ms")),
            ("timeout", Some("timeout_ms")),
            ("TIMEOUT_MS", Some("timeout_ms")),
            ("atuh", Some("auth")),
            ("maxbody", Some("max_body")),
            ("nix", None),
            ("", None),
            ("a", None),
            ("body", None),
            ("memory", None),
        ] {
            assert_eq!(nearest(name, KNOWN.map(|known| (known, known))), meant, "{name}");
        }
    }

    #[test]
    fn the_first_of_those_that_are_as_near() {
        assert_eq!(nearest("ports", [("port1", 1), ("port2", 2)]), Some(1));
        assert_eq!(nearest("port2", [("port1", 1), ("port2", 2)]), Some(2));
    }

    #[test]
    fn a_refusal_names_what_is_near_or_all_there_are() {
        let said = |name| Unknown::new("option", name, KNOWN).to_string();
        assert_eq!(said("metods"), "unknown option `metods`; did you mean `methods`?");
        assert_eq!(
            said("nix"),
            "unknown option `nix`; known options: methods, timeout_ms, auth, path, max_body"
        );
        let placed = Unknown::placed("setting", "a", " in h.toml", Some("b"), String::new);
        assert_eq!(placed.to_string(), "unknown setting `a` in h.toml; did you mean `b`?");
    }

    #[test]
    fn a_long_name_is_neither_compared_nor_said_whole() {
        let long = "ä".repeat(100_000);
        let said = Unknown::new("option", &long, KNOWN).to_string();
        assert!(
            said.starts_with(&format!("unknown option `{}…`; known", "ä".repeat(32))),
            "{said}"
        );
    }
}
