//! Which of a tenant's stores and databases a function may use. What is in them is the worker's.

use serde::{Deserialize, Serialize};

use crate::name::KeptName;

const NAMES_MAX: usize = 100;
const ANY: &str = "*";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Allowed {
    Any,
    /// In order, each once.
    These(Vec<KeptName>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    List(Vec<String>),
}

impl Allowed {
    pub const NONE: Self = Self::These(Vec::new());

    pub fn allows(&self, name: &KeptName) -> bool {
        match self {
            Self::Any => true,
            Self::These(names) => names.binary_search(name).is_ok(),
        }
    }
}

impl TryFrom<Written> for Allowed {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let names = match written {
            Written::One(name) => vec![name],
            Written::List(names) => names,
        };
        if names.iter().any(|name| name == ANY) {
            return if names.len() == 1 { Ok(Self::Any) } else { Err("* stands alone") };
        }
        let names = names.iter().map(|name| name.parse());
        let mut names: Vec<KeptName> =
            names.collect::<Result<_, _>>().map_err(|_| "not a list of names")?;
        names.sort();
        names.dedup();
        if names.len() <= NAMES_MAX { Ok(Self::These(names)) } else { Err("too many names") }
    }
}

impl From<Allowed> for Written {
    fn from(allowed: Allowed) -> Self {
        match allowed {
            Allowed::Any => Self::List(vec![ANY.to_owned()]),
            Allowed::These(names) => Self::List(names.into_iter().map(String::from).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    #[test]
    fn a_list_of_names_or_all_of_them() {
        for (given, kept) in [
            (json!("*"), json!(["*"])),
            (json!(["*"]), json!(["*"])),
            (json!([]), json!([])),
            (json!("one"), json!(["one"])),
            (json!(["b", "B", "a.1-x_", "b"]), json!(["B", "a.1-x_", "b"])),
        ] {
            let allowed: Allowed = from_value(given).unwrap();
            assert_eq!(to_value(allowed).unwrap(), kept);
        }
        let long = "a".repeat(65);
        for refused in [json!(["*", "a"]), json!("a/b"), json!([""]), json!([long]), json!(7)] {
            assert!(from_value::<Allowed>(refused.clone()).is_err(), "{refused}");
        }
        let many: Vec<_> = (0..=NAMES_MAX).map(|n| Value::from(format!("n{n}"))).collect();
        assert!(from_value::<Allowed>(Value::from(many)).is_err());
    }

    #[test]
    fn names_are_told_apart_by_case() {
        let allowed: Allowed = from_value(json!(["Carts"])).unwrap();
        let allows = |name: &str| allowed.allows(&name.parse().unwrap());
        assert_eq!([allows("Carts"), allows("carts"), allows("Cart")], [true, false, false]);
        assert!(Allowed::Any.allows(&"carts".parse().unwrap()));
        assert!(!Allowed::NONE.allows(&"carts".parse().unwrap()));
    }
}
