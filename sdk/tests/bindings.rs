//! `src/bindings.rs` is what `wit/function.wit` says, so that neither changes alone. Generated
//! code is kept so that authors need not build its generator.

use std::path::Path;

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

#[test]
fn the_bindings_are_those_of_the_interface() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(sdk.join("wit/function.wit")).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_options".to_owned()),
        default_bindings_module: Some("$crate::bindings".to_owned()),
        ..wit_bindgen_rust::Opts::default()
    };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, generated) = files.iter().next().unwrap();
    let generated = std::str::from_utf8(generated).unwrap();
    let kept = std::fs::read_to_string(sdk.join("src/bindings.rs")).unwrap();
    if kept != generated {
        // Where it can be compared, and taken from.
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bindings.rs");
        std::fs::write(&beside, generated).unwrap();
        panic!("the bindings are not those of the interface; see {}", beside.display());
    }
}
