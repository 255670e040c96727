//! What readers make of a number. JSON lets it have any number of digits; a reader keeps it as it
//! stands, or as a whole number of 64 bits, or as the double that is nearest. `10.00000000000000000001`
//! is above 10 to one and 10 to another.
//!
//! Most numbers are the same to all. For one that is not there are two to be judged, both of which
//! must be fine: the one that is kept, and the next on the side where the number really lies. What no
//! two doubles can stand for is refused. No step takes longer for a larger exponent.

use hearth_wire::json;
use serde_json::{Number, Value};

/// So many digits survive in any double that is not tiny.
const DIGITS_SAFE: usize = 15;
const SHOWN_MAX_BYTES: usize = 40;

/// Of a number that readers cannot agree about.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the number {shown} has more digits than all readers keep; send fewer, or send it as a text"
)]
pub(crate) struct TooPrecise {
    shown: String,
}

/// The steps between which a schema tells numbers apart: 1, or less where it says `multipleOf`. Of
/// two numbers that lie closer together, at most one is a multiple.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grain(f64);

impl Grain {
    pub(crate) fn of(schema: &Value) -> Self {
        fn least(schema: &Value, grain: &mut f64) {
            match schema {
                Value::Array(items) => items.iter().for_each(|item| least(item, grain)),
                Value::Object(object) => {
                    let step = object.get("multipleOf").and_then(Value::as_f64);
                    if let Some(step) = step.filter(|step| *step > 0.0) {
                        *grain = grain.min(step);
                    }
                    object.values().for_each(|value| least(value, grain));
                }
                _ => {}
            }
        }
        let mut grain = 1.0;
        least(schema, &mut grain);
        Self(grain)
    }
}

/// A text that was read already, with each number as the other readers may take it. `None` where
/// all read the same.
pub(crate) fn other_reading(text: &[u8], grain: Grain) -> Result<Option<Value>, TooPrecise> {
    let mut others = Vec::new();
    let mut differs = false;
    for literal in literals(text) {
        let other = other(literal, grain)?;
        differs |= other.is_some();
        others.push(other);
    }
    if !differs {
        return Ok(None);
    }
    let mut others = others.into_iter();
    let read = json::parse_numbers(text, &mut |kept| others.next().flatten().unwrap_or(kept));
    Ok(Some(read.expect("it was read before")))
}

/// What a number is to those who do not read it as it is kept here, if they read another.
pub(crate) fn other(literal: &str, grain: Grain) -> Result<Option<Number>, TooPrecise> {
    let digits = literal.bytes().filter(u8::is_ascii_digit).count();
    if digits <= DIGITS_SAFE && !literal.contains(['e', 'E']) {
        return Ok(None);
    }
    if let Some(whole) = whole(literal) {
        let double = whole as f64;
        let same = double as i128 == whole;
        return Ok(if same { None } else { Number::from_f64(double) });
    }
    let Ok(double) = literal.parse::<f64>() else { return Ok(None) };
    if !double.is_finite() {
        return Ok(None);
    }
    let (meant, kept) = (Decimal::of(literal), Decimal::of(&format!("{double:e}")));
    if meant == kept {
        return Ok(None);
    }
    let size = double.abs();
    if size.next_up() - size >= grain.0 {
        // A whole number that a double can hold is that, however few of its digits are needed.
        return match meant == Decimal::of(&format!("{size:.0}")) {
            true => Ok(None),
            false => Err(TooPrecise { shown: shown(literal) }),
        };
    }
    let other = match meant > kept {
        true => size.next_up(),
        false => size.next_down(),
    };
    let is_negative = literal.starts_with('-');
    Ok(Number::from_f64(if is_negative { -other } else { other }))
}

/// One that is kept whole.
fn whole(literal: &str) -> Option<i128> {
    let unsigned = literal.parse::<u64>().ok().map(i128::from);
    unsigned.or_else(|| literal.parse::<i64>().ok().map(i128::from))
}

fn shown(literal: &str) -> String {
    match literal.len() > SHOWN_MAX_BYTES {
        true => format!("{}…", &literal[..SHOWN_MAX_BYTES]),
        false => literal.to_owned(),
    }
}

/// The numbers of a text that is JSON, as they stand there.
fn literals(text: &[u8]) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            match text.get(at)? {
                b'"' => at = end_of_text(text, at),
                b'-' | b'0'..=b'9' => {
                    let begin = at;
                    let is_part = |byte: &u8| {
                        byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
                    };
                    while text.get(at).is_some_and(is_part) {
                        at += 1;
                    }
                    return str::from_utf8(&text[begin..at]).ok();
                }
                _ => at += 1,
            }
        }
    })
}

/// Behind the quote that closes the text which begins here.
fn end_of_text(text: &[u8], mut at: usize) -> usize {
    loop {
        at += 1;
        match text.get(at) {
            Some(b'\\') => at += 1,
            Some(b'"') | None => return at + 1,
            Some(_) => {}
        }
    }
}

/// A number's size, exactly: `0.digits` times ten to the power of `point`. In order of size.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Decimal {
    point: i64,
    /// Without zeros at either end. None are zero, which is less than all.
    digits: String,
}

