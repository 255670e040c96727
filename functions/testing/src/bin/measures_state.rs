//! For figures: does with its tenant's state the one thing that its body names, `get`, `set` or
//! `nothing`, and answers `done`.

mod state {
    wit_bindgen::generate!({
        path: "../../sdk/wit/wasi-keyvalue-draft2",
        world: "imports",
    });

    pub use wasi::keyvalue::store::open;
}

testing::guest!(handle);

const KEY: &str = "measured";
const VALUE: [u8; 100] = [b'v'; 100];

fn handle(request: testing::Request, out: testing::Out) {
    let (what, _) = testing::read(&request);
    match &*what {
        b"nothing" => {}
        b"get" => {
            let value = state::open("default").unwrap().get(KEY).unwrap();
            assert_eq!(value.as_deref(), Some(&VALUE[..]));
        }
        b"set" => state::open("default").unwrap().set(KEY, &VALUE).unwrap(),
        other => panic!("to do {other:?}"),
    }
    testing::respond(out, 200, &[], b"done");
}
