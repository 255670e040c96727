//! A call of a function that the function takes, for somebody to run again: an example of each
//! thing that its schemas ask for.
//!
//! Only what every value of a schema must have is made; of a schema that says more than is
//! understood here there is no example, and the call is shown without one.

use hearth_wire::{Auth, FunctionPath, Options, PathMatch, Schema};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Number, Value, json};

use crate::terminal::shell_word;

/// Schemas within schemas that are followed.
const DEPTH_MAX: usize = 16;
/// A longer example is no example.
const LENGTH_MAX: u64 = 64;
/// Keywords whose part in a value is not understood here.
const NOT_UNDERSTOOD: [&str; 14] = [
    "contains",
    "dependentRequired",
    "dependentSchemas",
    "$dynamicRef",
    "if",
    "maxProperties",
    "minProperties",
    "not",
    "pattern",
    "patternProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// The command that calls a function, in lines that go together. `path` is the function's below
/// `base`, its tenant's address.
pub fn call(base: &str, path: &FunctionPath, options: &Options) -> String {
    let schema = &options.schema;
    let takes = |method: &str| options.methods.iter().any(|taken| taken == method);
    let method = match options.methods.first() {
        Some(first) if !takes("POST") => first.as_str(),
        Some(_) | None => "POST",
    };
    let body = match (method, &schema.body) {
        ("GET" | "HEAD" | "DELETE" | "OPTIONS", None) => None,
        (_, None) => Some(Some(json!({}))),
        (_, Some(schema)) => Some(of(schema)),
    };
    let query = schema.querystring.as_ref().map(of);
    let headers = schema.headers.as_ref().map(of);
    let is_whole = [&body, &query, &headers].into_iter().flatten().all(Option::is_some);
    let has_fields = query.is_some() || headers.is_some();
    // What needs a token is called with the one that is at hand, whosever it is.
    if options.auth != Auth::Public && method == "POST" && is_whole && !has_fields {
        let data = body.flatten().unwrap_or_default().to_string();
        return format!("  hearth invoke {} -d {}", path.relative(), shell_word(&data));
    }
    if options.auth == Auth::Internal {
        return "  # nobody can call it so: triggers do, and functions of its tenant".to_owned();
    }
    let mut words = vec!["curl".to_owned()];
    match (method, &body) {
        ("POST", Some(_)) | ("GET", None) => {}
        ("HEAD", None) => words.push("-I".to_owned()),
        (method, _) => words.extend(["-X".to_owned(), method.to_owned()]),
    }
    if options.auth != Auth::Public {
        words.extend(["-H".to_owned(), "'authorization: Bearer TOKEN'".to_owned()]);
    }
    for (name, value) in fields(headers.flatten()) {
        words.extend(["-H".to_owned(), shell_word(&format!("{name}: {value}")).into_owned()]);
    }
    match &body {
        Some(Some(body)) => words.extend(["-d".to_owned(), shell_word(&body.to_string()).into()]),
        Some(None) => words.extend(["-d".to_owned(), "@request.json".to_owned()]),
        None => {}
    }
    let pairs: Vec<String> = fields(query.flatten())
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    // One that answers wherever no other does is meant for all of that.
    let place = match options.path {
        PathMatch::Root => "/",
        PathMatch::Exact | PathMatch::Prefix => path.as_str(),
    };
    words.push(shell_word(&format!("{base}{place}{query}")).into_owned());
    let command = format!("  {}", words.join(" "));
    match is_whole {
        true => command,
        false => {
            format!("{command}\n  # what it takes: hearth options {}", path.relative())
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Names and values as they stand in a query and in headers.
fn fields(example: Option<Value>) -> Vec<(String, String)> {
    let Some(Value::Object(fields)) = example else { return Vec::new() };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let each = |(name, value): (String, Value)| match value {
        Value::Array(values) => values.iter().map(|value| (name.clone(), text(value))).collect(),
        value => vec![(name, text(&value))],
    };
    fields.into_iter().flat_map(each).collect()
}

fn of(schema: &Schema) -> Option<Value> {
    let schema: Value = serde_json::from_str(schema.as_str()).ok()?;
    example(&schema, &schema, DEPTH_MAX)
}

/// A value that fits the schema, which is within `root`.
fn example(schema: &Value, root: &Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let schema = match schema {
        Value::Bool(true) => return Some(json!({})),
        Value::Object(schema) => schema,
        _ => return None,
    };
    let given = schema.get("examples").and_then(|examples| examples.get(0));
    if let Some(given) = given.or(schema.get("const")).or(schema.get("default")) {
        return Some(given.clone());
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.first().cloned();
    }
    if NOT_UNDERSTOOD.iter().any(|keyword| schema.contains_key(*keyword)) {
        return None;
    }
    if let Some(Value::String(reference)) = schema.get("$ref") {
        return example(root.pointer(reference.strip_prefix('#')?)?, root, depth);
    }
    if let Some(Value::Array(parts)) = schema.get("allOf") {
        let [part] = parts.as_slice() else { return None };
        return example(part, root, depth);
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(Value::Array(ways)) = schema.get(keyword) {
            let is_null = |way: &&Value| way.get("type") == Some(&json!("null"));
            let way = ways.iter().find(|way| !is_null(way)).or(ways.first())?;
            return example(way, root, depth);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => {
            let kinds = || kinds.iter().filter_map(Value::as_str);
            kinds().find(|kind| *kind != "null").or_else(|| kinds().next())?
        }
        _ if schema.contains_key("properties") || schema.contains_key("required") => "object",
        // Whatever it is.
        None => "object",
        Some(_) => return None,
    };
    match kind {
        "object" => object(schema, root, depth),
        "array" => array(schema, root, depth),
        "string" => text(schema),
        "integer" => number(schema, true),
        "number" => number(schema, false),
        "boolean" => Some(json!(true)),
        "null" => Some(Value::Null),
        _ => None,
    }
}

fn object(schema: &Map<String, Value>, root: &Value, depth: usize) -> Option<Value> {
    let mut object = Map::new();
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten() {
        let name = name.as_str()?;
        let property = schema.get("properties").and_then(|properties| properties.get(name));
        let property = property.or(schema.get("additionalProperties"));
        let value = example(property.unwrap_or(&Value::Bool(true)), root, depth)?;
        object.insert(name.to_owned(), value);
    }
    Some(Value::Object(object))
}

fn array(schema: &Map<String, Value>, root: &Value, depth: usize) -> Option<Value> {
    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
    if least > LENGTH_MAX {
        return None;
    }
    let first = schema.get("prefixItems").and_then(Value::as_array);
    let at = |at: usize| {
        let item = first.and_then(|first| first.get(at)).or(schema.get("items"));
        example(item.unwrap_or(&Value::Bool(true)), root, depth)
    };
    (0..usize::try_from(least).ok()?).map(at).collect::<Option<Vec<_>>>().map(Value::Array)
}

fn text(schema: &Map<String, Value>) -> Option<Value> {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2026-01-02T03:04:05Z",
        Some("date") => "2026-01-02",
        Some("time") => "03:04:05Z",
        Some("email") => "ada@example.org",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("uri" | "url") => "https://example.org/",
        Some("hostname") => "example.org",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        _ => "text",
    };
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
    let least = bound("minLength").filter(|least| *least > 0).unwrap_or(0);
    let most = bound("maxLength").unwrap_or(LENGTH_MAX);
    if least > LENGTH_MAX {
        return None;
    }
    let length = (text.len() as u64).clamp(least.min(most), most);
    Some(text.chars().cycle().take(usize::try_from(length).ok()?).collect::<String>().into())
}

fn number(schema: &Map<String, Value>, is_whole: bool) -> Option<Value> {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let step = bound("multipleOf").unwrap_or(if is_whole { 1.0 } else { 0.5 });
    let least = bound("minimum").or(bound("exclusiveMinimum"));
    let most = bound("maximum").or(bound("exclusiveMaximum"));
    let fits = |number: f64| {
        bound("minimum").is_none_or(|least| number >= least)
            && bound("exclusiveMinimum").is_none_or(|least| number > least)
            && bound("maximum").is_none_or(|most| number <= most)
            && bound("exclusiveMaximum").is_none_or(|most| number < most)
            && (!is_whole || number.fract() == 0.0)
    };
    let from = |number: f64| [number, number + step, number - step];
    let near = least.into_iter().map(|least| (least / step).ceil() * step);
    let near = near.chain(most.map(|most| (most / step).floor() * step));
    let number = [1.0 * step, 0.0].into_iter().chain(near.flat_map(from)).find(|n| fits(*n))?;
    // Beyond these a whole number is not exact any more.
    match number.fract() == 0.0 && number.abs() < 9e15 {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and below 2^53")]
        true => Some(Value::from(number as i64)),
        false if is_whole => None,
        false => Number::from_f64(number).map(Value::Number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::OptionsPatch;

    fn options(options: Value) -> Options {
        OptionsPatch::parse(&options.to_string()).unwrap().resolve()
    }

    fn fits(schema: &Value, value: &Value) -> bool {
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.add_resource("http://h/s.json", schema.clone()).unwrap();
        let compiled = compiler.compile("http://h/s.json", &mut schemas).unwrap();
        schemas.validate(value, compiled).is_ok()
    }

    #[test]
    fn an_example_fits_its_schema() {
        for schema in [
            json!(true),
            json!({}),
            json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}),
            json!({"type": "object", "required": ["a", "b"], "properties": {
                "a": {"$ref": "#/$defs/A"}, "b": {"type": ["null", "boolean"]}},
                "$defs": {"A": {"type": "array", "minItems": 2, "items": {"type": "integer", "minimum": 5}}}}),
            json!({"anyOf": [{"type": "null"}, {"type": "string", "minLength": 9, "maxLength": 10}]}),
            json!({"type": "string", "maxLength": 2}),
            json!({"enum": ["x", "y"]}),
            json!({"const": {"a": 1}}),
            json!({"type": "integer", "exclusiveMinimum": 10, "multipleOf": 7}),
            json!({"type": "integer", "maximum": -3}),
            json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.25, "multipleOf": 0.25}),
            json!({"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1}),
            json!({"required": ["x"], "additionalProperties": {"type": "integer"}}),
            json!({"type": "integer", "format": "uint32", "minimum": 0}),
            json!({"default": 7}),
            json!({"allOf": [{"type": "string"}]}),
        ] {
            let value = example(&schema, &schema, DEPTH_MAX);
            let value = value.unwrap_or_else(|| panic!("no example of {schema}"));
            assert!(fits(&schema, &value), "{value} of {schema}");
        }
    }

    #[test]
    fn what_is_not_understood_has_no_example() {
        for schema in [
            json!(false),
            json!({"type": "string", "pattern": "^[a-z]{3}$"}),
            json!({"required": ["a"], "properties": {"a": {"not": {}}}}),
            json!({"$ref": "#"}),
            json!({"type": "integer", "minimum": 1, "maximum": 1.5, "multipleOf": 4}),
            json!({"type": "string", "minLength": 1000000}),
            json!({"type": "array", "minItems": 1000000}),
        ] {
            assert_eq!(example(&schema, &schema, DEPTH_MAX), None, "{schema}");
        }
    }

    #[test]
    fn a_call_that_the_function_takes() {
        let named = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}});
        for (given, shown) in [
            (json!({}), "  curl -d '{}' http://h/f"),
            (json!({"schema": {"body": named}}), r#"  curl -d '{"name":"text"}' http://h/f"#),
            (json!({"methods": ["GET"]}), "  curl http://h/f"),
            (json!({"methods": ["GET", "POST"]}), "  curl -d '{}' http://h/f"),
            (json!({"methods": ["HEAD"]}), "  curl -I http://h/f"),
            (json!({"methods": ["PUT"]}), "  curl -X PUT -d '{}' http://h/f"),
            (json!({"methods": ["DELETE"]}), "  curl -X DELETE http://h/f"),
            (
                json!({"methods": ["GET"], "schema": {"querystring": named, "headers": named}}),
                "  curl -H 'name: text' 'http://h/f?name=text'",
            ),
            (
                json!({"auth": "invoke", "schema": {"body": named}}),
                r#"  hearth invoke f -d '{"name":"text"}'"#,
            ),
            (json!({"auth": "internal"}), "  hearth invoke f -d '{}'"),
            (
                json!({"auth": "internal", "methods": ["GET"]}),
                "  # nobody can call it so: triggers do, and functions of its tenant",
            ),
            (
                json!({"auth": "invoke", "methods": ["GET"]}),
                "  curl -H 'authorization: Bearer TOKEN' http://h/f",
            ),
            (
                json!({"schema": {"body": {"type": "string", "pattern": "x"}}}),
                "  curl -d @request.json http://h/f\n  # what it takes: hearth options f",
            ),
            (json!({"schema": {"body": {"const": "it's"}}}), r#"  curl -d '"it'\''s"' http://h/f"#),
        ] {
            assert_eq!(
                call("http://h", &"/f".parse().unwrap(), &options(given.clone())),
                shown,
                "{given}"
            );
        }
    }
}
