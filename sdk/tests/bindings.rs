//! The bindings in `src` are what `wit` says, so that neither changes alone, by a generator of the
//! version that they run with. Generated code is kept so that authors need not build its
//! generator.

use std::path::Path;

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

#[test]
fn the_bindings_are_those_of_their_interfaces() {
    let options = wit_bindgen_rust::Opts {
        format: true,
        pub_export_macro: true,
        export_macro_name: Some("export_options".to_owned()),
        default_bindings_module: Some("$crate::bindings".to_owned()),
        ..wit_bindgen_rust::Opts::default()
    };
    are_those_of("wit/function.wit", "bindings.rs", options);
    let options = wit_bindgen_rust::Opts { format: true, ..wit_bindgen_rust::Opts::default() };
    are_those_of("wit/wasi-config/rc.1", "settings.rs", options);
}

fn are_those_of(wit: &str, file: &str, options: wit_bindgen_rust::Opts) {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(sdk.join(wit)).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files).unwrap();
    let (_, generated) = files.iter().next().unwrap();
    let generated = std::str::from_utf8(generated).unwrap();
    let kept = std::fs::read_to_string(sdk.join("src").join(file)).unwrap_or_default();
    if kept != generated {
        // Where it can be compared, and taken from.
        let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        std::fs::write(&beside, generated).unwrap();
        panic!("{file} is not what {wit} says; see {}", beside.display());
    }
}

#[test]
fn the_generator_is_of_the_version_that_its_code_runs_with() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    let package = lock.split("[[package]]").find(|it| it.contains("name = \"hearth-sdk\"\n"));
    let package = package.expect("the SDK is locked");
    // A version is named where there are several, which is so as long as `wstd` has an older one.
    let version = |name: &str| {
        let named = package.lines().filter_map(|line| line.trim().strip_prefix('"'));
        let mut rest = named.filter_map(|line| line.strip_prefix(name)?.strip_suffix("\","));
        rest.find(|rest| rest.is_empty() || rest.starts_with(' ')).map(str::to_owned)
    };
    let runs_with = version("wit-bindgen").expect("the SDK links it");
    let generators = ["wit-bindgen-core", "wit-bindgen-rust"].map(version);
    assert_eq!(generators, [Some(runs_with.clone()), Some(runs_with.clone())]);
    let kept = include_str!("../src/bindings.rs").lines().next().unwrap();
    assert!(runs_with.is_empty() || kept.contains(&runs_with), "{kept}: {runs_with}");
}
