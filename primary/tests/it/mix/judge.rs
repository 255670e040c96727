//! Whether what a client did, what it saw and what its tenant's record says of it fit together.
//! Pure: one function says what is wrong, and its tests what that is.

use std::time::Duration;

use crate::mix::plan::{End, Framing, PIECE, Phase, Plan, Reads, Sends, Way};

/// No answer of a call that waits for nothing takes longer, on the slowest machine.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a worker finishes its calls beside the one that follows it.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);
/// Within which a call ends that nobody waits for any more.
const MARGIN_MS: u64 = 1_500;

/// All that a client had of its call.
#[derive(Debug, Clone, PartialEq)]
pub struct Saw {
    pub answer: Seen,
    /// Of the versions that were live from when it was sent on.
    pub live: Vec<u64>,
    /// From when everything was sent.
    pub waited: Duration,
    /// Whether the answer before it, on the same connection, came before all of its request.
    pub follows_early: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It left before.
    Nothing,
    /// None came, for this reason.
    Lost(String),
    Answer(Answer),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub nonce: Option<u64>,
    pub request_id: Option<String>,
    pub version: Option<u64>,
    pub body: Body,
    /// Why it is not whole, where it is not.
    pub cut: Option<String>,
    /// Whether it says that the connection ends with it.
    pub closes: bool,
}

/// What is kept of an answer's body.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    pub bytes: u64,
    /// How it begins.
    pub text: String,
    /// Whether it is all that the function says.
    pub is_whole: bool,
    /// Why it is not how the function's answer begins.
    pub wrong: Option<String>,
}

impl Body {
    pub fn of(plan: &Plan, bytes: &[u8]) -> Self {
        const TEXT_BYTES: usize = 200;
        Self {
            bytes: bytes.len() as u64,
            text: String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_BYTES)]).into_owned(),
            is_whole: plan.is_whole(bytes),
            wrong: plan.begins(bytes).err(),
        }
    }
}

/// What the tenant's record of calls has.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub status: u16,
    pub outcome: String,
    pub duration_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
}

/// What is wrong, in a sentence; `told` is every record of this call.
pub fn judge(plan: &Plan, saw: &Saw, told: &[Told]) -> Result<(), String> {
    if let Seen::Answer(answer) = &saw.answer {
        is_its_own(plan, answer, &saw.live)?;
    }
    if told.len() > 1 {
        return Err(format!("the call was made {} times", told.len()));
    }
    match waits(plan) {
        true if is_ended_unsaid(plan, saw) && told.is_empty() => Ok(()),
        true if is_outlasting(saw, told) => Ok(()),
        true => {
            has_its_answer(plan, saw)?;
            let told = told.first().ok_or("nothing is on record of a call that was answered")?;
            is_told_as_answered(plan, saw, told)
        }
        false => is_told_as_left(plan, saw, told.first()),
    }
}

/// Whether a record must come.
pub fn is_on_record(plan: &Plan, saw: &Saw) -> bool {
    let left_but_served = !plan.way.is_proxied() && plan.end == End::Fin(Phase::Asked);
    let is_asked = waits(plan) && !is_ended_unsaid(plan, saw);
    is_asked || left_but_served || matches!(saw.answer, Seen::Answer(_))
}

/// nginx closes a connection whose answer was there before it had all of the request, and the
/// answer does not say so: the next request on it has none, and reaches nobody.
fn is_ended_unsaid(plan: &Plan, saw: &Saw) -> bool {
    plan.way == Way::Nginx && saw.follows_early && matches!(saw.answer, Seen::Lost(_))
}

/// Whether the call took longer than a worker that is followed by another goes on for, and was
/// stopped for that. Nobody plans to, but a machine that is very busy brings it about.
fn is_outlasting(saw: &Saw, told: &[Told]) -> bool {
    let Seen::Answer(answer) = &saw.answer else { return false };
    let [told] = told else { return false };
    told.outcome == "stopped"
        && Duration::from_micros(told.duration_us) >= LONGEST_DRAIN
        && (answer.cut.is_some() || answer.status == 503)
}

