//! Where a call comes from, and what follows from that for whoever answers it. Nothing else asks
//! for one origin or another.

use serde::{Deserialize, Serialize};

use crate::header;
use crate::options::Auth;
use crate::token::Scope;

/// Where a call comes from; proved by the descriptor that it came on. What the primary sends on a
/// link of any origin is believed as far as [`Origin::may_tell`] goes, and in `x-forwarded-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From outside, at whatever address: a stranger unless a token says otherwise.
    Outside,
    /// Through the management API, which has checked the caller's token.
    Api,
    /// A trigger of the tenant's own.
    Trigger,
    /// Another function of the same tenant.
    Internal,
}

/// Why a call does not reach its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAllowed {
    /// The function is not for callers of this kind, whoever they are.
    Internal,
    /// It needs a token, and there is none that counts.
    NoToken,
    /// It needs one with this scope.
    Scope(Scope),
}

impl Origin {
    pub const ALL: [Self; 4] = [Self::Outside, Self::Api, Self::Trigger, Self::Internal];

    /// As it is written everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Api => "api",
            Self::Trigger => "trigger",
            Self::Internal => "internal",
        }
    }

    /// Whether a token that comes with the call is for its worker to verify.
    pub fn checks_token(self) -> bool {
        match self {
            Self::Outside => true,
            Self::Api | Self::Trigger | Self::Internal => false,
        }
    }

    /// Whether this header, which speaks for the platform, is the platform's word.
    pub fn may_tell(self, name: &str) -> bool {
        match self {
            Self::Outside => false,
            Self::Api => name == header::CALLER || name == header::SCOPE,
            Self::Trigger => name == header::TRIGGER,
            Self::Internal => name == header::CALLER,
        }
    }

    /// Whether it is told what of the tenant's limits is in use.
    pub fn may_ask_usage(self) -> bool {
        match self {
            Self::Api => true,
            Self::Outside | Self::Trigger | Self::Internal => false,
        }
    }

    /// Whether it reads and changes the tenant's state at addresses of the platform's.
    pub fn may_ask_state(self) -> bool {
        match self {
            Self::Api => true,
            Self::Outside | Self::Trigger | Self::Internal => false,
        }
    }

    /// Whether it is told what of the host keeps a tenant from being served.
    pub fn may_know_why(self) -> bool {
        match self {
            Self::Api => true,
            Self::Outside | Self::Trigger | Self::Internal => false,
        }
    }

    /// Whether functions that no outsider may call are listed for it.
    pub fn sees_internal(self) -> bool {
        match self {
            Self::Outside => false,
            Self::Api | Self::Trigger | Self::Internal => true,
        }
    }

    /// Whether a call reaches a function that asks for `auth`. `scope` is that of the caller's
    /// token, if one was verified.
    pub fn may_call(self, auth: Auth, scope: Option<Scope>) -> Result<(), NotAllowed> {
        let covers = |needed| match (self, scope) {
            // The host's own token is no tenant's: it is for the API alone.
            (Self::Outside, Some(Scope::Admin)) | (_, None) => false,
            (_, Some(scope)) => scope.covers(needed),
        };
        match (self, auth) {
            // The tenant's own work, which its owner has set up.
            (Self::Trigger | Self::Internal, _) | (_, Auth::Public) => Ok(()),
            (Self::Api, Auth::Internal) if covers(Scope::Owner) => Ok(()),
            (Self::Outside | Self::Api, Auth::Internal) => Err(NotAllowed::Internal),
            (Self::Outside | Self::Api, Auth::Scope(needed)) if covers(needed) => Ok(()),
            (Self::Outside | Self::Api, Auth::Scope(needed)) => match scope {
                None => Err(NotAllowed::NoToken),
                Some(_) => Err(NotAllowed::Scope(needed)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every origin, with every token and none, at every kind of function.
    #[test]
    fn who_may_call_what() {
        use NotAllowed::{Internal, NoToken};
        use Scope::{Admin, Deploy, Invoke, Owner, Report};
        let needed = [
            Auth::Public,
            Auth::Scope(Owner),
            Auth::Scope(Deploy),
            Auth::Scope(Invoke),
            Auth::Scope(Report),
            Auth::Internal,
        ];
        let no = |needed| Err(NotAllowed::Scope(needed));
        let all = [Ok(()); 6];
        let all_but_internal = [Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Err(Internal)];
        let none = [Ok(()), no(Owner), no(Deploy), no(Invoke), no(Report), Err(Internal)];
        let and = |at: usize| {
            let mut expected = none;
            expected[at] = Ok(());
            expected
        };
        let of_nobody =
            [Ok(()), Err(NoToken), Err(NoToken), Err(NoToken), Err(NoToken), Err(Internal)];
        for (origin, scope, expected) in [
            (Origin::Outside, None, of_nobody),
            (Origin::Outside, Some(Admin), none),
            (Origin::Outside, Some(Owner), all_but_internal),
            (Origin::Outside, Some(Deploy), and(2)),
            (Origin::Outside, Some(Invoke), and(3)),
            (Origin::Outside, Some(Report), and(4)),
            (Origin::Api, None, of_nobody),
            (Origin::Api, Some(Admin), all),
            (Origin::Api, Some(Owner), all),
            (Origin::Api, Some(Deploy), and(2)),
            (Origin::Api, Some(Invoke), and(3)),
            (Origin::Api, Some(Report), and(4)),
        ] {
            let found = needed.map(|needed| origin.may_call(needed, scope));
            assert_eq!(found, expected, "{origin:?} {scope:?}");
        }
        for origin in [Origin::Trigger, Origin::Internal] {
            for scope in Scope::ALL.map(Some).into_iter().chain([None]) {
                assert_eq!(needed.map(|needed| origin.may_call(needed, scope)), all, "{origin:?}");
            }
        }
    }

    #[test]
    fn what_each_may_say_of_itself() {
        let reserved = [header::CALLER, header::SCOPE, header::TRIGGER, header::VERSION];
        for (origin, told) in [
            (Origin::Outside, &[][..]),
            (Origin::Api, &[header::CALLER, header::SCOPE]),
            (Origin::Trigger, &[header::TRIGGER]),
            (Origin::Internal, &[header::CALLER]),
        ] {
            for name in reserved {
                assert_eq!(origin.may_tell(name), told.contains(&name), "{origin:?} {name}");
            }
            assert_eq!(origin.checks_token(), origin == Origin::Outside);
            assert_eq!(origin.sees_internal(), origin != Origin::Outside);
            assert_eq!(origin.may_ask_usage(), origin == Origin::Api);
            assert_eq!(origin.may_ask_state(), origin == Origin::Api);
            assert_eq!(serde_json::to_value(origin).unwrap(), origin.as_str());
        }
    }

    #[test]
    fn a_header_of_the_platform_is_one_however_a_server_reads_it() {
        for name in
            ["x-hearth-", "x-hearth-caller", "x_hearth_caller", "x-hearth_scope", "x_hearth-a"]
        {
            assert!(header::is_reserved(name), "{name}");
        }
        for name in ["x-hearth", "hearth-caller", "xx-hearth-caller", "x-request-id", "x", ""] {
            assert!(!header::is_reserved(name), "{name}");
        }
    }
}
