//! What a request's `Authorization` carries: the token that is checked, and whatever has the form
//! of a token of this platform, which no function gets to see, whosever it is.
//!
//! Whom a token belongs to is for the worker, the front door and the API to find out.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hearth_wire::is_token;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

/// Longer ones are nobody's, and are not hashed.
pub const TOKEN_MAX_BYTES: usize = 512;

/// Of one request.
const CANDIDATES_MAX: usize = 16;

/// As clients write it, which is not always as the standard has it: what a function would decode
/// must be decoded here.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The token that the headers carry: as Bearer, as `Token`, or as the password of Basic.
pub fn token(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = parts(headers.get(AUTHORIZATION)?.as_bytes())?;
    let token = match Scheme::of(scheme)? {
        Scheme::Bearer => rest.to_vec(),
        Scheme::Basic => pair(rest)?.1?,
    };
    text(token)
}

/// Every text in them that could be meant as a token, however it is written. Each is hashed by
/// whoever asks, so that there are no more than somebody could mean.
pub fn candidates(headers: &HeaderMap) -> Vec<String> {
    let texts = headers.get_all(AUTHORIZATION).iter().flat_map(texts);
    texts.filter_map(text).take(CANDIDATES_MAX).collect()
}

/// Takes off each value that carries what has the form of a token. Other credentials stay.
pub fn withhold_tokens(headers: &mut HeaderMap) {
    let carries = |value: &HeaderValue| texts(value).iter().any(|text| is_token(text));
    if !headers.get_all(AUTHORIZATION).iter().any(carries) {
        return;
    }
    let all = headers.get_all(AUTHORIZATION).iter();
    let kept: Vec<_> = all.filter(|value| !carries(value)).cloned().collect();
    headers.remove(AUTHORIZATION);
    for value in kept {
        headers.append(AUTHORIZATION, value);
    }
}

enum Scheme {
    /// And `Token`, which is the same under another name.
    Bearer,
    Basic,
}

impl Scheme {
    fn of(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"bearer") || name.eq_ignore_ascii_case(b"token") {
            return Some(Self::Bearer);
        }
        name.eq_ignore_ascii_case(b"basic").then_some(Self::Basic)
    }
}

/// A scheme and what comes behind it.
fn parts(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let value = value.trim_ascii();
    let blank = value.iter().position(u8::is_ascii_whitespace)?;
    Some((&value[..blank], value[blank..].trim_ascii()))
}

/// The name and the password of Basic, if there is one.
fn pair(encoded: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let decoded = BASE64.decode(encoded).ok()?;
    let mut halves = decoded.splitn(2, |byte| *byte == b':');
    let name = halves.next()?.to_vec();
    Some((name, halves.next().map(<[u8]>::to_vec)))
}

fn text(token: Vec<u8>) -> Option<String> {
    let token = String::from_utf8(token).ok()?;
    (1..=TOKEN_MAX_BYTES).contains(&token.len()).then_some(token)
}

/// What of a value could be meant as a token: each of its words, and both halves of Basic, since
/// some send a token as the name, with nothing behind it.
fn texts(value: &HeaderValue) -> Vec<Vec<u8>> {
    let words = value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut texts: Vec<Vec<u8>> = words.map(<[u8]>::to_vec).collect();
    if let Some((scheme, rest)) = parts(value.as_bytes())
        && scheme.eq_ignore_ascii_case(b"basic")
        && let Some((name, password)) = pair(rest)
    {
        match password.filter(|password| !password.is_empty()) {
            Some(password) => texts.push(password),
            None => texts.push(name),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD as PADDED, STANDARD_NO_PAD};
    use proptest::prelude::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn left(values: &[&str]) -> Vec<String> {
        let mut headers = headers(values);
        withhold_tokens(&mut headers);
        let left = headers.get_all(AUTHORIZATION).iter();
        left.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn three_ways_to_carry_a_token() {
        let basic = |text: &str| format!("Basic {}", PADDED.encode(text));
        for (value, carried) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Bearer\tabc", Some("abc")),
            ("Token abc", Some("abc")),
            (&basic("anyone:a:bc"), Some("a:bc")),
            (&basic(":abc"), Some("abc")),
            (&basic("abc"), None),
            (&basic("abc:"), None),
            ("Basic ???", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("abc", None),
            ("Digest abc", None),
            (&format!("Bearer {}", "a".repeat(TOKEN_MAX_BYTES + 1)), None),
        ] {
            assert_eq!(token(&headers(&[value])).as_deref(), carried, "{value:?}");
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn what_has_the_form_of_a_token_is_withheld_however_it_is_written() {
        let token = "hearth_0123456789";
        let basic = |text: String| PADDED.encode(text);
        for value in [
            format!("Bearer {token}"),
            format!("bearer   {token}"),
            format!("BEARER\t{token}"),
            format!("Token {token}"),
            format!("Bearer Bearer {token}"),
            format!("Bearer: {token}"),
            format!("Custom {token}"),
            token.to_owned(),
            format!("Basic {}", basic(format!("me:{token}"))),
            format!("basic {}", basic(format!(":{token}"))),
            format!("Basic {}", basic(format!("{token}:"))),
            format!("Basic {}", basic(token.to_owned())),
            format!("Basic {}", STANDARD_NO_PAD.encode(format!("me!:{token}"))),
            format!("Basic\t {}", basic(format!("me:{token}"))),
        ] {
            assert_eq!(left(&[&value]), [""; 0], "{value:?}");
            assert_eq!(left(&["Bearer other", &value]), ["Bearer other"], "{value:?}");
            assert_eq!(candidates(&headers(&["x", &value])).last().unwrap(), token, "{value:?}");
        }
    }

    #[test]
    fn other_credentials_pass() {
        for value in [
            "Bearer eyJhbGciOiJIUzI1NiJ9.e30.x".to_owned(),
            "Bearer xhearth_0123456789".to_owned(),
            "Bearer Hearth_0123456789".to_owned(),
            "Digest username=\"hearth_app\", realm=\"x\"".to_owned(),
            format!("Basic {}", PADDED.encode("hearth_app:secret")),
            format!("Basic {}", PADDED.encode("me:x:hearth_0123456789")),
            "Basic !".to_owned(),
            String::new(),
        ] {
            assert_eq!(left(&[&value]).concat(), value, "{value:?}");
        }
    }

    proptest! {
        /// Whatever stands around it, what is checked as a token is withheld as one.
        #[test]
        fn what_is_taken_for_a_token_is_withheld(
            scheme in "[Bb][Ee][Aa][Rr][Ee][Rr]|[Tt][Oo][Kk][Ee][Nn]", blank in "[ \t]{1,3}",
            rest in "[!-~]{0,40}", before in "[ -~]{0,20}",
        ) {
            let value = format!("{scheme}{blank}hearth_{rest}");
            prop_assert!(token(&headers(&[&value])).is_some());
            prop_assert_eq!(left(&[&value]), [""; 0]);
            let pair = PADDED.encode(format!("{}:hearth_{rest}", before.replace(':', "")));
            let value = format!("Basic{blank}{pair}");
            prop_assert_eq!(left(&[&value]), [""; 0]);
        }
    }
}
