//! The zygote's spare children: what each of them is at, and how one is given to a tenant, once.
//!
//! ```text
//!  fork ─► warming ─► waiting ─► given ──── it says that it has it ───► a worker
//!             │          │         │ it ended, or its time is over
//!             └──────────┴────────┴──► ended; whoever it was given to is forked a worker
//! ```
//!
//! A child that was given says so before it looks at anything that it was given, and what was not
//! taken yet is taken back here: the kernel hands a message to one of the two. So it is certain for
//! each tenant whether a spare child has become its worker, and one that has not never will.
//!
//! How many there should be is [`super::stock`]'s, what a child does [`crate::spare`]'s.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use hearth_jail::{ChildEnd, ForkError, Forked, Mouthpiece};
use hearth_wire::{Cell, FromSpare, Given, ToSpare, complain};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::stock::{Stock, Wish};

/// Until one that was forked waits. It has two calls to make, of what comes with this build.
const WARM_DEADLINE: Duration = Duration::from_secs(10);
const LATE: &str = "what they run first does not come to its end";
/// Until one that was given has taken it: it waits for nothing else. One that is stopped does not.
const TAKE_DEADLINE: Duration = Duration::from_millis(8);
/// The same for one that has taken it and not said so.
const SAY_DEADLINE: Duration = Duration::from_millis(4);
/// More than a spare child has to say.
const WORD_MAX: usize = REASON_MAX_BYTES + 16;
/// Of why there can be no spare children, in a child's word.
pub const REASON_MAX_BYTES: usize = 400;

/// A worker that somebody waits for.
pub struct Order {
    pub ticket: u64,
    pub cell: Cell,
    pub given: Vec<Given>,
    pub fds: Vec<OwnedFd>,
}

/// What came of one.
pub enum Came {
    /// It is this tenant's worker.
    Taken { ticket: u64, pid: i32, pidfd: OwnedFd },
    /// It is nobody's, and there is somebody to be forked a worker.
    Refused(Order),
}

struct Spare {
    pid: i32,
    pidfd: OwnedFd,
    /// Our end of its control socket, and the child's own, with which what it was told and has not
    /// taken is taken back.
    near: OwnedFd,
    far: OwnedFd,
    state: State,
}

impl Spare {
    /// Until when it may be what it is.
    fn until(&self) -> Option<Instant> {
        match &self.state {
            State::Warming { until } => Some(*until),
            State::Given { step: Step::Doomed, .. } | State::Waiting => None,
            State::Given { until, .. } => Some(*until),
        }
    }
}

enum State {
    Warming { until: Instant },
    Waiting,
    Given { order: Order, until: Instant, step: Step },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Offered,
    /// It has the message, and has not said so.
    Has,
    /// It was told to end.
    Doomed,
}

pub struct Spares {
    mouthpiece: Mouthpiece,
    stock: Stock,
    all: Vec<Spare>,
    /// Those that were told to end, and whose end is nobody's business.
    ending: BTreeSet<i32>,
}

/// A child's part of a fork: where it hears of whose it is.
pub enum Birth {
    Parent,
    Child(OwnedFd),
}

impl Spares {
    pub fn new(mouthpiece: Mouthpiece) -> Self {
        Self { mouthpiece, stock: Stock::new(), all: Vec::new(), ending: BTreeSet::new() }
    }

    /// Those that are there hold what is not served any more.
    pub fn renew(&mut self, most: usize) {
        self.end_unused(usize::MAX);
        self.stock.renew(most);
    }

    pub fn most(&self) -> usize {
        self.stock.most()
    }

    /// Those from which something may be heard.
    pub fn speaking(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let speaks = |spare: &&Spare| !matches!(spare.state, State::Waiting);
        self.all.iter().filter(speaks).map(|spare| spare.near.as_fd())
    }

    /// Whether the time of one of them is over, of which [`Spares::look`] makes what follows.
    pub fn is_late(&self, now: Instant) -> bool {
        self.all.iter().any(|spare| spare.until().is_some_and(|until| until <= now))
    }

