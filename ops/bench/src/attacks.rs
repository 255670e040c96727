//! What somebody can do to a host from outside, with one tenant's deploy token or with none: each
//! attack goes on until it is told to end, and has a bound on what it has at once. Knows addresses
//! and bytes; whom it harms is for others to see.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use hearth_e2e::component;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::http::{form_of, request};
use crate::module::{numbered, padded};

/// Between two steps of those who do a little again and again.
const STEP: Duration = Duration::from_millis(100);
/// Of who was refused, until it comes again. A flood of requests would take the cores, which
/// attacker and host share here, and is not what these attacks are about.
const REFUSED: Duration = Duration::from_secs(1);
/// Of an upload, before it is given up.
const UPLOAD_MAX: Duration = Duration::from_secs(30);

const TRICKLING: usize = 540;
/// 600 a second.
const TRICKLED_BYTES: usize = 60;
/// Those who begin an upload and close their side, each step.
const ENDING: usize = 3;
const BEGUN_BYTES: usize = 2 << 10;

const BOMBERS: usize = 16;
/// 1.1 GB together, which is sent as 135 KB.
const BOMB_FILES: usize = 9;
const BOMB_FILE_BYTES: usize = 128 << 20;

const HARD_MODULES: usize = 16;
const TANGLED_BLOCKS: usize = 1_000;

const SLOW_READERS: usize = 300;
/// Asked for at once on each connection, and read by nobody.
const PIPELINED: usize = 8;
const SLOW_BUFFER_BYTES: usize = 4 << 10;

const SILENT: usize = 616;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Uploads that come at 600 bytes a second, and some that end after 2 KB.
    TrickledUploads,
    /// Small uploads that unpack to more than their tenant may keep.
    Bombs,
    HardModules,
    /// Of the API's document to browse, and of pages of log lines.
    SlowReaders,
    SilentConnections,
}

/// Who is made to do it.
pub struct Target {
    pub front: SocketAddr,
    /// The attacker's own tenant.
    pub name: String,
    pub own: SocketAddr,
    /// Of scope deploy.
    pub token: String,
    /// A function that answers.
    pub module: Vec<u8>,
}

impl Attack {
    /// Goes on until it is told to end. Returns how often it did what it does.
    pub fn run(self, target: &Target, ends: &AtomicBool) -> anyhow::Result<u32> {
        match self {
            Self::TrickledUploads => Ok(trickle(target, ends)),
            Self::Bombs => bomb(target, ends),
            Self::HardModules => overwork(target, ends),
            Self::SlowReaders => Ok(hold(target, ends, SLOW_READERS, read_slowly)),
            Self::SilentConnections => Ok(hold(target, ends, SILENT, say_nothing)),
        }
    }
}

impl Target {
    /// The head of an upload, at the tenant's three addresses by turns.
    fn upload(&self, at: usize, length: usize, content_type: &str) -> (SocketAddr, Vec<u8>) {
        let by_name = format!("{}.localhost:{}", self.name, self.front.port());
        let (to, host, prefix) = match at % 3 {
            0 => (self.own, self.own.to_string(), String::new()),
            1 => (self.front, by_name, String::new()),
            _ => (self.front, self.front.to_string(), format!("/t/{}", self.name)),
        };
        let head = format!(
            "POST {prefix}/$upload HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n",
            self.token
        );
        (to, head.into_bytes())
    }

    fn upload_of(&self, at: usize, files: &[(String, &[u8])]) -> (SocketAddr, Vec<u8>) {
        let (content_type, body) = form_of(files, None);
        let (to, head) = self.upload(at, body.len(), &content_type);
        (to, [head, body].concat())
    }
}

