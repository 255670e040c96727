//! Secrets are taken out of what is said of a call, before it goes anywhere: whatever a function
//! writes, and whatever the worker says in its place. Pure.
//!
//! What is looked for is a secret's text, and each of its lines, as lines are told one by one. One that
//! is written in another way (turned round, in base64) is not known again.

use std::ops::Range;

use hearth_wire::limits::{LOG_LINE_MAX_BYTES, SCRUBBED_MIN_BYTES};
use memchr::memmem::Finder;

/// No longer than what it stands for, so that no line grows.
const IN_ITS_PLACE: &str = "[secret]";
/// What a character takes at most: a line that is so near its bound was cut.
const CHARACTER_BYTES: usize = 4;

/// What to look for.
#[derive(Default)]
pub struct Scrub {
    patterns: Vec<Finder<'static>>,
}

impl Scrub {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut texts: Vec<&str> = Vec::new();
        for secret in secrets {
            texts.push(secret);
            texts.extend(secret.split('\n').map(|line| line.trim_end_matches('\r')));
        }
        texts.retain(|text| text.len() >= SCRUBBED_MIN_BYTES);
        texts.sort_unstable();
        texts.dedup();
        Self { patterns: texts.into_iter().map(|text| Finder::new(text).into_owned()).collect() }
    }

    /// The same without any of them.
    pub fn clean(&self, text: String) -> String {
        if self.patterns.is_empty() {
            return text;
        }
        let found = self.found(&text);
        if found.is_empty() {
            return text;
        }
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        for Range { start, end } in found {
            clean += &text[at..start];
            clean += IN_ITS_PLACE;
            at = end;
        }
        clean += &text[at..];
        clean
    }

    /// Where they are, in order and apart.
    fn found(&self, text: &str) -> Vec<Range<usize>> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        for pattern in &self.patterns {
            let mut at = 0;
            while let Some(start) = pattern.find(&bytes[at..]).map(|start| at + start) {
                found.push(start..start + pattern.needle().len());
                at = start + 1;
            }
            found.extend(cut(text, pattern.needle()));
        }
        found.sort_unstable_by_key(|range| range.start);
        found.dedup_by(|next, before| {
            let touches = next.start <= before.end;
            if touches {
                before.end = before.end.max(next.end);
            }
            touches
        });
        found
    }
}

/// The beginning of a secret with which a line was cut.
fn cut(text: &str, secret: &[u8]) -> Option<Range<usize>> {
    if text.len() + CHARACTER_BYTES <= LOG_LINE_MAX_BYTES {
        return None;
    }
    // Of a character that was cut, this is shown.
    let kept = text.trim_end_matches(char::REPLACEMENT_CHARACTER).as_bytes();
    let most = (secret.len() - 1).min(kept.len());
    let length = (SCRUBBED_MIN_BYTES..=most).rev().find(|&n| kept.ends_with(&secret[..n]))?;
    Some(kept.len() - length..text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(secrets: &[&str], text: &str) -> String {
        Scrub::new(secrets.iter().copied()).clean(text.to_owned())
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_stands() {
        let secrets = ["hunter2-hunter2", "pässwört", "short"];
        for (text, said) in [
            ("nothing here", "nothing here"),
            ("hunter2-hunter2", "[secret]"),
            ("a=hunter2-hunter2;b=hunter2-hunter2", "a=[secret];b=[secret]"),
            ("pässwörtpässwört!", "[secret]!"),
            ("x hunter2-hunter2 pässwört short", "x [secret] [secret] short"),
            ("hunter2-hunter", "hunter2-hunter"),
        ] {
            assert_eq!(clean(&secrets, text), said);
        }
        assert_eq!(clean(&[], "hunter2-hunter2"), "hunter2-hunter2");
    }

    #[test]
    fn from_eight_bytes_on() {
        assert_eq!(clean(&["1234567"], "a 1234567"), "a 1234567");
        assert_eq!(clean(&["12345678"], "a 12345678"), "a [secret]");
    }

    #[test]
    fn secrets_that_overlap_leave_nothing_between_them() {
        assert_eq!(clean(&["abcdefgh", "efghijkl"], "-abcdefghijkl-"), "-[secret]-");
        assert_eq!(clean(&["aaaaaaaa"], &"a".repeat(23)), "[secret]");
        assert_eq!(clean(&["abcdefghij", "cdefghij"], "abcdefghij"), "[secret]");
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let key = "-----BEGIN KEY-----\r\nMIIEvQIBADANBg\nab\n-----END KEY-----\n";
        assert_eq!(clean(&[key], "MIIEvQIBADANBg"), "[secret]");
        assert_eq!(clean(&[key], "-----BEGIN KEY-----"), "[secret]");
        assert_eq!(clean(&[key], "ab"), "ab");
        assert_eq!(
            clean(&[key], &format!("key: {key:?}")),
            "key: \"[secret]\\r\\n[secret]\\nab\\n[secret]\\n\""
        );
    }

    #[test]
    fn a_line_that_was_cut_does_not_end_with_the_half_of_one() {
        let secret = "0123456789ß123456789";
        for half in (8..secret.len()).filter(|&half| secret.is_char_boundary(half)) {
            let before = "x".repeat(LOG_LINE_MAX_BYTES - half);
            let said = clean(&[secret], &format!("{before}{}", &secret[..half]));
            assert_eq!(said, format!("{before}[secret]"), "{half}");
        }
        // Cut within a character, which is then shown as one that is none.
        let before = "x".repeat(LOG_LINE_MAX_BYTES - 13);
        let said = clean(&[secret], &format!("{before}0123456789\u{fffd}"));
        assert_eq!(said, format!("{before}[secret]"));
        assert_eq!(clean(&[secret], "ends with 0123456789"), "ends with 0123456789");
    }

    proptest! {
        #[test]
        fn nothing_of_a_secret_is_left_and_no_line_grows(
            secret in "[ab]{8,12}", text in "[abc]{0,60}"
        ) {
            let said = clean(&[&secret], &text);
            prop_assert!(!said.contains(&secret), "{said}");
            prop_assert!(said.len() <= text.len());
            prop_assert_eq!(said == text, !text.contains(&secret));
        }
    }
}
