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

fn drains(asked: Instant) -> [Drain; 3] {
    [Drain::No, Drain::HandOver, Drain::Close(asked)]
}

#[test]
fn a_call_is_never_cut_and_a_link_never_closed_while_somebody_is_there() {
    let now = Instant::now();
    let late = now + seconds(100_000);
    for drain in drains(now) {
        for phase in PHASES {
            for head_began in [None, Some(now)] {
                let link = Gate { side: Side::Primary, head_began, ..gate(phase, now) };
                assert_eq!(link.verdict(drain, || late), Verdict::Wait(None), "{link:?}");
                let looks = link.in_exchange().then_some(now + LOOK_EVERY);
                assert_eq!(link.looks_at(), looks, "{link:?}");
            }
        }
        assert_eq!(gate(InService, now).verdict(drain, || late), Verdict::Wait(None));
        let answering = match drain {
            Drain::HandOver => Verdict::Finish,
            Drain::No | Drain::Close(_) => Verdict::Wait(None),
        };
        assert_eq!(gate(Answering, now).verdict(drain, || late), answering);
        let told = Gate { finishing: true, ..gate(Answering, now) };
        assert_eq!(told.verdict(drain, || late), Verdict::Wait(None));
    }
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let now = Instant::now();
    for side in [Side::Outside, Side::Primary] {
        for phase in [InService, Answering] {
            for drain in drains(now) {
                let mut gone = Gate { side, ..gate(phase, now) };
                gone.is_absent(Absence::None, now);
                assert_ne!(gone.verdict(drain, || now), Verdict::Close, "{gone:?}");
                gone.is_absent(Absence::Whole, now);
                assert_eq!(gone.verdict(drain, || now), Verdict::Close, "{gone:?}");
            }
        }
    }
}

#[test]
fn what_only_the_end_of_its_connection_ends_looks_whole_until_it_is() {
    let now = Instant::now();
    for endless in [false, true] {
        let mut gate = gate(InService, now);
        assert!(!gate.looks_whole());
        gate.answering(gate.exchange, true, endless);
        assert_eq!(gate.looks_whole(), endless);
        let mut cut = gate;
        cut.cut(gate.exchange);
        cut.responded(gate.exchange, now);
        assert_eq!(cut.looks_whole(), endless);
        gate.responded(gate.exchange, now);
        assert!(!gate.looks_whole());
    }
}

