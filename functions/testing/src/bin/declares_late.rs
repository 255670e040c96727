//! Is asked for its options and takes longer than anybody waits.

#[expect(unsafe_code, reason = "generated bindings")]
mod options {
    wit_bindgen::generate!({
        inline: "
            package hearth:function;
            interface options { get: func() -> string; }
            world declaring { export options; }
        ",
    });

    struct Declared;

    impl exports::hearth::function::options::Guest for Declared {
        #[expect(clippy::disallowed_methods, reason = "to be late is what it is for")]
        fn get() -> String {
            std::thread::sleep(std::time::Duration::from_secs(60));
            String::new()
        }
    }

    export!(Declared);
}

testing::guest!(handle);

fn handle(_: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[], b"");
}
