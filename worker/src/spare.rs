//! A spare child: forked before anybody needs it, it runs what comes with this build, and then waits to
//! be told whose worker it is. That it is told once; from then on it is a worker like any other.
//!
//! Until then it holds nothing of any tenant's, and it has no other thread. Nothing of what it ran is
//! left: its instances, its runtime and its random numbers have ended, and since it never forks,
//! its keys of hash tables and its heap are nobody else's. Which of them there are, and who is given
//! one, is [`crate::zygote`]'s.

use hearth_jail::{BornWith, private_bytes};
use hearth_wire::limits::SPARE_MAX_BYTES;
use hearth_wire::{Birthright, FromSpare, ToSpare};

use crate::birth;
use crate::warm::{self, WarmError};
use crate::zygote::{
    Base, Inherited, Newborn, REASON_MAX_BYTES, ZygoteError, enter, explain, try_attempt,
};

/// One that could not run what it was to run: neither could another.
const EXIT_UNFIT: u8 = 78;
/// Of a function that spins, which nothing else would stop.
const WARM_CPU_SECONDS: u64 = 3;
/// Waits for its tenant. `None` where none comes, since its zygote is gone.
pub fn live(newborn: Newborn) -> Result<Option<Inherited>, ZygoteError> {
    let Newborn { mut control, socket, slots, base, seal, mut kept } = newborn;
    // In the place of the zygote's, so that it cannot speak for it.
    rustix::io::dup2(&socket, &mut control).map_err(std::io::Error::from)?;
    drop(socket);
    kept.extend([0, 1, 2]);
    kept.extend(slots.numbers());
    hearth_jail::keep_only(&kept)?;
    hearth_jail::begin_worker();
    // Before it takes more, which is the tenant's then.
    let born_with = BornWith::now()?;
    if let Err(error) = warm(&base) {
        let mut reason = explain(&error);
        reason.truncate(reason.floor_char_boundary(REASON_MAX_BYTES));
        hearth_wire::send(&control, &FromSpare::Unfit { reason }, &[])?;
        hearth_jail::leave(EXIT_UNFIT);
    }
    let runtime = birth::runtime(false)?;
    hearth_wire::send(&control, &FromSpare::Warm, &[])?;
    let Some((told, fds)) = hearth_wire::recv::<ToSpare>(&control)? else { return Ok(None) };
    // Before anything else: until it says so, somebody else may be this tenant's worker.
    hearth_wire::send(&control, &FromSpare::Taken, &[])?;
    match told {
        ToSpare::Serve { cell, given } => {
            let birthright = Birthright::of(&given, fds)?;
            let entered = enter(control, slots, birthright, cell, None, Some(born_with))?;
            Ok(Some(entered.with(base, seal, Some(runtime))))
        }
        ToSpare::Try { attempt, cell } => match try_attempt(attempt, cell, &seal)? {},
    }
}

fn warm(base: &Base) -> Result<(), WarmError> {
    hearth_jail::with_cpu_seconds(WARM_CPU_SECONDS, || warm::up(base))??;
    crate::host::forget();
    let private = private_bytes().map_err(WarmError::Unbounded)?;
    match private <= SPARE_MAX_BYTES {
        true => Ok(()),
        false => Err(WarmError::Large(private)),
    }
}
