//! Which origins' pages may call a function from a browser. What is answered to them is the
//! worker's to say.

use serde::{Deserialize, Serialize};

const ORIGINS_MAX: usize = 100;
const ANY: &str = "*";

/// None by default: a browser then keeps the answer from pages of other origins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Cors {
    Any,
    /// As browsers write them: scheme, host and, unless it is the scheme's own, port.
    Origins(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    List(Vec<String>),
}

impl Default for Cors {
    fn default() -> Self {
        Self::Origins(Vec::new())
    }
}

impl Cors {
    pub fn is_off(&self) -> bool {
        matches!(self, Self::Origins(origins) if origins.is_empty())
    }

    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Origins(origins) => origins.iter().any(|allowed| allowed == origin),
        }
    }
}

impl TryFrom<Written> for Cors {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, &'static str> {
        let origins = match written {
            Written::One(origin) => vec![origin],
            Written::List(origins) => origins,
        };
        if origins.iter().any(|origin| origin == ANY) {
            return if origins.len() == 1 { Ok(Self::Any) } else { Err("* stands alone") };
        }
        if origins.len() > ORIGINS_MAX || !origins.iter().all(|origin| is_origin(origin)) {
            return Err("no list of origins");
        }
        Ok(Self::Origins(origins))
    }
}

impl From<Cors> for Written {
    fn from(cors: Cors) -> Self {
        match cors {
            Cors::Any => Self::List(vec![ANY.to_owned()]),
            Cors::Origins(origins) => Self::List(origins),
        }
    }
}

/// Compared byte by byte with what a browser sends, so only its own way of writing is taken.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let known = match (uri.scheme_str(), uri.port_u16()) {
        (Some("http"), port) => port != Some(80),
        (Some("https"), port) => port != Some(443),
        _ => false,
    };
    let bare = text.split_once("://").is_some_and(|(_, rest)| !rest.contains(['/', '?', '#', '@']));
    known && bare && !text.contains(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let parse = |json: &str| serde_json::from_str::<Cors>(json).ok();
        for json in [
            r#"["http://localhost:5173"]"#,
            r#""https://app.example""#,
            r#"["https://a.example","http://10.0.0.1:8080","http://[::1]:8080"]"#,
            "[]",
        ] {
            assert!(matches!(parse(json), Some(Cors::Origins(_))), "{json}");
        }
        assert_eq!(parse(r#""*""#), Some(Cors::Any));
        assert_eq!(parse(r#"["*"]"#), Some(Cors::Any));
        for json in [
            r#""app.example""#,
            r#"["https://app.example/"]"#,
            r#"["https://app.example:443"]"#,
            r#"["https://App.example"]"#,
            r#"["https://me@app.example"]"#,
            r#"["ftp://app.example"]"#,
            r#"["*","https://app.example"]"#,
            r#"["null"]"#,
            "true",
        ] {
            assert_eq!(parse(json), None, "{json}");
        }
        let some = parse(r#"["https://app.example"]"#).unwrap();
        assert!(some.allows("https://app.example") && !some.allows("https://app.example.evil"));
        assert!(!some.is_off() && Cors::default().is_off() && !Cors::Any.is_off());
    }
}
