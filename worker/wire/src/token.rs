//! Who may do what. A token is 256 random bits, shown once; all that is kept or told to a
//! worker is its SHA-256, which is no secret for that very reason.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How every token begins that this platform makes, for people, for scanners, and for whoever must
/// tell one from a credential that is a function's own business.
pub const TOKEN_PREFIX: &str = "hearth_";

/// Whether a text has the form of this platform's tokens, whosever it is.
pub fn is_token(text: &[u8]) -> bool {
    text.starts_with(TOKEN_PREFIX.as_bytes())
}

/// What a token is good for. `admin` belongs to the host, the others to one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Admin,
    Owner,
    Deploy,
    Invoke,
    Report,
}

impl Scope {
    pub const ALL: [Scope; 5] =
        [Self::Admin, Self::Owner, Self::Deploy, Self::Invoke, Self::Report];

    /// Whether a token of this scope may do what `needed` names, for a tenant that it belongs to.
    pub fn covers(self, needed: Scope) -> bool {
        match self {
            Self::Admin => true,
            Self::Owner => needed != Self::Admin,
            Self::Deploy | Self::Invoke | Self::Report => self == needed,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Owner => "owner",
            Self::Deploy => "deploy",
            Self::Invoke => "invoke",
            Self::Report => "report",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of admin, owner, deploy, invoke, report")]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(ScopeError)
    }
}

/// The SHA-256 of a token's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    pub const fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(…)")
    }
}

/// One token of a tenant, as its worker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    pub digest: TokenDigest,
    pub scope: Scope,
    /// Told to the function as the caller.
    pub name: String,
    /// Seconds since the epoch; `None` never expires.
    pub expires_at: Option<i64>,
}

impl TokenGrant {
    pub fn is_live(&self, now_seconds: i64) -> bool {
        self.expires_at.is_none_or(|at| now_seconds < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Scope::{Admin, Deploy, Invoke, Owner, Report};

    #[test]
    fn what_covers_what() {
        for (scope, covered) in [
            (Admin, &[Admin, Owner, Deploy, Invoke, Report][..]),
            (Owner, &[Owner, Deploy, Invoke, Report]),
            (Deploy, &[Deploy]),
            (Invoke, &[Invoke]),
            (Report, &[Report]),
        ] {
            for needed in Scope::ALL {
                assert_eq!(scope.covers(needed), covered.contains(&needed), "{scope} for {needed}");
            }
        }
    }
}
