//! The arguments of `#[function(…)]`: a function's options as its author writes them.
//!
//! Which there are and what each may be is in the table of `hearth-options`, which is the host's,
//! too: what it would refuse at upload is refused here already, where the author wrote it. Only
//! `schema` says something of its own: how much of the schemas is derived.

use std::ops::RangeInclusive;

use hearth_options::{Kind, Row};
use proc_macro2::TokenStream;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprArray, ExprLit, Ident, Lit, LitBool, LitInt, LitStr, Result, Token};

/// What was written; an option that was not is left to the host's default.
#[derive(Default)]
pub struct Options {
    given: Vec<(&'static str, Given)>,
    schema: Schema,
}

enum Given {
    Text(LitStr),
    Texts(Vec<LitStr>),
    Whole(LitInt),
    Truth(LitBool),
}

/// Which schemas are derived from the function's types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Schema {
    #[default]
    All,
    Request,
    None,
}

impl Options {
    pub fn schema(&self) -> Schema {
        self.schema
    }

    /// Takes the function's own documentation where the attribute describes nothing.
    pub fn describe(&mut self, documentation: Option<LitStr>) {
        const DESCRIPTION: &str = "description";
        if let Some(text) = documentation
            && self.given.iter().all(|(name, _)| *name != DESCRIPTION)
        {
            self.given.push((DESCRIPTION, Given::Text(text)));
        }
    }

    /// The value of `hearth_sdk::__private::Declared`; the schemas are in a variable of that name.
    pub fn declared(&self) -> TokenStream {
        let options = self.given.iter().map(|(name, given)| {
            let value = match given {
                Given::Text(text) => quote!(Text(#text)),
                Given::Texts(list) => quote!(Texts(&[#(#list),*])),
                Given::Whole(number) => quote!(Whole(#number)),
                Given::Truth(truth) => quote!(Truth(#truth)),
            };
            quote!((#name, ::hearth_sdk::__private::Value::#value))
        });
        quote! {
            ::hearth_sdk::__private::Declared { options: &[#(#options),*], schema: schemas }
        }
    }
}

struct Setting {
    key: Ident,
    value: Expr,
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key: Ident = input.parse()?;
        if !input.peek(Token![=]) {
            let message = format!("an option is written `{key} = …`");
            return Err(Error::new(key.span(), message));
        }
        input.parse::<Token![=]>()?;
        Ok(Self { key, value: input.parse()? })
    }
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut options = Self::default();
        let mut given: Vec<Ident> = Vec::new();
        for Setting { key, value } in Punctuated::<Setting, Token![,]>::parse_terminated(input)? {
            if given.contains(&key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            options.set(&key, value)?;
            given.push(key);
        }
        Ok(options)
    }
}

impl Options {
    fn set(&mut self, key: &Ident, value: Expr) -> Result<()> {
        let name = key.to_string();
        let Some(Row { name, kind, .. }) = hearth_options::find(&name) else {
            return Err(Error::new(key.span(), hearth_options::unknown(&name)));
        };
        let given = match *kind {
            Kind::Word(words) => Given::Text(word(name, *kind, words, value)?),
            Kind::Words(words) => Given::Texts(list_of(name, *kind, words, value)?),
            Kind::Whole { min, max } => Given::Whole(whole(name, *kind, min..=max, value)?),
            Kind::Truth => Given::Truth(truth(name, *kind, value)?),
            Kind::Text => Given::Text(text(name, &kind.expected(), value)?),
            Kind::Origins => Given::Texts(origins(name, *kind, value)?),
            Kind::Names => Given::Texts(names(name, *kind, value)?),
            Kind::Schemas => {
                self.schema = schema(name, value)?;
                return Ok(());
            }
        };
        self.given.push((name, given));
        Ok(())
    }
}

fn refused<T>(key: &str, expected: &str, value: &impl Spanned) -> Result<T> {
    Err(Error::new(value.span(), format!("the option `{key}` must be {expected}")))
}

fn text(key: &str, expected: &str, value: Expr) -> Result<LitStr> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text),
        other => refused(key, expected, &other),
    }
}

fn word(key: &str, kind: Kind, words: &[&str], value: Expr) -> Result<LitStr> {
    let text = text(key, &kind.expected(), value)?;
    if words.contains(&text.value().as_str()) {
        Ok(text)
    } else {
        refused(key, &kind.expected(), &text)
    }
}

fn whole(key: &str, kind: Kind, bounds: RangeInclusive<u64>, value: Expr) -> Result<LitInt> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. })
            if number.suffix().is_empty()
                && number.base10_parse().is_ok_and(|number| bounds.contains(&number)) =>
        {
            Ok(number)
        }
        other => refused(key, &kind.expected(), &other),
    }
}

fn truth(key: &str, kind: Kind, value: Expr) -> Result<LitBool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(truth), .. }) => Ok(truth),
        other => refused(key, &kind.expected(), &other),
    }
}

/// A list of at least one text, each once.
fn texts(key: &str, expected: &str, value: Expr) -> Result<Vec<LitStr>> {
    let Expr::Array(ExprArray { elems, .. }) = value else {
        return refused(key, expected, &value);
    };
    if elems.is_empty() {
        return refused(key, expected, &elems);
    }
    let mut list: Vec<LitStr> = Vec::new();
    for element in elems {
        let text = text(key, expected, element)?;
        if list.iter().any(|known| known.value() == text.value()) {
            return Err(Error::new(text.span(), format!("{:?} is given twice", text.value())));
        }
        list.push(text);
    }
    Ok(list)
}

fn list_of(key: &str, kind: Kind, words: &[&str], value: Expr) -> Result<Vec<LitStr>> {
    let list = texts(key, &kind.expected(), value)?;
    match list.iter().find(|text| !words.contains(&text.value().as_str())) {
        Some(unknown) => refused(key, &kind.expected(), unknown),
        None => Ok(list),
    }
}

fn origins(key: &str, kind: Kind, value: Expr) -> Result<Vec<LitStr>> {
    let list = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(one), .. }) => vec![one],
        list => texts(key, &kind.expected(), list)?,
    };
    match &list[..] {
        [any] if any.value() == "*" => Ok(list),
        _ => match list.iter().find(|origin| !is_origin(&origin.value())) {
            Some(wrong) => refused(key, &kind.expected(), wrong),
            None => Ok(list),
        },
    }
}

