use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

fn reason() -> String {
    "killed".to_owned()
}

/// Every phase, with and without every kind of swap beside it, each worker at a number of its own.
fn states(now: Instant) -> Vec<Life> {
    let stages = [Stage::Queued { since: now }, Stage::Loading { since: now }];
    let mut phases = vec![
        Phase::Asleep,
        Phase::Ready { worker: WorkerId(1), since: now },
        Phase::Backoff { until: now + PATIENCE, callers: Callers::Wait, reason: reason() },
        Phase::Backoff { until: now + PATIENCE, callers: Callers::Refused, reason: reason() },
        Phase::Barred { reason: reason() },
        Phase::Stopped,
    ];
    phases.extend(stages.map(|stage| Phase::Starting { worker: WorkerId(1), stage }));
    let mut swaps = vec![
        None,
        Some(Swap::Quiescing { old: WorkerId(3) }),
        Some(Swap::Waiting { generation: GenerationNumber(8), since: now }),
    ];
    swaps.extend(stages.map(|stage| {
        Some(Swap::Loading { worker: WorkerId(2), generation: GenerationNumber(8), stage })
    }));
    swaps.extend([None, Some(reason())].map(|lost| {
        Some(Swap::Committing { worker: WorkerId(2), generation: GenerationNumber(8), lost })
    }));
    // All places are taken.
    let draining = |worker| Draining {
        worker: WorkerId(worker),
        kept_by: KeptBy::Calls,
        deadline: now + DRAIN_DEADLINE + FAREWELL_DEADLINE,
        quiesce_by: Some(now + QUIESCE_DEADLINE),
    };
    let draining = [3, 4].map(draining).to_vec();
    let mut states = Vec::new();
    for current in &phases {
        for swap in &swaps {
            states.push(Life {
                generation: GenerationNumber(7),
                current: current.clone(),
                swap: swap.clone(),
                draining: draining.clone(),
                deaths: 0,
                unforked: 0,
                last_worker: 4,
            });
        }
    }
    states
}

fn events() -> Vec<Event> {
    let mut events = vec![
        Event::Wanted,
        Event::Start,
        Event::Stop,
        Event::Swap(GenerationNumber(9)),
        Event::Committed,
        Event::CommitFailed(reason()),
        Event::Tick,
        Event::Overdue,
        Event::Shutdown,
        Event::Hurry,
    ];
    for worker in (1..=5).map(WorkerId) {
        events.extend([
            Event::Forked(worker),
            Event::NotForked(worker, reason()),
            Event::Barred(worker, reason()),
            Event::Ready(worker),
            Event::Quiesced(worker),
            Event::Leaving(worker),
            Event::CallsDone(worker),
            Event::Died(worker, reason()),
        ]);
    }
    events
}

#[test]
fn every_state_by_every_event_keeps_the_rules() {
    let now = Instant::now();
    for before in states(now) {
        for event in events() {
            let mut life = before.clone();
            let actions = life.step(event.clone(), now);
            let context = format!("{before:#?}\n{event:?}\n{actions:?}\n{life:#?}");
            assert!(with_calls(&life) <= DRAINING_MAX, "{context}");
            if before.current == Phase::Stopped {
                let committed = event == Event::Committed
                    && matches!(before.swap, Some(Swap::Committing { .. }));
                assert!(life.current == Phase::Stopped || committed, "{context}");
            }
            // A generation becomes current by a commit and by nothing else.
            if life.generation != before.generation {
                assert_eq!(event, Event::Committed, "{context}");
            }
            // Each swap is answered once: when it ends, or at once where it cannot begin.
            let answers = actions.iter().filter(|a| matches!(a, Action::Answer(_))).count();
            let began = before.swap.is_none() && life.swap.is_some();
            let ended = before.swap.is_some() && life.swap.is_none();
            let refused = matches!(event, Event::Swap(_)) && !began;
            assert_eq!(answers, usize::from(ended || refused), "{context}");
            // Whoever is told to accept is the current worker.
            for action in &actions {
                if let Action::Accept(worker) = action {
                    assert!(
                        matches!(life.current, Phase::Ready { worker: current, .. } if current == *worker),
                        "{context}"
                    );
                }
            }
            // What can wait for ever waits for somebody, not for something that is gone.
            let waits = matches!(life.current, Phase::Starting { .. } | Phase::Backoff { .. });
            assert!(!waits || life.deadline().is_some(), "{context}");
        }
    }
}

