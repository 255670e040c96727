//! How much work a schema can make of a small value. A check cannot be interrupted, so who asks
//! for one must know beforehand whether it may be long.

use serde_json::Value;

/// Followed through all references: what a schema comes to if each is written out.
const PARTS_MAX: usize = 100_000;
/// So many parts are looked through in microseconds.
const PARTS_FEW: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Extent {
    /// Takes time in proportion to the value.
    #[default]
    Plain,
    /// Is large, or leads back to itself: what is tried at each of a value's depths may be tried
    /// twice as often at the next.
    Deep,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("with its references written out it has more than {PARTS_MAX} parts")]
pub struct TooLarge;

impl Extent {
    pub fn of(schema: &Value) -> Result<Self, TooLarge> {
        let mut walk = Walk { root: schema, parts: 0, deep: false, open: Vec::new() };
        walk.through(schema)?;
        Ok(if walk.deep || walk.parts > PARTS_FEW { Self::Deep } else { Self::Plain })
    }
}

struct Walk<'a> {
    root: &'a Value,
    parts: usize,
    deep: bool,
    /// The references that are being followed.
    open: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn through(&mut self, value: &'a Value) -> Result<(), TooLarge> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(TooLarge);
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.through(item)),
            Value::Object(object) => {
                object.iter().try_for_each(|(key, value)| match (key.as_str(), value) {
                    // What is defined counts where it is referred to.
                    ("$defs" | "definitions", _) => Ok(()),
                    ("$ref", Value::String(to)) => self.follow(to),
                    ("$dynamicRef" | "$recursiveRef", _) => {
                        self.deep = true;
                        Ok(())
                    }
                    (_, value) => self.through(value),
                })
            }
            _ => Ok(()),
        }
    }

    fn follow(&mut self, to: &'a str) -> Result<(), TooLarge> {
        let target = to.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        match target {
            Some(target) if !self.open.contains(&to) => {
                self.open.push(to);
                self.through(target)?;
                self.open.pop();
            }
            // Back to itself, or by a name, which is not looked for.
            _ => self.deep = true,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    #[test]
    fn what_may_take_long_is_known_beforehand() {
        let person = json!({
            "type": "object",
            "properties": {"name": {"$ref": "#/$defs/name"}, "other": {"$ref": "#/$defs/name"}},
            "$defs": {"name": {"type": "string"}},
        });
        assert_eq!(Extent::of(&person), Ok(Extent::Plain));
        assert_eq!(Extent::of(&json!(true)), Ok(Extent::Plain));
        let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}});
        assert_eq!(Extent::of(&tree), Ok(Extent::Deep));
        assert_eq!(Extent::of(&json!({"$ref": "#name"})), Ok(Extent::Deep));
        assert_eq!(Extent::of(&json!({"enum": vec![1; PARTS_FEW]})), Ok(Extent::Deep));
    }

    #[test]
    fn what_doubles_with_each_reference_is_refused() {
        let doubling = |depth: usize| {
            let defs: Map<_, _> = (0..depth)
                .map(|at| {
                    let next = json!({"$ref": format!("#/$defs/d{}", at + 1)});
                    (format!("d{at}"), json!({"allOf": [next, next]}))
                })
                .chain([(format!("d{depth}"), json!({"type": "integer"}))])
                .collect();
            Extent::of(&json!({"$ref": "#/$defs/d0", "$defs": defs}))
        };
        assert_eq!(doubling(5), Ok(Extent::Plain));
        assert_eq!(doubling(40), Err(TooLarge));
    }
}
