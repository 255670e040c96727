//! Declares its own options, and answers with its method.

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
        fn get() -> String {
            r#"{"methods":["GET","PUT"],"description":"declares itself"}"#.to_owned()
        }
    }

    export!(Declared);
}

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[], format!("{:?}", request.method()).as_bytes());
}
