//! The code that `#[function]` puts behind a function: the two exports of the component, and the
//! checks that a compiler can make. The function itself stays as it was written.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, ItemFn, Lit, LitStr, Meta, Result, ReturnType, Type,
};

use crate::options::{Options, Schema};

pub fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    // An editor still knows the function while its attribute is wrong.
    let untouched = item.clone();
    match try_expand(arguments, item) {
        Ok(expanded) => expanded,
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#untouched #error)
        }
    }
}

fn try_expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut options: Options = syn::parse2(arguments)?;
    let function: ItemFn = syn::parse2(item)
        .map_err(|error| Error::new(error.span(), "#[function] belongs on a function"))?;
    let arguments = argument_types(&function)?;
    options.describe(documentation(&function.attrs));

    let name = &function.sig.ident;
    let waits = function.sig.asyncness.is_some();
    let returned = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, returned) => quote!(#returned),
    };
    let awaiting = waits.then(|| quote!(.await));
    let (output, tried) = if is_result(&function.sig.output) {
        let span = returned.span();
        (
            quote_spanned!(span => <#returned as ::hearth_sdk::__private::Tried>::Output),
            quote_spanned!(span => ::hearth_sdk::__private::Tried::tried),
        )
    } else {
        (returned, quote!(::core::result::Result::Ok))
    };
    // Spans are those of the types, so that a type that does not fit is what the compiler shows.
    let taken = arguments.iter().map(|argument| match argument {
        Type::Tuple(tuple) if tuple.elems.is_empty() => quote!(()),
        argument => quote_spanned! { argument.span() =>
            ::hearth_sdk::__private::argument::<#argument, _>(request)?
        },
    });
    let extracted: Vec<&&Type> = arguments
        .iter()
        .filter(|argument| !matches!(argument, Type::Tuple(tuple) if tuple.elems.is_empty()))
        .collect();
    let in_schemas =
        extracted.iter().filter(|_| options.schema() != Schema::None).map(|argument| {
            quote_spanned! { argument.span() =>
                ::hearth_sdk::__private::describe_argument::<#argument, _>(&mut schemas);
            }
        });
    let out_schemas = (options.schema() == Schema::All).then(|| {
        quote_spanned! { output.span() =>
            ::hearth_sdk::__private::describe_returned::<#output, _>(&mut schemas);
        }
    });
    let declared = options.declared();
    let once = quote_spanned! { name.span() =>
        const _: () = {
            ::core::assert!(
                ::hearth_sdk::__private::at_most_one(&[
                    #(::hearth_sdk::__private::takes_body::<#extracted, _>()),*
                ]),
                "the body is read once: by one argument that is JSON, or by `Request`"
            );
            ::core::assert!(
                ::hearth_sdk::__private::at_most_one(&[
                    #(::hearth_sdk::__private::takes_query::<#extracted, _>()),*
                ]),
                "the query string is described once: by one `Query`"
            );
        };
    };
    Ok(quote! {
        #function

        const _: () = {
            #once

            enum Component {}

            impl ::hearth_sdk::__private::Handler for Component {
                fn handle(
                    request: ::hearth_sdk::__private::IncomingRequest,
                    response: ::hearth_sdk::__private::ResponseOutparam,
                ) {
                    ::hearth_sdk::__private::serve::<#waits, #output, _>(
                        request,
                        response,
                        async |request| #tried(#name(#(#taken),*) #awaiting),
                    )
                }
            }

            impl ::hearth_sdk::__private::Options for Component {
                #[allow(unused_mut, reason = "a function may have nothing to describe")]
                fn get() -> ::std::string::String {
                    let mut schemas = ::hearth_sdk::__private::Schemas::default();
                    #(#in_schemas)*
                    #out_schemas
                    #declared.to_json()
                }
            }

            #[cfg(target_family = "wasm")]
            ::hearth_sdk::__private::export_handler!(Component);
            #[cfg(target_family = "wasm")]
            ::hearth_sdk::__private::export_options!(Component);
            // A native build has nobody to call them, and must not take the function for unused.
            #[cfg(not(target_family = "wasm"))]
            const _: (
                fn(::hearth_sdk::__private::IncomingRequest, ::hearth_sdk::__private::ResponseOutparam),
                fn() -> ::std::string::String,
            ) = (
                <Component as ::hearth_sdk::__private::Handler>::handle,
                <Component as ::hearth_sdk::__private::Options>::get,
            );
        };
    })
}

fn argument_types(function: &ItemFn) -> Result<Vec<&Type>> {
    let signature = &function.sig;
    if !signature.generics.params.is_empty() {
        let message = "a function that is called from outside has no parameters of type";
        return Err(Error::new(signature.generics.span(), message));
    }
    signature
        .inputs
        .iter()
        .map(|argument| match argument {
            FnArg::Typed(argument) => match &*argument.ty {
                Type::ImplTrait(ty) => {
                    Err(Error::new(ty.span(), "name the type, from which the input is read"))
                }
                Type::Reference(ty) => {
                    Err(Error::new(ty.span(), "take it by value: nobody else has the input"))
                }
                ty => Ok(ty),
            },
            FnArg::Receiver(receiver) => {
                Err(Error::new(receiver.span(), "#[function] belongs on a function, not a method"))
            }
        })
        .collect()
}

