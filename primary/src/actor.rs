//! Who makes a change, and with which request. A token's name is not unique, and a token can be
//! deleted: its id is given once and never again, so that it tells for good who it was.
//!
//! Who may do what is `api/auth.rs`'s to say, and what of it is kept the store's.

use std::fmt;

use hearth_wire::RequestId;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Whoever had this token, with the name that it had then.
    Token { id: i64, name: String },
    /// The host itself: its first start, its settings.
    Host,
    /// Somebody at this machine's command line, while no host ran on the data directory.
    CommandLine,
}

impl Actor {
    /// For people: what two actors can have in common.
    pub fn name(&self) -> &str {
        match self {
            Self::Token { name, .. } => name,
            Self::Host => "hearth",
            Self::CommandLine => "command line",
        }
    }
}

/// Who asks for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    pub actor: Actor,
    /// None where nobody sent a request.
    pub request_id: Option<RequestId>,
}

impl Author {
    pub fn host() -> Self {
        Self { actor: Actor::Host, request_id: None }
    }

    pub fn command_line() -> Self {
        Self { actor: Actor::CommandLine, request_id: None }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.actor.name())
    }
}
