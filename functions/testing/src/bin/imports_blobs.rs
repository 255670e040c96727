//! Needs an interface that no host of functions offers.

mod blobs {
    wit_bindgen::generate!({
        inline: "
            package example:blobs@1.2.0;
            interface store { get: func(key: string) -> string; }
            world needing { import store; }
        ",
    });

    pub use example::blobs::store::get;
}

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[], blobs::get("key").as_bytes());
}