#[test]
fn a_connection_wakes_exactly_one_worker() {
    let now = Instant::now();
    let mut life = Life::new(GenerationNumber(7));
    assert_eq!(life.reception(), Reception::Watched);
    let fork = Action::Fork { worker: WorkerId(1), generation: GenerationNumber(7) };
    assert_eq!(life.step(Event::Wanted, now), [fork]);
    for _ in 0..100 {
        assert_eq!(life.step(Event::Wanted, now), []);
    }
    assert_eq!(life.reception(), Reception::Held);
    assert_eq!(life.step(Event::Forked(WorkerId(1)), now), []);
    assert_eq!(life.step(Event::Ready(WorkerId(1)), now), [Action::Accept(WorkerId(1))]);
    assert_eq!(life.reception(), Reception::Worker);
}

#[test]
fn sleeping_has_the_socket_watched_before_the_worker_is_gone() {
    let now = Instant::now();
    let mut life = ready(now);
    let finish = Action::Finish(WorkerId(1), DRAIN_DEADLINE);
    let leave = Action::Leave(WorkerId(1));
    assert_eq!(life.step(Event::Leaving(WorkerId(1)), now), [finish, leave]);
    assert_eq!(life.reception(), Reception::Watched);
    let fork = Action::Fork { worker: WorkerId(2), generation: GenerationNumber(7) };
    assert_eq!(life.step(Event::Wanted, now), [fork]);
    assert_eq!(life.step(Event::Died(WorkerId(1), reason()), now), []);
    assert_eq!(life.deaths, 0);
}

#[test]
fn a_swap_in_its_order() {
    let now = Instant::now();
    let mut life = ready(now);
    let next = WorkerId(2);
    assert_eq!(
        life.step(Event::Swap(GenerationNumber(8)), now),
        [Action::Fork { worker: next, generation: GenerationNumber(8) }]
    );
    assert_eq!(life.step(Event::Forked(next), now), []);
    assert_eq!(life.step(Event::Swap(GenerationNumber(9)), now), [Action::Answer(Swapped::Busy)]);
    assert_eq!(life.step(Event::Ready(next), now), [Action::Commit(GenerationNumber(8))]);
    assert_eq!(life.generation, GenerationNumber(7));
    assert_eq!(
        life.step(Event::Committed, now),
        [
            Action::Accept(next),
            Action::Finish(WorkerId(1), DRAIN_DEADLINE),
            Action::Quiesce(WorkerId(1))
        ]
    );
    assert_eq!(life.generation, GenerationNumber(8));
    assert_eq!(life.step(Event::Quiesced(WorkerId(1)), now), [Action::Answer(Swapped::Done)]);
    assert_eq!(life.step(Event::Died(WorkerId(1), reason()), now), []);
    assert_eq!(life.current, Phase::Ready { worker: next, since: now });
}

#[test]
fn a_generation_that_does_not_start_changes_nothing() {
    let now = Instant::now();
    let later = now + FORK_DEADLINE;
    for (event, at) in [
        (Event::Died(WorkerId(2), reason()), now),
        (Event::NotForked(WorkerId(2), reason()), now),
        (Event::Barred(WorkerId(2), reason()), now),
        (Event::Overdue, later),
    ] {
        let mut life = ready(now);
        let _ = life.step(Event::Swap(GenerationNumber(8)), now);
        let answers = life.step(event, at);
        assert!(matches!(answers.last(), Some(Action::Answer(Swapped::Failed(_)))), "{answers:?}");
        assert_eq!((life.generation, life.swap.clone()), (GenerationNumber(7), None));
        assert_eq!(life.current, Phase::Ready { worker: WorkerId(1), since: now });
    }
}