    /// Descriptors that no other child is to have.
    pub fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let all = self.all.iter().flat_map(|spare| {
            let given = match &spare.state {
                State::Given { order, .. } => &order.fds[..],
                State::Warming { .. } | State::Waiting => &[],
            };
            [&spare.pidfd, &spare.near, &spare.far].into_iter().chain(given)
        });
        all.map(AsRawFd::as_raw_fd)
    }

    /// When something is to be done that nobody says.
    pub fn due(&mut self, now: Instant) -> Option<Instant> {
        let soonest = self.all.iter().filter_map(Spare::until).min();
        soonest.into_iter().chain(self.wish(now).due()).min()
    }

    fn unused(&self) -> usize {
        self.all.iter().filter(|spare| !matches!(spare.state, State::Given { .. })).count()
    }

    /// While one is given, there is something of a tenant's here that no other is to be born with.
    fn wish(&mut self, now: Instant) -> Wish {
        match self.all.iter().any(|spare| matches!(spare.state, State::Given { .. })) {
            true => Wish::Nothing,
            false => self.stock.wish(self.unused(), now),
        }
    }

    /// To be called when nobody waits for anything: forks the next one where one is due, or ends some.
    pub fn settle(&mut self, now: Instant) -> Birth {
        match self.wish(now) {
            Wish::OneMore(at) if at <= now => match self.fork(now) {
                Ok(birth) => birth,
                // It costs the next wake its gain, and nothing else.
                Err(_) => {
                    self.stock.lost(now);
                    Birth::Parent
                }
            },
            Wish::Fewer(fewer, at) if at <= now => {
                self.end_unused(fewer);
                Birth::Parent
            }
            _ => Birth::Parent,
        }
    }

    fn fork(&mut self, now: Instant) -> Result<Birth, ForkError> {
        let (near, far) = hearth_wire::pair()?;
        match hearth_jail::fork()? {
            Forked::Child => Ok(Birth::Child(far)),
            Forked::Parent { pid, pidfd } => {
                let state = State::Warming { until: now + WARM_DEADLINE };
                self.all.push(Spare { pid, pidfd, near, far, state });
                Ok(Birth::Parent)
            }
        }
    }

    /// Ends so many of those that nobody has, the newest first.
    fn end_unused(&mut self, most: usize) {
        let mut ended = 0;
        for at in (0..self.all.len()).rev() {
            let is_given = matches!(self.all[at].state, State::Given { .. });
            if !is_given && ended < most {
                ended += 1;
                self.end(at);
            }
        }
    }

    fn end(&mut self, at: usize) -> Spare {
        let spare = self.all.swap_remove(at);
        hearth_jail::kill(spare.pid);
        self.ending.insert(spare.pid);
        spare
    }

    /// Gives somebody one that waits. Gives the order back where there is none.
    pub fn give(&mut self, order: Order, now: Instant) -> Result<(), Order> {
        while let Some(at) = self.all.iter().position(|it| matches!(it.state, State::Waiting)) {
            let fds: Vec<_> = order.fds.iter().map(AsFd::as_fd).collect();
            let message = ToSpare::Serve { cell: order.cell, given: order.given.clone() };
            let spare = &mut self.all[at];
            let told = self
                .mouthpiece
                .speak_through(&spare.near, |socket| hearth_wire::send(socket, &message, &fds));
            if matches!(told, Ok(Ok(()))) {
                let (until, step) = (now + TAKE_DEADLINE, Step::Offered);
                spare.state = State::Given { order, until, step };
                self.stock.woken(true, now);
                return Ok(());
            }
            self.end(at);
        }
        self.stock.woken(false, now);
        Err(order)
    }

    /// What they have said meanwhile.
    pub fn hear(&mut self) -> Vec<Came> {
        let (mut came, mut unfit) = (Vec::new(), None);
        for at in (0..self.all.len()).rev() {
            match (word(&self.all[at].near), &self.all[at].state) {
                (Some(FromSpare::Warm), State::Warming { .. }) => {
                    self.all[at].state = State::Waiting;
                }
                (Some(FromSpare::Unfit { reason }), State::Warming { .. }) => unfit = Some(reason),
                (Some(FromSpare::Taken), State::Given { .. }) => came.extend(self.taken(at)),
                _ => {}
            }
        }
        if let Some(reason) = unfit {
            self.close(&reason);
        }
        came
    }

    fn taken(&mut self, at: usize) -> Option<Came> {
        let Spare { pid, pidfd, state, .. } = self.all.swap_remove(at);
        self.stock.served();
        match state {
            State::Given { order, .. } => Some(Came::Taken { ticket: order.ticket, pid, pidfd }),
            State::Warming { .. } | State::Waiting => None,
        }
    }

    /// Whose time is over.
    pub fn look(&mut self, now: Instant) -> Vec<Came> {
        let mut came = Vec::new();
        for at in (0..self.all.len()).rev() {
            let spare = &mut self.all[at];
            match &mut spare.state {
                // It does not come to run: somebody has stopped it.
                State::Warming { until } if *until <= now => {
                    self.end(at);
                    self.stock.lost(now);
                }
                State::Given { until, step, .. } if *until <= now => match *step {
                    Step::Offered if took_back(&spare.far) => {
                        self.stock.lost(now);
                        if let State::Given { order, .. } = self.end(at).state {
                            came.push(Came::Refused(order));
                        }
                    }
                    Step::Offered => (*until, *step) = (now + SAY_DEADLINE, Step::Has),
                    // What comes of it is seen by its end.
                    Step::Has => {
                        *step = Step::Doomed;
                        hearth_jail::kill(spare.pid);
                    }
                    Step::Doomed => {}
                },
                _ => {}
            }
        }
        came
    }

    /// From now on there are none, of this bundle. Said once.
    pub fn close(&mut self, why: &str) {
        if self.stock.most() > 0 {
            complain(format_args!("hearth-worker: no spare children can be had: {why}"));
            self.renew(0);
        }
    }

    /// A child has ended. `None` where it is none of these.
    pub fn ended(&mut self, pid: i32, end: ChildEnd, now: Instant) -> Option<Ended> {
        if self.ending.remove(&pid) {
            return Some(Ended::Unused);
        }
        let at = self.all.iter().position(|spare| spare.pid == pid)?;
        let said = word(&self.all[at].near);
        if said == Some(FromSpare::Taken) {
            return self.taken(at).map(Ended::Used);
        }
        let spare = self.all.swap_remove(at);
        self.stock.lost(now);
        match (spare.state, said) {
            (State::Given { order, .. }, _) => Some(Ended::Refused(order)),
            (State::Warming { .. } | State::Waiting, Some(FromSpare::Unfit { reason })) => {
                self.close(&reason);
                Some(Ended::Unused)
            }
            (State::Warming { .. }, _) if end.was_out_of_time() => {
                self.close(LATE);
                Some(Ended::Unused)
            }
            (State::Warming { .. } | State::Waiting, _) => Some(Ended::Unused),
        }
    }

    /// Has a child of its own try this, as a spare one that is given.
    pub fn trial(&mut self, attempt: u32, cell: Cell) -> Result<Trial, ForkError> {
        let (near, far) = hearth_wire::pair()?;
        match hearth_jail::fork()? {
            Forked::Child => Ok(Trial::Child(far)),
            Forked::Parent { pid, pidfd } => {
                drop(far);
                let message = ToSpare::Try { attempt, cell };
                // It finds it when it is warm; one that cannot be hears nothing.
                let _ = self
                    .mouthpiece
                    .speak_through(&near, |socket| hearth_wire::send(socket, &message, &[]))?;
                Ok(Trial::Parent((pid, pidfd, near)))
            }
        }
    }
}

