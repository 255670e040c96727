//! The arguments of `#[function(…)]`: a function's options as its author writes them.
//!
//! Keys and bounds are the host's (`worker/wire/src/options.rs`), which would refuse at upload
//! what is refused here already, where the author wrote it.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprArray, ExprLit, Ident, Lit, LitBool, LitInt, LitStr, Result, Token};

const KEYS: [&str; 11] = [
    "methods",
    "path",
    "strip_prefix",
    "auth",
    "timeout_ms",
    "memory_mb",
    "max_body",
    "reuse",
    "cors",
    "description",
    "schema",
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const PATHS: [&str; 3] = ["exact", "prefix", "root"];
const AUTHS: [&str; 6] = ["public", "owner", "deploy", "invoke", "report", "internal"];
const TIMEOUT_MS_MAX: u64 = 300_000;
const MEMORY_MB_MAX: u64 = 256;
const BODY_MAX_BYTES: u64 = 100 << 20;
const REUSE_MAX: u64 = 10_000;

/// What was written; a key that was not is left to the host's default.
#[derive(Default)]
pub struct Options {
    methods: Option<Vec<LitStr>>,
    path: Option<LitStr>,
    strip_prefix: Option<LitBool>,
    auth: Option<LitStr>,
    timeout_ms: Option<LitInt>,
    memory_mb: Option<LitInt>,
    max_body: Option<LitInt>,
    reuse: Option<LitInt>,
    cors: Option<Vec<LitStr>>,
    description: Option<LitStr>,
    schema: Option<Schema>,
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
        self.schema.unwrap_or_default()
    }

    /// Takes the function's own documentation where the attribute describes nothing.
    pub fn describe(&mut self, documentation: Option<LitStr>) {
        self.description = self.description.take().or(documentation);
    }

    /// The value of `hearth_sdk::__private::Declared`, whose fields are the keys; the schemas are
    /// in a variable of that name.
    pub fn declared(&self) -> TokenStream {
        let Self {
            methods,
            path,
            strip_prefix,
            auth,
            timeout_ms,
            memory_mb,
            max_body,
            reuse,
            cors,
            description,
            schema: _,
        } = self;
        let list =
            |list: &Option<Vec<LitStr>>| option(&list.as_ref().map(|list| quote!(&[#(#list),*])));
        let (methods, cors) = (list(methods), list(cors));
        let (path, auth, description) = (option(path), option(auth), option(description));
        let (timeout_ms, memory_mb) = (option(timeout_ms), option(memory_mb));
        let (max_body, reuse) = (option(max_body), option(reuse));
        let strip_prefix = option(strip_prefix);
        quote! {
            ::hearth_sdk::__private::Declared {
                methods: #methods,
                path: #path,
                strip_prefix: #strip_prefix,
                auth: #auth,
                timeout_ms: #timeout_ms,
                memory_mb: #memory_mb,
                max_body: #max_body,
                reuse: #reuse,
                cors: #cors,
                description: #description,
                schema: schemas,
            }
        }
    }
}

fn option(value: &Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
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
        match key.to_string().as_str() {
            "methods" => self.methods = Some(methods(value)?),
            "path" => self.path = Some(one_of("path", &PATHS, value)?),
            "strip_prefix" => self.strip_prefix = Some(truth("strip_prefix", value)?),
            "auth" => self.auth = Some(one_of("auth", &AUTHS, value)?),
            "timeout_ms" => self.timeout_ms = Some(whole("timeout_ms", TIMEOUT_MS_MAX, value)?),
            "memory_mb" => self.memory_mb = Some(whole("memory_mb", MEMORY_MB_MAX, value)?),
            "max_body" => self.max_body = Some(whole("max_body", BODY_MAX_BYTES, value)?),
            "reuse" => self.reuse = Some(whole("reuse", REUSE_MAX, value)?),
            "cors" => self.cors = Some(cors(value)?),
            "description" => self.description = Some(text("description", "a text", value)?),
            "schema" => self.schema = Some(schema(value)?),
            unknown => {
                let known = KEYS.join(", ");
                let message = format!("`{unknown}` is no option; there are {known}");
                return Err(Error::new(key.span(), message));
            }
        }
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

fn one_of(key: &str, known: &[&str], value: Expr) -> Result<LitStr> {
    let expected = format!("one of {}", known.join(", "));
    let text = text(key, &expected, value)?;
    if known.contains(&text.value().as_str()) { Ok(text) } else { refused(key, &expected, &text) }
}

fn whole(key: &str, max: u64, value: Expr) -> Result<LitInt> {
    let expected = format!("a whole number from 1 to {max}");
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. })
            if number.suffix().is_empty()
                && number.base10_parse().is_ok_and(|number| (1..=max).contains(&number)) =>
        {
            Ok(number)
        }
        other => refused(key, &expected, &other),
    }
}

fn truth(key: &str, value: Expr) -> Result<LitBool> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Bool(truth), .. }) => Ok(truth),
        other => refused(key, "true or false", &other),
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