/// Whether an answer was made whole and is not whole. Caddy's own library closes its connection to
/// us, now and then, where an answer begins while it looks whether the request goes on, and 2.6 ends
/// what it passes on of that as if it were all. It says of each that it did.
pub fn is_cut_on_the_way(saw: &Saw, told: &[Told]) -> bool {
    let Seen::Answer(answer) = &saw.answer else { return false };
    let [told] = told else { return false };
    told.outcome == "answered" && answer.body.wrong.is_none() && !answer.body.is_whole
}

/// Whether an answer is owed: proxies may take who closes its side for gone.
fn waits(plan: &Plan) -> bool {
    match plan.end {
        End::Waits => true,
        End::HalfClosed => !plan.way.is_proxied(),
        End::Fin(_) | End::Rst(_) => false,
    }
}

/// Whatever became of the client: what it has is the answer to its own call, as far as it came.
fn is_its_own(plan: &Plan, answer: &Answer, live: &[u64]) -> Result<(), String> {
    if is_word_for_it(plan, answer) {
        return Ok(());
    }
    if answer.status != plan.status() {
        let left = plan.end.left().is_some() || (plan.end == End::HalfClosed && !waits(plan));
        // Half a request is refused.
        return if left && (400..500).contains(&answer.status) {
            Ok(())
        } else {
            Err(format!("it was answered {}: {}", answer.status, answer.body.text))
        };
    }
    if answer.nonce != Some(plan.nonce) {
        return Err(format!("the answer is that of call {:?}", answer.nonce));
    }
    if answer.request_id != Some(plan.request_id()) {
        return Err(format!("the answer names the request {:?}", answer.request_id));
    }
    if !answer.version.is_some_and(|version| live.contains(&version)) {
        return Err(format!("version {:?} answered, of {live:?}", answer.version));
    }
    if !came_whole(plan) && plan.reads == Reads::All {
        return Err("half a body was taken for a whole one".to_owned());
    }
    answer.body.wrong.clone().map_or(Ok(()), Err)
}

/// Whether the end of an answer that is short was seen before anything of it was passed on, by the
/// host or by a proxy.
fn is_word_for_it(plan: &Plan, answer: &Answer) -> bool {
    plan.framing == Framing::Short
        && (answer.status == 500 || (answer.status == 502 && plan.way.is_proxied()))
}

/// Whether the function's body came whole, or was sent whole at least.
fn came_whole(plan: &Plan) -> bool {
    plan.end.left().is_none_or(|phase| phase >= Phase::Asked) || plan.body == 0
}

fn has_its_answer(plan: &Plan, saw: &Saw) -> Result<(), String> {
    let answer = match &saw.answer {
        // How much of it comes before its end is anybody's.
        Seen::Lost(_) if plan.framing == Framing::Short => return Ok(()),
        Seen::Answer(answer) if is_word_for_it(plan, answer) => return Ok(()),
        Seen::Answer(answer) => answer,
        Seen::Lost(why) => return Err(format!("it has no answer: {why}")),
        Seen::Nothing => return Err("it waited for nothing".to_owned()),
    };
    match (&answer.cut, plan.framing) {
        (None, Framing::Short) => return Err("half an answer was sent as a whole".to_owned()),
        (Some(_), Framing::Short) => {}
        (Some(why), _) => {
            let got = answer.body.bytes;
            return Err(format!("its answer was cut after {got} bytes: {why}"));
        }
        (None, _) if !answer.body.is_whole => {
            return Err(format!("its answer ended after {} bytes", answer.body.bytes));
        }
        (None, _) => {}
    }
    let works = Duration::from_millis(plan.thinks_ms + plan.pieces as u64 * plan.pause_ms)
        + plan.dawdles * (plan.answer / PIECE + 1) as u32;
    if saw.waited > works + LONGEST_WAIT {
        return Err(format!("it waited {:?} for what takes {works:?}", saw.waited));
    }
    Ok(())
}

