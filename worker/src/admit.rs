//! Whether a call reaches its function. Pure: who calls, by the token that comes with it or by what
//! the host says of it; whether the function is for that caller; method, size, and whether there is
//! something to call. What was verified is taken off, and told instead.

use std::collections::HashMap;

use hearth_connection::{caller, credentials};
use hearth_wire::{
    Code, ManifestFunction, NotAllowed, Origin, Problem, Scope, TokenDigest, TokenGrant,
};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::refusal::{Refusal, method_refused, too_large};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"hearth\"");

/// The tenant's tokens.
pub type Grants = HashMap<TokenDigest, TokenGrant>;

/// Who calls, as far as that is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    pub origin: Origin,
    /// Of the token that was verified, here or by the API.
    pub scope: Option<Scope>,
    /// Whether a token came that is none, or none any more.
    sent_another: bool,
}

impl Caller {
    /// Verifies the token that came, where that is left to us; what it says is told in its place,
    /// whether or not the function asks for one. Other credentials of an outsider's stay, but for
    /// what has the form of a token of this platform, whosever it is.
    pub fn identify(
        headers: &mut HeaderMap,
        origin: Origin,
        grants: &Grants,
        now_seconds: i64,
    ) -> Self {
        let mut found = Self { origin, scope: None, sent_another: false };
        match origin.checks_token() {
            false => found.scope = caller::scope(headers),
            true => {
                let token = credentials::token(headers);
                let grant = token.as_deref().and_then(|token| grants.get(&TokenDigest::of(token)));
                match grant.filter(|grant| grant.is_live(now_seconds)) {
                    Some(TokenGrant { scope, name, .. }) => {
                        headers.remove(AUTHORIZATION);
                        caller::tell(headers, origin, name, Some(*scope));
                        found.scope = Some(*scope);
                    }
                    None => found.sent_another = token.is_some(),
                }
            }
        }
        credentials::withhold_tokens(headers);
        found
    }

    /// Whether the function is for this caller.
    pub fn may_call(self, function: &ManifestFunction) -> Result<(), NotAllowed> {
        self.origin.may_call(function.options.auth, self.scope)
    }
}

/// Refuses a call that does not reach its function. A function that is not for callers of this kind
/// says nothing else of itself.
pub fn admit<B>(
    request: &Request<B>,
    caller: Caller,
    function: &ManifestFunction,
) -> Result<(), Refusal> {
    let options = &function.options;
    let allowed = caller.may_call(function);
    if allowed != Err(NotAllowed::Internal)
        && !options.methods.iter().any(|method| method == request.method().as_str())
    {
        return Err(method_refused(&options.methods.join(", ")));
    }
    allowed.map_err(|not_allowed| refused(not_allowed, caller))?;
    if function.is_damaged() {
        let ManifestFunction { path, version, .. } = function;
        return Err(Refusal::new(Code::ModuleDamaged, Problem::damaged(path, version)));
    }
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > options.max_body) {
        return Err(too_large(options.max_body));
    }
    Ok(())
}

