//! What of a change is told: what was other before it than after it, and that within a bound. Pure.

use serde_json::{Map, Value, json};

/// Of either side, as it is kept.
pub const TEXT_MAX_BYTES: usize = 8 << 10;

/// What differs, on either side of a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sides {
    before: Map<String, Value>,
    after: Map<String, Value>,
}

impl Sides {
    pub fn none() -> Self {
        Self::default()
    }

    pub fn between(mut before: Map<String, Value>, mut after: Map<String, Value>) -> Self {
        drop_equals(&mut before, &mut after);
        Self { before, after }
    }

    pub fn only_before(before: Map<String, Value>) -> Self {
        Self { before, after: Map::new() }
    }

    pub fn add_after(&mut self, key: &str, value: Value) {
        self.after.insert(key.to_owned(), value);
    }

    /// As they are kept; `None` is a side of which there is nothing to tell.
    pub fn texts(self) -> (Option<String>, Option<String>) {
        let text = |side: Map<String, Value>| (!side.is_empty()).then(|| bounded(side));
        (text(self.before), text(self.after))
    }
}

fn drop_equals(before: &mut Map<String, Value>, after: &mut Map<String, Value>) {
    before.retain(|key, old| match (old, after.get_mut(key)) {
        (old, Some(new)) if *old == *new => {
            after.remove(key);
            false
        }
        (Value::Object(old), Some(Value::Object(new))) => {
            drop_equals(old, new);
            true
        }
        _ => true,
    });
}

fn bounded(side: Map<String, Value>) -> String {
    let mut side = Value::Object(side);
    let whole = side.to_string().len();
    if whole > TEXT_MAX_BYTES {
        shorten(&mut side, TEXT_MAX_BYTES);
    }
    match side.to_string() {
        text if text.len() <= TEXT_MAX_BYTES => text,
        _ => left_out(whole).to_string(),
    }
}

/// Leaves the largest parts out: each may take what the smaller ones before it have left.
fn shorten(value: &mut Value, most: usize) {
    let whole = value.to_string().len();
    if whole <= most {
        return;
    }
    let Value::Object(parts) = value else {
        *value = left_out(whole);
        return;
    };
    // The key, with what stands around it.
    let size = |key: &str, part: &Value| key.len() + 4 + part.to_string().len();
    let mut keys: Vec<(usize, String)> =
        parts.iter().map(|(key, part)| (size(key, part), key.clone())).collect();
    keys.sort();
    let (mut room, mut others) = (most.saturating_sub(2), keys.len());
    for (_, key) in keys {
        let share = room / others;
        let part = parts.get_mut(&key).expect("it is one of its keys");
        shorten(part, share.saturating_sub(key.len() + 4));
        room = room.saturating_sub(size(&key, part));
        others -= 1;
    }
}

fn left_out(bytes: usize) -> Value {
    json!({ "left_out_bytes": bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("{value}") };
        object
    }

    fn told(before: Value, after: Value) -> (Option<Value>, Option<Value>) {
        let (before, after) = Sides::between(object(before), object(after)).texts();
        let read = |side: Option<String>| side.map(|side| serde_json::from_str(&side).unwrap());
        (read(before), read(after))
    }

    #[test]
    fn what_is_the_same_on_both_sides_is_not_told() {
        let (before, after) = told(
            json!({ "generation": 3, "functions": { "/a": { "version": 1, "auth": "public" }, "/b": null } }),
            json!({ "generation": 4, "functions": { "/a": { "version": 2, "auth": "public" }, "/b": { "version": 1 } } }),
        );
        assert_eq!(
            before,
            Some(json!({ "generation": 3, "functions": { "/a": { "version": 1 }, "/b": null } }))
        );
        assert_eq!(
            after,
            Some(
                json!({ "generation": 4, "functions": { "/a": { "version": 2 }, "/b": { "version": 1 } } })
            )
        );
        assert_eq!(told(json!({ "a": 1 }), json!({ "a": 1 })), (None, None));
        assert_eq!(told(json!({}), json!({ "a": 1 })), (None, Some(json!({ "a": 1 }))));
    }

    #[test]
    fn what_is_large_is_left_out_and_the_rest_told() {
        let giant = "x".repeat(100_000);
        let (_, after) = told(
            json!({}),
            json!({ "generation": 4, "functions": { "/a": { "options": { "auth": "owner", "schema": { "body": giant } } } } }),
        );
        let after = after.unwrap();
        assert_eq!(after["generation"], 4);
        let options = &after["functions"]["/a"]["options"];
        assert_eq!(options["auth"], "owner");
        assert_eq!(options["schema"]["body"], json!({ "left_out_bytes": 100_002 }));
    }

    #[test]
    fn however_much_it_is_it_has_a_bound() {
        let many: Map<String, Value> =
            (0..5_000).map(|n| (format!("/{n:0250}"), json!({ "version": n }))).collect();
        let deep = (0..100).fold(json!("x".repeat(TEXT_MAX_BYTES)), |inner, _| json!([inner]));
        let half: Map<String, Value> = (0..60)
            .map(|n| (format!("/{n:0100}"), json!({ "version": n, "auth": "x".repeat(n) })))
            .collect();
        for value in
            [json!({ "functions": many }), json!({ "deep": deep }), json!({ "half": half })]
        {
            let (text, _) = Sides::only_before(object(value)).texts();
            let text = text.unwrap();
            assert!(text.len() <= TEXT_MAX_BYTES, "{}", text.len());
            serde_json::from_str::<Value>(&text).unwrap();
        }
    }
}