fn is_told_as_answered(plan: &Plan, saw: &Saw, told: &Told) -> Result<(), String> {
    let outcome = if plan.framing == Framing::Short { "trapped" } else { "answered" };
    let seen = match &saw.answer {
        Seen::Answer(answer) => answer.body.bytes,
        Seen::Lost(_) | Seen::Nothing => 0,
    };
    let all = plan.body as u64;
    let read = match plan.reads {
        // What it did not wait for may have come, too.
        Reads::Some | Reads::None => told.request_bytes.min(all),
        Reads::All => all,
    };
    let is_told = |status| told.status == status;
    let is_so = told.outcome == outcome
        && (is_told(plan.status()) || (plan.framing == Framing::Short && is_told(500)))
        && told.request_bytes == read
        && (told.response_bytes == seen || plan.framing == Framing::Short);
    if is_so { Ok(()) } else { Err(format!("it was answered, and on record is {told:?}")) }
}

/// Of a client that left, or that somebody may have taken for gone.
fn is_told_as_left(plan: &Plan, saw: &Saw, told: Option<&Told>) -> Result<(), String> {
    let phase = plan.end.left().unwrap_or(Phase::Asked);
    let Some(told) = told else {
        return if is_on_record(plan, saw) {
            Err("nothing is on record of a call that was made".to_owned())
        } else {
            Ok(())
        };
    };
    if phase <= Phase::HalfHead {
        return Err(format!("half a head was taken for a request: {told:?}"));
    }
    let complete = came_whole(plan);
    let fits = match told.outcome.as_str() {
        "abandoned" => told.status == 499 || told.status == plan.status(),
        "answered" => {
            (complete || plan.reads != Reads::All)
                && plan.framing != Framing::Short
                && told.status == plan.status()
        }
        "refused" => !complete && told.status == 400,
        "trapped" => plan.framing == Framing::Short && matches!(told.status, 200 | 500),
        _ => false,
    };
    if !fits {
        return Err(format!("the client left ({:?}), and on record is {told:?}", plan.end));
    }
    if let Seen::Answer(answer) = &saw.answer
        && told.response_bytes < answer.body.bytes
        && answer.status == plan.status()
    {
        return Err(format!("{} bytes were seen, and on record is {told:?}", answer.body.bytes));
    }
    // Where the kernel says that nobody is there, nobody is served.
    let noticed = plan.end == End::Rst(Phase::Asked) && !plan.way.is_proxied();
    if noticed
        && plan.thinks_ms > 2 * MARGIN_MS
        && (told.outcome != "abandoned" || told.duration_us > (plan.thinks_ms - MARGIN_MS) * 1_000)
    {
        return Err(format!("the call went on though its client was gone: {told:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            nonce: 41,
            way: Way::Port,
            body: 6_000,
            chunked: false,
            expects: false,
            sends: Sends::AtOnce,
            reads: Reads::None,
            thinks_ms: 0,
            answer: 3,
            framing: Framing::Length,
            pieces: 1,
            pause_ms: 0,
            dawdles: Duration::ZERO,
            end: End::Waits,
        }
    }

    const RIGHT: &[u8] = b"nonce=41 read=0 sum=cbf29ce484222325\n\x29\x2a\x2b";

    /// The right one to a [`plan`].
    fn answer() -> Answer {
        Answer {
            status: 200,
            nonce: Some(41),
            request_id: Some("mix-41".to_owned()),
            version: Some(5),
            body: Body::of(&plan(), RIGHT),
            cut: None,
            closes: false,
        }
    }

    fn saw(answer: Answer) -> Saw {
        Saw { answer: Seen::Answer(answer), ..nothing() }
    }

    fn nothing() -> Saw {
        Saw {
            answer: Seen::Nothing,
            live: vec![4, 5],
            waited: Duration::ZERO,
            follows_early: false,
        }
    }

    fn told(outcome: &str, status: u16) -> Told {
        Told {
            status,
            outcome: outcome.to_owned(),
            duration_us: 1_000,
            request_bytes: 0,
            response_bytes: RIGHT.len() as u64,
        }
    }

    #[track_caller]
    fn fine(plan: &Plan, saw: &Saw, told: &[Told]) {
        assert_eq!(judge(plan, saw, told), Ok(()));
    }

    #[track_caller]
    fn wrong(plan: &Plan, saw: &Saw, told: &[Told], says: &str) {
        let sentence = judge(plan, saw, told).unwrap_err();
        assert!(sentence.contains(says), "{says:?} is not in {sentence:?}");
    }

    #[test]
    fn who_waits_has_its_own_whole_answer_and_one_record() {
        let answered = told("answered", 200);
        fine(&plan(), &saw(answer()), std::slice::from_ref(&answered));
        wrong(&plan(), &saw(answer()), &[], "nothing is on record");
        wrong(&plan(), &saw(answer()), &[answered.clone(), answered.clone()], "2 times");
        for (outcome, status) in [("abandoned", 200), ("answered", 499), ("refused", 200)] {
            wrong(&plan(), &saw(answer()), &[told(outcome, status)], "on record is");
        }
        let some = Told { response_bytes: 1, ..answered.clone() };
        wrong(&plan(), &saw(answer()), &[some], "on record is");
        wrong(&plan(), &nothing(), std::slice::from_ref(&answered), "waited for nothing");
        let lost = Saw { answer: Seen::Lost("reset".to_owned()), ..nothing() };
        wrong(&plan(), &lost, &[], "no answer: reset");
        let late = Saw { waited: Duration::from_secs(30), ..saw(answer()) };
        wrong(&plan(), &late, std::slice::from_ref(&answered), "waited 30s");
        let slow = Plan { thinks_ms: 20_000, ..plan() };
        fine(&slow, &late, &[answered]);
    }

    #[test]
    fn an_answer_of_somebody_else_is_seen_in_whatever_it_differs() {
        let right = [told("answered", 200)];
        let with = |change: fn(&mut Answer)| {
            let mut answer = answer();
            change(&mut answer);
            saw(answer)
        };
        wrong(&plan(), &with(|it| it.nonce = Some(7)), &right, "that of call Some(7)");
        wrong(&plan(), &with(|it| it.request_id = None), &right, "names the request None");
        wrong(&plan(), &with(|it| it.version = Some(3)), &right, "version Some(3)");
        wrong(&plan(), &with(|it| it.status = 503), &right, "answered 503");
        let says = |bytes: &[u8]| saw(Answer { body: Body::of(&plan(), bytes), ..answer() });
        let changed = |at: usize, to: u8| {
            let mut bytes = RIGHT.to_vec();
            bytes[at] = to;
            says(&bytes)
        };
        wrong(&plan(), &changed(6, b'5'), &right, "it says");
        wrong(&plan(), &changed(39, 0), &right, "other bytes");
        wrong(&plan(), &says(&[RIGHT, b"x"].concat()), &right, "other bytes");
        wrong(&plan(), &says(&RIGHT[..39]), &right, "ended after 39 bytes");
        wrong(&plan(), &says(&RIGHT[..4]), &right, "ended after 4 bytes");
        wrong(&plan(), &says(b"nonce=42"), &right, "it begins");
        wrong(&plan(), &with(|it| it.cut = Some("reset".to_owned())), &right, "was cut after 40");
    }

    #[test]
    fn what_was_read_is_what_was_sent() {
        let reads = |reads| Plan { reads, body: 1, ..plan() };
        // The body's only byte is 41 * 7 % 253.
        let sum = (0xcbf2_9ce4_8422_2325_u64 ^ 34).wrapping_mul(0x100_0000_01b3);
        let said = |plan: &Plan, sum: u64| {
            let bytes = format!("nonce=41 read=1 sum={sum:016x}\n\x29\x2a\x2b").into_bytes();
            saw(Answer { body: Body::of(plan, &bytes), ..answer() })
        };
        let length = said(&plan(), sum);
        let Seen::Answer(Answer { body: Body { bytes, .. }, .. }) = length.answer else { panic!() };
        let one = Told { request_bytes: 1, response_bytes: bytes, ..told("answered", 200) };
        let one = std::slice::from_ref(&one);
        let [all, some, none] = [Reads::All, Reads::Some, Reads::None].map(reads);
        fine(&all, &said(&all, sum), one);
        fine(&some, &said(&some, sum), one);
        wrong(&none, &said(&none, sum), one, "of 1 bytes");
        let two = Plan { body: 2, ..all.clone() };
        wrong(&two, &said(&two, sum), one, "of 2 bytes");
        wrong(&all, &said(&all, sum), &[told("answered", 200)], "on record is");
        wrong(&all, &said(&all, sum + 1), one, "instead of");
    }

    #[test]
    fn an_answer_that_is_short_must_be_cut_and_one_that_is_empty_empty() {
        let short = Plan { framing: Framing::Short, ..plan() };
        let cut = saw(Answer { cut: Some("the end".to_owned()), ..answer() });
        fine(&short, &cut, &[told("trapped", 200)]);
        wrong(&short, &cut, &[told("answered", 200)], "on record is");
        let lost = Saw { answer: Seen::Lost("the end".to_owned()), ..nothing() };
        fine(&short, &lost, &[told("trapped", 200)]);
        wrong(&short, &lost, &[told("answered", 200)], "on record is");
        let told_so = saw(Answer { status: 502, nonce: None, request_id: None, ..answer() });
        fine(&Plan { way: Way::Nginx, ..short.clone() }, &told_so, &[told("trapped", 200)]);
        wrong(&short, &told_so, &[told("trapped", 200)], "answered 502");
        let by_host = saw(Answer { status: 500, nonce: None, ..answer() });
        fine(&short, &by_host, &[told("trapped", 500)]);
        wrong(&plan(), &by_host, &[told("trapped", 500)], "answered 500");
        wrong(&short, &saw(answer()), &[told("trapped", 200)], "sent as a whole");
        let empty = Plan { framing: Framing::Empty, ..plan() };
        let none = Answer { status: 204, body: Body::of(&empty, b""), ..answer() };
        let right = Told { response_bytes: 0, ..told("answered", 204) };
        fine(&empty, &saw(none.clone()), std::slice::from_ref(&right));
        let full = Answer { body: Body::of(&empty, b"x"), ..none };
        wrong(&empty, &saw(full), &[right], "a 204 with a body");
    }

    #[test]
    fn who_leaves_is_told_by_what_can_have_become_of_it() {
        let left = |end, reads| Plan { end, reads, ..plan() };
        for end in [End::Fin, End::Rst] {
            for phase in [Phase::Connected, Phase::HalfHead] {
                fine(&left(end(phase), Reads::All), &nothing(), &[]);
                let all = left(end(phase), Reads::All);
                wrong(&all, &nothing(), &[told("abandoned", 499)], "half a head");
            }
            for phase in [Phase::Head, Phase::HalfBody] {
                let all = left(end(phase), Reads::All);
                fine(&all, &nothing(), &[]);
                fine(&all, &nothing(), &[told("abandoned", 499)]);
                fine(&all, &nothing(), &[told("refused", 400)]);
                wrong(&all, &nothing(), &[told("answered", 200)], "the client left");
                wrong(&all, &nothing(), &[told("timeout", 504)], "the client left");
                fine(&left(end(phase), Reads::None), &nothing(), &[told("answered", 200)]);
                let read = left(end(phase), Reads::All);
                let whole = [told("answered", 200)];
                wrong(&read, &saw(answer()), &whole, "taken for a whole one");
            }
            let asked = left(end(Phase::Asked), Reads::All);
            fine(&asked, &nothing(), &[told("answered", 200)]);
            fine(&asked, &nothing(), &[told("abandoned", 499)]);
            wrong(&asked, &nothing(), &[told("refused", 400)], "the client left");
            let half = left(end(Phase::HalfAnswer), Reads::None);
            let seen = saw(Answer { cut: Some("left".to_owned()), ..answer() });
            fine(&half, &seen, &[told("abandoned", 200)]);
            wrong(&half, &seen, &[], "nothing is on record");
            let fewer = Told { response_bytes: 1, ..told("abandoned", 200) };
            wrong(&half, &seen, &[fewer], "40 bytes were seen");
        }
    }

    #[test]
    fn who_is_known_to_be_gone_is_not_served_and_who_may_be_there_is() {
        let asked = |end, way| Plan { end, way, thinks_ms: 4_000, ..plan() };
        let went_on = Told { duration_us: 4_000_000, ..told("abandoned", 499) };
        for way in Way::ALL {
            let gone = asked(End::Rst(Phase::Asked), way);
            fine(&gone, &nothing(), &[]);
            fine(&gone, &nothing(), &[told("abandoned", 499)]);
            let closed = asked(End::Fin(Phase::Asked), way);
            fine(&closed, &nothing(), &[told("answered", 200)]);
            let half = asked(End::HalfClosed, way);
            let lost = Saw { answer: Seen::Lost("closed".to_owned()), ..nothing() };
            if way.is_proxied() {
                fine(&gone, &nothing(), std::slice::from_ref(&went_on));
                fine(&closed, &nothing(), &[]);
                fine(&half, &lost, &[told("abandoned", 499)]);
                fine(&half, &lost, &[]);
            } else {
                wrong(&gone, &nothing(), std::slice::from_ref(&went_on), "went on");
                wrong(&gone, &nothing(), &[told("answered", 200)], "went on");
                wrong(&closed, &nothing(), &[], "nothing is on record");
                wrong(&half, &lost, &[told("abandoned", 499)], "no answer: closed");
            }
        }
    }

    #[test]
    fn a_call_that_is_stopped_took_longer_than_its_worker_may() {
        let cut = saw(Answer { cut: Some("the end".to_owned()), ..answer() });
        let stopped = |duration_us| [Told { duration_us, ..told("stopped", 200) }];
        fine(&plan(), &cut, &stopped(30_000_000));
        wrong(&plan(), &cut, &stopped(29_000_000), "was cut after");
        wrong(&plan(), &saw(answer()), &stopped(30_000_000), "on record is");
    }

    #[test]
    fn what_proxies_do_of_themselves_is_told_apart() {
        let lost = Saw { answer: Seen::Lost("closed".to_owned()), ..nothing() };
        let follows = Saw { follows_early: true, ..lost.clone() };
        let by = |way| Plan { way, ..plan() };
        fine(&by(Way::Nginx), &follows, &[]);
        assert!(!is_on_record(&by(Way::Nginx), &follows));
        wrong(&by(Way::Nginx), &follows, &[told("answered", 200)], "no answer: closed");
        wrong(&by(Way::Nginx), &lost, &[], "no answer: closed");
        wrong(&by(Way::Haproxy), &follows, &[], "no answer: closed");
        let half = saw(Answer { body: Body::of(&plan(), &RIGHT[..39]), ..answer() });
        assert!(is_cut_on_the_way(&half, &[told("answered", 200)]));
        assert!(!is_cut_on_the_way(&half, &[told("abandoned", 200)]));
        assert!(!is_cut_on_the_way(&saw(answer()), &[told("answered", 200)]));
        assert!(!is_cut_on_the_way(&lost, &[told("answered", 200)]));
    }

    #[test]
    fn a_record_is_waited_for_where_there_must_be_one() {
        for (end, way, seen, must) in [
            (End::Waits, Way::Nginx, nothing(), true),
            (End::HalfClosed, Way::Path, nothing(), true),
            (End::HalfClosed, Way::Caddy, nothing(), false),
            (End::Fin(Phase::Asked), Way::Name, nothing(), true),
            (End::Rst(Phase::Asked), Way::Name, nothing(), false),
            (End::Rst(Phase::HalfAnswer), Way::Name, saw(answer()), true),
        ] {
            assert_eq!(is_on_record(&Plan { end, way, ..plan() }, &seen), must, "{end:?} {way:?}");
        }
    }
}
