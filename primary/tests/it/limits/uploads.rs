//! An upload, as it is sent and as it unpacks. What is refused for another reason, and what a
//! refusal leaves, is `refused_uploads`'.

use std::io::{Read, Write};

use serde_json::json;

use super::{Growth, set};
use crate::guests;
use crate::host::{Host, Tenant, upload};
use crate::http::{Answer, Connection, Part, form};

/// The same component, with a section behind it that nobody reads, so that it has exactly so many
/// bytes.
pub fn padded(module: &[u8], bytes: usize, mut filling: impl FnMut() -> u8) -> Vec<u8> {
    const NAME: &[u8] = b"\x03pad";
    const HEAD: usize = 1 + 5;
    let section = bytes - module.len() - HEAD;
    let mut padded = module.to_vec();
    padded.push(0);
    // The section's size in LEB128, always in five bytes, so that the sum is what it should be.
    padded.extend((0..4).map(|at| (section >> (7 * at)) as u8 | 0x80));
    padded.push((section >> 28) as u8);
    padded.extend_from_slice(NAME);
    padded.extend((NAME.len()..section).map(|_| filling()));
    assert_eq!(padded.len(), bytes);
    padded
}

/// Bytes that no packing makes fewer.
pub fn noise(mut seed: u64) -> impl FnMut() -> u8 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 32) as u8
    }
}

/// Bytes that pack into a few of a hundred, as little as a module's may.
fn sparse() -> impl FnMut() -> u8 {
    let (mut chance, mut at) = (noise(7), 0_u32);
    move || {
        at += 1;
        if at.is_multiple_of(64) { chance() } else { 0 }
    }
}

/// At each address, and by the management API.
fn everywhere(host: &Host, tenant: &Tenant, file: &str, bytes: &[u8]) -> Vec<Answer> {
    let files = [(file, bytes)];
    let addresses = tenant.addresses().into_iter().map(|address| {
        let request = upload(address.request("POST", "/$upload"), &files, None);
        let request = request.bearer(&tenant.token);
        request.try_send(address.to).unwrap_or_else(|e| panic!("{}: {e}", address.name))
    });
    let by_api = || host.send(&upload(tenant.api("POST", "/functions"), &files, None));
    addresses.chain(std::iter::once_with(by_api)).collect()
}

/// An upload that does not say how long it is.
#[track_caller]
fn upload_chunked(tenant: &Tenant, file: &str, bytes: &[u8]) -> Answer {
    let (content_type, body) = form(&[Part { name: "file", file: Some(file), bytes }]);
    let address = tenant.address();
    let head = address
        .request("POST", "/$upload")
        .bearer(&tenant.token)
        .header("content-type", &content_type)
        .header("transfer-encoding", "chunked");
    let mut connection = Connection::open(address.to).unwrap();
    connection.send(&head.bytes("demo")).unwrap();
    for chunk in body.chunks(64 << 10) {
        let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        if connection.send(&framed).is_err() {
            break;
        }
    }
    let _ = connection.send(b"0\r\n\r\n");
    connection.answer("POST")
}

fn form_bytes(module: &[u8]) -> usize {
    form(&[Part { name: "file", file: Some("one.wasm"), bytes: module }]).1.len()
}

#[test]
fn an_upload_has_as_many_bytes_as_it_may_and_no_more() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = guests::version_one();
    let most = form_bytes(module);
    set(&host, &tenant, &json!({ "upload_bytes": most }));
    for answer in everywhere(&host, &tenant, "one.wasm", module) {
        answer.expect(200);
    }
    upload_chunked(&tenant, "one.wasm", module).expect(200);

    set(&host, &tenant, &json!({ "upload_bytes": most - 1 }));
    for answer in everywhere(&host, &tenant, "one.wasm", module) {
        answer.expect_problem(413, "too_large").expect_detail(&(most - 1).to_string());
    }
    upload_chunked(&tenant, "one.wasm", module).expect_problem(413, "too_large");
    assert_eq!(tenant.post("/one", "").expect(200).header("x-hearth-version"), Some("/one@1"));
}

#[test]
fn an_upload_has_32_mib_where_nothing_else_is_said() {
    const MOST: usize = 32 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = guests::version_one();
    let room = MOST - (form_bytes(module) - module.len());
    let inside = padded(module, room, noise(1));
    assert_eq!(form_bytes(&inside), MOST);
    tenant.deploy("one", &inside);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    let past = padded(module, room + 1, noise(2));
    for answer in everywhere(&host, &tenant, "one.wasm", &past) {
        answer.expect_problem(413, "too_large").expect_detail("32 MiB");
    }
    assert_eq!(tenant.post("/one", "").expect(200).header("x-hearth-version"), Some("/one@1"));
}