#[test]
fn quick_deaths_end_in_a_bar_and_a_fix_lifts_it() {
    let mut now = Instant::now();
    let mut life = Life::new(GenerationNumber(7));
    let mut receptions = Vec::new();
    loop {
        let started = life.step(Event::Wanted, now);
        let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
        assert_eq!(life.step(Event::Died(worker, reason()), now), []);
        receptions.push(life.reception());
        let Some(resumes) = life.resumes() else { break };
        assert_eq!(life.step(Event::Wanted, now), []);
        now = resumes;
        assert_eq!(life.step(Event::Tick, now), []);
    }
    assert_eq!(receptions.len(), BARRED_AFTER as usize);
    assert_eq!(receptions[..3], [Reception::Held; 3]);
    assert!(
        receptions[3..7].iter().all(|reception| matches!(reception, Reception::Refused(Some(_))))
    );
    assert_eq!(receptions[7], Reception::Refused(None));

    let fork = life.step(Event::Swap(GenerationNumber(8)), now);
    let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
    assert_eq!(life.reception(), Reception::Refused(None));
    let _ = life.step(Event::Ready(worker), now);
    assert_eq!(
        life.step(Event::Committed, now),
        [Action::Accept(worker), Action::Answer(Swapped::Done)]
    );
    assert_eq!((life.reception(), life.deaths), (Reception::Worker, 0));
}

#[test]
fn what_somebody_must_mend_first_bars_at_once() {
    let now = Instant::now();
    let mut life = Life::new(GenerationNumber(7));
    let started = life.step(Event::Wanted, now);
    let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
    assert_eq!(life.step(Event::Barred(worker, reason()), now), []);
    assert_eq!(life.current, Phase::Barred { reason: reason() });
    assert_eq!((life.reception(), life.resumes()), (Reception::Refused(None), None));
    assert_eq!(life.step(Event::Wanted, now), []);
    // It is mended, and started again.
    let started = life.step(Event::Start, now);
    let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
    let _ = life.step(Event::Ready(worker), now);
    assert_eq!((life.reception(), life.deaths), (Reception::Worker, 0));
}

#[test]
fn starts_without_a_process_are_put_off_longer_each_time_and_bar_nobody() {
    let mut now = Instant::now();
    let mut life = Life::new(GenerationNumber(7));
    let mut receptions = Vec::new();
    for _ in 0..3 * BARRED_AFTER {
        let started = life.step(Event::Wanted, now);
        let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
        assert_eq!(life.step(Event::NotForked(worker, reason()), now), []);
        let next = life.resumes().unwrap();
        assert!(next > now && next <= now + RETRY.1);
        receptions.push(life.reception());
        now = next;
        assert_eq!(life.step(Event::Tick, now), []);
    }
    // Waited out at first, told later.
    assert_eq!(receptions[..3], [Reception::Held; 3]);
    assert!(
        receptions[3..].iter().all(|reception| matches!(reception, Reception::Refused(Some(_))))
    );
    let started = life.step(Event::Wanted, now);
    let [Action::Fork { worker, .. }] = started[..] else { panic!("{started:?}") };
    assert_eq!(life.step(Event::Forked(worker), now), []);
    assert_eq!((life.unforked, life.deaths), (0, 0));
}

#[test]
fn a_long_life_forgives() {
    let now = Instant::now();
    let mut life = ready(now);
    life.deaths = BARRED_AFTER - 1;
    let _ = life.step(Event::Died(WorkerId(1), reason()), now + HEALTHY_AFTER);
    assert_eq!(life.deaths, 1);
}

#[test]
fn connections_are_closed_where_nobody_takes_them() {
    let now = Instant::now();
    let worker = WorkerId(1);
    let finish = Action::Finish(worker, DRAIN_DEADLINE);
    let stopped = ready(now).step(Event::Stop, now);
    assert_eq!(stopped, [finish.clone(), Action::Quiesce(worker)]);
    assert_eq!(ready(now).step(Event::Shutdown, now), [finish, Action::Close(worker)]);
}

