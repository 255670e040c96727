//! Tells which call it had and what came of its body, so that no answer can be taken for another
//! call's. Its query says what it does:
//!
//! - `nonce=N`: said in the header `x-nonce`, in the answer's first line and in all that follows;
//! - `read=all|some|none`: how much of the body it waits for (`some`: one piece);
//! - `ms=M`: it waits before it answers;
//! - `bytes=B`: what follows the first line, in `pieces=P` pieces, with `pause=MS` before each;
//! - `framing=chunked|length|short|empty`: whether it tells its length, tells ten bytes too many,
//!   or answers 204.

use std::fmt::Write as _;
use std::io::Write;

use testing::{Out, Request, begin, number, pause, target};
use wasip2::http::types::{IncomingBody, OutgoingBody};
use wasip2::io::streams::StreamError;

testing::guest!(handle);

const SHORT_BY: usize = 10;
const PIECE: u64 = 4 << 10;

fn handle(request: Request, out: Out) {
    let nonce = number(&request, "nonce").unwrap();
    let read = body(&request);
    if let Some(milliseconds) = number(&request, "ms") {
        pause(milliseconds);
    }
    // Whoever sent half of it must not be told that it was taken for the whole.
    let Some((length, sum)) = read else {
        return testing::respond(out, 422, &[], b"the body broke off");
    };
    let mut text = String::new();
    writeln!(text, "nonce={nonce} read={length} sum={sum:016x}").unwrap();
    let bytes = number(&request, "bytes").unwrap_or(0);
    let filling = (0..bytes).map(|at| (nonce.wrapping_add(at) % 251) as u8);
    let said: Vec<u8> = text.into_bytes().into_iter().chain(filling).collect();
    let name = nonce.to_string();
    let length = |more: usize| (said.len() + more).to_string();
    let (status, told) = match option(&request, "framing").as_deref() {
        Some("empty") => (204, None),
        Some("length") => (200, Some(length(0))),
        Some("short") => (200, Some(length(SHORT_BY))),
        _ => (200, None),
    };
    let mut headers = vec![("x-nonce", &*name)];
    headers.extend(told.as_deref().map(|length| ("content-length", length)));
    let answer = begin(out, status, &headers);
    if status == 200 {
        let pieces = number(&request, "pieces").unwrap_or(1).max(1) as usize;
        let mut sink = answer.write().unwrap();
        for piece in said.chunks(said.len().div_ceil(pieces)) {
            if let Some(milliseconds) = number(&request, "pause") {
                pause(milliseconds);
            }
            // Whoever waited for it may be gone.
            if sink.write_all(piece).is_err() || sink.flush().is_err() {
                break;
            }
        }
    }
    // It fails where less was sent than was told, which is what `short` is for.
    let _ = OutgoingBody::finish(answer, None);
}

/// How many bytes were read and their sum; nothing where they broke off.
fn body(request: &Request) -> Option<(usize, u64)> {
    let read = option(request, "read");
    if read.as_deref() == Some("none") {
        return Some((0, SUM_OF_NOTHING));
    }
    let body = request.consume().unwrap();
    let source = body.stream().unwrap();
    let (mut length, mut sum) = (0, SUM_OF_NOTHING);
    loop {
        match source.blocking_read(PIECE) {
            Ok(piece) => {
                length += piece.len();
                sum = add(sum, &piece);
                if read.as_deref() == Some("some") && length > 0 {
                    return Some((length, sum));
                }
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return None,
        }
    }
    drop(source);
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    trailers.get().unwrap().unwrap().ok()?;
    Some((length, sum))
}

/// FNV-1a.
const SUM_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

fn add(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn option(request: &Request, name: &str) -> Option<String> {
    let target = target(request);
    let (_, query) = target.split_once('?')?;
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.to_owned())
}
