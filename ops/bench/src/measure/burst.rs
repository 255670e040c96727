//! A thousand tenants that sleep, and a caller of each at the same moment. All must be answered;
//! how long they wait, and how fairly, is said.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, Tenant};
use crate::http::Answer;
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

const TENANTS: u16 = 1_000;
const BURSTS: usize = 3;
const MEDIAN: Goal = Goal::at_most(850.0).better(700.0);
const P99: Goal = Goal::at_most(1_800.0).better(1_200.0);
/// Longer than a burst, so that nobody sleeps again within one.
const IDLE: [&str; 2] = ["--idle", "8s"];
/// Without any answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Nothing is kept on one core: callers and host share both.
pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let mut host = Host::start_with_room(&setup.programs, &IDLE, TENANTS)?;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        tenants.push(host.create(&format!("t-{number}"))?);
    }
    host.stop()?;
    host.start_again()?;
    // The host looks after a tenant's files at its first wake.
    let first = Burst::of(&call_all(&tenants)?);
    let [mut medians, mut p99s, mut lasts, mut orders]: [Samples; 4] = Default::default();
    for _ in 0..BURSTS {
        for tenant in &tenants {
            host.wait_asleep(tenant)?;
        }
        let burst = Burst::of(&call_all(&tenants)?);
        medians.push(burst.waits.median());
        p99s.push(burst.waits.quantile(0.99));
        lasts.push(burst.waits.most());
        orders.push(burst.order);
    }
    let said = |times: [f64; 3]| times.map(|it| format!("{} ms", rounded(it))).join("; ");
    let of_first = said([first.waits.median(), first.waits.quantile(0.99), first.waits.most()]);
    let unfair = rounded(p99s.of(&medians).median());
    Ok(vec![
        Row::milliseconds(format!("{TENANTS} woken at once, median"), medians.median(), MEDIAN),
        Row::milliseconds("99 of 100", p99s.median(), P99),
        Row::milliseconds_stated("the last", lasts.median()),
        Row::stated("right after the host's start: median; 99 of 100; the last", of_first),
        Row::stated("99 of 100, of the median", unfair),
        Row::aside("answered in the order of asking: 1; in any order: 0", rounded(orders.median())),
    ])
}

struct Burst {
    /// Milliseconds.
    waits: Samples,
    order: f64,
}

impl Burst {
    fn of(callers: &[Caller]) -> Self {
        let mut waits = Samples::default();
        for caller in callers {
            waits.push_milliseconds(caller.answered - caller.asked);
        }
        let answered: Vec<_> = callers.iter().map(|caller| caller.answered).collect();
        Self { waits, order: likeness_of_orders(&answered) }
    }
}

struct Caller {
    stream: TcpStream,
    read: Vec<u8>,
    /// Since the burst's begin. Zero until it is answered.
    asked: Duration,
    answered: Duration,
}

/// One call to each, on a connection of its own. Returns the callers in the order of asking.
fn call_all(tenants: &[Tenant]) -> anyhow::Result<Vec<Caller>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut callers = Vec::with_capacity(tenants.len());
    let mut waiting = 0;
    let begun = Instant::now();
    for (number, tenant) in (0..).zip(tenants) {
        let asked = begun.elapsed();
        let mut stream = TcpStream::connect(tenant.own)?;
        stream.set_nodelay(true)?;
        stream.write_all(&tenant.hello())?;
        stream.set_nonblocking(true)?;
        epoll::add(&epoll, &stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        callers.push(Caller { stream, read: Vec::new(), asked, answered: Duration::ZERO });
        waiting += 1;
        // Answers that are there are taken now: later they would seem late.
        for number in ready(&epoll, Duration::ZERO)? {
            waiting -= usize::from(callers[number].take(begun)?);
        }
    }
    while waiting > 0 {
        let ready = ready(&epoll, PATIENCE)?;
        ensure!(!ready.is_empty(), "{waiting} got no answer in {PATIENCE:?}");
        for number in ready {
            waiting -= usize::from(callers[number].take(begun)?);
        }
    }
    Ok(callers)
}

fn ready(epoll: &OwnedFd, patience: Duration) -> anyhow::Result<Vec<usize>> {
    let mut events = Vec::with_capacity(usize::from(TENANTS));
    let patience = Timespec::try_from(patience)?;
    loop {
        match epoll::wait(epoll, spare_capacity(&mut events), Some(&patience)) {
            Ok(_) => return Ok(events.iter().map(|event| event.data.u64() as usize).collect()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
}

impl Caller {
    /// Reads what there is. Whether the answer is whole, which it becomes once.
    fn take(&mut self, begun: Instant) -> anyhow::Result<bool> {
        let mut part = [0; 4 << 10];
        let got = match self.stream.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            got => got?,
        };
        ensure!(got > 0, "a connection ended without an answer");
        self.read.extend_from_slice(&part[..got]);
        let Some((Answer { status, body, .. }, _)) = Answer::parse(&self.read)? else {
            return Ok(false);
        };
        let right = status == 200 && *body == *HELLO_ANSWER;
        ensure!(right, "answered {status}: {}", String::from_utf8_lossy(&body));
        self.answered = begun.elapsed();
        Ok(true)
    }
}

/// Spearman's coefficient of the order in which they asked and that in which they were answered.
fn likeness_of_orders(answered: &[Duration]) -> f64 {
    let mut order: Vec<usize> = (0..answered.len()).collect();
    order.sort_by_key(|number| answered[*number]);
    let apart = order.iter().enumerate().map(|(place, number)| place.abs_diff(*number).pow(2));
    let count = answered.len() as f64;
    1.0 - 6.0 * apart.sum::<usize>() as f64 / (count * (count * count - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_compared() {
        let likeness = |order: [u64; 4]| likeness_of_orders(&order.map(Duration::from_secs));
        assert_eq!(likeness([1, 2, 3, 4]), 1.0);
        assert_eq!(likeness([4, 3, 2, 1]), -1.0);
        assert!((likeness([2, 1, 4, 3]) - 0.6).abs() < 1e-9);
    }
}
