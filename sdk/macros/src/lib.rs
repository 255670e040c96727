//! The attribute of `hearth-sdk`, which re-exports and documents it.
//!
//! `options.rs` reads the attribute's arguments, `expand.rs` writes the code. What that code
//! calls is in `hearth_sdk::__private`.

use proc_macro::TokenStream;

mod expand;
mod options;

#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(arguments.into(), item.into()).into()
}
