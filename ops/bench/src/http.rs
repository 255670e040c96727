//! HTTP/1.1 as the bench speaks it: requests as bytes that are made once, and answers read
//! exactly, so that a wrong one ends a measurement. Knows nothing of Hearth.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX_BYTES: usize = 16 << 20;

pub fn request(
    method: &str,
    target: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// The content type and the body of a form of modules, each with its name, and perhaps options.
pub fn form(modules: &[(&str, &[u8])], options: Option<&str>) -> (String, Vec<u8>) {
    let files: Vec<_> =
        modules.iter().map(|(name, module)| (format!("{name}.wasm"), *module)).collect();
    form_of(&files, options)
}

/// The same of files, which may be packed.
pub fn form_of(files: &[(String, &[u8])], options: Option<&str>) -> (String, Vec<u8>) {
    let boundary = "----the-boundary-of-the-bench";
    let mut body = Vec::new();
    let mut part = |name: &str, content_type: &str, bytes: &[u8]| {
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name={name}\r\n\
             content-type: {content_type}\r\n\r\n"
        );
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    };
    for (name, bytes) in files {
        part(&format!("\"file\"; filename=\"{name}\""), "application/wasm", bytes);
    }
    if let Some(options) = options {
        part("\"options\"", "application/json", options.as_bytes());
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

#[derive(Debug, PartialEq)]
pub struct Answer<'a> {
    pub status: u16,
    /// Whether the connection ends with it.
    pub closes: bool,
    pub body: Cow<'a, [u8]>,
}

impl Answer<'_> {
    /// The answer that begins the bytes, and its length; nothing where more must come.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Answer<'_>, usize)>> {
        let Some(head_length) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..head_length])?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
        let status = status.and_then(|status| status.parse().ok());
        let status: u16 = status.with_context(|| format!("no answer: {head}"))?;
        let (mut closes, mut length, mut chunked) = (false, None, false);
        for line in lines {
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.parse::<usize>()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.eq_ignore_ascii_case("close");
            }
        }
        let rest = &bytes[head_length + 4..];
        if status == 204 {
            return Ok(Some((
                Answer { status, closes, body: Cow::Borrowed(b"") },
                head_length + 4,
            )));
        }
        let body = match (chunked, length) {
            (true, None) => unchunk(rest)?.map(|(body, length)| (Cow::Owned(body), length)),
            (false, Some(length)) => rest.get(..length).map(|body| (Cow::Borrowed(body), length)),
            _ => bail!("an answer of unknown length: {head}"),
        };
        Ok(body.map(|(body, length)| (Answer { status, closes, body }, head_length + 4 + length)))
    }
}

/// A chunked body without trailers, and how long it was with its chunks' heads.
fn unchunk(bytes: &[u8]) -> anyhow::Result<Option<(Vec<u8>, usize)>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + end])?;
        let size = usize::from_str_radix(size, 16).context("a chunk without its size")?;
        at += end + 2;
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        ensure!(chunk.ends_with(b"\r\n"), "a chunk does not end where it says");
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// One caller who waits for each answer. Its connection is kept as long as the server keeps it.
pub struct Client {
    to: SocketAddr,
    /// An address of this machine, if it is not to be the kernel's choice.
    from: Option<Ipv4Addr>,
    stream: Option<TcpStream>,
}

/// A whole answer, and how long it took from before a connection was opened for it, if none was
/// there, until its first byte came.
pub struct Timed {
    pub status: u16,
    pub body: Vec<u8>,
    pub first_byte: Duration,
}

impl Client {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, from: None, stream: None }
    }

    pub fn new_from(from: Ipv4Addr, to: SocketAddr) -> Self {
        Self { to, from: Some(from), stream: None }
    }

    /// Sends a request and takes its answer, whose status must be one of success.
    pub fn call(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let Timed { status, body, .. } = self.time(request)?;
        let said = String::from_utf8_lossy(&body);
        ensure!((200..300).contains(&status), "answered {status}: {said}");
        Ok(body)
    }

    /// The same, whatever the status.
    pub fn time(&mut self, request: &[u8]) -> anyhow::Result<Timed> {
        let begun = Instant::now();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        stream.write_all(request)?;
        let mut bytes = Vec::new();
        let mut part = [0; 16 << 10];
        let mut first_byte = None;
        loop {
            let got = stream.read(&mut part)?;
            let first_byte = *first_byte.get_or_insert_with(|| begun.elapsed());
            ensure!(got > 0, "the connection ended before the answer did");
            bytes.extend_from_slice(&part[..got]);
            ensure!(bytes.len() <= ANSWER_MAX_BYTES, "an answer without end");
            let Some((answer, length)) = Answer::parse(&bytes)? else { continue };
            ensure!(length == bytes.len(), "more came than one answer");
            if !answer.closes {
                self.stream = Some(stream);
            }
            return Ok(Timed { status: answer.status, body: answer.body.into_owned(), first_byte });
        }
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = match self.from {
            None => TcpStream::connect(self.to)?,
            Some(from) => {
                let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
                bind(&socket, &SocketAddr::from((from, 0)))?;
                connect(&socket, &self.to)?;
                socket.into()
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nhi";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 500 No\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n";

    #[test]
    fn an_answer_is_read_once_it_is_whole_and_no_further() {
        for (bytes, status, closes) in [(SIZED, 200, false), (CHUNKED, 500, true)] {
            for length in 0..bytes.len() {
                assert_eq!(Answer::parse(&bytes[..length]).unwrap(), None, "{length}");
            }
            let two = [bytes, bytes].concat();
            let whole = Answer { status, closes, body: Cow::Borrowed(b"hi") };
            assert_eq!(Answer::parse(&two).unwrap(), Some((whole, bytes.len())));
        }
    }

    #[test]
    fn an_answer_without_content_ends_with_its_head() {
        let bytes = b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n";
        let none = Answer { status: 204, closes: false, body: Cow::Borrowed(b"") };
        assert_eq!(Answer::parse(bytes).unwrap(), Some((none, bytes.len())));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bytes in [
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert!(Answer::parse(bytes.as_bytes()).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_form_has_its_modules_and_its_options() {
        let (content_type, body) = form(&[("f", b"module")], Some("{}"));
        let boundary = content_type.strip_prefix("multipart/form-data; boundary=").unwrap();
        let expected = format!(
            "--{boundary}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"f.wasm\"\r\n\
             content-type: application/wasm\r\n\r\nmodule\r\n\
             --{boundary}\r\n\
             content-disposition: form-data; name=\"options\"\r\n\
             content-type: application/json\r\n\r\n{{}}\r\n\
             --{boundary}--\r\n"
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let bytes = request("POST", "/f", "h", &[("a", "b")], b"{}");
        assert_eq!(bytes, b"POST /f HTTP/1.1\r\nhost: h\r\na: b\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(request("GET", "/", "h", &[], b""), b"GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    }
}
