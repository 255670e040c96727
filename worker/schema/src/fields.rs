//! Query strings and headers as objects that a schema can speak of. Both are text, so a value
//! becomes a number, a truth value or a list where its property's schema asks for one and the
//! text is one; what the function reads stays as it was sent.

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Number, Value};

use crate::numbers::{TooPrecise, other};
use crate::{Found, Judge, SchemaError};

/// Steps from reference to reference before a type is taken for unknown.
const REFERENCES_MAX: usize = 8;
/// And from a schema to what it is made of.
const NESTED_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct Fields {
    judge: Judge,
    properties: HashMap<String, Wanted>,
}

/// What a property's schema lets a text become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    /// Each value is an item, and these are said of the items.
    list: bool,
    number: bool,
    boolean: bool,
    null: bool,
    string: bool,
}

impl Fields {
    pub(crate) fn of_query(place: &str, schema: Value) -> Result<Self, SchemaError> {
        let properties = follow(&schema, &schema).get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        let properties =
            properties.map(|(name, property)| (name.clone(), wanted(&schema, property))).collect();
        Ok(Self { judge: Judge::new(place, schema)?, properties })
    }

    /// Names of headers have no case; they are looked at in lower case.
    pub(crate) fn of_headers(place: &str, mut schema: Value) -> Result<Self, SchemaError> {
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            *properties = std::mem::take(properties)
                .into_iter()
                .map(|(name, property)| (name.to_ascii_lowercase(), property))
                .collect();
        }
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            for name in required {
                if let Value::String(name) = name {
                    name.make_ascii_lowercase();
                }
            }
        }
        Self::of_query(place, schema)
    }

    pub(crate) fn check_query(&self, query: &str) -> Vec<Found> {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.entry(decoded(name)).or_default().push(decoded(value));
        }
        self.check(fields)
    }

    pub(crate) fn check_headers(&self, headers: &HeaderMap) -> Vec<Found> {
        let fields = headers.keys().map(|name| {
            let values = headers.get_all(name).iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            (name.as_str().to_owned(), values.collect())
        });
        self.check(fields.collect())
    }

    /// In every reading that the numbers among them have.
    fn check(&self, fields: BTreeMap<String, Vec<String>>) -> Vec<Found> {
        let object = self.object(&fields, &mut |text| text.parse().ok());
        if let Err(found) = self.judge.value(&object, true) {
            return found;
        }
        let (mut differs, mut refused) = (false, None::<TooPrecise>);
        let object = self.object(&fields, &mut |text| {
            let kept = text.parse().ok()?;
            match other(text, self.judge.grain) {
                Ok(Some(other)) => {
                    differs = true;
                    Some(other)
                }
                Ok(None) => Some(kept),
                Err(too_precise) => {
                    refused = Some(too_precise);
                    Some(kept)
                }
            }
        });
        match refused {
            Some(refused) => vec![refused.into()],
            None if differs => self.judge.value(&object, true).err().unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// What they are to the schema, with what is made of each text that is a number.
    fn object(
        &self,
        fields: &BTreeMap<String, Vec<String>>,
        number: &mut dyn FnMut(&str) -> Option<Number>,
    ) -> Value {
        let mut object = Map::new();
        for (name, values) in fields {
            let wanted = self.properties.get(name).copied().unwrap_or_default();
            object.insert(name.clone(), value(wanted, values, number));
        }
        Value::Object(object)
    }
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

fn wanted(root: &Value, property: &Value) -> Wanted {
    let mut wanted = Wanted::default();
    types(root, property, &mut wanted, NESTED_MAX);
    if wanted.list
        && let Some(items) = follow(root, property).get("items")
    {
        wanted = Wanted { list: true, ..Wanted::default() };
        types(root, items, &mut wanted, NESTED_MAX);
    }
    wanted
}

/// What a schema says of types: by name, by the values that it lists, and by what it is made of.
fn types(root: &Value, schema: &Value, wanted: &mut Wanted, nested: usize) {
    let schema = follow(root, schema);
    for value in schema.get("enum").and_then(Value::as_array).into_iter().flatten() {
        of_value(value, wanted);
    }
    if let Some(value) = schema.get("const") {
        of_value(value, wanted);
    }
    if nested > 0 {
        for parts in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(parts).and_then(Value::as_array).into_iter().flatten() {
                types(root, part, wanted, nested - 1);
            }
        }
    }
    let mut add = |name: &Value| match name.as_str() {
        Some("array") => wanted.list = true,
        Some("number" | "integer") => wanted.number = true,
        Some("boolean") => wanted.boolean = true,
        Some("null") => wanted.null = true,
        Some("string") => wanted.string = true,
        _ => {}
    };
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().for_each(add),
        Some(name) => add(name),
        None => {}
    }
}

fn of_value(value: &Value, wanted: &mut Wanted) {
    match value {
        Value::Null => wanted.null = true,
        Value::Bool(_) => wanted.boolean = true,
        Value::Number(_) => wanted.number = true,
        Value::String(_) => wanted.string = true,
        Value::Array(_) => wanted.list = true,
        Value::Object(_) => {}
    }
}

