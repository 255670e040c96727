//! Where `ops/fuzz` comes in: a function's options as a document, as everybody may send them who
//! may upload. The corpus is replayed below as an ordinary test.

use hearth_wire::{Limits, OptionsPatch};

use crate::Checks;

/// Of one document: a large one only takes longer.
const BYTES_MAX: usize = 8 << 10;

pub fn options(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.len() > BYTES_MAX {
        return;
    }
    let Ok(patch) = OptionsPatch::parse(text) else { return };
    let kept = serde_json::to_string(&patch).expect("options are JSON");
    assert_eq!(OptionsPatch::parse(&kept).as_ref(), Ok(&patch), "what is kept reads back");
    let limits = Limits::default();
    let fits = patch.check(&limits).is_ok();
    let options = patch.resolve();
    assert!(!fits || options == options.clone().within(&limits));
    if let Ok(checks) = Checks::compile(&options.schema) {
        for body in ["", "{}", "[1,\"a\",null,{\"b\":[]}]", "\u{fffd}"] {
            let _ = checks.body(body.as_bytes());
        }
        let _ = checks.head(Some("a=1&a=2&%ff=%zz&=&b"), &http::HeaderMap::new());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn options() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ops/fuzz/corpus/options");
        let mut replayed = 0;
        for file in fs::read_dir(corpus).unwrap() {
            let file = file.unwrap().path();
            println!("{}", file.display());
            super::options(&fs::read(file).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0);
    }
}
