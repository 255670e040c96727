//! What one worker may say, when, and how fast. Pure: what is told it and what it says go in, a
//! verdict comes out.
//!
//! A worker may be hostile from its first word on. Each of its messages but a report is either
//! said once in its life or answers something that it was told, so nothing can come in a flood;
//! and all of them together have a rate, beyond which they wait. Whatever else comes is
//! [`Nonsense`], and the end of that worker. Whose a message is follows from the socket that it
//! came on and is in none of them. What a descriptor is, [`super::parking`] looks at.

use std::time::{Duration, Instant};

use hearth_wire::limits::LOG_LINE_MAX_BYTES;
use hearth_wire::{
    CallRecord, FromWorker, Passing, Report, RequestId, SocketError, Subject, ToWorker,
};

/// Messages of one worker a second, in the long run, and at once. One that logs and is called as
/// much as a worker can be says about 600.
const MESSAGES_PER_SECOND: u32 = 1_000;
const MESSAGES_AT_ONCE: u32 = 200;

/// What no worker of ours says or sends. It is ended for it, and its tenant backs off.
#[derive(Debug, thiserror::Error)]
pub enum Nonsense {
    #[error("the worker sent a message that could not be decoded")]
    Garbage(#[source] SocketError),
    #[error("the worker sent `{0}` when it was not allowed to")]
    OutOfTurn(&'static str),
    #[error("the worker sent {came} descriptors where {due} were due")]
    Descriptors { came: usize, due: usize },
    #[error("the worker reported more at once than a report may hold")]
    Report,
    #[error("the worker passed on something that is not a connection")]
    NoConnection,
    #[error("the worker passed on a connection of another tenant")]
    Foreign,
    #[error("the worker passed on more unread bytes than it may read")]
    TooMuch,
    #[error("the worker is stuck: it did not answer the host for {} seconds", .0.as_secs())]
    Silent(Duration),
}

/// Something that a worker says once in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Once {
    /// It has no reason to yet.
    NotYet,
    Due,
    Said,
}

impl Once {
    fn becomes_due(&mut self) {
        if *self == Self::NotYet {
            *self = Self::Due;
        }
    }

    fn say(&mut self) -> bool {
        let is_due = *self == Self::Due;
        if is_due {
            *self = Self::Said;
        }
        is_due
    }
}

/// The newest that it was told on a subject, and what of it it has confirmed.
#[derive(Debug, Clone, Copy, Default)]
struct Serials {
    told: u64,
    applied: u64,
}

#[derive(Debug)]
pub struct Conversation {
    /// `Ready` or `Refused`, before everything else.
    begun: Once,
    /// It has said its last words.
    over: bool,
    accepting: Once,
    quiesced: Once,
    leaving: Once,
    calls_done: Once,
    /// Of each subject.
    told: [Serials; Subject::ALL.len()],
    /// The newest report that it was asked for, and that it has made.
    report_asked: u64,
    report_made: u64,
    /// Whether it was told to pass connections on.
    may_pass: bool,
    /// Whether it has not been told that the last ones it passed on have arrived, and whether it
    /// has not said so of the last ones that it was passed.
    passes: bool,
    passed_to: bool,
    /// Whether it was asked for a sign of life, and gave none yet.
    asked: bool,
    /// When all that it may say at once is its own again.
    rested_at: Instant,
}

impl Conversation {
    pub fn new(now: Instant) -> Self {
        Self {
            begun: Once::Due,
            over: false,
            accepting: Once::NotYet,
            quiesced: Once::NotYet,
            leaving: Once::NotYet,
            calls_done: Once::NotYet,
            told: [Serials::default(); Subject::ALL.len()],
            report_asked: 0,
            report_made: 0,
            may_pass: false,
            passes: false,
            passed_to: false,
            asked: false,
            rested_at: now,
        }
    }