/// Where `$ref`s within the schema lead.
fn follow<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..REFERENCES_MAX {
        let reference = schema.get("$ref").and_then(Value::as_str);
        match reference.and_then(|r| root.pointer(r.strip_prefix('#')?)) {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

fn value(
    wanted: Wanted,
    values: &[String],
    number: &mut dyn FnMut(&str) -> Option<Number>,
) -> Value {
    match values {
        [only] if !wanted.list => scalar(wanted, only, number),
        all => Value::Array(all.iter().map(|text| scalar(wanted, text, number)).collect()),
    }
}

fn scalar(wanted: Wanted, text: &str, number: &mut dyn FnMut(&str) -> Option<Number>) -> Value {
    match text {
        "true" if wanted.boolean => Value::Bool(true),
        "false" if wanted.boolean => Value::Bool(false),
        "" if wanted.null && !wanted.string => Value::Null,
        text => match wanted.number.then(|| number(text)).flatten() {
            Some(number) => Value::Number(number),
            None => Value::String(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pointers(found: Vec<Found>) -> Vec<String> {
        found.into_iter().map(|found| found.pointer).collect()
    }

    #[test]
    fn text_becomes_what_the_schema_asks_for() {
        let schema = json!({
            "type": "object",
            "properties": {
                "limit": {"type": "integer", "minimum": 1},
                "ratio": {"type": ["number", "null"]},
                "all": {"type": "boolean"},
                "tag": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
                "name": {"type": "string"},
            },
            "required": ["limit"],
            "additionalProperties": false,
            "$defs": {"tag": {"type": "integer"}},
        });
        let fields = Fields::of_query("querystring", schema).unwrap();
        let check = |query| pointers(fields.check_query(query));
        for fine in [
            "limit=5",
            "limit=5&ratio=0.5&all=true&name=1",
            "limit=5&ratio=&tag=1&tag=2",
            "&limit=5&&tag=1",
            "l%69mit=5&name=a+b%20c",
        ] {
            assert_eq!(check(fine), Vec::<String>::new(), "{fine}");
        }
        for (query, pointer) in [
            ("", ""),
            ("limit=0", "/limit"),
            ("limit=five", "/limit"),
            ("limit=5&limit=6", "/limit"),
            ("limit=5&all=yes", "/all"),
            ("limit=5&tag=1&tag=b", "/tag/1"),
            ("limit=5&other", ""),
        ] {
            assert_eq!(check(query), [pointer], "{query}");
        }
    }

    #[test]
    fn a_number_is_judged_as_every_reader_reads_it() {
        let schema = json!({"properties": {
            "limit": {"type": "number", "maximum": 10},
            "at": {"type": "array", "items": {"type": "integer"}},
            "name": {"type": "string"},
        }});
        let fields = Fields::of_query("querystring", schema).unwrap();
        let check = |query| pointers(fields.check_query(query));
        for fine in ["limit=10", "limit=9.99999999999999999999", "name=10.00000000000000000001"] {
            assert_eq!(check(fine), Vec::<String>::new(), "{fine}");
        }
        for (query, pointer) in [
            ("limit=10.00000000000000000001", "/limit"),
            ("at=1&at=1.00000000000000000001", "/at/1"),
            ("at=18446744073709551617", ""),
        ] {
            assert_eq!(check(query), [pointer], "{query}");
        }
    }

    #[test]
    fn a_type_is_found_where_the_schema_says_it() {
        let property = |property: Value| {
            let schema = json!({"$ref": "#/$defs/all", "$defs": {
                "all": {"properties": {"a": property}},
                "five": {"const": 5},
            }});
            pointers(Fields::of_query("querystring", schema).unwrap().check_query("a=5"))
        };
        for fine in [
            json!({"enum": [5, 10]}),
            json!({"const": 5}),
            json!({"$ref": "#/$defs/five"}),
            json!({"anyOf": [{"type": "integer"}, {"const": "all"}]}),
            json!({"allOf": [{"type": "integer"}, {"maximum": 5}]}),
            json!({"type": "array", "items": {"enum": [5]}}),
            json!({"type": "string"}),
            json!(true),
        ] {
            assert_eq!(property(fine.clone()), Vec::<String>::new(), "{fine}");
        }
        assert_eq!(property(json!({"enum": [6]})), ["/a"]);
    }

    #[test]
    fn headers_have_no_case() {
        let schema = json!({
            "properties": {"X-Retries": {"type": "integer"}},
            "required": ["X-Retries"],
        });
        let fields = Fields::of_headers("headers", schema).unwrap();
        let check = |sent: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(*name, value.parse().unwrap());
            }
            pointers(fields.check_headers(&headers))
        };
        assert_eq!(check(&[("x-retries", "3"), ("host", "demo")]), Vec::<String>::new());
        assert_eq!(check(&[("x-retries", "many")]), ["/x-retries"]);
        assert_eq!(check(&[("x-retries", "1"), ("x-retries", "2")]), ["/x-retries"]);
        assert_eq!(check(&[]), [""]);
    }
}
