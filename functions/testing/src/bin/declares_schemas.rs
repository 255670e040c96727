//! Declares schemas among its options, and sends its body back.

testing::declares!(crate::options);
testing::guest!(handle);

fn options() -> String {
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

fn handle(request: testing::Request, out: testing::Out) {
    let (body, _) = testing::read(&request);
    testing::respond(out, 200, &[], &body);
}