/// Between two exchanges: every phase, with and without a head begun, by every drain.
#[test]
fn when_a_connection_from_outside_is_closed_or_passed_on() {
    let start = Instant::now();
    let at = |s: u64| start + seconds(s);
    let wait = |s: u64| Verdict::Wait(Some(at(s)));
    let graced = |s: u64| Verdict::Wait(Some(at(s) + STOP_GRACE));
    let (no, pass, close) = (Drain::No, Drain::HandOver, Drain::Close(at(20)));
    for (phase, head_began, drain, now, verdict) in [
        (Never, None, no, 5, wait(75)),
        (Never, None, no, 75, Verdict::Finish),
        (Never, Some(30), no, 35, wait(40)),
        (Never, Some(30), no, 40, Verdict::Close),
        (Never, None, pass, 20, Verdict::HandOver),
        (Never, Some(19), pass, 20, Verdict::HandOver),
        (Never, None, close, 20, graced(20)),
        (Never, None, close, 21, Verdict::Finish),
        (Never, Some(21), close, 21, graced(21)),
        (Never, Some(21), close, 22, Verdict::Close),
        (Responded, None, no, 5, wait(75)),
        (Responded, None, no, 75, Verdict::Finish),
        (Responded, Some(30), no, 40, Verdict::Close),
        (Responded, None, pass, 20, Verdict::Finish),
        (Responded, Some(19), pass, 20, Verdict::Finish),
        (Responded, None, close, 20, Verdict::Finish),
        (Responded, Some(19), close, 20, graced(20)),
        (Responded, Some(10), close, 20, Verdict::Close),
        (Responded, Some(19), close, 21, Verdict::Close),
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
    let at = |s: u64| start + seconds(s);
    for drain in [Drain::No, Drain::Close(start)] {
        for phase in [InService, Answering] {
            let mut waits = gate(phase, start);
            waits.is_absent(Absence::Half, at(1));
            waits.is_absent(Absence::Half, at(5));
            assert_eq!(waits.verdict(drain, || at(5)), Verdict::Wait(Some(at(11))));
            assert_eq!(waits.verdict(drain, || at(11)), Verdict::Close);
            // To whom something moves is there.
            waits.wrote(1);
            assert_ne!(waits.verdict(drain, Instant::now), Verdict::Close);
        }
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
    let sends = |phase| Gate {
        incoming: pace,
        body_left: true,
        body_wanted: true,
        read_is_blocked: true,
        finishing: phase != InService,
        ..gate(phase, start)
    };
    for (gate, applies) in [
        (sends(InService), true),
        (sends(Answering), true),
        (sends(Responded), true),
        (Gate { body_left: false, ..sends(InService) }, false),
        (Gate { body_wanted: false, ..sends(InService) }, false),
        (Gate { read_is_blocked: false, ..sends(InService) }, false),
        (Gate { forgets: true, ..sends(InService) }, false),
        (Gate { forgets: true, ..sends(Responded) }, true),
        (Gate { outgoing: pace, finishing: true, ..gate(Answering, start) }, true),
        (Gate { outgoing: pace, ..gate(Responded, start) }, true),
    ] {
        for drain in drains(start) {
            let verdict = gate.verdict(drain, || deadline);
            let gives_up = matches!(verdict, Verdict::CutOff | Verdict::Close);
            assert_eq!(gives_up, applies, "{gate:?} {drain:?}");
            let told = gate.body_left && gate.phase != Responded;
            assert_eq!(verdict == Verdict::CutOff, applies && told, "{gate:?} {drain:?}");
        }
    }
}

#[test]
fn whoever_reads_a_body_is_told_once_that_it_is_not_waited_for_unless_another_hop_says_so() {
    let start = Instant::now();
    let late = start + SLOW_GRACE;
    for side in [Side::Outside, Side::Primary] {
        let mut gate = Gate::new(side, start, false);
        let exchange = gate.requested(true, false, false);
        gate.read_waits();
        gate.body_wanted(exchange, || start);
        assert_eq!(gate.verdict(Drain::No, || start), Verdict::Wait(Some(late)));
        assert_eq!(gate.verdict(Drain::No, || late), Verdict::CutOff);
        let mut elsewhere = gate;
        elsewhere.is_paced_elsewhere(Exchange(exchange.0 + 1));
        assert_eq!(elsewhere, gate);
        elsewhere.is_paced_elsewhere(exchange);
        assert_eq!(elsewhere.verdict(Drain::No, || late), Verdict::Wait(None));
        gate.cut_off(late);
        assert_eq!(gate.may_read(false), Reading::Ended);
        assert_eq!(gate.verdict(Drain::No, || late), Verdict::Wait(None));
        assert!(gate.is_last());
    }
}

#[test]
fn what_is_left_of_a_body_is_read_unless_an_answer_says_that_it_is_the_last() {
    let now = Instant::now();
    let much = FORGOTTEN_MAX_BYTES + 1;
    for (phase, left, expects, closes, forgets) in [
        (InService, Some(FORGOTTEN_MAX_BYTES), false, false, true),
        (InService, Some(much), false, false, false),
        (InService, None, false, false, true),
        (InService, Some(1), true, false, false),
        (InService, Some(1), false, true, false),
        (Answering, Some(much), false, false, true),
        (Answering, None, false, false, true),
        (Answering, Some(1), false, true, false),
        (Responded, Some(much), false, false, true),
    ] {
        let mut gate = Gate::new(Side::Outside, now, false);
        let exchange = gate.requested(true, expects, closes);
        if phase != InService {
            gate.answering(exchange, gate.is_last(), false);
        }
        if phase == Responded {
            gate.responded(exchange, now);
        }
        assert_eq!(gate.body_dropped(exchange, left), forgets, "{gate:?} {left:?}");
        assert_eq!(gate.forgets(exchange, Drain::No), forgets, "{gate:?}");
        // An end that nobody announced is none.
        assert_eq!(gate.is_last(), !forgets, "{gate:?}");
        assert!(!gate.body_dropped(exchange, left), "it is dropped once");
    }
}

#[test]
fn what_nobody_wants_is_read_for_a_while_after_the_answer() {
    let now = Instant::now();
    let late = now + FORGOTTEN_MAX;
    for side in [Side::Outside, Side::Primary] {
        let mut gate = Gate::new(side, now, false);
        let exchange = gate.requested(true, false, false);
        assert!(gate.body_dropped(exchange, Some(1)));
        gate.body_wanted(exchange, || now);
        gate.read_waits();
        gate.answering(exchange, false, false);
        // Its sender waits for the answer, and nobody for the sender.
        assert_eq!(gate.verdict(Drain::No, || late), Verdict::Wait(None));
        gate.responded(exchange, now);
        let first = match side {
            // Which keeps whom it passes on waiting itself.
            Side::Primary => late,
            Side::Outside => now + SLOW_GRACE,
        };
        assert_eq!(gate.verdict(Drain::No, || now), Verdict::Wait(Some(first)));
        assert_eq!(gate.verdict(Drain::No, || first), Verdict::Close);
        let finish = now + FINISH_DEADLINE;
        if side == Side::Outside {
            assert_eq!(gate.verdict(Drain::HandOver, || now), Verdict::Finish);
            assert_eq!({ gate }.may_read(true), Reading::AskAgain, "not before it is told");
        }
        let told = Gate { finishing: true, ..gate };
        assert_eq!(told.verdict(Drain::HandOver, || now), Verdict::Wait(Some(finish)));
        // However it moves.
        let patient = Pace { patience: SLOW_MAX * 2, ..gate.incoming };
        let moves = Gate { incoming: patient, ..gate };
        assert_eq!(moves.verdict(Drain::No, || now), Verdict::Wait(Some(late)));
        let comes = Gate { read_is_blocked: false, ..gate };
        assert_eq!(comes.verdict(Drain::No, || late), Verdict::Wait(None));
        assert!(gate.forgets(exchange, Drain::HandOver));
        assert!(!gate.forgets(exchange, Drain::Close(now)));
        gate.body_came(exchange, true);
        assert!(!gate.in_exchange() && !gate.forgets(exchange, Drain::No));
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
                let expected = if exchange { No } else { Ended };
                assert_eq!({ ended }.may_read(drains), expected, "{ended:?}");
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
        for blank in ["\r", "\n", "\r\n\r\n"] {
            gate.read(blank.as_bytes());
            assert_eq!((gate.head_began, gate.presence() == Presence::Asking), (None, false));
        }
        gate.read(b"\r\nG");
        let began = gate.head_began;
        assert_eq!(began.is_some(), matches!(phase, Never | Responded), "{phase:?}");
        gate.read(b"E");
        assert_eq!(gate.head_began, began, "the first byte counts");
        gate.requested(false, false, false);
        assert_eq!(gate.head_began, None);
    }
    assert_eq!(Gate::new(Side::Outside, now, true).presence(), Presence::Asking);
}

/// What can happen to a gate, in the order of one connection's exchanges.
fn happens(gate: &mut Gate, exchange: Exchange, event: u8, now: Instant) {
    match event {
        0 if gate.phase == InService => gate.answering(exchange, false, false),
        1 if gate.phase == InService => gate.answering(exchange, true, true),
        2 if gate.phase == Answering => gate.responded(exchange, now),
        3 => gate.read(b"x"),
        4 => gate.read_waits(),
        5 => gate.read_ended(now),
        6 => gate.write_waits(now),
        7 => gate.wrote(1),
        8 => gate.flushed(),
        9 => drop(gate.may_read(true)),
        word => says(gate, exchange, word % 6, now),
    }
}

/// A body's word, which can come at any time.
fn says(gate: &mut Gate, exchange: Exchange, word: u8, now: Instant) {
    match word {
        0 => drop(gate.body_wanted(exchange, || now)),
        1 => drop(gate.body_came(exchange, false)),
        2 => drop(gate.body_came(exchange, true)),
        3 => drop(gate.body_dropped(exchange, Some(1))),
        4 => drop(gate.body_dropped(exchange, None)),
        _ => gate.body_broke(exchange),
    }
}

proptest! {
    #[test]
    fn whatever_comes_late_of_an_exchange_leaves_the_next_as_it_was(
        before in prop::collection::vec(0..16_u8, 0..30),
        after in prop::collection::vec(0..16_u8, 0..30),
        late in prop::collection::vec(0..9_u8, 1..20),
    ) {
        let now = Instant::now();
        let mut gate = Gate::new(Side::Outside, now, false);
        let first = gate.requested(true, false, false);
        for event in before {
            happens(&mut gate, first, event, now);
        }
        let second = gate.requested(true, false, false);
        for event in after {
            happens(&mut gate, second, event, now);
        }
        let as_it_was = gate;
        for word in late {
            match word {
                6 => gate.answering(first, true, true),
                7 => gate.responded(first, now),
                8 => prop_assert!(!gate.forgets(first, Drain::No)),
                word => says(&mut gate, first, word, now),
            }
            prop_assert_eq!(gate, as_it_was);
        }
    }

    #[test]
    fn one_in_service_whose_request_is_whole_never_closes_for_its_senders_sake(
        has_body: bool,
        events in prop::collection::vec(2..16_u8, 0..60),
    ) {
        let now = Instant::now();
        let late = now + seconds(100_000);
        let mut gate = Gate::new(Side::Outside, now, false);
        let exchange = gate.requested(has_body, false, false);
        for event in events {
            happens(&mut gate, exchange, event, now);
            // Nor while it is not the sender that its function waits for.
            let waits = gate.body_left && gate.body_wanted;
            if !waits && gate.ended.is_none() && !gate.write_is_blocked() {
                for drain in drains(now) {
                    prop_assert_eq!(gate.verdict(drain, || late), Verdict::Wait(None));
                }
            }
        }
    }

    /// Whatever happens: nothing is handed over in the middle of an exchange, or with
    /// something owed, and no head is read in a drain.
    #[test]
    fn nothing_is_handed_over_in_the_middle(
        events in prop::collection::vec(0..20_u8, 0..60),
    ) {
        let now = Instant::now();
        let mut gate = Gate::new(Side::Outside, now, false);
        let mut drain = Drain::No;
        let mut exchange = Exchange(0);
        for event in events {
            match event {
                // hyper reads no further request before, and bodies are heard of in exchanges.
                16 if !gate.in_exchange() => exchange = gate.requested(true, false, false),
                17 if !gate.in_exchange() => exchange = gate.requested(false, false, true),
                18 => drain = Drain::HandOver,
                16.. => {}
                event if exchange == Exchange(0) && event >= 10 => {}
                event => happens(&mut gate, exchange, event, now),
            }
            match gate.verdict(drain, || now) {
                Verdict::HandOver => {
                    prop_assert!(gate.phase == Never && drain == Drain::HandOver);
                    prop_assert!(!gate.closes && gate.ended.is_none());
                }
                Verdict::Finish => prop_assert!(gate.phase != InService && !gate.finishing),
                Verdict::Wait(_) | Verdict::CutOff | Verdict::Close => {}
            }
            let reads = gate.may_read(drain != Drain::No);
            if drain != Drain::No && !gate.in_exchange() {
                prop_assert!(matches!(reads, Reading::No | Reading::Ended), "{:?}", reads);
            }
            if gate.closes || gate.body_left || gate.write_is_blocked() {
                prop_assert!(!gate.can_be_handed_over());
            }
        }
    }
}

/// What stands between a connection that hyper is done with and another process that takes it: each
/// of these alone.
#[test]
fn what_is_owed_or_over_is_not_handed_over() {
    let now = Instant::now();
    let done = Gate { finishing: true, ..gate(Responded, now) };
    assert!(done.can_be_handed_over());
    let blocked = |mut gate: Gate| {
        gate.write_waits(now);
        gate
    };
    for (what, gate) in [
        ("it is the primary's own", Gate { side: Side::Primary, ..done }),
        ("hyper was not told to stop", Gate { finishing: false, ..done }),
        ("the client has left", Gate { ended: Some(now), ..done }),
        ("somebody asked for its end", Gate { closes: true, ..done }),
        ("some of a request's body is to come", Gate { body_left: true, ..done }),
        ("some of an answer is to go out", blocked(done)),
    ] {
        assert!(!gate.can_be_handed_over(), "{what}");
    }
}