fn refused(not_allowed: NotAllowed, caller: Caller) -> Refusal {
    match not_allowed {
        NotAllowed::Internal => Refusal::new(
            Code::Forbidden,
            "this function is internal: triggers and functions of its tenant call it, and its \
             owner with `hearth invoke`, and nobody else",
        ),
        NotAllowed::NoToken => {
            let detail = match caller.sent_another {
                false => {
                    "this function needs a token of its tenant: send it as `Authorization: Bearer …`"
                }
                true => "the token is unknown or has expired",
            };
            Refusal::new(Code::Unauthenticated, detail).with(WWW_AUTHENTICATE, CHALLENGE)
        }
        NotAllowed::Scope(scope) => {
            let detail = format!("this function needs a token with the scope `{scope}`");
            Refusal::new(Code::Forbidden, detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use hearth_wire::{Auth, Fingerprint, HandlerKind, ModuleDigest, OptionsPatch};

    use super::*;

    fn grants() -> Grants {
        let grant = |token: &str, scope, expires_at| TokenGrant {
            digest: TokenDigest::of(token),
            scope,
            name: format!("{scope}'s"),
            expires_at,
        };
        [
            grant("own", Scope::Owner, None),
            grant("dep", Scope::Deploy, None),
            grant("inv", Scope::Invoke, Some(100)),
            grant("adm", Scope::Admin, None),
        ]
        .into_iter()
        .map(|grant| (grant.digest, grant))
        .collect()
    }

    fn function(auth: Auth) -> ManifestFunction {
        let mut options = OptionsPatch::default().resolve();
        options.auth = auth;
        ManifestFunction {
            path: "/a".parse().unwrap(),
            version: 1.into(),
            sha256: ModuleDigest::new([0; 32]),
            kind: HandlerKind::IncomingHandler,
            options,
            engine: Some(Fingerprint::new([0; 8])),
        }
    }

    fn basic(password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("anybody:{password}")))
    }

    /// What becomes of a call: its problem, or who is said to call, with which scope, and whether
    /// credentials are left.
    type Verdict<'a> = Result<(&'a str, &'a str, bool), Code>;

    fn judged(
        origin: Origin,
        method: &str,
        sent: &[(&str, &str)],
        (auth, now): (Auth, i64),
        expected: Verdict<'_>,
    ) {
        let mut request = Request::builder().method(method).uri("/a").body(()).unwrap();
        for (name, value) in sent {
            request
                .headers_mut()
                .append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let caller = Caller::identify(request.headers_mut(), origin, &grants(), now);
        let admitted = admit(&request, caller, &function(auth));
        let text =
            |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let found = admitted.map_err(|refusal| refusal.code()).map(|()| {
            let is_left = request.headers().contains_key(AUTHORIZATION);
            (text("x-hearth-caller"), text("x-hearth-scope"), is_left)
        });
        assert_eq!(found, expected, "{origin:?} {method} {sent:?} {auth:?} {now}");
    }

    #[test]
    fn who_may_call() {
        use Code::{Forbidden, Unauthenticated};
        let invoke = Auth::Scope(Scope::Invoke);
        let inv = Ok(("invoke's", "invoke", false));
        for (sent, needed, now, expected) in [
            (None, Auth::Public, 0, Ok(("", "", false))),
            (Some("Bearer foreign"), Auth::Public, 0, Ok(("", "", true))),
            (Some("Bearer hearth_foreign"), Auth::Public, 0, Ok(("", "", false))),
            (Some("Bearer inv"), Auth::Public, 0, inv),
            (Some("Token inv"), Auth::Public, 0, inv),
            (Some(basic("inv").as_str()), Auth::Public, 0, inv),
            (Some("Bearer dep"), Auth::Public, 0, Ok(("deploy's", "deploy", false))),
            (Some("Bearer inv"), Auth::Public, 100, Ok(("", "", true))),
            (None, invoke, 0, Err(Unauthenticated)),
            (Some("Bearer foreign"), invoke, 0, Err(Unauthenticated)),
            (Some("Bearer inv"), invoke, 99, inv),
            (Some("bearer  inv "), invoke, 99, inv),
            (Some("Token inv"), invoke, 99, inv),
            (Some(basic("inv").as_str()), invoke, 99, inv),
            (Some("Bearer inv"), invoke, 100, Err(Unauthenticated)),
            (Some("Bearer dep"), invoke, 0, Err(Forbidden)),
            (Some("Bearer own"), invoke, 0, Ok(("owner's", "owner", false))),
            (Some("Bearer adm"), invoke, 0, Err(Forbidden)),
            (Some("Basic !"), invoke, 0, Err(Unauthenticated)),
            (Some("Digest inv"), invoke, 0, Err(Unauthenticated)),
            (Some("inv"), invoke, 0, Err(Unauthenticated)),
            (None, Auth::Internal, 0, Err(Forbidden)),
            (Some("Bearer inv"), Auth::Internal, 0, Err(Forbidden)),
            (Some("Bearer own"), Auth::Internal, 0, Err(Forbidden)),
            (Some("Bearer adm"), Auth::Internal, 0, Err(Forbidden)),
            (Some("Bearer foreign"), Auth::Internal, 0, Err(Forbidden)),
        ] {
            let sent: Vec<_> = sent.into_iter().map(|sent| ("authorization", sent)).collect();
            judged(Origin::Outside, "POST", &sent, (needed, now), expected);
        }
    }

    /// Of these the primary has checked the caller, and says whom it found.
    #[test]
    fn whom_the_host_vouches_for() {
        use Code::Forbidden;
        let with = |scope| [("x-hearth-caller", "me"), ("x-hearth-scope", scope)];
        let me = |scope| Ok(("me", scope, false));
        let (internal, owner) = (Auth::Internal, Auth::Scope(Scope::Owner));
        for (scope, needed, expected) in [
            ("owner", internal, me("owner")),
            ("admin", internal, me("admin")),
            ("invoke", internal, Err(Forbidden)),
            ("deploy", internal, Err(Forbidden)),
            ("nonsense", internal, Err(Forbidden)),
            ("owner", owner, me("owner")),
            ("admin", owner, me("admin")),
            ("invoke", owner, Err(Forbidden)),
            ("invoke", Auth::Scope(Scope::Invoke), me("invoke")),
            ("invoke", Auth::Public, me("invoke")),
        ] {
            judged(Origin::Api, "POST", &with(scope), (needed, 0), expected);
        }
        for needed in [internal, owner, Auth::Public] {
            judged(Origin::Trigger, "POST", &[], (needed, 0), Ok(("", "", false)));
            // It says so itself, and what came beside it proves nothing.
            let sent = [("authorization", "Bearer inv"), ("x-hearth-caller", "/jobs/a")];
            judged(Origin::Internal, "POST", &sent, (needed, 0), Ok(("/jobs/a", "", true)));
        }
    }

    #[test]
    fn nobody_learns_from_an_internal_function_what_it_takes() {
        use Code::{Forbidden, MethodNotAllowed, Unauthenticated};
        for method in ["GET", "OPTIONS", "PURGE"] {
            judged(Origin::Outside, method, &[], (Auth::Internal, 0), Err(Forbidden));
            judged(Origin::Trigger, method, &[], (Auth::Internal, 0), Err(MethodNotAllowed));
            judged(Origin::Outside, method, &[], (Auth::Public, 0), Err(MethodNotAllowed));
        }
        let owner = Auth::Scope(Scope::Owner);
        judged(Origin::Outside, "GET", &[], (owner, 0), Err(MethodNotAllowed));
        judged(Origin::Outside, "POST", &[], (owner, 0), Err(Unauthenticated));
    }
}
