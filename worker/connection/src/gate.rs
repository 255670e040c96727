//! When a connection may be read, when it may be passed on and when it is closed. Pure: knows
//! phases, bytes and times, and no socket.
//!
//! ```text
//!  Never ── request ──► InService ── head out ──► Answering ── body out ──► Responded
//!                           ▲                                                  │
//!                           └──────────────────── next request ───────────────┘
//! ```
//!
//! In a drain no further request's head is taken. What is between two requests is passed on as
//! it is. What is not goes on to its answer, and hyper is told to stop as soon as that answer's
//! head is out and its function wants no more of the request's body: told earlier, it would say
//! `connection: close` in it; told while it waits for a first request, it would wait for that one.
//! From then on it takes what is left of the body, and leaves alone what comes in one piece with
//! that.
//!
//! An end that is known when an answer's head is made is said in it. One that is not said does not
//! come, but for a client that leaves off in the middle: what is left of a request's body is then
//! read to its end, whoever wanted it.

use std::time::{Duration, Instant};

use hearth_wire::limits::{
    HEAD_DEADLINE, HEAD_MAX_BYTES, HEAD_MAX_FIELDS, PASSED_ON_BYTES, PASSED_ON_FIELDS,
    READ_MAX_BYTES, SILENCE_MAX,
};

/// For the last bytes of a connection that is being closed.
pub const FINISH_DEADLINE: Duration = Duration::from_secs(10);
/// Once nobody is there to take a connection over: for what is on its way already.
pub const STOP_GRACE: Duration = Duration::from_millis(500);
/// A client that closed its side, and to whom or from whom nothing has moved for this long, is
/// taken for gone: TCP does not tell one that waits from one that left.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(10);
/// Between two looks whether anybody is at the other end. One that leaves is heard of at once, but
/// where bytes that nobody has read yet lie in front of its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What a client may keep us waiting in the middle of a body, either way: this long, and longer
/// by what it moves, at the least rate, up to a bound.
const SLOW_GRACE: Duration = Duration::from_secs(20);
const SLOW_BYTES_PER_SECOND: u64 = 500;
const SLOW_MAX: Duration = Duration::from_secs(60);
/// What is read of a body that its function did not want, so that the connection can be kept. Where
/// more was announced, its sender is told in time that the connection ends.
const FORGOTTEN_MAX_BYTES: u64 = 256 << 10;
/// From an answer's end to that of a request's body that nobody wants: as long as anybody is waited
/// for in the middle of one. Whoever still sends then has no next request on its way.
const FORGOTTEN_MAX: Duration = SLOW_MAX;

/// Whether the worker is coming to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    No,
    /// Somebody else takes the connections.
    HandOver,
    /// Nobody does, since then.
    Close(Instant),
}

impl Drain {
    /// Whether an answer that goes out now is its connection's last.
    pub fn closes(self) -> bool {
        matches!(self, Self::Close(_))
    }
}

/// How far the exchange is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No request so far.
    Never,
    /// A request is read and its answer's head is not made.
    InService,
    /// The head is made, the body is on its way.
    Answering,
    /// At least one answer is complete, and no request has come since.
    Responded,
}

/// What to do with the connection while nothing happens on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Until that moment, or until something happens.
    Wait(Option<Instant>),
    /// Nothing of it is under way here: it can go as it is.
    HandOver,
    /// The request's body is not waited for any longer: whoever reads it is to be told.
    CutOff,
    /// What is under way is the last; told to hyper once.
    Finish,
    /// Its time is up.
    Close,
}

/// One request and its answer. Bodies can outlive it; their word counts for nothing then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange(u64);

/// Who waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// We, for the first byte of a request.
    Silent,
    /// We, for the rest of its head.
    Asking,
    /// We, in the middle of an exchange: for more of the request, or for the answer to be read.
    Stalling,
    /// The client, for its answer.
    Served,
}

/// Whether the next bytes may be taken from the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Yes,
    /// Asked once more right after this, it may be so.
    AskAgain,
    /// Not before the service wants more of the body.
    WhenWanted,
    /// The client has closed its side, and hyper may know.
    Ended,
    No,
}

/// Who is at the other end, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client, whose connection can be passed on and must be bounded.
    Outside,
    /// The primary, which closes what it has opened.
    Primary,
}

