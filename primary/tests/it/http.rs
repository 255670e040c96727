//! HTTP/1.1 as the tests speak it: blocking, byte by byte where a test needs it, and strict in
//! what it reads, so that a malformed answer fails a test. Knows nothing of Hearth.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;

/// No answer takes longer, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The headers in which a proxy says whom it forwards for, and some that only look like it.
pub const FORWARDING: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-forwarded-whatever",
    "x-real-ip",
];

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Whether it says that the connection ends with it.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} {:?}", self.text(), self.headers);
        self
    }

    /// The platform's own answer: status and code agree, and its sentence helps.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let said = self.text();
        assert_eq!(self.status, status, "{said}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{said}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{said}");
        assert_eq!(problem["status"], status, "{said}");
        assert!(problem["title"].is_string() && problem["type"].is_string(), "{said}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{said}");
        assert!(self.header("x-request-id").is_some(), "{said}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.len() > 10 && !detail.contains("/tmp/"), "{said}");
        self
    }

    #[track_caller]
    pub fn expect_detail(self, part: &str) -> Self {
        let problem = self.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{part:?} is not in {detail:?}");
        self
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// One request, as it is written to the wire.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if find(&self.headers, "host").is_none() {
            write!(head, "host: {host}\r\n").unwrap();
        }
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let framed = ["content-length", "transfer-encoding"]
            .into_iter()
            .any(|name| find(&self.headers, name).is_some());
        if !framed && (!self.body.is_empty() || self.method == "POST") {
            write!(head, "content-length: {}\r\n", self.body.len()).unwrap();
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// On a connection of its own.
    pub fn try_send(&self, to: SocketAddr) -> io::Result<Answer> {
        let mut connection = Connection::open(to)?;
        // A server may answer before it has read everything, and close.
        let sent = connection.send(&self.bytes(&to.to_string()));
        match connection.try_answer(&self.method) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }

    #[track_caller]
    pub fn send(&self, to: SocketAddr) -> Answer {
        self.try_send(to).unwrap_or_else(|e| panic!("{} {}: {e}", self.method, self.target))
    }
}

/// A connection that stays open for as long as the test wants it.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect(to)?)
    }

    /// From another of the machine's own addresses, as another client has.
    pub fn open_from(ip: Ipv4Addr, to: SocketAddr) -> io::Result<Self> {
        let (family, kind, flags) = (AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(family, kind, flags, None)?;
        rustix::net::bind(&socket, &SocketAddr::from((ip, 0)))?;
        rustix::net::connect(&socket, &to)?;
        Self::of(TcpStream::from(socket))
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    #[track_caller]
    pub fn call(&mut self, request: &Request) -> Answer {
        let host = self.stream.get_ref().peer_addr().unwrap().to_string();
        self.send(&request.bytes(&host)).unwrap();
        self.answer(&request.method)
    }

    #[track_caller]
    pub fn answer(&mut self, method: &str) -> Answer {
        self.try_answer(method).unwrap_or_else(|e| panic!("no whole answer: {e}"))
    }

    pub fn try_answer(&mut self, method: &str) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let empty = method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304);
        if empty {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk()? {
                answer.body.extend(chunk);
            }
            answer.trailers = self.fields()?;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| malformed("content-length"))?;
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body)?;
        } else {
            self.stream.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// So many bytes of a body whose head was read.
    pub fn try_body(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; bytes];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    /// Status line and headers, and nothing behind them.
    pub fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or(line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| malformed(&line))?;
        Ok(Answer { status, headers: self.fields()?, body: Vec::new(), trailers: Vec::new() })
    }

    /// One chunk as it was sent; `None` after the last, before the trailers.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| malformed(&line))?;
        if length == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        if chunk.split_off(length) != b"\r\n" {
            return Err(malformed("a chunk does not end where it says"));
        }
        Ok(Some(chunk))
    }

    pub fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// What has come, waited for where it is nothing, and at most so much; nothing at the end.
    pub fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let come = self.stream.fill_buf()?;
        let some = come[..come.len().min(most)].to_vec();
        self.stream.consume(some.len());
        Ok(some)
    }

    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.strip_suffix("\r\n").or(line.strip_suffix('\n')) {
            Some(line) => Ok(line.to_owned()),
            None => Err(malformed("a line without its end")),
        }
    }

    /// Whether the peer has closed, once everything that it sent is read.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// This end's address and the peer's.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let stream = self.stream.get_ref();
        (stream.local_addr().unwrap(), stream.peer_addr().unwrap())
    }

    /// Answers are waited for so long instead.
    pub fn wait_for(&self, patience: Duration) -> io::Result<()> {
        self.stream.get_ref().set_read_timeout(Some(patience))
    }

    /// What was not read of it yet is lost.
    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }

    /// Leaves as a process does that is killed with something unread: the peer is told at once.
    pub fn reset(self) {
        let stream = self.stream.into_inner();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }

    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}

/// One part of a `multipart/form-data` body.
pub struct Part<'a> {
    pub name: &'a str,
    pub file: Option<&'a str>,
    pub bytes: &'a [u8],
}

/// The content type and the body of a form.
pub fn form(parts: &[Part<'_>]) -> (String, Vec<u8>) {
    let boundary = "----the-boundary-of-the-tests";
    let mut body = Vec::new();
    for Part { name, file, bytes } in parts {
        write!(body, "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"").unwrap();
        if let Some(file) = file {
            write!(body, "; filename=\"{file}\"\r\ncontent-type: application/wasm").unwrap();
        }
        body.extend_from_slice(b"\r\n\r\n");
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    write!(body, "--{boundary}--\r\n").unwrap();
    (format!("multipart/form-data; boundary={boundary}"), body)
}
