//! Uploads and bodies as a stranger sends them: slowly, half, and many at once. Nothing that others
//! need waits for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use super::Growth;
use super::uploads::{noise, padded};
use crate::guests;
use crate::host::{ADMIN_TOKEN, Host, Tenant, upload};
use crate::http::{Answer, Connection, Request};
use crate::processes::{allow_many_descriptors, eventually, pause};

/// What each slow sender sends at once, and how often: more than the least rate.
const PIECE: usize = 300;
const BETWEEN: Duration = Duration::from_millis(500);

/// An upload's bytes, of which `sent` are sent.
fn begin(to: SocketAddr, bytes: &[u8], sent: usize) -> Connection {
    let mut connection = Connection::open(to).unwrap();
    connection.send(&bytes[..sent]).unwrap();
    connection
}

/// At all addresses: where to, and the whole request.
fn uploads(
    host: &Host,
    tenant: &Tenant,
    file: &str,
    module: &[u8],
) -> Vec<(&'static str, SocketAddr, Vec<u8>)> {
    let files = [(file, module)];
    let mut all: Vec<_> = tenant
        .addresses()
        .into_iter()
        .map(|address| {
            let request = upload(address.request("POST", "/$upload"), &files, None);
            (address.name, address.to, request.bearer(&tenant.token).bytes("demo"))
        })
        .collect();
    let by_api = upload(tenant.api("POST", "/functions"), &files, None);
    all.push(("the API", host.front, by_api.bytes("localhost")));
    all
}

/// A connection, what is sent on it, and how much of that has been.
type Sender = (Connection, Arc<[u8]>, usize);

/// Senders that go on at their pace until this is dropped, or until they are cut off.
struct Slow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sender>>>,
}

