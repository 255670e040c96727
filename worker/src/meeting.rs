//! Where a call's caller and its guest meet: the guest leaves its head here, the caller that it
//! went. Decides and wakes nobody: it says who is to be woken, which is done without its lock.
//!
//! ```text
//!            the guest gives a head         the caller takes it         it has all, or goes
//!  Waiting ────────────────────────► HeadMade ────────────► Answering ─────────────► Ended
//!     └─────────────────────────────────┴─── the caller goes ──────────────────────────┘
//! ```
//!
//! What of it is recorded is [`crate::ledger`]'s.

use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::Response;
use wasmtime_wasi_http::WasiBody;

/// What the guest made of its head.
pub enum Head {
    Response(Response<WasiBody>),
    /// With what it said instead.
    Refused(String),
}

/// Why a request's body was not taken to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is larger than it may be.
    TooLarge,
    /// It is not what its head says, or ended before it was whole.
    Broken,
}

/// How the caller's wait came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It has all that it waited for; the guest may finish what it does.
    Whole,
    Abandoned,
}

/// Why the caller gets no head.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHead {
    Unfit(Unfit),
    GuestEnded,
}

enum Progress {
    /// Nothing of an answer is there.
    Waiting { guest_ended: bool },
    /// The caller has not taken it yet.
    HeadMade { head: Head, at: Instant },
    /// The caller has the head, and reads what comes behind it.
    Answering { head_made: Instant },
    /// The caller waits for nothing any more.
    Ended { at: Instant, how: Ended, head_made: Option<Instant> },
}

pub struct Meeting {
    progress: Progress,
    unfit: Option<Unfit>,
    /// Who waits for the head, and then for what comes behind it.
    caller: Option<Waker>,
    /// Who must hear that the caller went.
    guest: Option<Waker>,
}

/// Who must hear of it.
#[must_use]
pub struct Wakes(Option<Waker>);

impl Wakes {
    pub fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }
}

impl Meeting {
    pub fn new() -> Self {
        let progress = Progress::Waiting { guest_ended: false };
        Self { progress, unfit: None, caller: None, guest: None }
    }

    /// The guest has made its head. It comes back where nobody waits for it: the caller went, which
    /// ends the guest by itself.
    pub fn give(&mut self, head: Head, now: Instant) -> (Wakes, Option<Head>) {
        let left = match &mut self.progress {
            Progress::Ended { head_made, .. } => {
                if let Head::Response(_) = head {
                    *head_made = Some(now);
                }
                Some(head)
            }
            Progress::Waiting { .. } | Progress::HeadMade { .. } | Progress::Answering { .. } => {
                self.progress = Progress::HeadMade { head, at: now };
                None
            }
        };
        (Wakes(self.caller.take()), left)
    }

    pub fn guest_ended(&mut self) -> Wakes {
        // Once a head is made, it is the answer's, even if the guest has failed since.
        if let Progress::Waiting { guest_ended } = &mut self.progress {
            *guest_ended = true;
        }
        Wakes(self.caller.take())
    }

    /// Takes the head.
    pub fn poll_head(&mut self, cx: &Context<'_>) -> Poll<Result<Head, NoHead>> {
        if let Some(unfit) = self.unfit {
            return Poll::Ready(Err(NoHead::Unfit(unfit)));
        }
        match std::mem::replace(&mut self.progress, Progress::Waiting { guest_ended: false }) {
            Progress::HeadMade { head, at } => {
                if let Head::Response(_) = head {
                    self.progress = Progress::Answering { head_made: at };
                }
                Poll::Ready(Ok(head))
            }
            before @ Progress::Waiting { guest_ended: true } => {
                self.progress = before;
                Poll::Ready(Err(NoHead::GuestEnded))
            }
            before @ (Progress::Waiting { guest_ended: false }
            | Progress::Answering { .. }
            | Progress::Ended { .. }) => {
                self.progress = before;
                keep(&mut self.caller, cx);
                Poll::Pending
            }
        }
    }

    /// The request's body is not taken any further. Whether that matters: what was answered to such
    /// a request is no answer to a whole one, unless all of it was sent.
    pub fn refuse(&mut self, unfit: Unfit) -> (Wakes, bool) {
        let matters = !matches!(self.progress, Progress::Ended { .. });
        if matters {
            self.unfit.get_or_insert(unfit);
        }
        (Wakes(self.caller.take()), matters)
    }