/// Swaps so often; the last one's answer is still to come.
fn swap(life: &mut Life, now: Instant) -> WorkerId {
    let fork = life.step(Event::Swap(life.generation.next()), now);
    let [Action::Fork { worker, .. }] = fork[..] else { panic!("{fork:?}") };
    let Phase::Ready { worker: old, .. } = life.current else { panic!("{life:?}") };
    let _ = life.step(Event::Ready(worker), now);
    let _ = life.step(Event::Committed, now);
    let _ = life.step(Event::Quiesced(old), now);
    old
}

#[test]
fn a_third_swap_waits_until_one_of_the_others_has_finished_its_calls() {
    let now = Instant::now();
    for done in [Event::Died(WorkerId(1), reason()), Event::CallsDone(WorkerId(2))] {
        let mut life = ready(now);
        assert_eq!([swap(&mut life, now), swap(&mut life, now)], [WorkerId(1), WorkerId(2)]);
        assert_eq!(life.step(Event::Swap(GenerationNumber(10)), now), []);
        assert_eq!(
            life.step(Event::Swap(GenerationNumber(11)), now),
            [Action::Answer(Swapped::Busy)]
        );
        let fork = Action::Fork { worker: WorkerId(4), generation: GenerationNumber(10) };
        assert_eq!(life.step(done, now), [fork]);
    }
}

#[test]
fn the_place_comes_with_the_end_of_the_calls_time_or_its_swap_changes_nothing() {
    let now = Instant::now();
    let mut life = ready(now);
    let (_, _) = (swap(&mut life, now), swap(&mut life, now));
    assert_eq!(life.step(Event::Swap(GenerationNumber(10)), now), []);
    let late = life.deadline().unwrap();
    assert_eq!(late, now + DRAIN_DEADLINE + FAREWELL_DEADLINE);
    let actions = life.step(Event::Overdue, late);
    let [Action::Kill(WorkerId(1), _), Action::Kill(WorkerId(2), _), fork] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(*fork, Action::Fork { worker: WorkerId(4), generation: GenerationNumber(10) });

    let mut life = ready(now);
    let (_, _) = (swap(&mut life, now), swap(&mut life, now));
    let _ = life.step(Event::Swap(GenerationNumber(10)), now);
    for draining in &mut life.draining {
        draining.deadline = now + PLACE_DEADLINE * 2;
    }
    let actions = life.step(Event::Overdue, now + PLACE_DEADLINE);
    assert!(matches!(&actions[..], [Action::Answer(Swapped::Failed(_))]), "{actions:?}");
    assert_eq!((life.generation, life.swap), (GenerationNumber(9), None));
}

#[test]
fn uploads_keep_their_workers_and_take_no_place() {
    let now = Instant::now();
    let mut life = ready(now);
    let mut old = Vec::new();
    for _ in 0..LEAVING_MAX {
        let worker = swap(&mut life, now);
        let _ = life.step(Event::CallsDone(worker), now);
        old.push(worker);
    }
    let _ = life.step(Event::Overdue, now + DRAIN_DEADLINE * 2);
    let left: Vec<_> = life.draining.iter().map(|draining| draining.worker).collect();
    assert_eq!(left, old, "none is killed, and none is forgotten");
    assert_eq!(
        life.step(Event::Swap(GenerationNumber(1_000)), now),
        [],
        "but there is an end of it"
    );
    let over = life.step(Event::Overdue, now + UPLOADS_DEADLINE);
    let killed = over.iter().filter(|action| matches!(action, Action::Kill(..))).count();
    assert_eq!((killed, life.draining.len()), (LEAVING_MAX, 0));
}

#[test]
fn who_stops_again_and_again_has_the_oldest_hurry() {
    let now = Instant::now();
    let mut life = Life::new(GenerationNumber(7));
    let mut hurried = Vec::new();
    for _ in 0..4 {
        let start = life.step(Event::Start, now);
        let [Action::Fork { worker, .. }] = start[..] else { panic!("{start:?}") };
        let _ = life.step(Event::Ready(worker), now);
        hurried.extend(life.step(Event::Stop, now).into_iter().filter_map(|action| match action {
            Action::Finish(worker, Duration::ZERO) => Some(worker),
            Action::Kill(..) => panic!("{action:?}"),
            _ => None,
        }));
    }
    assert_eq!(hurried, [WorkerId(1), WorkerId(2)]);
    // One that sleeps in between has no calls, and hurries nobody.
    let start = life.step(Event::Start, now);
    let [Action::Fork { worker, .. }] = start[..] else { panic!("{start:?}") };
    let _ = life.step(Event::Ready(worker), now);
    let finish = Action::Finish(worker, DRAIN_DEADLINE);
    let left = life.step(Event::Leaving(worker), now);
    assert_eq!(left, [finish, Action::Leave(worker)]);
}

