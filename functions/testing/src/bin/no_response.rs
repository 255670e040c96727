//! Returns without an answer.

testing::guest!(handle);

fn handle(_: testing::Request, _: testing::Out) {}
