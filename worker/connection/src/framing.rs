//! How an answer is framed, which is the platform's to say and nobody else's: what has no content
//! is sent none and announces none, and a length is that of what is sent.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty};

use crate::Answer;

/// Whether an answer has content (RFC 9110, section 6.4.1).
pub fn has_content(method: &Method, status: StatusCode) -> bool {
    let never = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
    !(status.is_informational() || never.contains(&status) || *method == Method::HEAD)
}

/// What hyper adds then is `content-length`, or `transfer-encoding: chunked`, as the body is.
pub(crate) fn frame(method: &Method, answer: &mut Answer) {
    let exact = answer.body().size_hint().exact();
    let length = answer.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let status = answer.status();
    let told = match (has_content(method, status), exact) {
        (true, Some(exact)) => Some(exact),
        (true, None) => length,
        // As much as the answer to a GET would have, if anybody said. A body that is left out
        // already has none to tell.
        (false, exact) if *method == Method::HEAD && has_content(&Method::GET, status) => {
            length.or(exact.filter(|exact| *exact > 0))
        }
        (false, _) => None,
    };
    let headers = answer.headers_mut();
    headers.remove(TRANSFER_ENCODING);
    match told {
        Some(told) => {
            headers.insert(CONTENT_LENGTH, told.into());
            // Only behind chunks is there a place for what it announces.
            headers.remove(TRAILER);
        }
        None => drop(headers.remove(CONTENT_LENGTH)),
    }
    if !has_content(method, status) {
        *answer.body_mut() = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use http::header::HeaderValue;
    use http_body_util::Full;

    #[test]
    fn what_is_announced_is_what_is_sent() {
        let full = |bytes: &'static [u8]| {
            Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
        };
        let get = Method::GET;
        for (method, status, said, body, told, sent) in [
            (&get, 200, None, "four", Some("4"), 4),
            (&get, 200, Some("7"), "four", Some("4"), 4),
            (&get, 200, Some("x"), "", Some("0"), 0),
            (&get, 204, Some("4"), "four", None, 0),
            (&get, 205, Some("4"), "four", None, 0),
            (&get, 304, Some("4"), "four", None, 0),
            (&Method::HEAD, 200, Some("7"), "", Some("7"), 0),
            (&Method::HEAD, 200, None, "four", Some("4"), 0),
            (&Method::HEAD, 200, None, "", None, 0),
            (&Method::HEAD, 204, Some("7"), "", None, 0),
        ] {
            let mut answer = Response::new(full(body.as_bytes()));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            let chunked = HeaderValue::from_static("chunked");
            answer.headers_mut().insert(TRANSFER_ENCODING, chunked);
            answer.headers_mut().insert(TRAILER, HeaderValue::from_static("x-sum"));
            if let Some(said) = said {
                answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static(said));
            }
            frame(method, &mut answer);
            let length = answer.headers().get(CONTENT_LENGTH).map(|it| it.to_str().unwrap());
            assert_eq!(length, told, "{method} {status} {said:?} {body:?}");
            assert!(!answer.headers().contains_key(TRANSFER_ENCODING));
            assert_eq!(answer.headers().contains_key(TRAILER), told.is_none(), "{method} {status}");
            assert_eq!(answer.body().size_hint().exact(), Some(sent), "{method} {status}");
        }
    }
}