/// A scheme, a host and, unless it is the scheme's own, a port, as a browser writes them: in
/// lower case, no path.
fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    !authority.is_empty()
        && !authority.ends_with(port)
        && authority.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
        && !authority.contains(['/', '?', '#', '@', ',', '*'])
}

fn names(key: &str, kind: Kind, value: Expr) -> Result<Vec<LitStr>> {
    let list = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(one), .. }) => vec![one],
        Expr::Array(ExprArray { elems, .. }) if elems.is_empty() => Vec::new(),
        list => texts(key, &kind.expected(), list)?,
    };
    match &list[..] {
        [any] if any.value() == "*" => Ok(list),
        _ => match list.iter().find(|name| !is_name(&name.value())) {
            Some(wrong) => refused(key, &kind.expected(), wrong),
            None => Ok(list),
        },
    }
}

/// Of a store or a database.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn schema(key: &str, value: Expr) -> Result<Schema> {
    match &value {
        Expr::Lit(ExprLit { lit: Lit::Bool(wanted), .. }) if !wanted.value => Ok(Schema::None),
        Expr::Lit(ExprLit { lit: Lit::Str(part), .. }) if part.value() == "request" => {
            Ok(Schema::Request)
        }
        other => refused(key, "false or \"request\"; both parts are derived without it", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> std::result::Result<Options, String> {
        syn::parse_str(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_written_is_declared() {
        let declared = |arguments| parse(arguments).unwrap().declared().to_string();
        let none = declared("");
        assert!(none.contains("options : & [] , schema : schemas"), "{none}");
        let some = declared(
            r#"methods = ["GET", "PUT"], timeout_ms = 5_00, cors = "*", strip_prefix = true, description = "it \"says\"","#,
        );
        for part in [
            r#"("methods" , :: hearth_sdk :: __private :: Value :: Texts (& ["GET" , "PUT"]))"#,
            r#"("timeout_ms" , :: hearth_sdk :: __private :: Value :: Whole (5_00))"#,
            r#"("cors" , :: hearth_sdk :: __private :: Value :: Texts (& ["*"]))"#,
            r#"("strip_prefix" , :: hearth_sdk :: __private :: Value :: Truth (true))"#,
            r#"("description" , :: hearth_sdk :: __private :: Value :: Text ("it \"says\""))"#,
        ] {
            assert!(some.contains(part), "{part} is not in {some}");
        }
        assert_eq!(some.matches("Value ::").count(), 5, "{some}");
    }

    #[test]
    fn every_option_of_the_table_can_be_written_and_is_documented() {
        let documented = include_str!("../../src/lib.rs");
        for Row { name, kind, .. } in hearth_options::OPTIONS {
            let value = match *kind {
                Kind::Word(words) => format!("{:?}", words[0]),
                Kind::Words(words) => format!("[{:?}]", words[0]),
                Kind::Whole { max, .. } => max.to_string(),
                Kind::Truth => "true".to_owned(),
                Kind::Text => "\"…\"".to_owned(),
                Kind::Origins => "\"*\"".to_owned(),
                Kind::Names => "[\"carts\"]".to_owned(),
                Kind::Schemas => "false".to_owned(),
            };
            assert!(parse(&format!("{name} = {value}")).is_ok(), "{name} = {value}");
            let mut lines = documented.lines();
            let line = lines.find(|line| line.starts_with(&format!("//! | `{name} = ")));
            let line = line.unwrap_or_else(|| panic!("the crate's head has no `{name} = …`"));
            if let Kind::Whole { min, max } = kind {
                assert!(line.contains(&format!("{min} to {max}")), "{line}");
            }
        }
    }

    #[test]
    fn which_schemas_are_derived() {
        for (arguments, schema) in [
            ("", Schema::All),
            ("schema = false", Schema::None),
            ("schema = \"request\"", Schema::Request),
        ] {
            assert_eq!(parse(arguments).unwrap().schema(), schema, "{arguments}");
        }
    }

    #[test]
    fn numbers_have_bounds() {
        for Row { name, kind, .. } in hearth_options::OPTIONS {
            let Kind::Whole { min, max } = *kind else { continue };
            assert!(parse(&format!("{name} = {min}")).is_ok());
            assert!(parse(&format!("{name} = {max}")).is_ok());
            for wrong in ["0", "-1", "1.5", "\"1\"", "1u8", &(max + 1).to_string()] {
                assert_eq!(
                    parse(&format!("{name} = {wrong}")).err(),
                    Some(format!("the option `{name}` must be a whole number from {min} to {max}"))
                );
            }
        }
    }

    #[test]
    fn refusals_name_the_key_and_what_it_takes() {
        for (arguments, said) in [
            ("metods = [\"GET\"]", "unknown option `metods`; did you mean `methods`?"),
            ("nix = 1", "unknown option `nix`; known options: methods, path"),
            ("timeout_ms", "an option is written `timeout_ms = …`"),
            ("timeout_ms(5)", "an option is written `timeout_ms = …`"),
            ("reuse = 2, reuse = 3", "`reuse` is given twice"),
            ("methods = \"GET\"", "the option `methods` must be a list of at least one of GET"),
            ("methods = []", "the option `methods` must be a list"),
            ("methods = [\"TRACE\"]", "the option `methods` must be a list"),
            ("methods = [\"get\"]", "the option `methods` must be a list"),
            ("methods = [\"GET\", \"GET\"]", "\"GET\" is given twice"),
            ("path = \"regex\"", "the option `path` must be one of exact, prefix"),
            ("strip_prefix = \"yes\"", "the option `strip_prefix` must be true or false"),
            ("auth = \"admin\"", "the option `auth` must be one of public, owner"),
            ("auth = true", "the option `auth` must be one of public, owner"),
            ("cors = 1", "the option `cors` must be a list of origins"),
            ("cors = [\"app.example\"]", "the option `cors` must be a list of origins"),
            ("cors = [\"https://app.example/\"]", "the option `cors` must be a list of origins"),
            ("cors = [\"*\", \"https://a.example\"]", "the option `cors` must be a list"),
            ("description = 1", "the option `description` must be a text"),
            ("schema = true", "the option `schema` must be false or \"request\""),
            ("schema = \"response\"", "the option `schema` must be false or \"request\""),
        ] {
            let error = parse(arguments).err().unwrap_or_else(|| panic!("{arguments} is taken"));
            assert!(error.starts_with(said), "{arguments}: {error}");
        }
    }

    #[test]
    fn origins() {
        for good in ["https://app.example", "http://localhost:5173", "http://[::1]:8080"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in ["", "https://", "https://App.example", "https://a/b", "ftp://a", "https://*.a"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
