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
//! head is out: told earlier, it would say `connection: close` in it, and told while it waits
//! for a first request it would wait for that one.

use std::time::{Duration, Instant};

use hearth_wire::limits::{
    HEAD_DEADLINE, HEAD_MAX_BYTES, HEAD_MAX_FIELDS, PASSED_ON_BYTES, PASSED_ON_FIELDS,
    READ_MAX_BYTES, SILENCE_MAX,
};

/// For the last bytes of a connection that is being closed.
pub const FINISH_DEADLINE: Duration = Duration::from_secs(10);
/// A client that closed its side and has no answer after this long is taken for gone: TCP does
/// not tell one that waits from one that left.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(10);
/// What a client may keep us waiting in the middle of a body, either way: this long, and longer
/// by what it moves, at the least rate, up to a bound.
const SLOW_GRACE: Duration = Duration::from_secs(20);
const SLOW_BYTES_PER_SECOND: u64 = 500;
const SLOW_MAX: Duration = Duration::from_secs(60);

/// Whether the worker is coming to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    No,
    /// Somebody else takes the connections.
    HandOver,
    /// Nobody does, since then.
    Close(Instant),
    /// Nor is anybody waited for who has not said a word.
    Stop,
}

impl Drain {
    /// Whether an answer that goes out now is its connection's last.
    pub fn closes(self) -> bool {
        matches!(self, Self::Close(_) | Self::Stop)
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
    /// What is under way is the last; told to hyper once.
    Finish,
    /// Its time is up.
    Close,
}

/// Who waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// We, for the first byte of a request.
    Silent,
    /// We, for the rest of its head.
    Asking,
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

