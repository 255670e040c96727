//! A swap that somebody asked for: what is to serve, what makes it durable, and who waits for it. When
//! it begins and ends is the [`Life`](super::lifecycle::Life)'s to say.

use std::time::{Duration, Instant};

use hearth_wire::{GenerationNumber, Setting};

use super::error::SwapError;
use super::inbox::{Answer, Commit, Next};
use super::lifecycle::Swapped;

pub struct Asked {
    next: Next,
    answer: Answer<Result<Duration, SwapError>>,
    at: Instant,
}

impl Asked {
    pub fn new(next: Next, answer: Answer<Result<Duration, SwapError>>) -> Self {
        Self { next, answer, at: Instant::now() }
    }

    pub fn generation(&self) -> GenerationNumber {
        self.next.generation
    }

    /// One that waited for its place has not begun before. Gives what its worker is told, where that
    /// is not what is kept.
    pub fn begins(&mut self) -> Option<Vec<Setting>> {
        self.at = Instant::now();
        self.next.settings.take()
    }

    pub fn commit(&mut self) -> Option<Commit> {
        self.next.commit.take()
    }

    pub fn end(self, swapped: Swapped) {
        let took = self.at.elapsed();
        let _ = self.answer.send(match swapped {
            Swapped::Done => Ok(took),
            Swapped::Busy => Err(SwapError::Busy),
            Swapped::Failed(reason) => Err(SwapError::NotStarted(reason)),
        });
    }
}
