//! Clients: they do what a plan says and tell what they saw. A connection is kept from one call to
//! the next for as long as neither side has said that it ends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::http::{Connection, Request};
use crate::mix::judge::{Answer, Body, Seen};
use crate::mix::plan::{End, PIECE, Phase, Plan, Reads, Sends, Way};
use crate::processes::pause;

/// Who comes by no proxy comes from here, which is nobody's whom the host trusts.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Where a tenant is called by one way.
#[derive(Debug, Clone)]
pub struct Address {
    pub way: Way,
    pub to: SocketAddr,
    pub host: String,
    pub prefix: String,
}

impl Address {
    pub fn request(&self, method: &str, target: &str) -> Request {
        let request = Request::new(method, &format!("{}{target}", self.prefix));
        request.header("host", &self.host)
    }

    pub fn open(&self) -> io::Result<Connection> {
        if self.way.is_proxied() {
            Connection::open(self.to)
        } else {
            Connection::open_from(STRANGER, self.to)
        }
    }

    fn head(&self, plan: &Plan) -> Vec<u8> {
        let mut request =
            self.request("POST", &plan.target()).header("x-request-id", &plan.request_id());
        request = match plan.chunked {
            true => request.header("transfer-encoding", "chunked"),
            false => request.header("content-length", &plan.body.to_string()),
        };
        if plan.expects {
            request = request.header("expect", "100-continue");
        }
        request.bytes("")
    }
}

/// A connection that goes on, which both sides know.
pub struct Kept {
    connection: Connection,
    /// Whether it was answered before anybody needed all of its request.
    pub was_early: bool,
}

/// Makes one call. The connection is one that was kept or none; what is left in its place is for
/// the next. Returns what was seen, and since when it was waited for.
pub fn call(address: &Address, plan: &Plan, kept: &mut Option<Kept>) -> (Seen, Instant) {
    let was_kept = kept.is_some();
    let opened = kept.take().map_or_else(|| address.open(), |kept| Ok(kept.connection));
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => return (Seen::Lost(format!("not connected: {error}")), Instant::now()),
    };
    let sent = send(address, plan, &mut connection);
    let sent_at = Instant::now();
    let seen = match (sent, plan.end.left()) {
        (Sent::Refused(answer), _) => read_body(plan, &mut connection, answer),
        (Sent::Failed(error), _) => match read(plan, &mut connection) {
            Seen::Lost(why) => Seen::Lost(format!("it could not be sent: {error}; {why}")),
            seen => seen,
        },
        (Sent::Whole, None | Some(Phase::HalfAnswer)) => read(plan, &mut connection),
        (Sent::Whole, Some(_)) => Seen::Nothing,
    };
    let seen = match seen {
        Seen::Lost(why) if was_kept => Seen::Lost(format!("on a kept connection: {why}")),
        seen => seen,
    };
    match plan.end {
        End::Waits => *kept = keep(plan, connection, &seen),
        End::HalfClosed | End::Fin(_) => drop(connection),
        End::Rst(_) => connection.reset(),
    }
    (seen, sent_at)
}

enum Sent {
    /// As much as was planned.
    Whole,
    /// It was answered before it was allowed to send its body.
    Refused(Head),
    Failed(io::Error),
}

fn send(address: &Address, plan: &Plan, connection: &mut Connection) -> Sent {
    let sent = match send_part(address, plan, connection) {
        Ok(sent) => sent,
        Err(error) => return Sent::Failed(error),
    };
    if plan.end == End::HalfClosed {
        let _ = connection.finish_sending();
    }
    sent
}

fn send_part(address: &Address, plan: &Plan, connection: &mut Connection) -> io::Result<Sent> {
    let head = address.head(plan);
    match plan.end.left() {
        Some(Phase::Connected) => return Ok(Sent::Whole),
        Some(Phase::HalfHead) => {
            connection.send(&head[..head.len() / 2])?;
            return Ok(Sent::Whole);
        }
        _ => connection.send(&head)?,
    }
    if plan.end.left() == Some(Phase::Head) {
        return Ok(Sent::Whole);
    }
    if plan.expects {
        let said = Head::read(connection)?;
        if said.status != 100 {
            return Ok(Sent::Refused(said));
        }
    }
    let body = plan.request_body();
    let half = body.len() / 2;
    let (pieces, waits) = match plan.sends {
        Sends::Trickled { pieces, pause } => (pieces, Some(pause)),
        Sends::AtOnce | Sends::HalfAfterTheAnswer => (1, None),
    };
    let holds = plan.sends == Sends::HalfAfterTheAnswer;
    let stops = holds || plan.end.left() == Some(Phase::HalfBody);
    let now = if stops { &body[..half] } else { &body[..] };
    for piece in now.chunks(body.len().div_ceil(pieces).max(1)) {
        if let Some(waits) = waits {
            pause(waits);
        }
        connection.send(&framed(plan, piece))?;
    }
    if !stops {
        connection.send(end(plan))?;
    }
    Ok(Sent::Whole)
}