    /// When it has waited too long, if it waits.
    fn deadline(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + self.patience)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    side: Side,
    phase: Phase,
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
    /// Whether the client sends its body only when it is told to, and has not been.
    continue_owed: bool,
    asked_again: bool,
    incoming: Pace,
    outgoing: Pace,
    /// When the client closed its side, which hyper is not told while an answer is owed, unless
    /// it needs more to make it.
    ended: Option<Instant>,
    /// Whether the service has wanted more of the body since then, with all of it taken that came.
    cut_off: bool,
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
            since,
            head_began: head_began.then_some(since),
            head_bytes: 0,
            body_left: false,
            body_wanted: false,
            continue_owed: false,
            asked_again: false,
            incoming: Pace::new(),
            outgoing: Pace::new(),
            ended: None,
            cut_off: false,
            closes: false,
            finishing: false,
            flushed: false,
        }
    }

    /// A request's head is complete.
    pub fn requested(&mut self, has_body: bool, expects: bool, closes: bool) {
        self.enter(Phase::InService);
        self.body_left = has_body;
        self.body_wanted = false;
        self.continue_owed = has_body && expects;
        self.incoming = Pace::new();
        self.outgoing = Pace { waits_since: self.outgoing.waits_since, ..Pace::new() };
        self.closes |= closes;
    }

    /// Its answer's head is made.
    pub fn answering(&mut self, closes: bool) {
        self.enter(Phase::Answering);
        self.closes |= closes;
    }

    pub fn responded(&mut self, now: Instant) {
        self.enter(Phase::Responded);
        self.since = now;
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.head_began = None;
        self.head_bytes = 0;
        self.flushed = false;
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

    /// The service waits for more of it; with the first time hyper says `100 Continue`.
    pub fn body_wanted(&mut self) {
        self.body_wanted = true;
        self.continue_owed = false;
        self.cut_off |= self.body_left && self.ended.is_some();
    }

    pub fn body_came(&mut self, whole: bool) {
        self.body_wanted = false;
        self.body_left &= !whole;
    }

    pub fn finishing(&mut self) {
        self.finishing = true;
    }

    pub fn body_is_left(&self) -> bool {
        self.body_left
    }

    pub fn continue_is_owed(&self) -> bool {
        self.continue_owed
    }

    pub fn presence(&self) -> Presence {
        match self.head_began {
            Some(_) => Presence::Asking,
            None if self.in_exchange() => Presence::Served,
            None => Presence::Silent,
        }
    }

    /// Since when it waits for its client.
    pub fn waits_since(&self) -> Instant {
        self.head_began.unwrap_or(self.since)
    }

    /// Until the answer is out and the request's body has come, which can be in either order.
    fn in_exchange(&self) -> bool {
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
            (true, Some(_), _) if self.body_left && self.cut_off => Reading::Ended,
            (true, Some(_), _) if self.body_left => Reading::WhenWanted,
            (true, Some(_), _) => Reading::No,
            (_, None, false) => Reading::Yes,
            (false, None, true) => Reading::No,
            (true, None, true) if !self.body_left => Reading::No,
            (true, None, true) if !self.body_wanted => Reading::WhenWanted,
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

    pub fn read(&mut self, bytes: usize) {
        if self.in_exchange() {
            self.incoming.moved(bytes, Instant::now);
        } else {
            self.head_began.get_or_insert_with(Instant::now);
            self.head_bytes += bytes;
        }
    }

    pub fn read_waits(&mut self) {
        if self.in_exchange() && self.body_left && self.body_wanted {
            self.incoming.waits(Instant::now());
        }
    }

    /// Whether hyper may be told.
    pub fn read_ended(&mut self, now: Instant) -> bool {
        self.ended.get_or_insert(now);
        !self.in_exchange()
    }

    pub fn wrote(&mut self, bytes: usize) {
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

    /// `now` is asked where something has a deadline.
    pub fn verdict(&self, drain: Drain, now: impl Fn() -> Instant) -> Verdict {
        let until = |deadline: Instant, then: Verdict| {
            if now() < deadline { Verdict::Wait(Some(deadline)) } else { then }
        };
        if self.side == Side::Primary {
            return Verdict::Wait(None);
        }
        if self.in_exchange() {
            let gone = self.ended.filter(|_| self.phase == Phase::InService);
            let gone = gone.map(|ended| ended + HALF_CLOSED_MAX);
            let slow = [self.incoming.deadline(), self.outgoing.deadline(), gone];
            let slow = slow.into_iter().flatten().min();
            return match (slow, drain) {
                (Some(deadline), _) if deadline <= now() => Verdict::Close,
                (_, Drain::HandOver) if self.phase == Phase::Answering && !self.finishing => {
                    Verdict::Finish
                }
                // A call has its own deadline, and the answer's end is a new phase.
                (deadline, _) => Verdict::Wait(deadline),
            };
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
            (Drain::No | Drain::Close(_) | Drain::Stop, Some(began)) => {
                until(began + HEAD_DEADLINE, Verdict::Close)
            }
            (Drain::No, None) => until(self.since + SILENCE_MAX, Verdict::Finish),
            (Drain::Close(asked), None) if self.phase == Phase::Never => {
                until(asked.max(self.since) + HEAD_DEADLINE, Verdict::Finish)
            }
            (Drain::Close(_) | Drain::Stop, None) => Verdict::Finish,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Phase::{Answering, InService, Never, Responded};
    use proptest::prelude::*;

    const PHASES: [Phase; 4] = [Never, InService, Answering, Responded];

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn gate(phase: Phase, since: Instant) -> Gate {
        Gate { phase, ..Gate::new(Side::Outside, since, false) }
    }

    fn drains(asked: Instant) -> [Drain; 4] {
        [Drain::No, Drain::HandOver, Drain::Close(asked), Drain::Stop]
    }

    #[test]
    fn a_call_is_never_cut_and_a_link_never_closed() {
        let now = Instant::now();
        let late = now + seconds(100_000);
        for drain in drains(now) {
            for phase in PHASES {
                for head_began in [None, Some(now)] {
                    let link = Gate { side: Side::Primary, head_began, ..gate(phase, now) };
                    assert_eq!(link.verdict(drain, || late), Verdict::Wait(None), "{link:?}");
                }
            }
            assert_eq!(gate(InService, now).verdict(drain, || late), Verdict::Wait(None));
            let answering = match drain {
                Drain::HandOver => Verdict::Finish,
                Drain::No | Drain::Close(_) | Drain::Stop => Verdict::Wait(None),
            };
            assert_eq!(gate(Answering, now).verdict(drain, || late), answering);
            let told = Gate { finishing: true, ..gate(Answering, now) };
            assert_eq!(told.verdict(drain, || late), Verdict::Wait(None));
        }
    }

    /// Between two exchanges: every phase, with and without a head begun, by every drain.
    #[test]
    fn when_a_connection_from_outside_is_closed_or_passed_on() {
        let start = Instant::now();
        let at = |s: u64| start + seconds(s);
        let wait = |s: u64| Verdict::Wait(Some(at(s)));
        let (no, pass, close) = (Drain::No, Drain::HandOver, Drain::Close(at(20)));
        for (phase, head_began, drain, now, verdict) in [
            (Never, None, no, 5, wait(75)),
            (Never, None, no, 75, Verdict::Finish),
            (Never, Some(30), no, 35, wait(40)),
            (Never, Some(30), no, 40, Verdict::Close),
            (Never, None, pass, 20, Verdict::HandOver),
            (Never, Some(19), pass, 20, Verdict::HandOver),
            (Never, None, close, 25, wait(30)),
            (Never, None, close, 30, Verdict::Finish),
            (Never, Some(21), close, 25, wait(31)),
            (Never, Some(21), close, 31, Verdict::Close),
            (Responded, None, no, 5, wait(75)),
            (Responded, None, no, 75, Verdict::Finish),
            (Responded, Some(30), no, 40, Verdict::Close),
            (Responded, None, pass, 20, Verdict::Finish),
            (Responded, Some(19), pass, 20, Verdict::Finish),
            (Responded, None, close, 20, Verdict::Finish),
            (Responded, Some(19), close, 20, wait(29)),
            (Responded, Some(19), close, 29, Verdict::Close),
        ] {
            let gate = Gate { head_began: head_began.map(at), ..gate(phase, start) };
            assert_eq!(gate.verdict(drain, || at(now)), verdict, "{gate:?} {drain:?} at {now}");
            let told = Gate { finishing: true, ..gate };
            let finish = if now < 10 { wait(10) } else { Verdict::Close };
            assert_eq!(told.verdict(drain, || at(now)), finish, "{told:?} {drain:?} at {now}");
            let ended = Gate { ended: Some(start), ..gate };
            assert_eq!(ended.verdict(drain, || at(now)), Verdict::Finish, "{ended:?}");
        }
    }

    #[test]
    fn a_half_closed_client_waits_for_an_answer_but_not_for_ever() {
        let start = Instant::now();
        let deadline = start + HALF_CLOSED_MAX;
        for drain in drains(start) {
            let waits = Gate { ended: Some(start), ..gate(InService, start) };
            assert_eq!(waits.verdict(drain, || start), Verdict::Wait(Some(deadline)));
            assert_eq!(waits.verdict(drain, || deadline), Verdict::Close);
            // What it does not take any more the kernel tells.
            let answered = Gate { ended: Some(start), finishing: true, ..gate(Answering, start) };
            assert_eq!(answered.verdict(drain, || deadline), Verdict::Wait(None));
        }
    }

    #[test]
    fn a_slow_client_earns_its_time_by_what_it_moves() {
        let start = Instant::now();
        let at = |s: u64| start + seconds(s);
        let mut pace = Pace::new();
        pace.moved(1 << 30, || start);
        assert_eq!((pace.deadline(), pace.patience), (None, SLOW_GRACE));
        for (from, to, bytes, left) in [
            (0, 10, 500, 11),
            (10, 20, 10_000, 21),
            (20, 30, 1 << 30, 60),
            (30, 89, 500, 2),
            (89, 99, 0, 0),
        ] {
            pace.waits(at(from));
            assert_eq!(pace.deadline(), Some(at(from) + pace.patience));
            pace.moved(bytes, || at(to));
            assert_eq!((pace.patience, pace.waits_since), (seconds(left), None), "at {to}");
        }
    }

    #[test]
    fn a_client_that_is_too_slow_is_cut_off() {
        let start = Instant::now();
        let pace = Pace { waits_since: Some(start), ..Pace::new() };
        let deadline = start + SLOW_GRACE;
        for (gate, applies) in [
            (Gate { incoming: pace, ..gate(InService, start) }, true),
            (Gate { incoming: pace, finishing: true, ..gate(Answering, start) }, true),
            (Gate { outgoing: pace, finishing: true, ..gate(Answering, start) }, true),
            (Gate { outgoing: pace, ..gate(Responded, start) }, true),
            (Gate { incoming: pace, ..gate(Responded, start) }, false),
            (Gate { incoming: pace, body_left: true, ..gate(Responded, start) }, true),
        ] {
            for drain in drains(start) {
                let closes = gate.verdict(drain, || deadline) == Verdict::Close;
                assert_eq!(closes, applies, "{gate:?} {drain:?}");
            }
        }
    }

    /// Whether it drains, the phase, body left, body wanted, side closed: what is read.
    #[test]
    fn what_is_read_when() {
        use Reading::{AskAgain, Ended, No, WhenWanted, Yes};
        let now = Instant::now();
        for phase in PHASES {
            for (body_left, body_wanted) in [(false, false), (true, false), (true, true)] {
                let exchange = match phase {
                    InService | Answering => true,
                    Responded => body_left,
                    Never if body_left => continue,
                    Never => false,
                };
                let open = Gate { body_left, body_wanted, ..gate(phase, now) };
                assert_eq!({ open }.may_read(false), Yes, "{open:?}");
                let ended = Gate { ended: Some(now), ..open };
                for drains in [false, true] {
                    let expected = match (exchange, body_left) {
                        (false, _) => Ended,
                        (true, false) => No,
                        // The service may not have taken yet all that came.
                        (true, true) => WhenWanted,
                    };
                    assert_eq!({ ended }.may_read(drains), expected, "{ended:?}");
                    let mut asked = ended;
                    asked.body_wanted();
                    let expected = if body_left { Ended } else { expected };
                    assert_eq!(asked.may_read(drains), expected, "{asked:?}");
                }
                let expected = match (exchange, body_left, body_wanted) {
                    (false, ..) | (true, false, _) => [No, No],
                    (true, true, false) => [WhenWanted, WhenWanted],
                    (true, true, true) => [AskAgain, Yes],
                };
                let mut link = Gate { side: Side::Primary, ..open };
                assert_eq!(link.may_read(true), Yes);
                let mut draining = open;
                assert_eq!([draining.may_read(true), draining.may_read(true)], expected);
            }
        }
    }

    #[test]
    fn bytes_begin_a_head_only_between_exchanges() {
        let now = Instant::now();
        for phase in PHASES {
            let mut gate = gate(phase, now);
            gate.read(1);
            let began = gate.head_began;
            assert_eq!(began.is_some(), matches!(phase, Never | Responded), "{phase:?}");
            gate.read(1);
            assert_eq!(gate.head_began, began, "the first byte counts");
            gate.requested(false, false, false);
            assert_eq!(gate.head_began, None);
        }
        assert_eq!(Gate::new(Side::Outside, now, true).presence(), Presence::Asking);
    }

    proptest! {
        /// Whatever happens: nothing is handed over in the middle of an exchange, or with
        /// something owed, and no head is read in a drain.
        #[test]
        fn nothing_is_handed_over_in_the_middle(events in prop::collection::vec(0..14, 0..60)) {
            let now = Instant::now();
            let mut gate = Gate::new(Side::Outside, now, false);
            let mut drain = Drain::No;
            for event in events {
                match event {
                    0 => gate.requested(true, false, false),
                    1 => gate.requested(true, true, false),
                    2 => gate.requested(false, false, true),
                    3 if gate.phase == InService => gate.answering(false),
                    4 if gate.phase == InService => gate.answering(true),
                    5 if gate.phase == Answering => gate.responded(now),
                    6 => gate.body_wanted(),
                    7 => gate.body_came(false),
                    8 => gate.body_came(true),
                    9 => gate.read_waits(),
                    10 => drop(gate.read_ended(now)),
                    11 => gate.write_waits(now),
                    12 => gate.wrote(1),
                    13 => drain = Drain::HandOver,
                    _ => {}
                }
                match gate.verdict(drain, || now) {
                    Verdict::HandOver => {
                        prop_assert!(gate.phase == Never && drain == Drain::HandOver);
                        prop_assert!(!gate.closes && gate.ended.is_none());
                    }
                    Verdict::Finish => prop_assert!(gate.phase != InService && !gate.finishing),
                    Verdict::Wait(_) | Verdict::Close => {}
                }
                let reads = gate.may_read(drain != Drain::No);
                if drain != Drain::No && !gate.in_exchange() {
                    prop_assert!(matches!(reads, Reading::No | Reading::Ended), "{:?}", reads);
                }
                // Told of it, hyper would take a request that is whole for broken off.
                if reads == Reading::Ended && gate.in_exchange() {
                    prop_assert!(gate.body_left && gate.ended.is_some());
                }
                if gate.closes || gate.body_left || gate.write_is_blocked() {
                    prop_assert!(!gate.can_be_handed_over());
                }
            }
        }
    }
}
