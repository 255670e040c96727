//! What a browser is told so that pages of other origins may call a function, as its option
//! `cors` says. Without the option nothing is added and nothing taken away.
//!
//! Credentials are never allowed: a browser sends no cookie along, and a token that a page adds
//! by itself needs no such leave.

use hearth_wire::{Cors, Options};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN,
    VARY,
};
use http::{Method, StatusCode};

const ANY: HeaderValue = HeaderValue::from_static("*");
/// As long as any browser keeps it.
const MAX_AGE_SECONDS: HeaderValue = HeaderValue::from_static("7200");
/// What the platform adds to answers and a page may want to read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-hearth-version, server-timing, retry-after, location",
);
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "origin, access-control-request-method, access-control-request-headers",
);

/// The leave that this request's origin has.
#[derive(Debug, PartialEq, Eq)]
pub struct Leave {
    /// `None` where the origin has none.
    origin: Option<HeaderValue>,
}

impl Leave {
    /// `None` where the function says nothing of origins.
    pub fn of(options: &Options, headers: &HeaderMap) -> Option<Self> {
        if options.cors.is_off() {
            return None;
        }
        let origin = headers.get(ORIGIN);
        let allowed = origin.filter(|o| o.to_str().is_ok_and(|o| options.cors.allows(o)));
        let origin = match options.cors {
            Cors::Any => allowed.map(|_| ANY),
            Cors::Origins(_) => allowed.cloned(),
        };
        Some(Self { origin })
    }

    /// Adds it to an answer, in the place of what the function said of it.
    pub fn give(&self, headers: &mut HeaderMap) {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS] {
            headers.remove(name);
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = &self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Whether a browser asks for leave before it sends the request itself.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that. Whether method and headers do is for the request itself: a browser that
/// is told all of them sends it, and reads why it is refused.
pub fn preflight(leave: &Leave, options: &Options, asked: &HeaderMap) -> (StatusCode, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(VARY, VARY_PREFLIGHT);
    if let Some(origin) = &leave.origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECONDS);
        let methods = HeaderValue::from_str(&options.methods.join(", "));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.expect("methods are plain words"));
        // What was asked for and not `*`, which would not cover `Authorization`.
        if let Some(asked) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
    }
    (StatusCode::NO_CONTENT, headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::OptionsPatch;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let list = list
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)));
        list.collect()
    }

    fn leave(options: &str, origin: &'static str) -> Option<Leave> {
        let options = OptionsPatch::parse(options).unwrap().resolve();
        Leave::of(&options, &headers(&[("origin", origin)]))
    }

    const SOME: &str = r#"{"cors":["https://app.example"],"methods":["GET","POST"]}"#;
    const ANYBODY: &str = r#"{"cors":"*"}"#;

    #[test]
    fn who_has_leave() {
        let origin = |leave: Option<Leave>| leave.map(|leave| leave.origin.is_some());
        assert_eq!(origin(leave("{}", "https://app.example")), None);
        assert_eq!(origin(leave(SOME, "https://app.example")), Some(true));
        assert_eq!(origin(leave(SOME, "https://app.example.evil")), Some(false));
        assert_eq!(origin(leave(ANYBODY, "null")), Some(true));
    }

    #[test]
    fn an_answer_says_it_and_what_the_function_said_of_it_goes() {
        let mut answer = headers(&[
            ("access-control-allow-origin", "https://evil.example"),
            ("access-control-allow-credentials", "true"),
            ("vary", "accept"),
        ]);
        leave(SOME, "https://evil.example").unwrap().give(&mut answer);
        assert_eq!(answer, headers(&[("vary", "accept"), ("vary", "origin")]));
        leave(SOME, "https://app.example").unwrap().give(&mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://app.example");
        leave(ANYBODY, "https://app.example").unwrap().give(&mut answer);
        assert_eq!(answer["access-control-allow-origin"], "*");
    }

    #[test]
    fn a_preflight_is_told_the_methods_and_the_headers_that_it_asked_for() {
        let options = OptionsPatch::parse(SOME).unwrap().resolve();
        let asked = headers(&[
            ("origin", "https://app.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization, content-type"),
        ]);
        assert!(is_preflight(&Method::OPTIONS, &asked));
        assert!(!is_preflight(&Method::POST, &asked));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&[("origin", "https://app.example")])));
        let leave = Leave::of(&options, &asked).unwrap();
        let (status, told) = preflight(&leave, &options, &asked);
        assert_eq!(status, StatusCode::NO_CONTENT);
        assert_eq!(told["access-control-allow-methods"], "GET, POST");
        assert_eq!(told["access-control-allow-headers"], "authorization, content-type");
        let nobody = Leave { origin: None };
        assert_eq!(preflight(&nobody, &options, &asked).1.len(), 1);
    }
}
