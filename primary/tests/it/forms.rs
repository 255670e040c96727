//! Forms as clients write them: browsers, libraries of many languages, proxies between.

use crate::guests;
use crate::host::{Host, Tenant};
use crate::http::{Answer, Request};

/// A form's parts, each with what its head says.
fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, bytes) in parts {
        body.extend_from_slice(format!("--b\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

/// At each address, and by the management API.
#[track_caller]
fn everywhere(
    host: &Host,
    tenant: &Tenant,
    fill: impl Fn(Request) -> Request,
    judge: impl Fn(Answer),
) {
    for address in tenant.addresses() {
        let request = address.request("POST", "/$upload").bearer(&tenant.token);
        judge(address.send(&fill(request)));
    }
    judge(host.send(&fill(tenant.api("POST", "/functions"))));
}

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"it.wasm\"";
/// What a browser sends for an input for which no file was chosen.
const UNUSED: &str = "Content-Disposition: form-data; name=\"second\"; filename=\"\"\r\n\
                      Content-Type: application/octet-stream";

#[test]
fn forms_are_read_as_clients_write_them() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = guests::version_one();
    let takes = |content_type: &str, parts: &[(&str, &[u8])]| {
        let form = body(parts);
        let fill = |request: Request| request.header("content-type", content_type).body(&form);
        everywhere(&host, &tenant, fill, |answer| {
            let uploaded = answer.expect(200).json();
            assert_eq!(uploaded["functions"][0]["path"], "/it", "{content_type:?}: {uploaded}");
            assert_eq!(uploaded["functions"].as_array().unwrap().len(), 1);
        });
    };
    for content_type in [
        "multipart/form-data; boundary=b",
        "multipart/form-data ; boundary=b",
        "multipart/form-data;boundary=\"b\"",
        "Multipart/Form-Data; charset=utf-8 ; Boundary=b",
        "multipart/form-data; boundary=b;",
    ] {
        takes(content_type, &[(FILE, module)]);
    }
    let plain = "multipart/form-data; boundary=b";
    takes(plain, &[(FILE, module), (UNUSED, b"")]);
    takes(plain, &[(UNUSED, b""), (UNUSED, b""), (FILE, module)]);
    let both = "Content-Disposition: form-data; name=file; filename=it.wasm; \
                filename*=utf-8''it.wasm";
    takes(plain, &[(both, module)]);
    let first = "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''it.wasm; \
                 filename=\"it.wasm\"";
    takes(plain, &[(first, module)]);
    let identity = |request: Request| {
        let request = request.header("content-type", plain).header("content-encoding", "identity");
        request.body(body(&[(FILE, module)]))
    };
    everywhere(&host, &tenant, identity, |answer| drop(answer.expect(200)));
    assert_eq!(tenant.post("/it", "").expect(200).text(), "version one");
}

#[test]
fn what_a_form_cannot_say_is_refused_with_what_to_say_instead() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = guests::version_one();
    let plain = "multipart/form-data; boundary=b";
    let refuses = |parts: &[(&str, &[u8])], code: &str, said: &str| {
        let form = body(parts);
        let fill = |request: Request| request.header("content-type", plain).body(&form);
        everywhere(&host, &tenant, fill, |answer| {
            answer.expect_problem(400, code).expect_detail(said);
        });
    };
    let extended = "Content-Disposition: form-data; name=\"file\"; filename*=utf-8''it.wasm";
    refuses(&[(extended, module)], "invalid_path", "`filename*`");
    let nameless = "Content-Disposition: form-data; name=\"comment\"";
    refuses(
        &[(FILE, module), (nameless, b"x")],
        "invalid_path",
        "the part \"comment\" has no file name",
    );
    refuses(&[(FILE, module), (UNUSED, b"x")], "invalid_path", "NAME.wasm");
    refuses(&[(UNUSED, b"")], "bad_request", "no file");
    for coding in ["gzip", "br", "identity, zstd"] {
        let packed = |request: Request| {
            let request = request.header("content-type", plain).header("content-encoding", coding);
            request.body(body(&[(FILE, module)]))
        };
        everywhere(&host, &tenant, packed, |answer| {
            let answer = answer.expect_problem(415, "unsupported_media_type");
            answer.expect_detail("Content-Encoding");
        });
    }
    let restore = host.admin("POST", "/restore").header("content-encoding", "gzip").body("x");
    host.send(&restore).expect_problem(415, "unsupported_media_type");
    tenant.post("/it", "").expect_problem(404, "not_found");
}