fn trickle(target: &Target, ends: &AtomicBool) -> u32 {
    const SAID_BYTES: usize = 10 << 20;
    let (content_type, form) = form_of(&[("slow.wasm".to_owned(), &target.module)], None);
    let mut begun = 0;
    let mut begin = |at: usize, bytes: usize| {
        let (to, head) = target.upload(at, SAID_BYTES, &content_type);
        let mut stream = connect(to)?;
        stream.set_write_timeout(Some(STEP))?;
        stream.write_all(&[&*head, &form[..bytes]].concat())?;
        begun += 1;
        io::Result::Ok(stream)
    };
    let mut trickling: Vec<Option<TcpStream>> = (0..TRICKLING).map(|_| None).collect();
    while !ends.load(Ordering::Relaxed) {
        for (at, slot) in trickling.iter_mut().enumerate() {
            // Who was closed comes again.
            let sent = match slot.take() {
                Some(mut stream) => stream.write_all(&[0; TRICKLED_BYTES]).map(|()| stream),
                None => begin(at, 200).and_then(|stream| {
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                }),
            };
            *slot = sent.ok();
        }
        for at in 0..ENDING {
            if let Ok(stream) = begin(at, BEGUN_BYTES) {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
        thread::park_timeout(STEP);
    }
    begun
}

fn bomb(target: &Target, ends: &AtomicBool) -> anyhow::Result<u32> {
    let module = padded(&target.module, BOMB_FILE_BYTES);
    let packed = zstd::encode_all(&*module, 1)?;
    drop(module);
    let files: Vec<_> =
        (0..BOMB_FILES).map(|at| (format!("bomb{at}.wasm.zst"), &*packed)).collect();
    Ok(again_and_again(BOMBERS, ends, |at, _| {
        let (to, bytes) = target.upload_of(at, &files);
        ask(to, &bytes, ends)
    }))
}

/// Each is another one, since what was compiled once is not compiled again.
fn overwork(target: &Target, ends: &AtomicBool) -> anyhow::Result<u32> {
    let module = tangled(TANGLED_BLOCKS);
    Ok(again_and_again(HARD_MODULES, ends, |at, number| {
        let module = zstd::encode_all(&*numbered(&module, number), 1)?;
        let (to, bytes) = target.upload_of(at, &[(format!("hard{at}.wasm.zst"), &module)]);
        ask(to, &bytes, ends)
    }))
}

/// Each of its blocks ends at every other one.
fn tangled(blocks: usize) -> Vec<u8> {
    let labels: String = (0..blocks).map(|at| format!(" {at}")).collect();
    let code = format!("(br_table{labels} (local.get 0))").repeat(blocks);
    let nested = format!("{}{code}{}", "(block ".repeat(blocks), ")".repeat(blocks));
    component::of_core(&format!(r#"(func (export "handle") (param i32 i32) {nested})"#))
}

/// So many at once, each of them over and over. Whatever they are answered is no matter.
fn again_and_again(
    many: usize,
    ends: &AtomicBool,
    act: impl Fn(usize, u32) -> io::Result<()> + Sync,
) -> u32 {
    let done = AtomicU32::new(0);
    thread::scope(|scope| {
        for at in 0..many {
            let (act, done) = (&act, &done);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    if act(at, done.fetch_add(1, Ordering::Relaxed)).is_err() {
                        thread::park_timeout(REFUSED);
                    }
                }
            });
        }
    });
    done.into_inner()
}

/// Sends all of it and waits for the end of what comes back, or until the attack ends. A refusal is
/// an error.
fn ask(to: SocketAddr, bytes: &[u8], ends: &AtomicBool) -> io::Result<()> {
    const FINE: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = connect(to)?;
    stream.set_write_timeout(Some(UPLOAD_MAX))?;
    stream.set_read_timeout(Some(STEP))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4 << 10];
    while !ends.load(Ordering::Relaxed) {
        match stream.read(&mut piece) {
            Ok(0) if answer.starts_with(FINE) => break,
            Ok(0) => return Err(ErrorKind::ConnectionRefused.into()),
            Ok(read) => answer.extend(&piece[..read.min(FINE.len())]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Has so many connections, and each that ends again.
fn hold(
    target: &Target,
    ends: &AtomicBool,
    many: usize,
    begin: impl Fn(&Target, usize) -> io::Result<TcpStream>,
) -> u32 {
    let mut begun = 0;
    let mut held: Vec<Option<TcpStream>> = (0..many).map(|_| None).collect();
    while !ends.load(Ordering::Relaxed) {
        for (at, slot) in held.iter_mut().enumerate() {
            if slot.as_ref().is_none_or(has_ended) {
                *slot = begin(target, at).ok();
                begun += u32::from(slot.is_some());
            }
        }
        thread::park_timeout(STEP);
    }
    begun
}

/// What has come is left where it is.
fn has_ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Whoever has no room for it does not keep the attacker.
fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(1);
    TcpStream::connect_timeout(&to, PATIENCE)
}

fn say_nothing(target: &Target, at: usize) -> io::Result<TcpStream> {
    let stream = connect([target.front, target.own][at % 2])?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn read_slowly(target: &Target, at: usize) -> io::Result<TcpStream> {
    let mut stream = connect(target.front)?;
    set_socket_recv_buffer_size(&stream, SLOW_BUFFER_BYTES)?;
    let bearer = format!("Bearer {}", target.token);
    let lines = format!("/api/v1/tenants/{}/logs?limit=1000", target.name);
    let page = ["/api/docs/swagger-ui-bundle.js", &*lines][at % 2];
    let headers = [("authorization", &*bearer)];
    let asked = request("GET", page, &target.front.to_string(), &headers, b"");
    stream.write_all(&asked.repeat(PIPELINED))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Lets this process have the descriptors that an attack takes.
pub fn allow_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    ensure!(most.is_none_or(|most| most > 2_000), "too few descriptors for an attack: {most:?}");
    Ok(())
}