impl Decimal {
    fn of(literal: &str) -> Self {
        let literal = literal.trim_start_matches('-');
        let (digits, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = [whole, fraction].concat();
        let behind = all.trim_start_matches('0');
        let before = all.len() - behind.len();
        let digits = behind.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Self { point: i64::MIN, digits };
        }
        let far = if exponent.starts_with('-') { i64::MIN / 2 } else { i64::MAX / 2 };
        let exponent = exponent.parse().unwrap_or(far);
        let point = (whole.len() as i64 - before as i64).saturating_add(exponent);
        Self { point, digits }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ONE: Grain = Grain(1.0);

    fn others(literal: &str) -> Option<String> {
        other(literal, ONE).unwrap().map(|other| other.to_string())
    }

    #[test]
    fn most_numbers_are_the_same_to_everybody() {
        for literal in [
            "0",
            "-0",
            "-0.0",
            "1",
            "-1.5",
            "0.1",
            "0.3",
            "1e3",
            "1E+3",
            "1.0e-7",
            "0e999999999",
            "3.141592653589793",
            "0.30000000000000004",
            "5e-324",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "9007199254740992",
            "-9007199254740992",
            "1e22",
            "1.50e1",
            "100000000000000000000000",
            "18446744073709551616",
            "10.000000000000000000000000000",
            "9223372036854775808",
            "0.000000000000000000000000000000000001",
            "4503599627370495.5",
        ] {
            assert_eq!(others(literal), None, "{literal}");
        }
    }

    #[test]
    fn what_lies_between_two_doubles_is_both() {
        for (literal, other) in [
            ("10.00000000000000000001", "10.000000000000002"),
            ("9.99999999999999999999", "9.999999999999998"),
            ("-10.00000000000000000001", "-10.000000000000002"),
            ("-9.99999999999999999999", "-9.999999999999998"),
            ("0.10000000000000001", "0.10000000000000002"),
            ("0.09999999999999999999", "0.09999999999999999"),
            ("1000000000000000000000001e-24", "1.0000000000000002"),
            ("1e-400", "5e-324"),
            ("-1e-999999999999999999999", "-5e-324"),
            ("9007199254740993", "9007199254740992.0"),
            ("-9007199254740993", "-9007199254740992.0"),
            ("18446744073709551615", "1.8446744073709552e+19"),
        ] {
            assert_eq!(others(literal).as_deref(), Some(other), "{literal}");
        }
    }

    #[test]
    fn what_no_two_doubles_stand_for_is_refused() {
        for literal in [
            "12345678901234567.5",
            "4503599627370496.5",
            "18446744073709551617",
            "-18446744073709551617",
            "123456789012345678901234567890",
            "1.00000000000000000001e300",
        ] {
            let said = other(literal, ONE).unwrap_err().to_string();
            assert!(said.contains(&shown(literal)), "{said}");
        }
        let long = format!("1{}1", "0".repeat(300));
        assert!(other(&long, ONE).unwrap_err().to_string().len() < 200);
        // Both neighbours of it are multiples of a half, and it is none.
        let half = "2251799813685248.6000000000000001";
        assert!(other(half, ONE).unwrap().is_some());
        assert!(other(half, Grain(0.5)).is_err());
        let schema =
            json!({"properties": {"a": {"items": [{"multipleOf": 0.5}, {"multipleOf": 7}]}}});
        assert_eq!(Grain::of(&schema), Grain(0.5));
        assert_eq!(Grain::of(&json!({"type": "integer"})), ONE);
    }

    #[test]
    fn numbers_are_found_where_they_stand() {
        let text = br#"{"a 1 \" 2":[1,-2.5e+3,"3\\",{"b":4}],"c":"5\\\"6","d":7}"#;
        assert_eq!(literals(text).collect::<Vec<_>>(), ["1", "-2.5e+3", "4", "7"]);
        assert_eq!(literals(b" 8 ").collect::<Vec<_>>(), ["8"]);
        assert_eq!(literals(br#""9""#).count(), 0);
        let other = other_reading(br#"[1,10.00000000000000000001,"x",2]"#, ONE).unwrap();
        assert_eq!(other, Some(json!([1, 10.000000000000002, "x", 2])));
        assert_eq!(other_reading(br#"[1,2.5]"#, ONE).unwrap(), None);
    }

    #[test]
    fn an_exponent_or_a_number_of_any_length_takes_no_time() {
        let long = format!("0.{}1e{}", "0".repeat(1 << 20), "9".repeat(1 << 20));
        let _ = other(&long, ONE);
        assert_eq!(Decimal::of("1e99999999999999999999").point, i64::MAX / 2 + 1);
    }

    proptest! {
        #[test]
        fn what_programs_write_of_a_double_is_that_double(bits: u64) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            for text in [format!("{double:?}"), format!("{double:e}")] {
                prop_assert_eq!(other(&text, ONE), Ok(None), "{}", text);
            }
        }

        /// Both readings lie around the number, and there is no double between them.
        #[test]
        fn both_readings_are_next_to_the_number(whole in 1_u32..1_000_000, fraction in "[0-9]{20,30}") {
            let literal = format!("{whole}.{fraction}1");
            let kept: f64 = literal.parse().unwrap();
            let other = other(&literal, ONE).unwrap().unwrap().as_f64().unwrap();
            let meant = Decimal::of(&literal);
            let (low, high) = (kept.min(other), kept.max(other));
            prop_assert_eq!(low.next_up(), high);
            let [low, high] = [low, high].map(|double| Decimal::of(&format!("{double:e}")));
            prop_assert!(low <= meant && meant <= high);
        }
    }
}
