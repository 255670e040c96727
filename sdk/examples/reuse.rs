//! An instance that serves more than one call, for what is dear to prepare. How many calls an
//! instance has served is its own affair: a call may always meet a fresh one, so nothing may
//! depend on what another call left.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hearth_sdk::{Error, function};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Input {
    #[schemars(range(max = LARGEST))]
    number: usize,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    prime: bool,
    /// How many calls this instance has served, this one among them.
    served: u32,
}

const LARGEST: usize = 1_000_000;

static PRIMES: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let mut prime = vec![true; LARGEST + 1];
    prime[..2].fill(false);
    let mut number = 2;
    while number * number <= LARGEST {
        if prime[number] {
            prime[number * number..].iter_mut().step_by(number).for_each(|prime| *prime = false);
        }
        number += 1;
    }
    prime
});
static SERVED: AtomicU32 = AtomicU32::new(0);

/// Says whether a number up to a million is prime.
#[function(reuse = 100)]
fn reuse(input: Input) -> Result<Output, Error> {
    let prime = PRIMES.get(input.number);
    let prime = *prime.ok_or_else(|| Error::new(422, "the number must be at most 1000000"))?;
    Ok(Output { prime, served: SERVED.fetch_add(1, Ordering::Relaxed) + 1 })
}
