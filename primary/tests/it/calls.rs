//! One call: what the function sees of it, what comes back, and what is said when the function
//! fails.

use serde_json::json;

use crate::guests;
use crate::host::Host;

#[test]
fn a_function_sees_the_request_and_its_answer_comes_back_as_it_is() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("echo", guests::echo(), &json!({ "methods": ["POST", "PUT", "DELETE"] }));
    tenant.deploy("answers", guests::answers());
    for address in tenant.addresses() {
        let request = address
            .request("PUT", "/echo?a=1&b=%20x")
            .header("x-mine", "first")
            .header("x-mine", "second")
            .header("x-hearth-caller", "somebody else")
            .header("x-hearth-anything", "forged")
            .header("x-request-id", "request-1")
            .body("body \u{e4}");
        let answer = address.send(&request).expect(200);
        let seen = answer.json();
        assert_eq!(seen["method"], "Method::Put", "{}: {seen}", address.name);
        assert_eq!(seen["target"], "/echo?a=1&b=%20x", "{}: {seen}", address.name);
        assert_eq!(seen["body"], "body \u{e4}");
        assert_eq!(seen["headers"]["x-mine"], json!(["first", "second"]), "{seen}");
        assert_eq!(seen["headers"]["x-request-id"], json!(["request-1"]), "{seen}");
        let forged = ["x-hearth-caller", "x-hearth-anything"].map(|name| &seen["headers"][name]);
        assert!(forged.iter().all(|value| value.is_null()), "{}: {seen}", address.name);
        assert_eq!(answer.header("x-request-id"), Some("request-1"));
        assert_eq!(answer.header("x-hearth-version"), Some("/echo@1"));
        assert!(answer.header("server-timing").is_some(), "{:?}", answer.headers);

        let wanted = json!({
            "status": 418,
            "headers": [["x-one", "1"], ["x-two", "a"], ["x-two", "b"], ["content-type", "text/tea"]],
            "body": "short and stout",
        });
        let answer = address.post("/answers", &wanted.to_string()).expect(418);
        assert_eq!(answer.text(), "short and stout");
        let twos = answer.headers.iter().filter(|(name, _)| name == "x-two").count();
        assert_eq!((answer.header("x-one"), twos), (Some("1"), 2), "{:?}", answer.headers);
        assert_eq!(answer.header("content-type"), Some("text/tea"));
    }
}

#[test]
fn a_request_id_is_made_where_none_can_be_kept() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for given in [None, Some("has a space"), Some(""), Some(&*"a".repeat(129))] {
        let request = tenant.address().request("POST", "/hello").body("{}");
        let request = match given {
            Some(given) => request.header("x-request-id", given),
            None => request,
        };
        let made =
            tenant.address().send(&request).expect(200).header("x-request-id").unwrap().to_owned();
        assert_eq!(made.len(), 32, "{made}");
    }
}

#[test]
fn a_verified_caller_is_told_to_the_function_and_its_token_is_not() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("private", guests::echo(), &json!({ "auth": "invoke" }));
    tenant.deploy("public", guests::echo());
    let token = tenant.token("invoke");
    for address in tenant.addresses() {
        let seen =
            address.send(&address.request("POST", "/private").bearer(&token)).expect(200).json();
        assert_eq!(
            seen["headers"]["x-hearth-caller"],
            json!(["invoke"]),
            "{}: {seen}",
            address.name
        );
        assert!(seen["headers"]["authorization"].is_null(), "{}: {seen}", address.name);
        let seen =
            address.send(&address.request("POST", "/public").bearer("its own affair")).json();
        assert_eq!(seen["headers"]["authorization"], json!(["Bearer its own affair"]));
    }
    let invoked = tenant.api("POST", "/functions/private/invoke").body("by api");
    let answer = host.send(&invoked).expect(200);
    assert_eq!(answer.json()["body"], "by api");
    assert!(answer.json()["headers"]["authorization"].is_null(), "{}", answer.text());
    assert!(answer.json()["headers"]["x-hearth-caller"].is_array(), "{}", answer.text());
}

#[test]
fn methods_are_those_of_the_options() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("posts", guests::version_one());
    tenant.deploy_with("gets", guests::version_one(), &json!({ "methods": ["GET"] }));
    for address in tenant.addresses() {
        for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
            let answer = address.send(&address.request(method, "/posts"));
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
            if method != "HEAD" {
                answer.expect_problem(405, "method_not_allowed");
            }
        }
        address.get("/gets").expect(200);
        address.post("/gets", "").expect_problem(405, "method_not_allowed");
    }
}

#[test]
fn a_prefix_owns_what_is_below_it() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy_with("files", guests::echo(), &json!({ "path": "prefix" }));
    let address = tenant.address();
    let files = [("exact.wasm", guests::version_one())];
    let request = crate::host::upload(address.request("POST", "/files/$upload"), &files, None);
    address.send(&request.bearer(&tenant.token)).expect(200);
    for address in tenant.addresses() {
        let seen = address.post("/files/a/b.txt?x", "").expect(200).json();
        assert_eq!(seen["target"], "/files/a/b.txt?x", "{}", address.name);
        assert_eq!(
            address.post("/files", "").expect(200).header("x-hearth-version"),
            Some("/files@1")
        );
        assert_eq!(address.post("/files/exact", "").expect(200).text(), "version one");
        address.post("/filesystem", "").expect_problem(404, "not_found");
    }
}

#[test]
fn paths_that_are_none_touch_nothing() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    for address in tenant.addresses() {
        for path in ["/../hello", "/%2e%2e/hello", "/a%2fb", "/a\\b", "/%00", "/a//b", "/.hidden"] {
            let answer = address.post(path, "{}");
            assert!(matches!(answer.status, 400 | 404), "{path} at {}: {answer:?}", address.name);
            let code = if answer.status == 400 { "invalid_path" } else { "not_found" };
            answer.clone().expect_problem(answer.status, code);
        }
        address.post("/$nothing", "").expect_problem(404, "not_found");
        address.post("/nothing", "").expect_problem(404, "not_found");
    }
}

#[test]
fn a_function_that_fails_fails_alone() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("traps", guests::traps());
    tenant.deploy("silent", guests::no_response());
    tenant.deploy("one", guests::version_one());
    let worker = host.workers(&tenant);
    for address in tenant.addresses() {
        let trapped = address.post("/traps", "").expect_problem(500, "function_trapped");
        assert_eq!(trapped.header("x-hearth-version"), Some("/traps@1"));
        let said = trapped.text();
        assert!(!said.contains("wasm") && !said.contains(".rs"), "no stack to callers: {said}");
        address.post("/silent", "").expect_problem(502, "function_no_response");
        address.post("/one", "").expect(200);
        // Once its head is out, all that can be done is not to pretend that the body is whole.
        let request = address.request("POST", "/traps?late=1");
        let error = request.try_send(address.to).expect_err("an answer that was cut short");
        assert!(
            matches!(
                error.kind(),
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
            ),
            "{}: {error}",
            address.name
        );
    }
    assert_eq!(host.workers(&tenant), worker, "the worker lives on");
}
