//! Uploads that are refused: each with a code and a sentence that helps; the old version serves
//! on, and nothing is left on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use hearth_e2e::component;

use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::{Answer, Connection, Part, Request, form};
use crate::limits::uploads::noise;
use crate::processes::eventually;

/// A tenant whose function must be as before after whatever happens.
struct Subject {
    host: Host,
    tenant: Tenant,
    files: BTreeSet<String>,
}

impl Subject {
    fn new() -> Self {
        let host = Host::start();
        let tenant = host.tenant("demo");
        tenant.deploy("hello", guests::version_one());
        let files = files(&host.data());
        Self { host, tenant, files }
    }

    /// At each address, and by the management API.
    #[track_caller]
    fn refuses(
        &self,
        files: &[(&str, &[u8])],
        options: Option<&str>,
        status: u16,
        code: &str,
        sentence: &str,
    ) {
        self.refuses_form(|request| upload(request, files, options), status, code, sentence);
    }

    #[track_caller]
    fn refuses_form(
        &self,
        fill: impl Fn(Request) -> Request,
        status: u16,
        code: &str,
        sentence: &str,
    ) {
        for address in self.tenant.addresses() {
            let request = fill(address.request("POST", "/$upload")).bearer(&self.tenant.token);
            address.send(&request).expect_problem(status, code).expect_detail(sentence);
        }
        let request = fill(self.tenant.api("POST", "/functions"));
        self.host.send(&request).expect_problem(status, code).expect_detail(sentence);
        self.is_unchanged();
    }

    #[track_caller]
    fn is_unchanged(&self) {
        assert_eq!(self.tenant.post("/hello", "").expect(200).text(), "version one");
        assert_eq!(self.tenant.ask("/generations")["generations"][0]["cause"], "upload");
        assert_eq!(self.tenant.ask("/generations")["generations"].as_array().unwrap().len(), 2);
    }

    /// The host sweeps when it starts; what it leaves then is what there was before.
    #[track_caller]
    fn leaves_nothing(mut self) {
        self.host.kill_and_start_again();
        self.is_unchanged();
        eventually("a disk as before", || (files(&self.host.data()) == self.files).then_some(()));
    }
}

