//! What one client does in one call, in every respect in which it may be another kind of client,
//! and what it may be answered. Plain data, and choices among it.

use std::time::Duration;

use crate::traffic::Choices;

/// What a client reads at once at most.
pub const PIECE: usize = 8 << 10;
/// Of what `read=some` waits for, as the guest `mirrors` has it.
const SOME: usize = 4 << 10;

/// The address at which a call comes in, and what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Port,
    Name,
    Path,
    Nginx,
    Haproxy,
    Caddy,
}

impl Way {
    pub const ALL: [Self; 6] =
        [Self::Port, Self::Name, Self::Path, Self::Nginx, Self::Haproxy, Self::Caddy];

    pub fn is_proxied(self) -> bool {
        matches!(self, Self::Nginx | Self::Haproxy | Self::Caddy)
    }
}

/// How much of the body the function waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    All,
    Some,
    None,
}

/// How the answer says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Chunked,
    Length,
    /// It tells more than comes.
    Short,
    /// 204
    Empty,
}

/// How far a client that leaves has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Connected,
    HalfHead,
    Head,
    HalfBody,
    /// Everything is sent.
    Asked,
    HalfAnswer,
}

impl Phase {
    pub const ALL: [Self; 6] = [
        Self::Connected,
        Self::HalfHead,
        Self::Head,
        Self::HalfBody,
        Self::Asked,
        Self::HalfAnswer,
    ];
}

/// How a client's part in the call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has its answer.
    Waits,
    /// The same, and it closed its side when everything was sent.
    HalfClosed,
    Fin(Phase),
    Rst(Phase),
}

impl End {
    pub fn left(self) -> Option<Phase> {
        match self {
            Self::Waits | Self::HalfClosed => None,
            Self::Fin(phase) | Self::Rst(phase) => Some(phase),
        }
    }
}

/// How a body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sends {
    AtOnce,
    /// In so many pieces, with a pause before each.
    Trickled {
        pieces: usize,
        pause: Duration,
    },
    /// The second half when the answer is there.
    HalfAfterTheAnswer,
}

#[derive(Debug, Clone)]
pub struct Plan {
    /// Of no other call.
    pub nonce: u64,
    pub way: Way,
    pub body: usize,
    pub chunked: bool,
    pub expects: bool,
    pub sends: Sends,
    pub reads: Reads,
    /// Before the function answers.
    pub thinks_ms: u64,
    /// Bytes behind its first line.
    pub answer: usize,
    pub framing: Framing,
    pub pieces: usize,
    pub pause_ms: u64,
    /// Before each [`PIECE`] that the client reads.
    pub dawdles: Duration,
    pub end: End,
}

impl Plan {
    /// One who asks, waits, and asks again.
    pub fn polite(choices: &mut Choices, nonce: u64, way: Way) -> Self {
        let body = match choices.below(8) {
            0 => 0,
            1 => 10_000 + choices.below(90_000) as usize,
            _ => choices.below(2_000) as usize,
        };
        let answer = match choices.below(8) {
            0 => 10_000 + choices.below(200_000) as usize,
            _ => choices.below(2_000) as usize,
        };
        Self {
            nonce,
            way,
            body,
            chunked: body > 0 && choices.below(3) == 0,
            expects: false,
            sends: Sends::AtOnce,
            reads: Reads::All,
            thinks_ms: if choices.below(5) == 0 { choices.below(200) } else { 0 },
            answer,
            framing: [Framing::Chunked, Framing::Length][choices.below(2) as usize],
            pieces: 1 + choices.below(3) as usize,
            pause_ms: choices.below(3),
            dawdles: Duration::ZERO,
            end: End::Waits,
        }
    }

    /// One of every other kind, and now and then a polite one.
    pub fn rough(choices: &mut Choices, nonce: u64, way: Way) -> Self {
        let mut plan = Self::polite(choices, nonce, way);
        match choices.below(12) {
            0 => {}
            1 => plan.framing = Framing::Empty,
            2 => plan.framing = Framing::Short,
            3 => plan.end = End::HalfClosed,
            4 => {
                plan.body = 1 + choices.below(30_000) as usize;
                plan.expects = true;
                plan.reads = if choices.below(3) == 0 { Reads::None } else { Reads::All };
            }
            5 => {
                plan.body = match choices.below(3) {
                    0 => 1_000_000,
                    1 => 100_000,
                    _ => 1_000,
                };
                plan.reads = [Reads::None, Reads::Some][choices.below(2) as usize];
            }
            6 => {
                plan.body = 200 + choices.below(5_000) as usize;
                let pieces = 2 + choices.below(20) as usize;
                let pause = Duration::from_millis(10 + choices.below(150));
                plan.sends = Sends::Trickled { pieces, pause };
            }
            7 => {
                plan.answer = 500_000 + choices.below(2_000_000) as usize;
                plan.dawdles = Duration::from_millis(choices.below(30));
            }
            _ => plan.leaves(choices),
        }
        plan
    }

    fn leaves(&mut self, choices: &mut Choices) {
        let phase = Phase::ALL[choices.below(Phase::ALL.len() as u64) as usize];
        self.end = if choices.below(2) == 0 { End::Fin(phase) } else { End::Rst(phase) };
        match phase {
            Phase::Connected | Phase::HalfHead => {}
            Phase::Head | Phase::HalfBody => {
                self.body = 2 + choices.below(20_000) as usize;
                self.reads =
                    [Reads::All, Reads::All, Reads::Some, Reads::None][choices.below(4) as usize];
            }
            Phase::Asked => self.thinks_ms = [0, 100, 4_000][choices.below(3) as usize],
            Phase::HalfAnswer => {
                self.answer = [20_000, 8_000_000][choices.below(2) as usize];
                self.pieces = 4;
                self.pause_ms = 50;
            }
        }
    }

