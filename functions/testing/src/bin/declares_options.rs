//! Declares its own options, and answers with its method.

testing::declares!(crate::options);
testing::guest!(handle);

fn options() -> String {
    r#"{"methods":["GET","PUT"],"description":"declares itself"}"#.to_owned()
}

fn handle(request: testing::Request, out: testing::Out) {
    testing::respond(out, 200, &[], format!("{:?}", request.method()).as_bytes());
}
