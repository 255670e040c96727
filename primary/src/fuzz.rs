//! Where `ops/fuzz` comes in: an entry for each way on which strangers' bytes come here, with
//! what must hold whatever they are. The corpus of each is replayed below as an ordinary test.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures_util::stream;
use hearth_connection::forwarding::{Word, is_forwarding};
use hearth_connection::{Drain, Order, Received, Side, Waiting, end_request_hop};
use hearth_wire::{
    FromWorker, FromZygote, FunctionPath, Limits, PathMatch, Route, Routes, TenantName, ToWorker,
    What, header, parse,
};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;

use crate::fleet::conversation::Conversation;
use crate::gateway::origin_form;
use crate::gateway::peek::{Peek, peek};
use crate::gateway::proxy;
use crate::gateway::route::{Target, route};
use crate::generations::modules::{IngestError, Modules};
use crate::generations::room::Rooms;
use crate::names::Names;
use crate::store::TenantId;
use crate::upload::parts;

const DOMAIN: Option<&str> = Some("example.org");

fn names() -> Names {
    Names::new(DOMAIN.map(str::to_owned), vec!["hearth.example.org".to_owned()])
}

/// Of an upload's tenant.
const QUOTA: u64 = 4 << 20;
/// Of one input.
const BYTES_MAX: usize = 64 << 10;

/// Each in a runtime of its own, so that no input leaves a task to the next.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime can be built").block_on(future)
}

/// An upload's form. The first byte says into how large pieces it is cut on its way.
pub fn upload(bytes: &[u8]) {
    static MODULES: OnceLock<(tempfile::TempDir, Modules)> = OnceLock::new();
    let (_, modules) = MODULES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let modules = Modules::new(dir.path().to_owned(), dir.path().to_owned());
        (dir, modules)
    });
    let Some((cut, form)) = bytes.split_first() else { return };
    let limits = Limits { upload_bytes: 1 << 20, module_bytes: 1 << 20, ..Limits::default() };
    let pieces: Vec<Result<Bytes, axum::Error>> = form
        .chunks(usize::from(*cut).max(1))
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let headers = HeaderMap::from_iter([(
        CONTENT_TYPE,
        HeaderValue::from_static("multipart/form-data; boundary=b"),
    )]);
    let dir: FunctionPath = "/dir".parse().expect("a path");
    let room = Rooms::new(std::env::temp_dir(), 0).enter(TenantId(1), QUOTA);
    let spool = || modules.spool(&room);
    let read = parts::read(Some(&dir), &headers, stream::iter(pieces), &limits, spool);
    match run(read) {
        Ok(parts::Form { incoming, options, additions: _ }) => {
            assert!((1..=parts::FILES_MAX).contains(&incoming.len()));
            for (at, file) in incoming.iter().enumerate() {
                assert!(file.path.as_str().starts_with("/dir/"), "{}", file.path);
                let twice = |other: &parts::Incoming| other.path.folded() == file.path.folded();
                assert!(!incoming[..at].iter().any(twice));
            }
            assert!(options.keys().all(|path| incoming.iter().any(|file| file.path == *path)));
            for file in incoming {
                match modules.take_in(file.packing, file.spooled, limits.module_bytes, &room) {
                    Ok(arrived) => assert!((1..=limits.module_bytes).contains(&arrived.size)),
                    Err(error) => assert!(!matches!(error, IngestError::Disk(_)), "{error}"),
                }
            }
        }
        Err(error) => {
            let problem = crate::problem::of(&error);
            assert!(problem.status < 500, "{error}");
        }
    }
}

/// Frames of a control socket: a byte whose lowest bit says who speaks and whose others how many
/// descriptors came, two of the frame's length, and the frame.
pub fn control(bytes: &[u8]) {
    let now = Instant::now();
    let mut conversation = Conversation::new(now);
    conversation.told(&ToWorker::Told { serial: 1, what: What::Tokens(Vec::new()) });
    let mut rest = bytes;
    while let [kind, low, high, more @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(more.len());
        let (frame, after) = more.split_at(length);
        rest = after;
        // A zygote is ours, and what it says is parsed all the same.
        let _ = parse::<FromZygote>(frame);
        if kind & 1 == 1 {
            if let Ok(told) = parse::<ToWorker>(frame) {
                conversation.told(&told);
            }
            continue;
        }
        let Ok(said) = parse::<FromWorker>(frame) else { return };
        if conversation.said(&said, usize::from(kind >> 1)).is_err() {
            return;
        }
        let _ = conversation.pause(now);
        match said {
            FromWorker::Pass(passing) => assert_eq!(passing.len(), usize::from(kind >> 1)),
            FromWorker::Report(report) => {
                assert!(report.lines.len() + report.calls.len() <= hearth_wire::Report::ITEMS_MAX);
            }
            _ => {}
        }
    }
}