#[test]
fn a_hurry_leaves_time_to_say_so_and_no_more() {
    let now = Instant::now();
    let mut life = ready(now);
    let _ = swap(&mut life, now);
    let _ = life.step(Event::Shutdown, now);
    let finish = [WorkerId(1), WorkerId(2)].map(|w| Action::Finish(w, Duration::ZERO));
    assert_eq!(life.step(Event::Hurry, now), finish);
    assert_eq!(life.deadline(), Some(now + FAREWELL_DEADLINE));
}

/// A tenant that nobody can call waits for no calls' end with what may mend it.
#[test]
fn a_fix_waits_for_nothing() {
    let now = Instant::now();
    let mut life = ready(now);
    let (_, _) = (swap(&mut life, now), swap(&mut life, now));
    let Phase::Ready { worker, .. } = life.current else { panic!("{life:?}") };
    let _ = life.step(Event::Died(worker, reason()), now);
    assert!(matches!(life.step(Event::Swap(GenerationNumber(10)), now)[..], [Action::Fork { .. }]));
}

fn with_calls(life: &Life) -> usize {
    life.draining.iter().filter(|draining| draining.kept_by == KeptBy::Calls).count()
}

fn ready(now: Instant) -> Life {
    let mut life = Life::new(GenerationNumber(7));
    let _ = life.step(Event::Wanted, now);
    let _ = life.step(Event::Ready(WorkerId(1)), now);
    life
}

proptest! {
    /// Whatever happens in whatever order: nobody accepts twice at once, and a worker's number is new.
    #[test]
    fn at_most_one_worker_accepts(picks in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4, 0u64..40), 1..200)) {
        let mut now = Instant::now();
        let mut life = Life::new(GenerationNumber(1));
        let mut forked = HashSet::new();
        let mut accepting: HashSet<WorkerId> = HashSet::new();
        for (pick, back, seconds) in picks {
            now += Duration::from_secs(seconds);
            let worker = WorkerId(life.last_worker.saturating_sub(back));
            let all = [
                Event::Wanted, Event::Start, Event::Stop, Event::Swap(life.generation.next()),
                Event::Committed, Event::CommitFailed(reason()), Event::Forked(worker),
                Event::NotForked(worker, reason()), Event::Barred(worker, reason()), Event::Ready(worker), Event::Quiesced(worker),
                Event::Leaving(worker), Event::CallsDone(worker), Event::Died(worker, reason()),
                Event::Tick, Event::Overdue, Event::Hurry,
            ];
            let event = pick.get(&all).clone();
            match &event {
                Event::Died(worker, _) | Event::NotForked(worker, _) | Event::Barred(worker, _) => { accepting.remove(worker); }
                // A worker says so after it stopped.
                Event::Leaving(worker) => { accepting.remove(worker); }
                _ => {}
            }
            // The next one accepts before the old one stops, so look when the step is over.
            for action in life.step(event, now) {
                match action {
                    Action::Fork { worker, .. } => prop_assert!(forked.insert(worker)),
                    Action::Accept(worker) => { accepting.insert(worker); }
                    Action::Quiesce(worker) | Action::Close(worker) | Action::Kill(worker, _) => { accepting.remove(&worker); }
                    Action::Finish(..) | Action::Leave(_) | Action::Commit(_) | Action::Answer(_) => {}
                }
            }
            prop_assert!(accepting.len() <= 1, "{:?}", accepting);
            prop_assert!(with_calls(&life) <= DRAINING_MAX);
            prop_assert!(life.draining.len() <= LEAVING_MAX);
        }
    }
}