impl Side {
    /// Of a request's head. The primary passes on what it was sent, and adds some of its own.
    pub fn head_max_bytes(self) -> usize {
        match self {
            Self::Outside => HEAD_MAX_BYTES,
            Self::Primary => HEAD_MAX_BYTES + PASSED_ON_BYTES,
        }
    }

    pub fn head_max_fields(self) -> usize {
        match self {
            Self::Outside => HEAD_MAX_FIELDS,
            Self::Primary => HEAD_MAX_FIELDS + PASSED_ON_FIELDS,
        }
    }
}

/// How far the other end has left, as its socket knows without being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    None,
    /// It sends nothing more.
    Half,
    /// Nobody takes anything more.
    Whole,
}

/// One direction of a body, and how long its client may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    patience: Duration,
    waits_since: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        Self { patience: SLOW_GRACE, waits_since: None }
    }

    fn moved(&mut self, bytes: usize, now: impl FnOnce() -> Instant) {
        // Nobody is waited for as long as everything moves.
        if let Some(since) = self.waits_since.take() {
            let left = self.patience.saturating_sub(now().saturating_duration_since(since));
            let earned = Duration::from_millis(bytes as u64 * 1_000 / SLOW_BYTES_PER_SECOND);
            self.patience = left.saturating_add(earned).min(SLOW_MAX);
        }
    }

    fn waits(&mut self, now: Instant) {
        self.waits_since.get_or_insert(now);
    }

    /// Nobody waits any more, though nothing moved.
    fn rests(&mut self) {
        self.waits_since = None;
    }

    /// When it has waited too long, if it waits.
    fn deadline(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + self.patience)
    }
}

/// Whether there is a request's first byte among these, which came between two of them. Empty
/// lines before it are nobody's (RFC 9112, section 2.2).
pub fn begins_head(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    side: Side,
    phase: Phase,
    exchange: Exchange,
    /// When it began to wait for a request; of no meaning in an exchange.
    since: Instant,
    /// When the first byte of a head came that is not complete yet.
    head_began: Option<Instant>,
    /// Bytes that were read since the last exchange: of a head, and what came with it.
    head_bytes: usize,
    /// Whether the request's body has not come whole.
    body_left: bool,
    /// Whether the service waits for more of it.
    body_wanted: bool,
    /// Whether what is left of it is read because the next request comes after it.
    forgets: bool,
    /// Whether all that came is read.
    read_is_blocked: bool,
    /// Whether reading waits for the service to want more of the body, or to have all of it.
    read_is_held: bool,
    /// Whether the client sends its body only when it is told to, and has not been.
    continue_owed: bool,
    asked_again: bool,
    incoming: Pace,
    outgoing: Pace,
    /// Whether its sender's pace is ours to judge: the next hop knows whether anybody waits for it.
    paced: bool,
    /// Whoever reads the body is told that no more of it comes.
    cut_off: bool,
    /// When the end of what the client sends was read. In an exchange hyper reads bodies alone, and
    /// this one has broken off.
    ended: Option<Instant>,
    /// Since when, in this exchange, the client has closed its side and nothing has moved.
    half_closed: Option<Instant>,
    /// When it was looked at last whether it is there.
    looked: Instant,
    /// It is not: nobody takes an answer any more.
    gone: bool,
    /// The answer has no length and no last chunk: only its connection's end tells where it ends.
    endless: bool,
    /// The answer broke off.
    cut: bool,
    /// Client or answer asked for the connection to be closed after this exchange.
    closes: bool,
    finishing: bool,
    /// Since the last answer all bytes are out: what hyper writes now is nobody's answer.
    flushed: bool,
}

impl Gate {
    /// A connection that has waited since then, with bytes of a head or without.
    pub fn new(side: Side, since: Instant, head_began: bool) -> Self {
        Self {
            side,
            phase: Phase::Never,
            exchange: Exchange(0),
            since,
            head_began: head_began.then_some(since),
            head_bytes: 0,
            body_left: false,
            body_wanted: false,
            forgets: false,
            read_is_blocked: false,
            read_is_held: false,
            continue_owed: false,
            asked_again: false,
            incoming: Pace::new(),
            outgoing: Pace::new(),
            paced: true,
            cut_off: false,
            ended: None,
            half_closed: None,
            looked: since,
            gone: false,
            endless: false,
            cut: false,
            closes: false,
            finishing: false,
            flushed: false,
        }
    }

