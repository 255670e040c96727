//! Which statements took too long for a group, by their text: they go alone at once. The oldest of
//! many is forgotten.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

const KNOWN_MAX: usize = 256;

#[derive(Default)]
pub struct Slow {
    hashes: VecDeque<u64>,
    by: RandomState,
}

impl Slow {
    pub fn knows(&self, text: &str) -> bool {
        self.hashes.contains(&self.by.hash_one(text))
    }

    pub fn learn(&mut self, text: &str) {
        if self.hashes.len() == KNOWN_MAX {
            self.hashes.pop_front();
        }
        self.hashes.push_back(self.by.hash_one(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut slow = Slow::default();
        let text = |number: usize| format!("UPDATE t SET a = {number}");
        for number in 0..=KNOWN_MAX {
            assert!(!slow.knows(&text(number)));
            slow.learn(&text(number));
        }
        assert!(!slow.knows(&text(0)));
        assert!((1..=KNOWN_MAX).all(|number| slow.knows(&text(number))));
    }
}