/// Everything that is kept, but for what changes by itself.
fn files(data: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut directories = vec![data.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(data).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                directories.push(path);
            } else if !name.contains("/logs/") && !name.starts_with("hearth.db") {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn a_truncated_module() {
    let subject = Subject::new();
    let module = guests::version_two();
    let half = &module[..module.len() / 2];
    subject.refuses(&[("hello.wasm", half)], None, 400, "invalid_module", "hello.wasm");
    let packed = zstd::encode_all(module, 3).unwrap();
    let half = &packed[..packed.len() / 2];
    subject.refuses(&[("hello.wasm.zst", half)], None, 400, "invalid_module", "hello.wasm.zst");
    subject.refuses(&[("hello.wasm", b"")], None, 400, "invalid_module", "hello.wasm");
    subject.refuses(&[("hello.wasm", b"#!/bin/sh\n")], None, 400, "invalid_module", "hello.wasm");
    subject.refuses(&[("hello.wasm.zst", module)], None, 400, "invalid_module", "zst");
    subject.leaves_nothing();
}

#[test]
fn a_core_module() {
    let module = guests::core_module();
    let subject = Subject::new();
    subject.refuses(&[("hello.wasm", module)], None, 400, "invalid_module", "component");
    subject.leaves_nothing();
}

#[test]
fn a_forbidden_import() {
    let module = guests::imports_blobs();
    let named = "example:blobs/store@1.2.0";
    let subject = Subject::new();
    subject.refuses(&[("hello.wasm", module)], None, 400, "invalid_module", named);
    subject.leaves_nothing();
}

#[test]
fn an_import_of_types_alone_is_taken_and_of_anything_to_call_is_not() {
    let subject = Subject::new();
    let handler = |used: &str| {
        component::importing(&format!(
            r#"(import "wasi:http/types@0.3.0" (instance $later
                (export "request" (type (sub resource)))))
            (alias export $later "request" (type $later-request))
            (import "wasi:http/handler@0.3.0" (instance
                (alias outer 1 $later-request (type $r))
                (export "request" (type $request (eq $r)))
                (type $size u64)
                (export "size" (type (eq $size)))
                {used}))"#
        ))
    };
    let used = handler(r#"(export "handle" (func (param "request" (own $request))))"#);
    let named = "the import `wasi:http/handler@0.3.0` is not offered";
    subject.refuses(&[("types.wasm", &used)], None, 400, "invalid_module", named);
    let up = subject.tenant.deploy("types", &handler(""));
    assert!(up["functions"][0]["imports"].to_string().contains("wasi:http/handler@0.3.0"), "{up}");
    for address in subject.tenant.addresses() {
        address.post("/types", "").expect_problem(502, "function_no_response");
    }
}

#[test]
fn a_refusal_of_many_imports_names_what_matters_first_and_all_for_programs() {
    let subject = Subject::new();
    let import = |name: &str| format!(r#"(import "{name}" (instance (export "f" (func))))"#);
    let mut names: Vec<_> = (0..39).map(|at| format!("wasi:cli/a{at:02}@0.3.0-rc-1")).collect();
    names.extend(["acme:db/sql@1.0.0", "zeta:mail/send@2.0.0"].map(str::to_owned));
    let module = component::importing(&names.iter().map(|name| import(name)).collect::<String>());
    let first =
        "the imports `acme:db/sql@1.0.0`, `zeta:mail/send@2.0.0`, `wasi:cli/a00@0.3.0-rc-1`";
    subject.refuses(&[("many.wasm", &module)], None, 400, "invalid_module", first);
    subject.refuses(&[("many.wasm", &module)], None, 400, "invalid_module", "36 more");
    let problem = subject.tenant.upload(&[("many.wasm", &module)], None).json();
    let imports = problem["imports"].as_array().unwrap();
    assert_eq!(imports.len(), names.len(), "{problem}");
    assert_eq!(imports[0], "acme:db/sql@1.0.0", "{problem}");
    assert_eq!(imports[1], "zeta:mail/send@2.0.0", "{problem}");

    let file = subject.host.scratch().join("many.wasm");
    fs::write(&file, &module).unwrap();
    let arguments = ["upload", file.to_str().unwrap(), "--json"];
    let said = subject.host.command(&subject.tenant.token, &arguments);
    let told: serde_json::Value = serde_json::from_str(&said.text()).unwrap();
    assert_eq!(told["imports"], problem["imports"], "{told}");
    let reason = said.failed(1);
    assert!(reason.contains("acme:db/sql@1.0.0") && !reason.contains("a38@"), "{reason}");
}

#[test]
fn an_oversized_body() {
    const LIMIT: usize = 32 << 20;
    let subject = Subject::new();
    let large = vec![0; LIMIT + 1];
    for address in subject.tenant.addresses() {
        let request = upload(address.request("POST", "/$upload"), &[("hello.wasm", &large)], None);
        refused_early(&address.to, &request.bearer(&subject.tenant.token));
    }
    let request = upload(subject.tenant.api("POST", "/functions"), &[("hello.wasm", &large)], None);
    refused_early(&subject.host.front, &request);
    // Without a length, it is noticed on the way.
    let address = subject.tenant.address();
    let mut connection = Connection::open(address.to).unwrap();
    let (content_type, body) =
        form(&[Part { name: "file", file: Some("hello.wasm"), bytes: &large }]);
    let head = address
        .request("POST", "/$upload")
        .bearer(&subject.tenant.token)
        .header("content-type", &content_type)
        .header("transfer-encoding", "chunked");
    connection.send(&head.bytes("demo")).unwrap();
    for chunk in body.chunks(1 << 20) {
        let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
        if connection.send(&framed).is_err() {
            break;
        }
    }
    connection.answer("POST").expect_problem(413, "too_large").expect_detail("32");

    // Small on the wire, large once unpacked: a module has a bound of its own.
    let bomb = zstd::encode_all(std::io::repeat(0).take(129 << 20), 3).unwrap();
    subject.refuses(&[("hello.wasm.zst", &bomb)], None, 413, "too_large", "100 times");
    // As dense as modules may be.
    let piece: Vec<u8> = std::iter::repeat_with(noise(1)).take(1_600 << 10).collect();
    let large = zstd::encode_all(&*piece.repeat(83), 3).unwrap();
    subject.refuses(&[("hello.wasm.zst", &large)], None, 413, "too_large", "128");
    subject.leaves_nothing();
}

/// The answer comes although, or because, nobody reads the body to its end.
#[track_caller]
fn refused_early(to: &std::net::SocketAddr, request: &Request) {
    let answer: Answer = request.try_send(*to).expect("an answer in place of a reset");
    answer.expect_problem(413, "too_large").expect_detail("32");
}

#[test]
fn a_path_that_climbs_in_six_encodings() {
    let subject = Subject::new();
    for directory in ["/../", "/%2e%2e/", "/..%2f", "/%2e%2e%2f", "/..%5c", "/%252e%252e/"] {
        for address in subject.tenant.addresses() {
            let path = format!("{directory}$upload");
            let request = upload(
                address.request("POST", &path),
                &[("hello.wasm", guests::version_two())],
                None,
            );
            address
                .send(&request.bearer(&subject.tenant.token))
                .expect_problem(400, "invalid_path");
        }
    }
    for file in [
        "../hello.wasm",
        "..\\hello.wasm",
        "/etc/hello.wasm",
        "%2e%2e%2fhello.wasm",
        "a/../../hello.wasm",
        ".hello.wasm",
        "$hello.wasm",
        "..wasm",
        ".wasm",
    ] {
        let files = [(file, guests::version_two())];
        subject.refuses(&files, None, 400, "invalid_path", "path");
    }
    for directory in ["..", "a/../b", "%2e%2e", "a\\b"] {
        let target =
            format!("/functions?dir={}", directory.replace('%', "%25").replace('\\', "%5C"));
        let files = [("hello.wasm", guests::version_two())];
        let request = upload(subject.tenant.api("POST", &target), &files, None);
        subject.host.send(&request).expect_problem(400, "invalid_path");
    }
    subject.leaves_nothing();
}

#[test]
fn a_wrong_token_and_none() {
    let subject = Subject::new();
    let files = [("hello.wasm", guests::version_two())];
    for address in subject.tenant.addresses() {
        let request = upload(address.request("POST", "/$upload"), &files, None);
        address.send(&request).expect_problem(401, "unauthenticated").expect_detail("token");
        for wrong in ["hearth_0000000000000000000000000000000000000000000", "", "nonsense"] {
            address.send(&request.clone().bearer(wrong)).expect_problem(401, "unauthenticated");
        }
        let known_but_weak = request.clone().bearer(&subject.tenant.token("invoke"));
        address.send(&known_but_weak).expect_problem(403, "forbidden").expect_detail("deploy");
    }
    subject.leaves_nothing();
}

#[test]
fn two_parts_of_one_name() {
    let (one, two) = (guests::version_one(), guests::version_two());
    let subject = Subject::new();
    subject.refuses(&[("hello.wasm", two), ("hello.wasm", one)], None, 400, "bad_request", "hello");
    let packed = zstd::encode_all(two, 3).unwrap();
    let files = [("hello.wasm", one), ("hello.wasm.zst", packed.as_slice())];
    subject.refuses(&files, None, 400, "bad_request", "hello");
    let files = [("hello.wasm", one), ("HELLO.wasm", two)];
    subject.refuses(&files, None, 400, "bad_request", "two parts");
    subject.leaves_nothing();
}

#[test]
fn options_that_are_none() {
    let subject = Subject::new();
    let files = [("hello.wasm", guests::version_two())];
    for (options, sentence) in [
        ("{", "cannot be read"),
        ("[]", "object"),
        (r#"{"metods":["GET"]}"#, "metods"),
        (r#"{"schema":[]}"#, "schema"),
        (r#"{"timeout_ms":0}"#, "timeout_ms"),
        (r#"{"auth":"admin"}"#, "auth"),
    ] {
        subject.refuses(&files, Some(options), 400, "bad_request", sentence);
    }
    let two = [("hello.wasm", guests::version_two()), ("other.wasm", guests::version_two())];
    subject.refuses(&two, Some(r#"{"third.wasm":{}}"#), 400, "bad_request", "third.wasm");
    subject.leaves_nothing();
}

#[test]
fn forms_that_are_none() {
    let subject = Subject::new();
    let plain = |request: Request| request.header("content-type", "text/plain").body("hello");
    subject.refuses_form(plain, 400, "bad_request", "multipart/form-data");
    subject.refuses(&[], None, 400, "bad_request", "file");
    let files = [("hello.txt", guests::version_two())];
    subject.refuses(&files, None, 400, "invalid_path", ".wasm");
    let cut = |request: Request| {
        let (content_type, body) =
            form(&[Part { name: "file", file: Some("hello.wasm"), bytes: guests::version_two() }]);
        request.header("content-type", &content_type).body(&body[..body.len() - 30])
    };
    subject.refuses_form(cut, 400, "bad_request", "");
    subject.leaves_nothing();
}
