//! Rounds: those who are compared take turns under the same load, and each is compared with the
//! others of its own round. So what disturbs the machine for a while disturbs all of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::cores::{self, Cores};
use crate::load::Load;
use crate::samples::Samples;

/// What a round's first answers cost is no one's figure.
const WARMING: Duration = Duration::from_millis(100);
/// Short, and rather more of them: what disturbs lasts longer than one and so meets all subjects.
const WINDOW: Duration = Duration::from_millis(500);

/// Who is asked, for what, and what must be answered.
pub struct Subject<'a> {
    pub to: SocketAddr,
    pub request: Vec<u8>,
    pub answer: &'a [u8],
    /// The processes that have the work.
    pub pids: Vec<i32>,
}

/// What came out for one subject, a sample a round.
#[derive(Default)]
pub struct Measured {
    /// Answers a second.
    pub rate: Samples,
    /// The processes' time on the processor, microseconds an answer.
    pub cost: Samples,
    /// Milliseconds that all but a hundredth of the answers took at most.
    pub p99: Samples,
    /// The load's own time, microseconds an answer. Where that keeps its core busy, the load is
    /// what was measured.
    pub load: Samples,
}

/// Measures all of them `rounds` times more, on as many connections as are asked for.
pub fn by_turns(
    cores: Cores,
    rounds: u32,
    connections: usize,
    subjects: &mut [(Subject<'_>, &mut Measured)],
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for (subject, measured) in &mut *subjects {
            let turn = cores.on_the_loads(|| turn(subject, connections))?;
            measured.rate.push(turn.rate);
            measured.cost.push(turn.cost);
            measured.p99.push(turn.latencies.quantile(0.99));
            measured.load.push(turn.load);
        }
    }
    Ok(())
}

/// Rounds that do not count.
pub fn warm(
    cores: Cores,
    rounds: u32,
    connections: usize,
    subjects: &[(Subject<'_>, &mut Measured)],
) -> anyhow::Result<()> {
    for _ in 0..rounds {
        for (subject, _) in subjects {
            cores.on_the_loads(|| turn(subject, connections))?;
        }
    }
    Ok(())
}

struct Turn {
    rate: f64,
    cost: f64,
    load: f64,
    latencies: Samples,
}

fn turn(subject: &Subject<'_>, connections: usize) -> anyhow::Result<Turn> {
    let mut load = Load::open(subject.to, &subject.request, connections)?;
    let warm = Instant::now() + WARMING;
    drive(&mut load, subject, warm, &mut Samples::default())?;

    let ours = [std::process::id().try_into()?];
    let [used, used_by_load] = [used_seconds(&subject.pids)?, used_seconds(&ours)?];
    let mut latencies = Samples::default();
    let begun = Instant::now();
    let answers = drive(&mut load, subject, begun + WINDOW, &mut latencies)?;
    let took = begun.elapsed();
    let used = used_seconds(&subject.pids)? - used;
    let used_by_load = used_seconds(&ours)? - used_by_load;
    ensure!(load.ended == 0, "{} connections were not kept", load.ended);
    Ok(Turn {
        rate: answers as f64 / took.as_secs_f64(),
        cost: used * 1e6 / answers as f64,
        load: used_by_load * 1e6 / answers as f64,
        latencies,
    })
}

/// Returns how many answers came.
fn drive(
    load: &mut Load,
    subject: &Subject<'_>,
    until: Instant,
    latencies: &mut Samples,
) -> anyhow::Result<u32> {
    let mut answers = 0;
    load.run(|answered| {
        let (status, body) = (answered.answer.status, &answered.answer.body);
        let right = status == 200 && **body == *subject.answer;
        ensure!(right, "answered {status}: {}", String::from_utf8_lossy(body));
        latencies.push_milliseconds(answered.at - answered.asked);
        answers += 1;
        Ok(answered.at < until)
    })?;
    Ok(answers)
}

fn used_seconds(pids: &[i32]) -> anyhow::Result<f64> {
    pids.iter().map(|pid| cores::used_seconds(*pid)).sum()
}
