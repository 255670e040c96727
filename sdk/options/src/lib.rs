//! The options of a function, as a table: what hosts and authors must write alike.
//!
//! One row is an option. `hearth-wire` makes its types, its parser and its layers of it,
//! `hearth-sdk-macros` the keys of `#[function(…)]`, the API its document, and a test holds
//! `docs/options.md` to it. What a value means is for whoever reads it.
//!
//! Also here, since a compiler's message and an API's refusal must say it in one way: what is
//! answered to a name that is in no table, be it of options, limits or settings.

mod near;

pub use near::{Unknown, nearest};

/// A call's wall time, milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 300_000;
/// An instance's linear memory, MiB.
pub const MEMORY_MB_MAX: u32 = 256;
/// A request's body, bytes.
pub const BODY_MAX_BYTES: u64 = 100 << 20;
/// Calls that one instance may serve.
pub const REUSE_MAX: u32 = 10_000;
/// The methods that reach a guest. CONNECT and TRACE are the platform's to refuse.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Keys of the contract that this version does not serve yet: refused by name, so that nobody
/// believes that a schedule is kept or a socket opened.
pub const TO_COME: &[&str] = &["schedule", "websocket", "batch"];

/// One option, as far as it is data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub name: &'static str,
    /// What it says, for people: one sentence.
    pub about: &'static str,
    pub kind: Kind,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of these.
    Word(&'static [&'static str]),
    /// At least one of these; their order says nothing.
    Words(&'static [&'static str]),
    Whole {
        min: u64,
        max: u64,
    },
    Truth,
    Text,
    /// Of web pages, or `*` for any.
    Origins,
    /// Of stores or databases, or `*` for any.
    Names,
    /// JSON Schemas in their places.
    Schemas,
}

impl Kind {
    /// From 1.
    pub const fn up_to(max: u64) -> Self {
        Self::Whole { min: 1, max }
    }

    /// As it follows "must be".
    pub fn expected(self) -> String {
        match self {
            Self::Word(words) => format!("one of {}", words.join(", ")),
            Self::Words(words) => format!("a list of at least one of {}", words.join(", ")),
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Truth => "true or false".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Origins => {
                "a list of origins, such as [\"https://app.example\"], or \"*\" for any".to_owned()
            }
            Self::Names => {
                "a list of names, such as [\"carts\"], or \"*\" for any: each of up to 64 \
                 characters of A-Z, a-z, 0-9, `_`, `.` and `-`"
                    .to_owned()
            }
            Self::Schemas => {
                "an object of JSON Schemas at `body`, `querystring`, `headers` and `response`, the \
                 last by status (\"200\", \"4xx\", \"default\")"
                    .to_owned()
            }
        }
    }
}

/// Hands the table to the macro of that name. A row is
///
/// ```text
/// /// What it says.
/// name: the type in `hearth-wire` = its default there, the kind of its values, its layers;
/// ```
///
/// where the layers are
///
/// - `whole`: the value of an upper layer goes in the place of what is below;
/// - `limited`: the same, and it may not go beyond the tenant's limit of that name;
/// - `parts`: each of its parts is laid over by itself.
#[macro_export]
macro_rules! options {
    ($then:ident) => {
        $then! {
            /// The methods that reach the function; any other is answered with 405.
            methods: Vec<String> = vec!["POST".to_owned()], Kind::Words(METHODS), whole;
            /// Which requests besides those at the function's own path it gets: none, all below that
            /// path, or whatever no other function of the tenant takes.
            path: PathMatch = PathMatch::Exact, Kind::Word(&["exact", "prefix", "root"]), whole;
            /// Whether the function sees what follows its own path in the place of the whole path.
            strip_prefix: bool = false, Kind::Truth, whole;
            /// Who may call: anybody, who has a token of the tenant that covers this scope, or the
            /// platform and the tenant's owner alone.
            auth: Auth = Auth::Public,
                Kind::Word(&["public", "owner", "deploy", "invoke", "report", "internal"]), whole;
            /// The origins whose pages may call from a browser.
            cors: Cors = Cors::default(), Kind::Origins, whole;
            /// What requests and answers must be like.
            schema: Schemas = Schemas::default(), Kind::Schemas, parts;
            /// Milliseconds that a call may take, from its function's begin to the last byte of its answer.
            timeout_ms: u32 = 30_000, Kind::up_to(TIMEOUT_MS_MAX as u64), limited;
            /// MiB that one instance may have, all its memories together.
            memory_mb: u32 = 64, Kind::up_to(MEMORY_MB_MAX as u64), limited;
            /// Bytes that the body of a request may have.
            max_body: u64 = 10 << 20, Kind::up_to(BODY_MAX_BYTES), limited;
            /// Calls that one instance may serve, one after the other.
            reuse: u32 = 1, Kind::up_to(REUSE_MAX as u64), whole;
            /// The key-value stores that the function may use.
            stores: Allowed = Allowed::Any, Kind::Names, whole;
            /// The stores in which the function's writes are answered before they are on the disk: a
            /// power cut may take the last moments, and damages nothing.
            relaxed_stores: Allowed = Allowed::NONE, Kind::Names, whole;
            /// The SQL databases that the function may use.
            databases: Allowed = Allowed::Any, Kind::Names, whole;
            /// What the function is for, for people and for `/$openapi.json`.
            description: String = String::new(), Kind::Text, whole;
        }
    };
}

macro_rules! rows {
    ($(
        $(#[doc = $about:literal])+
        $name:ident: $type:ty = $default:expr, $kind:expr, $layers:ident;
    )+) => {
        /// All there are, in the order in which they are shown.
        pub const OPTIONS: &[Row] = &[$(Row {
            name: stringify!($name),
            about: concat!($($about),+).trim_ascii_start(),
            kind: $kind,
        }),+];
    };
}

options!(rows);

/// The option of this name.
pub fn find(name: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| row.name == name)
}

/// What is answered to a name that is none of them.
pub fn unknown(name: &str) -> Unknown {
    Unknown::new("option", name, OPTIONS.iter().map(|row| row.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_says_one_sentence() {
        for row in OPTIONS {
            assert_eq!(find(row.name), Some(row));
            assert!(!TO_COME.contains(&row.name), "{row:?}");
            assert!(row.about.ends_with('.') && !row.about.contains(". "), "{row:?}");
            assert!(row.about.starts_with(char::is_uppercase), "{row:?}");
        }
        assert_eq!(find("nix"), None);
    }
}
