//! Declares schemas among its options, and sends its body back.

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
            r#"{
                "description": "declared",
                "timeout_ms": 1000,
                "schema": {
                    "body": {"type": "object"},
                    "response": {"200": {"required": ["declared"]}, "4xx": true}
                }
            }"#
            .to_owned()
        }
    }

    export!(Declared);
}

testing::guest!(handle);

fn handle(request: testing::Request, out: testing::Out) {
    let (body, _) = testing::read(&request);
    testing::respond(out, 200, &[], &body);
}