    /// It is about to be told this.
    pub fn told(&mut self, message: &ToWorker) {
        match message {
            ToWorker::Told { serial, what } => self.told[what.subject() as usize].told = *serial,
            ToWorker::Report { serial } => self.report_asked = *serial,
            ToWorker::Accept => self.accepting.becomes_due(),
            ToWorker::Quiesce => {
                self.quiesced.becomes_due();
                self.may_pass = true;
            }
            ToWorker::Close => self.quiesced.becomes_due(),
            ToWorker::Leave => self.may_pass = true,
            ToWorker::Pass(_) => self.passed_to = true,
            ToWorker::Passed => self.passes = false,
            ToWorker::AreYouAlive => self.asked = true,
            ToWorker::Finish(_) => self.calls_done.becomes_due(),
            ToWorker::Start(_)
            | ToWorker::Settings(_)
            | ToWorker::Link(_)
            | ToWorker::Uplink { .. } => {}
        }
    }

    /// It said this, with so many descriptors.
    pub fn said(&mut self, message: &FromWorker, descriptors: usize) -> Result<(), Nonsense> {
        let due = match message {
            FromWorker::Pass(passing) => passing.len(),
            _ => 0,
        };
        if descriptors != due {
            return Err(Nonsense::Descriptors { came: descriptors, due });
        }
        let (word, is_its_turn) = self.turn(message);
        if !is_its_turn {
            return Err(Nonsense::OutOfTurn(word));
        }
        match message {
            FromWorker::Report(report) if !is_within_bounds(report) => Err(Nonsense::Report),
            FromWorker::Pass(passing) if passing.len() > Passing::MOST => Err(Nonsense::TooMuch),
            _ => Ok(()),
        }
    }

    fn turn(&mut self, message: &FromWorker) -> (&'static str, bool) {
        let goes_on = self.begun == Once::Said && !self.over;
        match message {
            FromWorker::Ready { .. } => ("Ready", self.begun.say()),
            FromWorker::Refused { .. } => {
                self.over = true;
                ("Refused", self.begun.say())
            }
            FromWorker::Accepting => {
                let is_its_turn = goes_on && self.accepting.say();
                self.leaving.becomes_due();
                ("Accepting", is_its_turn)
            }
            FromWorker::Quiesced => ("Quiesced", goes_on && self.quiesced.say()),
            FromWorker::Leaving => ("Leaving", goes_on && self.leaving.say()),
            FromWorker::CallsDone => ("CallsDone", goes_on && self.calls_done.say()),
            FromWorker::Applied { serial, what } => {
                let Serials { told, applied } = &mut self.told[*what as usize];
                let is_its_turn = goes_on && (*applied + 1..=*told).contains(serial);
                *applied = *serial;
                ("Applied", is_its_turn)
            }
            FromWorker::Reported { serial } => {
                let due = self.report_made + 1..=self.report_asked;
                let is_its_turn = goes_on && due.contains(serial);
                self.report_made = *serial;
                ("Reported", is_its_turn)
            }
            FromWorker::WantUplink { .. } => ("WantUplink", goes_on),
            FromWorker::Pass(_) => {
                let waits = std::mem::replace(&mut self.passes, true);
                ("Pass", goes_on && self.may_pass && !waits)
            }
            FromWorker::Passed => {
                ("Passed", goes_on && std::mem::replace(&mut self.passed_to, false))
            }
            FromWorker::Report(_) => ("Report", goes_on),
            FromWorker::Alive => ("Alive", goes_on && std::mem::replace(&mut self.asked, false)),
            FromWorker::Forbidden { .. } => ("Forbidden", !std::mem::replace(&mut self.over, true)),
        }
    }

    /// Whether it owes a sign of life.
    pub fn is_silent(&self) -> bool {
        self.asked
    }

    /// How long to leave its next message where it is: there the kernel makes it wait.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let apart = Duration::from_secs(1) / MESSAGES_PER_SECOND;
        self.rested_at = self.rested_at.max(now) + apart;
        let ahead = self.rested_at.saturating_duration_since(now);
        ahead.checked_sub(apart * MESSAGES_AT_ONCE).filter(|pause| !pause.is_zero())
    }
}