pub enum Ended {
    /// Nobody waits for it.
    Unused,
    /// It was somebody's worker by then.
    Used(Came),
    /// It was to be, and is not.
    Refused(Order),
}

pub enum Trial {
    Child(OwnedFd),
    /// Its number, its name for ever, and the end of its socket, which it must not see closed.
    Parent((i32, OwnedFd, OwnedFd)),
}

/// How a child ends that tries something: after its two calls it comes to that at once. Or why it has
/// not come to it.
pub fn end_of_trial(
    (pid, pidfd, near): &(i32, OwnedFd, OwnedFd),
    began: Instant,
) -> io::Result<Result<ChildEnd, String>> {
    let left = WARM_DEADLINE.saturating_sub(began.elapsed());
    let left = left.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let is_late = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left))? == 0;
    if is_late {
        hearth_jail::kill(*pid);
    }
    let (end, mut said) = (hearth_jail::wait(*pid)?, None);
    // That it was warm, what it was given it has, and that is all.
    while let Some(word) = word(near) {
        said = Some(word);
    }
    Ok(match (end, said) {
        (_, Some(FromSpare::Unfit { reason })) => Err(reason),
        _ if is_late || end.was_out_of_time() => Err(LATE.to_owned()),
        (end, _) => Ok(end),
    })
}

/// What one has said.
fn word(near: &OwnedFd) -> Option<FromSpare> {
    let mut bytes = [0; WORD_MAX];
    let mut said = || rustix::net::recv(near, &mut bytes, RecvFlags::DONTWAIT);
    let (said, _) = match said() {
        // It ended before it had read what it was told, which is said before what it had said.
        Err(Errno::CONNRESET) => said(),
        heard => heard,
    }
    .ok()?;
    hearth_wire::parse(&bytes[..said]).ok()
}

/// Whether what it was given is not its own now. The descriptors that came with it are closed, and
/// ours are not.
fn took_back(far: &OwnedFd) -> bool {
    let mut bytes = [0; WORD_MAX * 8];
    matches!(rustix::net::recv(far, &mut bytes, RecvFlags::DONTWAIT), Ok((1.., _)))
}