    /// What takes nearly as long as anything may, and must be let.
    pub fn patient(kind: usize, nonce: u64, way: Way, long: Duration) -> Self {
        const BYTES_PER_SECOND: usize = 700;
        let plan = Self {
            nonce,
            way,
            body: 2_000,
            chunked: kind.is_multiple_of(2),
            expects: false,
            sends: Sends::AtOnce,
            reads: Reads::All,
            thinks_ms: 0,
            answer: 1_000,
            framing: Framing::Length,
            pieces: 1,
            pause_ms: 0,
            dawdles: Duration::ZERO,
            end: End::Waits,
        };
        let pieces = 4 * long.as_secs() as usize;
        let pause = long / pieces as u32;
        // Caddy passes on no answer before it has the request whole, and nginx closes a connection,
        // unsaid, whose request is not whole when its answer is.
        let kind = if matches!(way, Way::Caddy | Way::Nginx) && kind == 1 { 0 } else { kind };
        match kind {
            // Sends slowly.
            0 => Self {
                body: BYTES_PER_SECOND * long.as_secs() as usize,
                sends: Sends::Trickled { pieces, pause },
                ..plan
            },
            // Is answered slowly, and keeps back what nobody asks it for.
            1 => Self {
                // More than is read before its function begins.
                body: 40_000,
                sends: Sends::HalfAfterTheAnswer,
                reads: Reads::Some,
                answer: 100_000,
                pieces,
                pause_ms: pause.as_millis() as u64,
                ..plan
            },
            // Reads slowly.
            _ => Self { answer: PIECE * pieces, dawdles: pause, framing: Framing::Chunked, ..plan },
        }
    }

    pub fn request_id(&self) -> String {
        format!("mix-{}", self.nonce)
    }

    pub fn target(&self) -> String {
        let reads = match self.reads {
            Reads::All => "all",
            Reads::Some => "some",
            Reads::None => "none",
        };
        let framing = match self.framing {
            Framing::Chunked => "chunked",
            Framing::Length => "length",
            Framing::Short => "short",
            Framing::Empty => "empty",
        };
        let Self { nonce, thinks_ms, answer, pieces, pause_ms, .. } = self;
        format!(
            "/mix?nonce={nonce}&read={reads}&ms={thinks_ms}&bytes={answer}&framing={framing}\
             &pieces={pieces}&pause={pause_ms}"
        )
    }

    /// No other call's, and nowhere like itself.
    pub fn request_body(&self) -> Vec<u8> {
        (0..self.body as u64).map(|at| ((self.nonce * 7 + at) % 253) as u8).collect()
    }

    pub fn status(&self) -> u16 {
        if self.framing == Framing::Empty { 204 } else { 200 }
    }

    /// Whether this is how the function's answer to this call begins, as far as it has come.
    pub fn begins(&self, said: &[u8]) -> Result<(), String> {
        if self.framing == Framing::Empty {
            return if said.is_empty() { Ok(()) } else { Err("a 204 with a body".to_owned()) };
        }
        let Some(end) = said.iter().position(|byte| *byte == b'\n') else {
            let line = format!("nonce={} read=", self.nonce);
            let common = said.len().min(line.len());
            return if said[..common] == line.as_bytes()[..common] {
                Ok(())
            } else {
                Err(format!("it begins {:?}", String::from_utf8_lossy(said)))
            };
        };
        let (line, filling) = (String::from_utf8_lossy(&said[..end]), &said[end + 1..]);
        let length = self.read_bytes(&line)?;
        let sum = sum(&self.request_body()[..length]);
        let expected = format!("nonce={} read={length} sum={sum:016x}", self.nonce);
        if line != expected {
            return Err(format!("it says {line:?} instead of {expected:?}"));
        }
        let filled = filling.len() <= self.answer
            && (0..).zip(filling).all(|(at, byte)| *byte == ((self.nonce + at) % 251) as u8);
        if filled { Ok(()) } else { Err("behind its first line are other bytes".to_owned()) }
    }

    /// How much of the body the function says that it read, where it can have been so much.
    fn read_bytes(&self, line: &str) -> Result<usize, String> {
        let length = line.split(' ').find_map(|word| word.strip_prefix("read=")?.parse().ok());
        let may_be = match self.reads {
            Reads::All => self.body..=self.body,
            Reads::Some => self.body.min(1)..=self.body.min(SOME),
            Reads::None => 0..=0,
        };
        length
            .filter(|length| may_be.contains(length))
            .ok_or_else(|| format!("it says {line:?} of {} bytes", self.body))
    }

    /// Whether it is all of the answer.
    pub fn is_whole(&self, said: &[u8]) -> bool {
        match (self.framing, said.iter().position(|byte| *byte == b'\n')) {
            (Framing::Empty, _) => said.is_empty(),
            (_, Some(end)) => said.len() == end + 1 + self.answer,
            (_, None) => false,
        }
    }
}

/// Of [`Plan::patient`].
pub const PATIENT: usize = 3;

/// FNV-1a, as the guest has it.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