    pub fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// Whether the request's body was refused. Wakes when it is.
    pub fn is_refused(&mut self, cx: &Context<'_>) -> bool {
        keep(&mut self.caller, cx);
        self.unfit.is_some()
    }

    /// The caller's wait ends, for the first time that it is said. What it has not taken of the
    /// guest's comes back.
    pub fn end(&mut self, ended: Ended, now: Instant) -> (Wakes, Option<Head>) {
        let head_made = self.head_made();
        let after = match &mut self.progress {
            Progress::Ended { at, how, .. } => Progress::Ended { at: *at, how: *how, head_made },
            _ => Progress::Ended { at: now, how: ended, head_made },
        };
        let left = match std::mem::replace(&mut self.progress, after) {
            Progress::HeadMade { head, .. } => Some(head),
            Progress::Waiting { .. } | Progress::Answering { .. } | Progress::Ended { .. } => None,
        };
        let guest = match ended {
            Ended::Whole => None,
            Ended::Abandoned => self.guest.take(),
        };
        (Wakes(guest), left)
    }

    pub fn is_abandoned(&self) -> bool {
        matches!(self.progress, Progress::Ended { how: Ended::Abandoned, .. })
    }

    pub fn poll_abandoned(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_abandoned() {
            return Poll::Ready(());
        }
        keep(&mut self.guest, cx);
        Poll::Pending
    }

    /// When the guest made the head of an answer.
    pub fn head_made(&self) -> Option<Instant> {
        match &self.progress {
            Progress::Waiting { .. } | Progress::HeadMade { head: Head::Refused(_), .. } => None,
            Progress::HeadMade { head: Head::Response(_), at } => Some(*at),
            Progress::Answering { head_made } => Some(*head_made),
            Progress::Ended { head_made, .. } => *head_made,
        }
    }

    /// When the caller waited for nothing any more.
    pub fn ended_at(&self) -> Option<Instant> {
        match self.progress {
            Progress::Ended { at, .. } => Some(at),
            Progress::Waiting { .. } | Progress::HeadMade { .. } | Progress::Answering { .. } => {
                None
            }
        }
    }
}

fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Duration;

    use http_body_util::{BodyExt, Empty};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn response() -> Head {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Head::Response(Response::new(body))
    }

    fn refused() -> Head {
        Head::Refused("no".to_owned())
    }

    /// What a caller or a guest does, and what comes of it for the caller.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Event {
        Gives,
        Refuses,
        GuestEnds,
        Takes,
        Unfit,
        Ends(Ended),
    }

    /// In short: the state, whether a head came back or was taken, and who was woken.
    fn told(events: &[Event]) -> (String, bool, [usize; 2]) {
        let [caller, guest] = [(); 2].map(|()| Arc::new(Woken::default()));
        let [at_caller, at_guest] = [&caller, &guest].map(|woken| Waker::from(Arc::clone(woken)));
        let mut meeting = Meeting::new();
        let (begun, mut got) = (Instant::now(), false);
        assert!(meeting.poll_abandoned(&Context::from_waker(&at_guest)).is_pending());
        assert!(!meeting.is_refused(&Context::from_waker(&at_caller)));
        for (event, second) in events.iter().zip(1..) {
            let now = begun + Duration::from_secs(second);
            let (wakes, left) = match event {
                Event::Gives => meeting.give(response(), now),
                Event::Refuses => meeting.give(refused(), now),
                Event::GuestEnds => (meeting.guest_ended(), None),
                Event::Takes => {
                    let polled = meeting.poll_head(&Context::from_waker(&at_caller));
                    (
                        Wakes(None),
                        if let Poll::Ready(Ok(head)) = polled { Some(head) } else { None },
                    )
                }
                Event::Unfit => (meeting.refuse(Unfit::Broken).0, None),
                Event::Ends(ended) => meeting.end(*ended, now),
            };
            wakes.wake();
            got = left.is_some();
        }
        let seconds = |at: &Instant| (*at - begun).as_secs();
        let state = match &meeting.progress {
            Progress::Waiting { guest_ended } => format!("waiting {guest_ended}"),
            Progress::HeadMade { at, .. } => format!("made {}", seconds(at)),
            Progress::Answering { head_made } => format!("answering {}", seconds(head_made)),
            Progress::Ended { at, how, head_made } => {
                format!("{how:?} {} {:?}", seconds(at), head_made.as_ref().map(seconds))
            }
        };
        (state, got, [&caller, &guest].map(|woken| woken.0.load(Ordering::Relaxed)))
    }

    /// The state after each event, and whether a head came of it.
    type After = [(&'static str, bool); 7];

    /// Every state by every event.
    #[test]
    fn every_state_by_every_event() {
        use Ended::{Abandoned, Whole};
        use Event::{Ends, Gives, GuestEnds, Refuses, Takes};
        let states: [(&[Event], After); 6] = [
            (
                &[],
                [
                    ("made 1", false),
                    ("made 1", false),
                    ("waiting true", false),
                    ("waiting false", false),
                    ("waiting false", false),
                    ("Whole 1 None", false),
                    ("Abandoned 1 None", false),
                ],
            ),
            (
                &[GuestEnds],
                [
                    ("made 2", false),
                    ("made 2", false),
                    ("waiting true", false),
                    ("waiting true", false),
                    ("waiting true", false),
                    ("Whole 2 None", false),
                    ("Abandoned 2 None", false),
                ],
            ),
            (
                &[Gives],
                [
                    ("made 2", false),
                    ("made 2", false),
                    ("made 1", false),
                    ("answering 1", true),
                    ("made 1", false),
                    ("Whole 2 Some(1)", true),
                    ("Abandoned 2 Some(1)", true),
                ],
            ),
            (
                &[Refuses],
                [
                    ("made 2", false),
                    ("made 2", false),
                    ("made 1", false),
                    ("waiting false", true),
                    ("made 1", false),
                    ("Whole 2 None", true),
                    ("Abandoned 2 None", true),
                ],
            ),
            (
                &[Gives, Takes],
                [
                    ("made 3", false),
                    ("made 3", false),
                    ("answering 1", false),
                    ("answering 1", false),
                    ("answering 1", false),
                    ("Whole 3 Some(1)", false),
                    ("Abandoned 3 Some(1)", false),
                ],
            ),
            (
                &[Ends(Abandoned)],
                [
                    ("Abandoned 1 Some(2)", true),
                    ("Abandoned 1 None", true),
                    ("Abandoned 1 None", false),
                    ("Abandoned 1 None", false),
                    ("Abandoned 1 None", false),
                    ("Abandoned 1 None", false),
                    ("Abandoned 1 None", false),
                ],
            ),
        ];
        let events = [Gives, Refuses, GuestEnds, Takes, Event::Unfit, Ends(Whole), Ends(Abandoned)];
        for (before, after) in states {
            for (event, (state, got)) in events.into_iter().zip(after) {
                let (now, has, _) = told(&[before, &[event]].concat());
                assert_eq!((now.as_str(), has), (state, got), "{before:?} {event:?}");
            }
        }
    }

    #[test]
    fn who_waits_is_woken_and_nobody_twice() {
        use Ended::{Abandoned, Whole};
        use Event::{Ends, Gives, GuestEnds, Refuses, Takes};
        for (events, woken) in [
            (&[Gives][..], [1, 0]),
            (&[Refuses], [1, 0]),
            (&[GuestEnds], [1, 0]),
            (&[Event::Unfit], [1, 0]),
            (&[Gives, GuestEnds], [1, 0]),
            (&[Takes, Gives], [1, 0]),
            (&[Ends(Whole)], [0, 0]),
            (&[Ends(Abandoned)], [0, 1]),
            (&[Ends(Abandoned), Ends(Abandoned)], [0, 1]),
        ] {
            assert_eq!(told(events).2, woken, "{events:?}");
        }
    }

    #[test]
    fn a_request_that_was_refused_gets_no_head_and_one_that_was_answered_is_not() {
        let cx = Context::from_waker(Waker::noop());
        let mut meeting = Meeting::new();
        let _ = meeting.give(response(), Instant::now());
        assert!(meeting.refuse(Unfit::TooLarge).1);
        assert!(meeting.refuse(Unfit::Broken).1);
        let polled = meeting.poll_head(&cx);
        assert!(matches!(polled, Poll::Ready(Err(NoHead::Unfit(Unfit::TooLarge)))));
        assert!(meeting.is_refused(&cx));

        let mut meeting = Meeting::new();
        let _ = meeting.end(Ended::Whole, Instant::now());
        assert!(!meeting.refuse(Unfit::Broken).1);
        assert!(!meeting.is_refused(&cx));
        assert_eq!(meeting.unfit(), None);
    }
}