    /// A request's head is complete.
    pub fn requested(&mut self, has_body: bool, expects: bool, closes: bool) -> Exchange {
        self.enter(Phase::InService);
        self.exchange.0 += 1;
        self.body_left = has_body;
        self.body_wanted = false;
        self.forgets = false;
        self.asked_again = false;
        self.continue_owed = has_body && expects;
        self.incoming = Pace::new();
        self.outgoing = Pace { waits_since: self.outgoing.waits_since, ..Pace::new() };
        self.closes |= closes;
        self.paced = true;
        self.half_closed = None;
        self.looked = Instant::now();
        self.exchange
    }

    /// Its answer's head is made.
    pub fn answering(&mut self, exchange: Exchange, closes: bool, endless: bool) {
        if exchange == self.exchange {
            self.enter(Phase::Answering);
            self.closes |= closes;
            self.endless = endless;
        }
    }

    /// The answer is not whole, and will not be.
    pub fn cut(&mut self, exchange: Exchange) {
        self.cut |= exchange == self.exchange;
    }

    /// Whether what was sent of an answer would be taken for all of it.
    pub fn looks_whole(&self) -> bool {
        self.endless && (self.cut || self.phase == Phase::Answering)
    }

    pub fn responded(&mut self, exchange: Exchange, now: Instant) {
        if exchange == self.exchange {
            self.enter(Phase::Responded);
            self.since = now;
            self.await_sender(|| now);
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.head_began = None;
        self.head_bytes = 0;
        self.flushed = false;
    }

    pub fn side(&self) -> Side {
        self.side
    }

    /// How much may be read at once: of a head no more than it may have, so that hyper has at
    /// most that before it refuses it.
    pub fn room(&self) -> usize {
        match self.in_exchange() {
            true => READ_MAX_BYTES,
            false => {
                self.side.head_max_bytes().saturating_sub(self.head_bytes).clamp(1, READ_MAX_BYTES)
            }
        }
    }

    pub fn flushed(&mut self) {
        self.flushed = true;
    }

    /// Whether bytes that hyper writes now are its own: it refuses a head that is none.
    pub fn is_refusing(&self) -> bool {
        !self.in_exchange() && (self.phase == Phase::Never || self.flushed)
    }

    /// The service waits for more of it; with the first time hyper says `100 Continue`. Whether
    /// the driver is to look.
    pub fn body_wanted(&mut self, exchange: Exchange, now: impl FnOnce() -> Instant) -> bool {
        if exchange != self.exchange {
            return false;
        }
        self.body_wanted = true;
        self.continue_owed = false;
        self.await_sender(now) | std::mem::take(&mut self.read_is_held)
    }

    /// The service has more of it, or all. Whether the driver is to look.
    pub fn body_came(&mut self, exchange: Exchange, whole: bool) -> bool {
        if exchange != self.exchange {
            return false;
        }
        self.body_wanted = false;
        self.incoming.rests();
        self.body_left &= !whole;
        whole && std::mem::take(&mut self.read_is_held)
    }

    /// What came of it is no body, and what comes behind it no request.
    pub fn body_broke(&mut self, exchange: Exchange) {
        if exchange == self.exchange {
            self.body_wanted = false;
            self.incoming.rests();
            self.forgets = false;
            self.closes = true;
        }
    }

    /// The service wants no more of it. So much of it is to come, where that is known. Whether it
    /// is read and forgotten, since the next request comes after it. If not, the connection ends:
    /// where much is left, or is sent only when we ask for it, and the answer can still say so.
    pub fn body_dropped(&mut self, exchange: Exchange, left: Option<u64>) -> bool {
        if exchange != self.exchange || !self.body_left || self.forgets {
            return false;
        }
        self.body_wanted = false;
        self.incoming.rests();
        let is_much = left.is_some_and(|left| left > FORGOTTEN_MAX_BYTES);
        self.closes |= self.phase == Phase::InService && (is_much || self.continue_owed);
        self.forgets = !self.closes;
        self.forgets
    }

    /// Whether what is left of that one's body is still read and forgotten: not where the
    /// connection ends, and has said so.
    pub fn forgets(&self, exchange: Exchange, drain: Drain) -> bool {
        let ends = self.phase == Phase::Responded && (self.closes || drain.closes());
        exchange == self.exchange && self.forgets && self.body_left && !ends
    }

    /// Whether that exchange is the connection's last, as far as is known by now.
    pub fn is_last(&self) -> bool {
        self.closes || self.continue_owed || self.ended.is_some()
    }

    /// While all is read that came of a body, and its function wants more; or nobody does, and
    /// nothing else is left to do.
    fn sender_is_awaited(&self) -> bool {
        let is_needed = !self.forgets || self.phase == Phase::Responded;
        self.body_left && self.body_wanted && is_needed && self.read_is_blocked
    }

    /// When it has kept us waiting for too long.
    fn sender_deadline(&self) -> Option<Instant> {
        self.incoming.deadline().filter(|_| self.paced && self.sender_is_awaited())
    }

    /// Another hop reads the body of that exchange, and says when its sender is too slow.
    pub fn is_paced_elsewhere(&mut self, exchange: Exchange) {
        self.paced &= exchange != self.exchange;
    }

    /// No more of the body is waited for.
    pub fn cut_off(&mut self, now: Instant) {
        self.cut_off = true;
        self.ended.get_or_insert(now);
        self.incoming.rests();
    }

    /// Whether this begins now.
    fn await_sender(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let begins = self.sender_is_awaited() && self.incoming.waits_since.is_none();
        if begins {
            self.incoming.waits(now());
        }
        begins
    }

    pub fn finishing(&mut self) {
        self.finishing = true;
    }

    pub fn body_is_left(&self) -> bool {
        self.body_left
    }

    pub fn presence(&self) -> Presence {
        let stalls = self.write_is_blocked() || self.incoming.waits_since.is_some();
        match self.head_began {
            Some(_) => Presence::Asking,
            None if !self.in_exchange() => Presence::Silent,
            None if stalls => Presence::Stalling,
            None => Presence::Served,
        }
    }

    /// Since when it waits for its client.
    pub fn waits_since(&self) -> Instant {
        self.head_began.unwrap_or(self.since)
    }

    /// Until the answer is out and the request's body has come, which can be in either order.
    pub fn in_exchange(&self) -> bool {
        match self.phase {
            Phase::InService | Phase::Answering => true,
            Phase::Responded => self.body_left,
            Phase::Never => false,
        }
    }

    pub fn may_read(&mut self, drains: bool) -> Reading {
        // A link ends when the primary closes it, which is also something to read.
        let drains = drains && self.side == Side::Outside;
        match (self.in_exchange(), self.ended, drains) {
            (false, Some(_), _) => Reading::Ended,
            (true, Some(_), _) if self.cut_off && self.body_left => Reading::Ended,
            (true, Some(_), _) => Reading::No,
            (_, None, false) => Reading::Yes,
            (false, None, true) => Reading::No,
            (true, None, true) if !self.body_left => Reading::No,
            (true, None, true) if !self.body_wanted => {
                self.read_is_held = true;
                Reading::WhenWanted
            }
            // It is told in a moment, and only then leaves alone what comes behind the body.
            (true, None, true) if self.may_be_told() => Reading::AskAgain,
            // hyper also reads on when the service has not taken the body's last bytes yet. By
            // the next time it has, and then these bytes are the next request's.
            (true, None, true) if !std::mem::replace(&mut self.asked_again, true) => {
                Reading::AskAgain
            }
            (true, None, true) => {
                self.asked_again = false;
                Reading::Yes
            }
        }
    }

    /// What its socket knows of the other end, asked in an exchange.
    pub fn is_absent(&mut self, absence: Absence, now: Instant) {
        self.looked = now;
        match absence {
            Absence::None => {}
            Absence::Half => drop(self.half_closed.get_or_insert(now)),
            Absence::Whole => self.gone = true,
        }
    }

    /// Who moves anything, or for whom anything moves, is there.
    fn moves(&mut self) {
        if let Some(since) = &mut self.half_closed {
            *since = Instant::now();
        }
    }

    pub fn read(&mut self, bytes: &[u8]) {
        self.read_is_blocked = false;
        if self.in_exchange() {
            self.moves();
            self.incoming.moved(bytes.len(), Instant::now);
            return;
        }
        if self.head_began.is_none() && begins_head(bytes) {
            self.head_began = Some(Instant::now());
        }
        self.head_bytes += bytes.len();
    }

    pub fn read_waits(&mut self) {
        self.read_is_blocked = true;
        self.await_sender(Instant::now);
    }

    pub fn read_ended(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    pub fn wrote(&mut self, bytes: usize) {
        self.moves();
        self.outgoing.moved(bytes, Instant::now);
    }

    pub fn write_waits(&mut self, now: Instant) {
        self.outgoing.waits(now);
    }

    pub fn write_is_blocked(&self) -> bool {
        self.outgoing.waits_since.is_some()
    }

    /// Whether a connection that hyper is done with can be another process's: everything that
    /// was owed is out, and whatever comes next is a request's first byte.
    pub fn can_be_handed_over(&self) -> bool {
        self.side == Side::Outside
            && self.finishing
            && self.ended.is_none()
            && !self.closes
            && !self.body_left
            && !self.write_is_blocked()
    }

    /// When to look again whether anybody is at the other end.
    pub fn looks_at(&self) -> Option<Instant> {
        self.in_exchange().then(|| self.looked + LOOK_EVERY)
    }

    /// Whether hyper may be told in an exchange that it is the last: not while a function may yet
    /// want some of the request's body, since hyper can be done before it has that.
    fn may_be_told(&self) -> bool {
        self.phase != Phase::InService && !self.finishing && (self.forgets || !self.body_left)
    }

    /// `now` is asked where something has a deadline.
    pub fn verdict(&self, drain: Drain, now: impl Fn() -> Instant) -> Verdict {
        let until = |deadline: Instant, then: Verdict| {
            if now() < deadline { Verdict::Wait(Some(deadline)) } else { then }
        };
        if self.gone {
            return Verdict::Close;
        }
        // Not before all is read that came, so that nothing behind it is lost.
        let most = if drain == Drain::HandOver { FINISH_DEADLINE } else { FORGOTTEN_MAX };
        let forgotten = (self.forgets && self.phase == Phase::Responded && self.read_is_blocked)
            .then(|| self.since + most);
        if self.in_exchange() {
            // Behind the answer nobody is left to tell, and who passes a body on has its own bound.
            let answered = self.phase == Phase::Responded;
            let sender = self.sender_deadline().filter(|_| self.side == Side::Outside || !answered);
            let gone = self.half_closed.map(|since| since + HALF_CLOSED_MAX);
            let slow = match self.side {
                // It closes a link when its caller goes.
                Side::Primary => forgotten,
                Side::Outside => {
                    [self.outgoing.deadline(), gone, forgotten].into_iter().flatten().min()
                }
            };
            let passed = |deadline: Option<Instant>| deadline.is_some_and(|it| it <= now());
            let passes_on = self.side == Side::Outside && drain == Drain::HandOver;
            return if passed(slow) || (passed(sender) && answered) {
                Verdict::Close
            } else if passed(sender) {
                Verdict::CutOff
            } else if passes_on && self.may_be_told() {
                Verdict::Finish
            } else {
                // A call has its own deadline, and the answer's end is a new phase.
                Verdict::Wait(slow.into_iter().chain(sender).min())
            };
        }
        if self.side == Side::Primary {
            return Verdict::Wait(None);
        }
        if let Some(slow) = self.outgoing.deadline() {
            return until(slow, Verdict::Close);
        }
        if self.finishing {
            return until(self.since + FINISH_DEADLINE, Verdict::Close);
        }
        match (drain, self.head_began) {
            _ if self.ended.is_some() => Verdict::Finish,
            (Drain::HandOver, _) if self.phase == Phase::Never => Verdict::HandOver,
            (Drain::HandOver, _) => Verdict::Finish,
            // Somebody is asking: nobody who asks is turned away.
            (Drain::No, Some(began)) => until(began + HEAD_DEADLINE, Verdict::Close),
            (Drain::Close(asked), Some(began)) => {
                let grace = asked.max(began) + STOP_GRACE;
                until(grace.min(began + HEAD_DEADLINE), Verdict::Close)
            }
            (Drain::No, None) => until(self.since + SILENCE_MAX, Verdict::Finish),
            (Drain::Close(asked), None) if self.phase == Phase::Never => {
                until(asked.max(self.since) + STOP_GRACE, Verdict::Finish)
            }
            (Drain::Close(_), None) => Verdict::Finish,
        }
    }
}

#[cfg(test)]
mod tests;
