//! What a tenant notices of another one that does harm: a steady caller's waits while somebody
//! else's function spins, takes memory or traps, or while somebody connects in a loop, beside its
//! waits in the calm before. What somebody does to the host itself is [`besieged`]'s.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use crate::Setup;
use crate::cores::Cores;
use crate::host::{HELLO_ANSWER, Host, call};
use crate::http::Client;
use crate::samples::Samples;
use crate::table::{Goal, Row, rounded};

use super::besieged;

/// Between two calls of the steady caller, from begin to begin.
const PACE: Duration = Duration::from_millis(2);
/// Of each turn, calls that count, after some that do not.
const CALLS: u32 = 400;
const WARMING: u32 = 50;
/// Callers of the noisy tenant, who wait most of the time.
const CALLERS: usize = 4;
const OPTIONS: &str = r#"{"timeout_ms":1000,"memory_mb":256}"#;
const GOAL: Goal = Goal::at_most(2.0);

/// What the noisy tenant does.
#[derive(Debug, Clone, Copy)]
enum Noise {
    /// Calls of this function, whatever comes of them.
    Calls(&'static str),
    Connections,
}

impl Noise {
    /// One who connects in a loop waits for nothing, and takes a core: two would leave none.
    fn callers(self) -> usize {
        match self {
            Self::Calls(_) => CALLERS,
            Self::Connections => 1,
        }
    }
}

const NOISES: [(&str, Noise); 4] = [
    ("spinning", Noise::Calls("/loops")),
    ("growing", Noise::Calls("/eats_memory")),
    ("trapping", Noise::Calls("/ends_early?trap")),
    ("connecting", Noise::Connections),
];

/// Nothing is kept on one core: everybody wants both, and the machine has no more.
pub fn measure(setup: &Setup, _: Cores) -> anyhow::Result<Vec<Row>> {
    let host = Host::start(&setup.programs, &[])?;
    let noisy = host.create("noisy")?;
    for function in ["loops", "eats_memory", "ends_early"] {
        let module = setup.guest(function)?;
        Client::new(noisy.own).call(&noisy.upload(&[(function, &module)], Some(OPTIONS)))?;
    }
    let listener = take_and_close()?;
    let mut plain = Samples::default();
    let mut steady = Client::new(host.home.own);
    let request = host.home.hello();
    let mut calm = Samples::default();
    let mut beside: [Samples; NOISES.len()] = Default::default();
    let mut ratios = beside.clone();
    for _ in 0..setup.rounds {
        for (at, (_, noise)) in NOISES.into_iter().enumerate() {
            let alone = p99(&mut steady, &request)?;
            let disturbed = beside_noise(noisy.own, noise, || p99(&mut steady, &request))?;
            calm.push(alone);
            beside[at].push(disturbed);
            ratios[at].push(disturbed / alone);
        }
        let noise = Noise::Connections;
        plain.push(beside_noise(listener, noise, || p99(&mut steady, &request))?);
    }
    let mut rows = Vec::new();
    for ((name, _), ratios) in NOISES.iter().zip(&ratios) {
        rows.push(Row::ratio(format!("99 of 100 answers within, beside one {name}"), ratios, GOAL));
    }
    let name = |at: usize| NOISES[at].0;
    let said =
        beside.iter().enumerate().map(|(at, it)| format!("{} {}", name(at), rounded(it.median())));
    let said: Vec<String> = said.collect();
    let said = format!("{} ms; {}", rounded(calm.median()), said.join(", "));
    rows.push(Row::aside("99 of 100 alone; beside each", said));
    let plain = format!("{} ms", rounded(plain.median()));
    rows.push(Row::aside("the same beside connections that a thread takes and closes", plain));
    // Its host has nobody else's work to do while it is measured.
    drop(host);
    rows.extend(besieged::measure(setup)?);
    Ok(rows)
}

/// Milliseconds within which 99 of 100 answers come to a caller who asks at a steady pace. A
/// wrong answer ends the measurement.
fn p99(client: &mut Client, request: &[u8]) -> anyhow::Result<f64> {
    let mut waits = Samples::default();
    let mut next = Instant::now();
    for number in 0..WARMING + CALLS {
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
        next += PACE;
        let begun = Instant::now();
        let answer = client.call(request)?;
        let took = begun.elapsed();
        ensure!(*answer == *HELLO_ANSWER, "answered {}", String::from_utf8_lossy(&answer));
        if number >= WARMING {
            waits.push_milliseconds(took);
        }
    }
    Ok(waits.quantile(0.99))
}

/// Does something while the noise goes on.
fn beside_noise<T>(
    noisy: SocketAddr,
    noise: Noise,
    act: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..noise.callers())
            .map(|_| {
                scope.spawn(|| {
                    let mut made = 0;
                    while !ends.load(Ordering::Relaxed) {
                        disturb(noisy, noise)?;
                        made += 1;
                    }
                    anyhow::Ok(made)
                })
            })
            .collect();
        let acted = act();
        ends.store(true, Ordering::Relaxed);
        for caller in callers {
            let made: u32 = caller.join().expect("a panic ends the process")?;
            ensure!(made > 0, "{noise:?} made no noise");
        }
        acted
    })
}

fn disturb(noisy: SocketAddr, noise: Noise) -> anyhow::Result<()> {
    match noise {
        Noise::Calls(target) => {
            let request = call(&noisy.to_string(), target, b"");
            Client::new_from(fresh_address(), noisy)
                .time(&request)
                .with_context(|| target.to_owned())?;
        }
        Noise::Connections => {
            let from = fresh_address();
            for _ in 0..100 {
                // Half of them begin to speak.
                let mut stream = connect(from, noisy)?;
                let _ = stream.write(b"POST /loops HTTP/1.1\r\n");
                drop(connect(from, noisy)?);
            }
        }
    }
    Ok(())
}

/// An address of this machine that nobody has called from. What a closed connection leaves behind
/// for a minute, a port of its caller's, is trouble of that caller's machine, which has to look
/// for a free one ever longer: it must not be that of the machine that is measured.
fn fresh_address() -> Ipv4Addr {
    static USED: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = Ipv4Addr::new(127, 1, 0, 1).to_bits();
    Ipv4Addr::from_bits(FIRST + USED.fetch_add(1, Ordering::Relaxed))
}

/// Connected or, where nobody takes it for so long, given up.
fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    match rustix::net::connect(&socket, &to) {
        Err(Errno::INPROGRESS) => {
            poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&PATIENCE))?;
        }
        connected => connected?,
    }
    Ok(socket.into())
}

/// The least that can be done about a connection.
fn take_and_close() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(address)
}
