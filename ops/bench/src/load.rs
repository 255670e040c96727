//! The load: some connections that are kept, each with one request at a time, from one thread.
//!
//! The request is bytes that are made once, and every answer is handed to whoever measures, who
//! says whether it is right. A connection that the server ends is counted and replaced.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::http::Answer;

/// Without any answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Load {
    to: SocketAddr,
    request: Vec<u8>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Connections that the server ended without being asked to.
    pub ended: usize,
}

struct Connection {
    stream: TcpStream,
    /// Of an answer that is not whole yet.
    read: Vec<u8>,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
}

/// One answer, and who got it when.
pub struct Answered<'a> {
    pub connection: usize,
    pub asked: Instant,
    pub at: Instant,
    pub answer: Answer<'a>,
}

impl Load {
    pub fn open(to: SocketAddr, request: &[u8], connections: usize) -> anyhow::Result<Self> {
        let mut load = Self {
            to,
            request: request.to_owned(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(connections),
            ended: 0,
        };
        for number in 0..connections {
            let connection = load.connect(number)?;
            load.connections.push(connection);
        }
        Ok(load)
    }

    fn connect(&self, number: usize) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let whose = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, &stream, whose, epoll::EventFlags::IN)?;
        Ok(Connection { stream, read: Vec::new(), asked: None })
    }

    /// Keeps every connection busy for as long as each answer is said to be followed by another
    /// request, and then waits for the answers that are still to come.
    pub fn run(
        &mut self,
        mut goes_on: impl FnMut(Answered<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut going = true;
        for connection in &mut self.connections {
            connection.ask(&self.request)?;
        }
        let patience = Timespec::try_from(PATIENCE)?;
        let mut events = Vec::with_capacity(self.connections.len());
        while self.connections.iter().any(|connection| connection.asked.is_some()) {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience)) {
                Ok(count) => ensure!(count > 0, "no answer in {PATIENCE:?}"),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
            for event in events.drain(..) {
                self.take(event.data.u64() as usize, &mut going, &mut goes_on)?;
            }
        }
        Ok(())
    }

    /// Reads what there is of a connection, and asks anew once its answer is whole.
    fn take(
        &mut self,
        number: usize,
        going: &mut bool,
        goes_on: &mut impl FnMut(Answered<'_>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let connection = &mut self.connections[number];
        let alive = connection.receive()?;
        let at = Instant::now();
        let mut closes = false;
        if let Some((answer, length)) = Answer::parse(&connection.read)? {
            let asked = connection.asked.take().context("an answer to nothing")?;
            ensure!(length == connection.read.len(), "more came than one answer");
            closes = answer.closes;
            *going &= goes_on(Answered { connection: number, asked, at, answer })?;
            connection.read.clear();
        }
        if closes || !alive {
            ensure!(connection.asked.is_none(), "a connection ended in place of an answer");
            self.ended += 1;
            // The old one leaves the epoll with its last descriptor.
            self.connections[number] = self.connect(number)?;
        }
        let connection = &mut self.connections[number];
        if *going && connection.asked.is_none() {
            connection.ask(&self.request)?;
        }
        Ok(())
    }
}

impl Connection {
    fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.asked = Some(Instant::now());
        let written = self.stream.write(request)?;
        ensure!(written == request.len(), "a request of {} bytes is too long", request.len());
        Ok(())
    }

    /// Whether more may come.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let mut part = [0; 16 << 10];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(got) => {
                    self.read.extend_from_slice(&part[..got]);
                    if got < part.len() {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