/// A host and a path, each a line: whom they are for, and what of that tenant's they name.
pub fn router(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(2, '\n');
    let (host, path) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let names = names();
    match route(Some(host), path, &names) {
        Target::Host(tenant) => {
            let host = host.to_ascii_lowercase();
            assert!(host.starts_with(&format!("{tenant}.")), "{host}");
        }
        Target::Path { tenant, prefix, rest } => {
            assert_eq!(prefix, format!("/t/{tenant}"));
            assert!(rest.starts_with('/') && (path == prefix || path == format!("{prefix}{rest}")));
        }
        Target::Platform => assert!(!path.starts_with("/t/")),
        Target::Nobody | Target::Stranger => {}
    }
    let functions = [("/exact", PathMatch::Exact), ("/below", PathMatch::Prefix)];
    let functions =
        functions.map(|(path, kind)| (path.parse::<FunctionPath>().expect("a path"), kind));
    let routes = Routes::new(functions.iter().map(|(path, kind)| (path, *kind)));
    match routes.find(path) {
        Route::Function(0) => assert!(path == "/exact" || path == "/exact/", "{path}"),
        Route::Function(_) => {
            let below = path.strip_prefix("/below").expect("it is below its prefix");
            assert!(below.is_empty() || below.starts_with('/'), "{path}");
            let below = percent_encoding::percent_decode_str(below).collect::<Vec<u8>>();
            let mut segments = below.split(|byte| *byte == b'/' || *byte == b'\\');
            assert!(!segments.any(|segment| segment == b".."), "{path}");
            assert!(!below.contains(&0), "{path}");
        }
        Route::Builtin(_) => assert!(path.contains('$'), "{path}"),
        Route::NotFound | Route::InvalidPath => {}
    }
    // With one that takes the rest, nothing that was another's or the platform's changes hands.
    let root = [("/root".parse::<FunctionPath>().expect("a path"), PathMatch::Root)];
    let all = functions.iter().chain(&root).map(|(path, kind)| (path, *kind));
    match Routes::new(all).find(path) {
        Route::Function(2) => {
            let plain = percent_encoding::percent_decode_str(path).collect::<Vec<u8>>();
            let mut segments = plain.split(|byte| *byte == b'/').filter(|it| !it.is_empty());
            assert!(segments.clone().all(|it| it != b".." && it != b"."), "{path}");
            assert!(!segments.clone().next().is_some_and(|it| it.starts_with(b"$")), "{path}");
            assert!(segments.next_back() != Some(b"$upload"), "{path}");
            assert!(path.starts_with('/'), "{path}");
        }
        other => assert_eq!(other, routes.find(path), "{path}"),
    }
}

/// The bytes of a connection, as a worker reads them itself, in pieces too, and as it reads them
/// through the front door; and what the front door thinks of their first head.
pub fn http(bytes: &[u8]) {
    if bytes.len() > BYTES_MAX {
        return;
    }
    let direct = run(seen(bytes, bytes.len().max(1), Way::Direct));
    let pieces = run(seen(bytes, 7, Way::Direct));
    same(&direct, &pieces);
    let proxied = run(seen(bytes, bytes.len().max(1), Way::Proxied));
    same(&direct, &proxied);
    if let (Peek::Tenant(tenant, _), Some(first)) = (peek(bytes, &names()), direct.first()) {
        let named = TenantName::of_host(&first.host, DOMAIN);
        assert_eq!(named, Some(Ok(tenant)), "{first:?}");
        let path = first.target.split('?').next().unwrap_or_default();
        assert!(path.starts_with('/') && !path.ends_with("/$upload"), "{first:?}");
    }
}

/// A request, as whoever answers it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    host: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    whole: bool,
}

/// What comes whole is the same to both, and so is the head of what does not: it is the last, and
/// one of the two may have given it up before its head was out.
fn same(ones: &[Seen], others: &[Seen]) {
    let whole = |all: &[Seen]| all.iter().filter(|seen| seen.whole).cloned().collect::<Vec<_>>();
    assert_eq!(whole(ones), whole(others), "{ones:#?}\n{others:#?}");
    for (one, other) in ones.iter().zip(others) {
        let head = |seen: &Seen| Seen { body: Vec::new(), ..seen.clone() };
        assert_eq!(head(one), head(other));
    }
    assert!(ones.len().abs_diff(others.len()) <= 1, "{ones:#?}\n{others:#?}");
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Direct,
    Proxied,
}

type Log = Arc<Mutex<Vec<Seen>>>;

async fn seen(bytes: &[u8], piece: usize, way: Way) -> Vec<Seen> {
    let log = Log::default();
    let (mut client, server) = duplex(4 * BYTES_MAX);
    let task = tokio::spawn(serve(server, way, Arc::clone(&log)));
    for piece in bytes.chunks(piece) {
        // It may have refused the rest.
        let _ = client.write_all(piece).await;
        settle().await;
    }
    settle().await;
    task.abort();
    let seen = log.lock().unwrap_or_else(PoisonError::into_inner);
    seen.clone()
}