fn framed(plan: &Plan, piece: &[u8]) -> Vec<u8> {
    if plan.chunked && !piece.is_empty() {
        [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
    } else {
        piece.to_vec()
    }
}

fn end(plan: &Plan) -> &'static [u8] {
    if plan.chunked { b"0\r\n\r\n" } else { b"" }
}

fn keep(plan: &Plan, mut connection: Connection, seen: &Seen) -> Option<Kept> {
    let Seen::Answer(answer) = seen else { return None };
    if answer.cut.is_some() || answer.closes {
        return None;
    }
    if plan.sends == Sends::HalfAfterTheAnswer {
        let body = plan.request_body();
        connection.send(&framed(plan, &body[body.len() / 2..])).ok()?;
        connection.send(end(plan)).ok()?;
    }
    Some(Kept { connection, was_early: plan.body > 0 && plan.reads != Reads::All })
}

struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn read(connection: &mut Connection) -> io::Result<Self> {
        let head = connection.head()?;
        Ok(Self { status: head.status, headers: head.headers })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| &**value)
    }
}

fn read(plan: &Plan, connection: &mut Connection) -> Seen {
    loop {
        match Head::read(connection) {
            // Some say it to whoever did not ask.
            Ok(head) if head.status == 100 => {}
            Ok(head) => return read_body(plan, connection, head),
            Err(error) => return Seen::Lost(error.to_string()),
        }
    }
}

fn read_body(plan: &Plan, connection: &mut Connection, head: Head) -> Seen {
    let number = |text: &str| text.parse().ok();
    let version = |text: &str| number(text.strip_prefix("/mix@")?);
    let closes =
        head.get("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"));
    let mut cut = None;
    let mut body = Vec::new();
    let mut pieces = Pieces::new(&head);
    loop {
        if plan.end.left() == Some(Phase::HalfAnswer) && !body.is_empty() {
            cut = Some("it left".to_owned());
            break;
        }
        match pieces.next(connection) {
            Ok(Some(piece)) => {
                let before = body.len() / PIECE;
                body.extend(piece);
                if plan.dawdles > Duration::ZERO && body.len() / PIECE > before {
                    pause(plan.dawdles);
                }
            }
            Ok(None) => break,
            Err(error) => {
                cut = Some(error.to_string());
                break;
            }
        }
    }
    Seen::Answer(Answer {
        status: head.status,
        nonce: head.get("x-nonce").and_then(number),
        request_id: head.get("x-request-id").map(str::to_owned),
        version: head.get("x-hearth-version").and_then(version),
        body: Body::of(plan, &body),
        cut,
        closes,
    })
}

/// What is left of an answer's body.
enum Pieces {
    Length(usize),
    /// So much of the chunk that has begun.
    Chunked(usize),
    ToTheEnd,
    None,
}

impl Pieces {
    fn new(head: &Head) -> Self {
        let length = head.get("content-length").and_then(|length| length.parse().ok());
        match (head.status, head.get("transfer-encoding"), length) {
            (204 | 304, ..) => Self::None,
            (_, Some(_), _) => Self::Chunked(0),
            (_, None, Some(length)) => Self::Length(length),
            (_, None, None) => Self::ToTheEnd,
        }
    }

    fn next(&mut self, connection: &mut Connection) -> io::Result<Option<Vec<u8>>> {
        let left = match self {
            Self::None | Self::Length(0) => return Ok(None),
            Self::ToTheEnd => {
                let piece = connection.some(PIECE)?;
                return Ok((!piece.is_empty()).then_some(piece));
            }
            Self::Length(left) => left,
            Self::Chunked(left) => {
                if *left == 0 {
                    let line = connection.line()?;
                    *left = usize::from_str_radix(&line, 16)
                        .map_err(|_| io::Error::other(format!("not a chunk: {line}")))?;
                    if *left == 0 {
                        connection.fields()?;
                        *self = Self::None;
                        return Ok(None);
                    }
                }
                left
            }
        };
        let piece = connection.some(PIECE.min(*left))?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= piece.len();
        if *left == 0 && matches!(self, Self::Chunked(_)) && !connection.line()?.is_empty() {
            return Err(io::Error::other("a chunk does not end where it says"));
        }
        Ok(Some(piece))
    }
}