impl Slow {
    fn begin(mut senders: Vec<Sender>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for (connection, bytes, sent) in &mut senders {
                    let piece = &bytes[*sent..bytes.len().min(*sent + PIECE)];
                    *sent = match connection.send(piece) {
                        Ok(()) => *sent + piece.len(),
                        Err(_) => bytes.len(),
                    };
                }
                pause(BETWEEN);
            }
            senders
        });
        Self { stop, thread: Some(thread) }
    }

    /// Their connections, on which nothing more is sent from now on.
    fn end(mut self) -> Vec<Connection> {
        self.stop.store(true, Ordering::Relaxed);
        let senders = self.thread.take().unwrap().join().unwrap();
        senders.into_iter().map(|(connection, ..)| connection).collect()
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One that has sent so much of it.
fn slowly(to: SocketAddr, bytes: &[u8], sent: usize) -> Sender {
    (begin(to, bytes, sent), bytes.into(), sent)
}

fn is_crowded(answer: Answer) {
    let refused = answer.expect_problem(429, "too_many_requests");
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
}

#[test]
fn hundreds_of_slow_uploads_hold_up_nobody_else() {
    const MANY: usize = 540;
    allow_many_descriptors();
    let host = Host::start();
    let (slow, other) = (host.tenant("slow"), host.tenant("other"));
    let token = slow.token("deploy");
    let memory = Growth::of(host.pid());
    let [_, _, by_path] = slow.addresses();
    let module = padded(guests::version_one(), 1 << 20, noise(1));
    let request = upload(by_path.request("POST", "/$upload"), &[("slow.wasm", &module)], None);
    let bytes: Arc<[u8]> = request.bearer(&token).bytes("demo").into();
    let sender = |_| (begin(by_path.to, &bytes, 2_000), Arc::clone(&bytes), 2_000);
    let senders = Slow::begin((0..MANY).map(sender).collect());

    // Who was not woken since the start, an upload, and what the platform itself answers.
    assert_eq!(other.post("/hello", "{}").expect(200).status, 200);
    for address in other.addresses() {
        let request = upload(
            address.request("POST", "/$upload"),
            &[("one.wasm", guests::version_one())],
            None,
        );
        address.send(&request.bearer(&other.token)).expect(200);
        assert_eq!(address.post("/one", "").expect(200).text(), "version one");
    }
    host.send(&host.admin("GET", "/tenants")).expect(200);
    other.ask("/limits");
    memory.stays_below(96);

    let mut refused = 0;
    for mut connection in senders.end() {
        // Of those that have a place nobody has heard.
        let _ = connection.finish_sending();
        match connection.try_answer("POST") {
            Ok(answer) if answer.status == 400 => {}
            Ok(answer) => {
                is_crowded(answer);
                refused += 1;
            }
            // It was told, and went on sending until it was closed.
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= MANY - 16, "{refused} of {MANY} found no place");
    slow.deploy("fast", guests::version_one());
}

#[test]
fn so_many_uploads_at_once_and_the_next_is_told_to_come_again() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    let other = host.tenant("other");
    let module = guests::version_one();
    let at_once: Vec<_> = (0..8)
        .map(|at| {
            let tenant = tenant.clone();
            std::thread::spawn(move || {
                let name = format!("f{at}.wasm");
                let request = upload(tenant.api("POST", "/functions"), &[(&name, module)], None);
                request.try_send(tenant.addresses()[2].to).unwrap().expect(200);
            })
        })
        .collect();
    at_once.into_iter().for_each(|it| it.join().unwrap());

    let all = uploads(&host, &tenant, "one.wasm", module);
    let held = (0..8).map(|at| {
        let (_, to, bytes) = &all[at % all.len()];
        slowly(*to, bytes, bytes.len() / 2)
    });
    let held = Slow::begin(held.collect());
    // Whoever comes before all of them are there takes the place of one, which is refused for good.
    pause(Duration::from_secs(3));
    eventually("eight that hold their places", || {
        let (_, to, bytes) = &all[2];
        let mut ninth = begin(*to, bytes, bytes.len());
        let answer = ninth.answer("POST");
        (answer.status == 429).then_some(())
    });
    for (_, to, bytes) in &all {
        is_crowded(begin(*to, bytes, bytes.len()).answer("POST"));
    }
    other.deploy("one", module);
    // One goes, and its place is the next one's.
    let held = held.end();
    held[0].finish_sending().unwrap();
    eventually("a place", || {
        let answer = tenant.upload(&[("one.wasm", module)], None);
        (answer.status == 200).then_some(())
    });
    drop(held);
}

#[test]
fn an_upload_has_so_long_to_come() {
    let host = Host::with(&["--upload-time", "2s"]);
    let tenant = host.tenant("demo");
    let module = padded(guests::version_one(), 1 << 20, noise(1));
    let all = uploads(&host, &tenant, "one.wasm", &module);
    let senders = all.iter().map(|(_, to, bytes)| slowly(*to, bytes, 2_000));
    let senders = Slow::begin(senders.collect());
    pause(Duration::from_secs(4));
    for (mut connection, (name, ..)) in senders.end().into_iter().zip(&all) {
        let answer = connection.answer("POST");
        assert_eq!(answer.status, 408, "{name}: {}", answer.text());
        answer.expect_problem(408, "request_timeout").expect_detail("2s");
    }
    tenant.deploy("one", guests::version_one());
}

/// The rest of a request whose sender says that no more of it comes.
fn cut(to: SocketAddr, bytes: &[u8], sent: usize) -> Result<Answer, std::io::Error> {
    let mut connection = begin(to, bytes, sent);
    connection.finish_sending().unwrap();
    connection.try_answer("POST")
}

#[test]
fn who_ends_in_the_middle_of_a_body_is_told_so() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("echo", guests::echo());
    tenant.deploy_with("checked", guests::echo(), &json!({ "schema": { "body": {} } }));
    let mut all = uploads(&host, &tenant, "one.wasm", guests::version_one());
    let body = format!("\"{}\"", "x".repeat(3_000));
    for address in tenant.addresses() {
        for path in ["/echo", "/checked"] {
            let request = address.request("POST", path).body(&body);
            let request = request.header("content-type", "application/json");
            all.push((address.name, address.to, request.bytes("demo")));
        }
        let chunked = address.request("POST", "/echo").header("transfer-encoding", "chunked");
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        all.push((address.name, address.to, chunked.body(chunk).bytes("demo")));
    }
    let token = json!({ "name": "x".repeat(100), "scope": "deploy" });
    for request in [
        tenant.api("POST", "/tokens").json(&token),
        tenant.api("POST", "/functions/echo/invoke").body(&body),
        Request::new("POST", "/api/v1/restore").bearer(ADMIN_TOKEN).body(&body),
    ] {
        all.push(("the API", host.front, request.bytes("localhost")));
    }
    // Behind the first bytes of the body, in its midst, and before its last byte: at once, all of
    // them side by side, each on a connection of its own.
    let told: Vec<_> = all
        .iter()
        .flat_map(|(name, to, bytes)| {
            let head = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
            let middle = head + (bytes.len() - head) / 2;
            [head + 1, middle, bytes.len() - 3].map(|sent| (*name, *to, bytes.clone(), sent))
        })
        .map(|(name, to, bytes, sent)| {
            let line = String::from_utf8_lossy(&bytes[..60]).into_owned();
            let what = format!("{name}, {sent} of {} bytes of {line:?}", bytes.len());
            (what, std::thread::spawn(move || cut(to, &bytes, sent)))
        })
        .collect();
    for (what, answer) in told {
        match answer.join().unwrap() {
            // Eight at once have a place, whoever they are.
            Ok(answer) if answer.status == 429 && what.contains("upload") => {}
            Ok(answer) if answer.status == 429 && what.contains("/functions ") => {}
            // One at a time.
            Ok(answer) if answer.status == 409 && what.contains("/restore ") => {}
            Ok(answer) => {
                assert_eq!(answer.status, 400, "{what}: {}", answer.text());
                answer.expect_problem(400, "bad_request");
            }
            Err(error) => panic!("{what}: no answer: {error}"),
        }
    }
}

/// A request that is whole is answered, whatever its sender says after it.
#[test]
fn who_ends_behind_a_whole_body_gets_an_answer() {
    let host = Host::start();
    let tenant = host.tenant("demo");
    tenant.deploy("one", guests::repeats_one());
    for address in tenant.addresses() {
        for length in [1, 100, 16 << 10, 100_000] {
            let body = "x".repeat(length);
            let whole = address.request("POST", "/one").body(&body).bytes("demo");
            let head = whole.len() - length;
            for cut in [0, head, head + length / 2] {
                let mut connection = begin(address.to, &whole, cut);
                connection.send(&whole[cut..]).unwrap();
                connection.finish_sending().unwrap();
                let answer = connection.answer("POST").expect(200);
                assert_eq!(answer.text(), format!("one: {body}"), "{}", address.name);
            }
        }
        let request = upload(
            address.request("POST", "/$upload"),
            &[("two.wasm", guests::version_two())],
            None,
        );
        let bytes = request.bearer(&tenant.token).bytes("demo");
        cut(address.to, &bytes, bytes.len()).unwrap().expect(200);
    }
}