/// Names come parsed; the other texts are bounded here. They are escaped where they are shown.
fn is_within_bounds(report: &Report) -> bool {
    report.lines.len() + report.calls.len() <= Report::ITEMS_MAX
        && report.lines.iter().all(|line| {
            line.text.len() <= LOG_LINE_MAX_BYTES && line.request_id.len() <= RequestId::BYTES_MAX
        })
        && report.calls.iter().all(|call| {
            call.method.len() <= CallRecord::METHOD_MAX_BYTES
                && call.request_id.len() <= RequestId::BYTES_MAX
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_wire::uplink::Kind;
    use hearth_wire::{Entry, LogLine, LogStream, Moment, Origin, Respite, VERSION, What};

    fn ready() -> FromWorker {
        FromWorker::Ready { version: VERSION, load_us: 1, walls_us: 1 }
    }

    fn refused() -> FromWorker {
        FromWorker::Refused { reason: "because".to_owned() }
    }

    fn passing(number: usize) -> Vec<Passing> {
        let one = Passing { unread: Vec::new(), since: Moment::now(), entry: Entry::Port };
        vec![one; number]
    }

    fn applied(serial: u64) -> FromWorker {
        FromWorker::Applied { serial, what: Subject::Tokens }
    }

    fn reported(serial: u64) -> FromWorker {
        FromWorker::Reported { serial }
    }

    fn asked(serial: u64) -> ToWorker {
        ToWorker::Report { serial }
    }

    fn tokens(serial: u64) -> ToWorker {
        ToWorker::Told { serial, what: What::Tokens(Vec::new()) }
    }

    fn report(lines: usize, bytes: usize) -> FromWorker {
        let line = LogLine {
            time_ms: i64::MIN,
            function: "/f".parse().unwrap(),
            version: 1.into(),
            request_id: "r".repeat(RequestId::BYTES_MAX),
            stream: LogStream::Stdout,
            level: None,
            text: "x".repeat(bytes),
        };
        FromWorker::Report(Report { lines: vec![line; lines], ..Report::default() })
    }

    enum Step {
        Told(ToWorker),
        Said(FromWorker),
        /// With descriptors that are not due.
        With(FromWorker, usize),
    }
    use Step::{Said, Told, With};

    /// How far a conversation goes, and what ended it.
    fn held(steps: Vec<Step>) -> (usize, String) {
        let mut conversation = Conversation::new(Instant::now());
        // Before its birth.
        conversation.told(&tokens(1));
        for (at, step) in steps.into_iter().enumerate() {
            let judged = match step {
                Told(message) => {
                    conversation.told(&message);
                    Ok(())
                }
                Said(message) => {
                    let due =
                        if let FromWorker::Pass(passing) = &message { passing.len() } else { 0 };
                    conversation.said(&message, due)
                }
                With(message, came) => conversation.said(&message, came),
            };
            if let Err(nonsense) = judged {
                return (at, nonsense.to_string());
            }
        }
        (usize::MAX, String::new())
    }

    #[test]
    fn a_whole_life_is_heard_out() {
        let life = vec![
            Said(ready()),
            Said(applied(1)),
            Told(ToWorker::Accept),
            Said(FromWorker::Accepting),
            Said(report(3, 10)),
            Told(asked(1)),
            Said(report(1, 10)),
            Said(reported(1)),
            Told(ToWorker::Link(Origin::Outside)),
            Told(tokens(2)),
            Told(tokens(3)),
            Said(applied(2)),
            Said(applied(3)),
            Said(FromWorker::WantUplink { kind: Kind::Upload }),
            Told(ToWorker::Pass(passing(1))),
            Said(FromWorker::Passed),
            // These two cross.
            Told(ToWorker::Finish(Respite::now(Duration::ZERO))),
            Told(ToWorker::Quiesce),
            Said(FromWorker::Leaving),
            Said(FromWorker::Quiesced),
            Told(ToWorker::Leave),
            Said(FromWorker::Pass(passing(32))),
            Told(ToWorker::Passed),
            Said(FromWorker::Pass(passing(0))),
            Said(FromWorker::CallsDone),
            Told(ToWorker::Finish(Respite::now(Duration::ZERO))),
            Told(ToWorker::Close),
            Said(report(Report::ITEMS_MAX, LOG_LINE_MAX_BYTES)),
        ];
        assert_eq!(held(life), (usize::MAX, String::new()));
        assert_eq!(held(vec![Said(refused())]).0, usize::MAX);
    }

    /// Each last word is nonsense, and none before it.
    #[test]
    fn whatever_is_not_its_turn_ends_it() {
        let accepting = || vec![Said(ready()), Told(ToWorker::Accept), Said(FromWorker::Accepting)];
        let after = |mut before: Vec<Step>, more: Vec<Step>| {
            before.extend(more);
            before
        };
        for (steps, said) in [
            (vec![Said(report(1, 1))], "`Report`"),
            (vec![Said(FromWorker::WantUplink { kind: Kind::Upload })], "`WantUplink`"),
            (vec![Said(applied(1))], "`Applied`"),
            (vec![Said(ready()), Said(ready())], "`Ready`"),
            (vec![Said(ready()), Said(refused())], "`Refused`"),
            (vec![Said(refused()), Said(report(1, 1))], "`Report`"),
            (vec![Said(ready()), Said(FromWorker::Accepting)], "`Accepting`"),
            (vec![Said(ready()), Said(FromWorker::Leaving)], "`Leaving`"),
            (after(accepting(), vec![Said(FromWorker::Accepting)]), "`Accepting`"),
            (after(accepting(), vec![Said(FromWorker::Quiesced)]), "`Quiesced`"),
            (after(accepting(), vec![Said(FromWorker::CallsDone)]), "`CallsDone`"),
            (
                after(accepting(), vec![Said(FromWorker::Leaving), Said(FromWorker::Leaving)]),
                "`Leaving`",
            ),
            (vec![Said(ready()), Said(applied(1)), Said(applied(1))], "`Applied`"),
            (vec![Said(ready()), Said(applied(2))], "`Applied`"),
            (vec![Said(ready()), Said(reported(1))], "`Reported`"),
            (
                vec![Said(ready()), Told(asked(1)), Said(reported(1)), Said(reported(1))],
                "`Reported`",
            ),
            (vec![Said(ready()), Told(asked(1)), Said(reported(u64::MAX))], "`Reported`"),
            (vec![Said(ready()), Said(applied(u64::MAX))], "`Applied`"),
            (after(accepting(), vec![Said(FromWorker::Passed)]), "`Passed`"),
            (after(accepting(), vec![Said(FromWorker::Pass(passing(1)))]), "`Pass`"),
            (
                vec![
                    Said(ready()),
                    Told(ToWorker::Quiesce),
                    Said(FromWorker::Pass(passing(1))),
                    Said(FromWorker::Pass(passing(1))),
                ],
                "`Pass`",
            ),
            (vec![With(ready(), 1)], "1 descriptors where 0"),
            (vec![Said(ready()), With(report(1, 1), 32)], "32 descriptors where 0"),
            (
                vec![Said(ready()), Told(ToWorker::Leave), With(FromWorker::Pass(passing(2)), 1)],
                "1 descriptors where 2",
            ),
            (vec![Said(ready()), Said(report(Report::ITEMS_MAX + 1, 0))], "more at once"),
            (vec![Said(ready()), Said(report(1, LOG_LINE_MAX_BYTES + 1))], "more at once"),
        ] {
            let last = steps.len() - 1;
            let (at, nonsense) = held(steps);
            assert!(at == last && nonsense.contains(said), "{at} {nonsense}: {said}");
        }
    }

    #[test]
    fn a_flood_waits_and_a_crowd_does_not() {
        let began = Instant::now();
        let mut conversation = Conversation::new(began);
        for _ in 0..MESSAGES_AT_ONCE {
            assert_eq!(conversation.pause(began), None);
        }
        assert_eq!(conversation.pause(began), Some(Duration::from_millis(1)));
        assert_eq!(conversation.pause(began), Some(Duration::from_millis(2)));
        let later = began + Duration::from_secs(60);
        assert_eq!(conversation.pause(later), None);
    }
}