fn methods(value: Expr) -> Result<Vec<LitStr>> {
    let expected = format!("a list of at least one of {}", METHODS.join(", "));
    let list = texts("methods", &expected, value)?;
    match list.iter().find(|method| !METHODS.contains(&method.value().as_str())) {
        Some(unknown) => refused("methods", &expected, unknown),
        None => Ok(list),
    }
}

fn cors(value: Expr) -> Result<Vec<LitStr>> {
    let expected = "a list of origins such as [\"https://app.example\"], or \"*\" for any";
    let list = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(one), .. }) => vec![one],
        list => texts("cors", expected, list)?,
    };
    match &list[..] {
        [any] if any.value() == "*" => Ok(list),
        _ => match list.iter().find(|origin| !is_origin(&origin.value())) {
            Some(wrong) => refused("cors", expected, wrong),
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

fn schema(value: Expr) -> Result<Schema> {
    match &value {
        Expr::Lit(ExprLit { lit: Lit::Bool(wanted), .. }) if !wanted.value => Ok(Schema::None),
        Expr::Lit(ExprLit { lit: Lit::Str(part), .. }) if part.value() == "request" => {
            Ok(Schema::Request)
        }
        other => {
            refused("schema", "false or \"request\"; both parts are derived without it", other)
        }
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
        assert_eq!(none.matches("Option :: None").count(), 10, "{none}");
        let some = declared(
            r#"methods = ["GET", "PUT"], timeout_ms = 5_00, cors = "*", strip_prefix = true, description = "it \"says\"","#,
        );
        for part in [
            r#"methods : :: core :: option :: Option :: Some (& ["GET" , "PUT"])"#,
            "timeout_ms : :: core :: option :: Option :: Some (5_00)",
            r#"cors : :: core :: option :: Option :: Some (& ["*"])"#,
            "strip_prefix : :: core :: option :: Option :: Some (true)",
            r#"description : :: core :: option :: Option :: Some ("it \"says\"")"#,
        ] {
            assert!(some.contains(part), "{part} is not in {some}");
        }
        assert_eq!(some.matches("Option :: None").count(), 5, "{some}");
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
    fn bounds_are_the_hosts() {
        for (key, max) in [
            ("timeout_ms", 300_000),
            ("memory_mb", 256),
            ("max_body", 104_857_600_u64),
            ("reuse", 10_000),
        ] {
            assert!(parse(&format!("{key} = 1")).is_ok());
            assert!(parse(&format!("{key} = {max}")).is_ok());
            for wrong in ["0", "-1", "1.5", "\"1\"", "1u8", &(max + 1).to_string()] {
                assert_eq!(
                    parse(&format!("{key} = {wrong}")).err(),
                    Some(format!("the option `{key}` must be a whole number from 1 to {max}"))
                );
            }
        }
    }

    #[test]
    fn refusals_name_the_key_and_what_it_takes() {
        for (arguments, said) in [
            ("metods = [\"GET\"]", "`metods` is no option; there are methods, path"),
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