#[test]
fn a_module_has_as_many_bytes_as_it_may_however_it_is_packed() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = guests::version_one();
    let packed = zstd::encode_all(module, 3).unwrap();
    let both = [("one.wasm", module), ("one.wasm.zst", packed.as_slice())];
    set(&host, &tenant, &json!({ "module_bytes": module.len() }));
    for (file, bytes) in both {
        for answer in everywhere(&host, &tenant, file, bytes) {
            answer.expect(200);
        }
    }
    let most = module.len() - 1;
    set(&host, &tenant, &json!({ "module_bytes": most }));
    for (file, bytes) in both {
        for answer in everywhere(&host, &tenant, file, bytes) {
            answer.expect_problem(413, "too_large").expect_detail(&most.to_string());
        }
    }
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn a_module_has_128_mib_where_nothing_else_is_said() {
    const MOST: usize = 128 << 20;
    let host = Host::start();
    let tenant = host.tenant("demo");
    let packed = |bytes: usize| {
        let module = padded(guests::version_one(), bytes, sparse());
        zstd::encode_all(module.as_slice(), 3).unwrap()
    };
    tenant.upload(&[("one.wasm.zst", &packed(MOST))], None).expect(200);
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
    let past = tenant.upload(&[("one.wasm.zst", &packed(MOST + 1))], None);
    past.expect_problem(413, "too_large").expect_detail("128 MiB");
    assert_eq!(tenant.post("/one", "").expect(200).header("x-hearth-version"), Some("/one@1"));
}

#[test]
fn a_frame_may_look_back_8_mib_and_no_further() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let module = padded(guests::version_one(), 20 << 20, sparse());
    let framed = |window_log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(&module).unwrap();
        encoder.finish().unwrap()
    };
    let (inside, past) = (framed(23), framed(24));
    for answer in everywhere(&host, &tenant, "one.wasm.zst", &past) {
        answer.expect_problem(400, "invalid_module").expect_detail("8 MiB");
    }
    for answer in everywhere(&host, &tenant, "one.wasm.zst", &inside) {
        answer.expect(200);
    }
    assert_eq!(tenant.post("/one", "").expect(200).text(), "version one");
}

#[test]
fn a_bomb_is_refused_and_nobody_unpacks_it_into_memory() {
    let bomb = zstd::encode_all(std::io::repeat(0).take(1 << 30), 3).unwrap();
    assert!(bomb.len() < 128 << 10, "{}", bomb.len());
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::version_one());
    tenant.post("/one", "").expect(200);
    let memory = [Growth::of(host.pid()), Growth::of_worker(&tenant)];
    for answer in everywhere(&host, &tenant, "one.wasm.zst", &bomb) {
        answer.expect_problem(413, "too_large").expect_detail("more than 100 times its bytes");
    }
    for growth in memory {
        growth.stays_below(32);
    }
    assert_eq!(tenant.post("/one", "").expect(200).header("x-hearth-version"), Some("/one@1"));
}

/// Frames one behind the other are one file, and so are a frame and what is none.
#[test]
fn row_18_what_unpacks_too_far_is_refused_however_it_is_packed() {
    let zeroes = |mib: u64| zstd::encode_all(std::io::repeat(0).take(mib << 20), 3).unwrap();
    let host = Host::start();
    let tenant = host.tenant("demo");
    let (one, many) = (zeroes(64), zeroes(1).repeat(200));
    let behind = [zstd::encode_all(guests::version_one(), 3).unwrap(), zeroes(64)].concat();
    // A skippable frame of 2 MiB makes it larger, and no less dense than it is.
    let mut skipped = vec![0x50, 0x2a, 0x4d, 0x18, 0, 0, 32, 0];
    skipped.resize(skipped.len() + (2 << 20), 0);
    skipped.extend(zeroes(300));
    let memory = Growth::of(host.pid());
    for (what, bomb) in [("one", one), ("many", many), ("behind", behind), ("skipped", skipped)] {
        let answer = tenant.upload(&[("one.wasm.zst", &bomb)], None);
        assert_eq!(answer.status, 413, "{what}: {}", answer.text());
        answer.expect_problem(413, "too_large");
    }
    // Content-Encoding is nobody's here: a function gets what was sent.
    tenant.deploy("echo", guests::echo());
    let bomb = zeroes(256);
    let sent = tenant.address().request("POST", "/echo").header("content-encoding", "zstd");
    tenant.address().send(&sent.body(&bomb)).expect(200);
    memory.stays_below(48);
}

#[test]
fn an_endless_upload_is_cut_off() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.post("/hello", "{}").expect(200);
    let memory = [Growth::of(host.pid()), Growth::of_worker(&tenant)];
    for address in tenant.addresses() {
        let head = address
            .request("POST", "/$upload")
            .bearer(&tenant.token)
            .header("content-type", "multipart/form-data; boundary=b")
            .header("transfer-encoding", "chunked");
        let mut connection = Connection::open(address.to).unwrap();
        connection.send(&head.bytes("demo")).unwrap();
        let part =
            b"--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"f.wasm\"\r\n\r\n";
        let begun = [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        connection.send(&begun).unwrap();
        let piece = [b"10000\r\n".as_slice(), &[0; 64 << 10], b"\r\n"].concat();
        let mut sent = 0;
        while sent < 96 << 20 && connection.send(&piece).is_ok() {
            sent += 64 << 10;
        }
        connection.answer("POST").expect_problem(413, "too_large").expect_detail("32 MiB");
    }
    for growth in memory {
        growth.stays_below(64);
    }
}