/// By its name, which an alias such as `std::io::Result` has, too. Some results could be written
/// as JSON, which nobody means.
fn is_result(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else { return false };
    let Type::Path(path) = &**ty else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Result")
}

/// What stands in the function's own `///` lines.
fn documentation(attributes: &[Attribute]) -> Option<LitStr> {
    let mut span = None;
    let lines: Vec<String> = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) => {
                    span.get_or_insert(line.span());
                    let line = line.value();
                    Some(line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
                }
                _ => None,
            },
            _ => None,
        })
        .collect();
    let text = lines.join("\n");
    let text = text.trim();
    if text.is_empty() { None } else { span.map(|span| LitStr::new(text, span)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &str, item: &str) -> std::result::Result<String, String> {
        let expanded = try_expand(arguments.parse().unwrap(), item.parse().unwrap())
            .map_err(|error| error.to_string())?;
        syn::parse2::<syn::File>(expanded.clone()).expect("what is written is Rust");
        Ok(expanded.to_string())
    }

    #[test]
    fn the_runtime_is_there_for_those_who_wait() {
        let plain = expanded("", "fn f(input: Input) -> Output { g(input) }").unwrap();
        assert!(plain.contains("serve :: < false , Output , _ >"), "{plain}");
        assert!(!plain.contains(". await"), "{plain}");
        let waits = expanded("", "async fn f() { g().await }").unwrap();
        assert!(waits.contains("serve :: < true , () , _ >"), "{waits}");
        assert!(waits.contains("Ok (f () . await)"), "{waits}");
    }

    #[test]
    fn a_result_is_taken_apart() {
        for output in ["Result<O, E>", "std::io::Result<O>", "Result"] {
            let expanded = expanded("", &format!("fn f() -> {output} {{}}")).unwrap();
            assert!(expanded.contains("Tried > :: Output"), "{output}: {expanded}");
            assert!(expanded.contains("Tried :: tried (f ())"), "{output}: {expanded}");
        }
        let plain = expanded("", "fn f() -> Vec<Result<O, E>> {}").unwrap();
        assert!(!plain.contains("Tried"), "{plain}");
    }

    #[test]
    fn the_unit_is_no_argument_that_is_read() {
        let unit = expanded("", "fn f(_: ()) {}").unwrap();
        assert!(unit.contains("Ok (f (()))"), "{unit}");
        assert!(!unit.contains("describe_argument"), "{unit}");
    }

    #[test]
    fn schemas_are_derived_as_far_as_they_are_wanted() {
        let item = "fn f(query: Query<Page>, body: Input) -> Output {}";
        for (arguments, described, returned) in
            [("", 2, 1), ("schema = \"request\"", 2, 0), ("schema = false", 0, 0)]
        {
            let expanded = expanded(arguments, item).unwrap();
            assert_eq!(expanded.matches("describe_argument").count(), described, "{arguments}");
            assert_eq!(expanded.matches("describe_returned").count(), returned, "{arguments}");
        }
    }

    #[test]
    fn the_documentation_is_the_description_where_there_is_no_other() {
        let item = "/// Greets.\n///\n///  By name.\nfn f() {}";
        let own = expanded("", item).unwrap();
        assert!(own.contains(r#"Text ("Greets.\n\n By name.")"#), "{own}");
        let given = expanded("description = \"Given.\"", item).unwrap();
        assert!(given.contains(r#"Text ("Given.")"#), "{given}");
        assert!(!expanded("", "///\nfn f() {}").unwrap().contains("Value :: Text"));
    }

    #[test]
    fn what_cannot_be_a_function_is_refused() {
        for (item, said) in [
            ("struct S;", "#[function] belongs on a function"),
            ("fn f(&self) {}", "#[function] belongs on a function, not a method"),
            (
                "fn f<T>(t: T) {}",
                "a function that is called from outside has no parameters of type",
            ),
            ("fn f(t: &str) {}", "take it by value"),
            ("fn f(t: impl Into<String>) {}", "name the type"),
        ] {
            let error = expanded("", item).unwrap_err();
            assert!(error.starts_with(said), "{item}: {error}");
        }
    }

    #[test]
    fn a_refused_attribute_leaves_the_function() {
        let expanded = expand("nonsense = 1".parse().unwrap(), "fn f() {}".parse().unwrap());
        let expanded = expanded.to_string();
        assert!(expanded.starts_with("fn f () { }"), "{expanded}");
        assert!(expanded.contains("compile_error"), "{expanded}");
    }
}
