//! That what people read is plain English, as far as a machine sees it: no text of the programs says
//! that something "is no" this or that. It "is not a valid" one; and "there is no" such thing stays.
//!
//! Texts are the string literals outside of tests, but for comments and for what a programmer is
//! told: the reasons of `expect`.

use std::fs;

use anyhow::{Context, bail};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ExprMethodCall, ImplItem, Item, LitStr};

use crate::sources::{self, attributes, is_for_tests};

const ODD: [&str; 4] = ["is no ", "are no ", "is none", "are none"];
/// What may stand before it.
const THERE: &str = "there";
/// What may stand behind it.
const LATER: [&str; 2] = ["longer", "more than"];

pub(crate) fn check() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for file in sources::all()? {
        let name = sources::name(&file);
        if name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/prose.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).with_context(|| name.clone())?;
        let odd = odd(&text).with_context(|| name.clone())?;
        wrong.extend(odd.into_iter().map(|(line, text)| format!("{name}:{line}: {text}")));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "texts that are not plain English (\"is not a valid X\", not \"is no X\"):\n  {}",
        wrong.join("\n  ")
    )
}

/// The odd texts of a file, each with its line.
fn odd(source: &str) -> syn::Result<Vec<(usize, String)>> {
    let mut reader = Reader { texts: vec![] };
    reader.visit_file(&syn::parse_file(source)?);
    Ok(reader.texts.into_iter().filter(|(_, text)| is_odd(text)).collect())
}

fn is_odd(text: &str) -> bool {
    ODD.iter().flat_map(|odd| text.match_indices(odd)).any(|(at, odd)| {
        let (before, behind) = (text[..at].trim_end(), &text[at + odd.len()..]);
        let is_word = text[..at].chars().next_back().is_none_or(|it| !it.is_alphabetic());
        let there = before.get(before.len().saturating_sub(THERE.len())..);
        is_word
            && (odd.ends_with(' ') || !behind.starts_with(char::is_alphabetic))
            && !there.is_some_and(|word| word.eq_ignore_ascii_case(THERE))
            && !LATER.iter().any(|later| behind.starts_with(later))
    })
}

struct Reader {
    texts: Vec<(usize, String)>,
}

impl Reader {
    fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    let line = literal.span().start().line;
                    if let Ok(text) = syn::parse_str::<LitStr>(&literal.to_string()) {
                        self.texts.push((line, text.value()));
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !matches!(item, ImplItem::Fn(it) if is_for_tests(&it.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.texts.push((text.span().start().line, text.value()));
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        match call.method == "expect" {
            true => self.visit_expr(&call.receiver),
            false => visit::visit_expr_method_call(self, call),
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let is_told = ["doc", "expect", "allow"].iter().any(|it| attribute.path().is_ident(it));
        if let (false, Ok(list)) = (is_told, attribute.meta.require_list()) {
            self.tokens(list.tokens.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_odd() {
        for text in ["`x` is no address", "these are no numbers", "what lies in its place is none"]
        {
            assert!(is_odd(text), "{text}");
        }
        for text in [
            "there is no tenant",
            "There are no versions.",
            "it is no longer there",
            "it is no more than that",
            "this no",
            "`x` is not a valid address",
            "this is nonetheless right",
        ] {
            assert!(!is_odd(text), "{text}");
        }
    }

    #[test]
    fn every_text_of_the_programs_is_read_and_no_comment() {
        let source = r##"
            //! It is no text.
            #[derive(Error)]
            enum E { #[error("1 is no address")] A }
            /// It is no text.
            #[expect(lint, reason = "it is no text")]
            fn f() {
                bail!("2 is no address", x = g("3 is no address"));
                let x = ["4 is no address", r#"5 is no address"#];
                y.expect("it is no text");
            }
            impl E { #[cfg(test)] fn f() { "it is no text" } }
            #[cfg(test)]
            mod tests { const X: &str = "it is no text"; }
        "##;
        let found: Vec<_> = odd(source).unwrap().into_iter().map(|(_, text)| text).collect();
        let expected: Vec<_> = (1..=5).map(|number| format!("{number} is no address")).collect();
        assert_eq!(found, expected);
        assert_eq!(odd("\nconst X: &str = \"it is no word\";").unwrap()[0].0, 2);
    }
}