/// Lets everything happen that can.
async fn settle() {
    for _ in 0..40 {
        tokio::task::yield_now().await;
    }
}

async fn serve(stream: DuplexStream, way: Way, log: Log) {
    let (_told, drain) = watch::channel(Drain::No);
    let answer = |request: Request<Received>| {
        let log = Arc::clone(&log);
        async move {
            let response = match way {
                Way::Direct => note(request, log).await,
                Way::Proxied => pass(request, log).await,
            };
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        }
    };
    hearth_connection::serve(
        Waiting::new(stream),
        Side::Outside,
        Order::AtOnce,
        drain,
        |_| (),
        |_| (),
        answer,
    )
    .await;
}

/// As the gateway passes a request on.
async fn pass(request: Request<Received>, log: Log) -> Response {
    let (near, far) = duplex(BYTES_MAX);
    let worker = async move {
        let (_told, drain) = watch::channel(Drain::No);
        let answer = |request: Request<Received>| {
            let noted = note(request, Arc::clone(&log));
            async { noted.await.map(|body| body.map_err(Into::into).boxed_unsync()) }
        };
        hearth_connection::serve(
            Waiting::new(far),
            Side::Primary,
            Order::InRound,
            drain,
            |_| (),
            |_| (),
            answer,
        )
        .await;
    };
    tokio::spawn(worker);
    let mut request = request.map(Body::new);
    let stranger = Word::Stranger([192, 0, 2, 7].into());
    proxy::request_headers(request.headers_mut(), stranger, None);
    proxy::to_worker(&mut request, "tenant.localhost");
    *request.uri_mut() = origin_form(request.uri(), request.uri().path());
    let failed = || {
        let mut failed = Response::new(Body::empty());
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        failed
    };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(near)).await else {
        return failed();
    };
    tokio::spawn(connection);
    match sender.send_request(request).await {
        Ok(response) => response.map(Body::new),
        Err(_) => failed(),
    }
}

async fn note(mut request: Request<Received>, log: Log) -> Response {
    let headers = request.headers_mut();
    end_request_hop(headers);
    let host = headers.remove(HOST);
    let host = host.map_or("tenant.localhost".to_owned(), |host| {
        String::from_utf8_lossy(host.as_bytes()).into_owned()
    });
    let told = |name: &HeaderName| is_forwarding(name) || header::is_reserved(name.as_str());
    let mut fields: Vec<(String, Vec<u8>)> = headers
        .iter()
        .filter(|(name, _)| {
            // What each hop says for itself.
            !told(name) && ![&CONTENT_LENGTH, &TRANSFER_ENCODING, &TE, &EXPECT].contains(name)
        })
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    fields.sort();
    // A whole address may have no path, which is the shortest one.
    let target = origin_form(request.uri(), request.uri().path()).to_string();
    let number = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(Seen {
            method: request.method().to_string(),
            target,
            host,
            fields,
            body: Vec::new(),
            whole: false,
        });
        log.len() - 1
    };
    let mut body = request.into_body();
    let whole = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log[number].body.extend_from_slice(&data);
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    log.lock().unwrap_or_else(PoisonError::into_inner)[number].whole = whole;
    Response::new(Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Of each file of a corpus, besides itself.
    const ALTERED: u64 = 40;
    const ALTERED_LONG: u64 = 4_000;

    fn replay(name: &str, entry: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/fuzz/corpus").join(name);
        let mut files: Vec<_> =
            fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty());
        let altered_each = match std::env::var_os("SOAK") {
            Some(_) => ALTERED_LONG,
            None => ALTERED,
        };
        for file in files {
            let bytes = fs::read(&file).unwrap();
            entry(&bytes);
            for seed in 1..=altered_each {
                // Printed where it fails, which is the only time that anybody reads it.
                println!("{} altered by {seed}", file.display());
                entry(&altered(&bytes, seed));
            }
        }
    }

    /// The same bytes for the same seed: some are others, gone, or there twice.
    fn altered(bytes: &[u8], seed: u64) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize % below.max(1)
        };
        const TELLING: &[u8] = b"\r\n\0 :;,/%.$\"-+0\xff\x80";
        let mut altered = bytes.to_vec();
        for _ in 0..1 + draw(4) {
            let at = draw(altered.len());
            let end = (at + 1 + draw(8)).min(altered.len());
            match draw(4) {
                0 if at < end => altered[at] = TELLING[draw(TELLING.len())],
                1 if at < end => altered[at] ^= 1 << draw(8),
                2 => drop(altered.drain(at..end)),
                _ => {
                    let again = altered[at..end].to_vec();
                    let to = draw(altered.len() + 1);
                    altered.splice(to..to, again);
                }
            }
        }
        altered
    }

    #[test]
    fn uploads() {
        replay("upload", upload);
    }

    #[test]
    fn control_frames() {
        replay("control", control);
    }

    #[test]
    fn hosts_and_paths() {
        replay("router", router);
    }

    #[test]
    fn connections() {
        replay("http", http);
    }
}
