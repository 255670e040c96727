//! Who calls, as the platform tells functions: headers in which nobody else is believed. What each
//! origin may say in them is [`Origin::may_tell`]'s.

use hearth_wire::{Origin, Scope, header};
use http::header::{HeaderMap, HeaderName, HeaderValue};

const CALLER: HeaderName = HeaderName::from_static(header::CALLER);
const SCOPE: HeaderName = HeaderName::from_static(header::SCOPE);
const TRIGGER: HeaderName = HeaderName::from_static(header::TRIGGER);
/// Of one whose name cannot stand in a header.
const NAMELESS: HeaderValue = HeaderValue::from_static("token");

/// Takes off all that speaks for the platform, but for what this origin says.
pub fn withhold(headers: &mut HeaderMap, origin: Origin) {
    let is_forged =
        |name: &HeaderName| header::is_reserved(name.as_str()) && !origin.may_tell(name.as_str());
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_forged(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Says who calls: a token by its name and with its scope, a trigger or a function by its own.
pub fn tell(headers: &mut HeaderMap, origin: Origin, by: &str, scope: Option<Scope>) {
    let name = match origin {
        Origin::Outside | Origin::Api | Origin::Internal => CALLER,
        Origin::Trigger => TRIGGER,
    };
    headers.insert(name, HeaderValue::from_bytes(by.as_bytes()).unwrap_or(NAMELESS));
    if let Some(scope) = scope {
        headers.insert(SCOPE, HeaderValue::from_static(scope.as_str()));
    }
}

/// The scope that was told, once what is nobody's to say is off.
pub fn scope(headers: &HeaderMap) -> Option<Scope> {
    headers.get(SCOPE)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every spelling that comes through as a header, twice each.
    const FORGED: [&str; 7] = [
        "X-Hearth-Caller",
        "x-hearth-scope",
        "X-HEARTH-TRIGGER",
        "x-hearth-origin",
        "x_hearth_trigger",
        "x-hearth_caller",
        "X_Hearth-Scope",
    ];

    fn forged() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in FORGED {
            for value in ["one", "two"] {
                headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
        }
        headers.insert("ce-type", HeaderValue::from_static("anybody's"));
        headers
    }

    #[test]
    fn nobody_says_what_is_anothers_to_say() {
        for (origin, kept) in [
            (Origin::Outside, &[][..]),
            (Origin::Api, &["x-hearth-caller", "x-hearth-scope"]),
            (Origin::Trigger, &["x-hearth-trigger"]),
            (Origin::Internal, &["x-hearth-caller"]),
        ] {
            let mut headers = forged();
            withhold(&mut headers, origin);
            let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, [&["ce-type"], kept].concat(), "{origin:?}");
        }
    }

    #[test]
    fn what_is_told_is_what_may_be_told_and_is_said_once() {
        for origin in Origin::ALL {
            let mut headers = forged();
            withhold(&mut headers, Origin::Outside);
            let scope = origin.may_tell(header::SCOPE).then_some(Scope::Owner);
            tell(&mut headers, origin, "me", scope);
            assert_eq!(super::scope(&headers), scope);
            let before = headers.clone();
            // An outsider's is told by its worker, which is the last to look.
            if !origin.checks_token() {
                withhold(&mut headers, origin);
            }
            assert_eq!(headers, before, "{origin:?}");
            assert!(headers.iter().filter(|(_, value)| *value == "me").count() == 1);
        }
    }

    #[test]
    fn a_name_that_no_header_can_have_is_not_left_out() {
        let mut headers = HeaderMap::new();
        tell(&mut headers, Origin::Api, "a\nb", Some(Scope::Invoke));
        assert_eq!(headers["x-hearth-caller"], "token");
        tell(&mut headers, Origin::Api, "Zoë", Some(Scope::Invoke));
        assert_eq!(headers["x-hearth-caller"].as_bytes(), "Zoë".as_bytes());
    }
}
