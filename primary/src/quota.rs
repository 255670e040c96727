//! Who takes more of the disk for state than it may. A worker keeps to its share by itself; this looks
//! now and then whether that is so, of those that run, one after another, by a process of whom the
//! files belong to, and has ended who took more.
//!
//! A share can become smaller than what is there: a limit was lowered, a module was uploaded. Nobody is
//! ended for that: what was there when it was seen first may stay, and shrink, and only what came
//! since counts. [`Known::judge`] decides, and is pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hearth_wire::TenantName;
use hearth_wire::limits::size;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::fleet::Fleet;
use crate::generations::{GenerationError, Generations, StateUse};
use crate::store::Store;

/// How often it is seen who runs.
const ROUND_EVERY: Duration = Duration::from_secs(5);
/// From one look at a tenant to the next.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After a look nobody is looked at for so many times as long as it took: of a core this takes one
/// part in so many.
const PAUSE: u32 = 20;
/// Beyond its share, for what is written between two looks of its own at the files.
pub const SLACK_BYTES: u64 = 16 << 20;

/// What is known of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// What was there at first, or when the share became smaller, or the least since.
    least: u64,
    share: u64,
    looked: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Within,
    Beyond,
}

impl Known {
    /// Of a tenant that was looked at before, or not.
    fn judge(before: Option<Self>, found: StateUse, now: Instant) -> (Self, Verdict) {
        let StateUse { bytes, share } = found;
        let least = match before {
            None => bytes,
            // What it had by right may stay.
            Some(Self { least, share: before, .. }) if share < before => {
                bytes.min(before.max(least))
            }
            Some(before) => before.least.min(bytes),
        };
        let most = share.max(least).saturating_add(SLACK_BYTES);
        let verdict = if bytes > most { Verdict::Beyond } else { Verdict::Within };
        (Self { least, share, looked: now }, verdict)
    }

    fn is_due(self, now: Instant) -> bool {
        self.looked + LOOK_EVERY <= now
    }
}

/// Until told to stop.
pub async fn run(store: Store, generations: Generations, fleet: Fleet, stop: CancellationToken) {
    let mut known = HashMap::new();
    let mut rounds = tokio::time::interval(ROUND_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        // What was there when a tenant was seen first is kept for as long as there is the tenant.
        known.retain(|tenant, _| fleet.status(tenant).is_some());
        let live = fleet.live();
        for tenant in due(live, &known, Instant::now()) {
            let began = Instant::now();
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = look(&tenant, &mut known, &store, &generations, &fleet) => looked,
            };
            if let Err(error) = looked {
                let error = &error as &dyn std::error::Error;
                error!(%tenant, error, "a tenant's state could not be measured");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(began.elapsed() * PAUSE) => {}
            }
        }
    }
}

/// Those of them whom it is time to look at: who was never seen first, then who was longest ago.
fn due(live: Vec<TenantName>, known: &HashMap<TenantName, Known>, now: Instant) -> Vec<TenantName> {
    let mut due: Vec<_> = live
        .into_iter()
        .filter(|tenant| known.get(tenant).is_none_or(|known| known.is_due(now)))
        .collect();
    due.sort_by_key(|tenant| known.get(tenant).map(|known| known.looked));
    due
}

async fn look(
    name: &TenantName,
    known: &mut HashMap<TenantName, Known>,
    store: &Store,
    generations: &Generations,
    fleet: &Fleet,
) -> Result<(), GenerationError> {
    // It was removed meanwhile, and its workers with it.
    let Some(tenant) = store.tenant(name).await? else { return Ok(()) };
    let found = generations.look_at_state(&tenant).await?;
    metrics::counter!("hearth_state_looks_total").increment(1);
    let (now, before) = (Instant::now(), known.get(name).copied());
    let (after, verdict) = Known::judge(before, found, now);
    known.insert(name.clone(), after);
    if verdict == Verdict::Beyond {
        let StateUse { bytes, share } = found;
        warn!(tenant = %name, bytes, share, "a worker took more of the disk than its tenant may have");
        metrics::counter!("hearth_state_over_quota_total", "tenant" => name.to_string())
            .increment(1);
        fleet.end(name, reason(found)).await;
    }
    Ok(())
}

/// For its owner.
fn reason(StateUse { bytes, share }: StateUse) -> String {
    format!(
        "its state took {} on disk, and `disk_bytes` leaves it {}: remove data or functions, or \
         have the host's admin raise `disk_bytes`",
        size(bytes),
        size(share)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn who_takes_more_is_beyond_and_who_has_less_now_is_not() {
        let now = Instant::now();
        let seen = |before, bytes, share| {
            Known::judge(before, StateUse { bytes: bytes * MIB, share: share * MIB }, now)
        };
        // Bytes and shares one after another, and what each look comes to.
        for looks in [
            &[(0, 100, Verdict::Within), (116, 100, Verdict::Within), (117, 100, Verdict::Beyond)]
                [..],
            // The limit was lowered: what is there may stay, and may not grow.
            &[(80, 100, Verdict::Within), (80, 10, Verdict::Within), (97, 10, Verdict::Beyond)],
            // What came while there was more room was within it.
            &[
                (0, 100, Verdict::Within),
                (90, 100, Verdict::Within),
                (90, 10, Verdict::Within),
                (106, 10, Verdict::Within),
                (107, 10, Verdict::Beyond),
            ],
            &[(0, 100, Verdict::Within), (130, 10, Verdict::Beyond)],
            // What was removed is not had again.
            &[(80, 10, Verdict::Within), (20, 10, Verdict::Within), (80, 10, Verdict::Beyond)],
            // Seen first by this host when it was there already.
            &[
                (500, 100, Verdict::Within),
                (516, 100, Verdict::Within),
                (517, 100, Verdict::Beyond),
            ],
            &[(0, 0, Verdict::Within), (16, 0, Verdict::Within), (17, 0, Verdict::Beyond)],
        ] {
            let mut known = None;
            for (bytes, share, wanted) in looks {
                let (after, verdict) = seen(known, *bytes, *share);
                assert_eq!(verdict, *wanted, "{looks:?}");
                known = Some(after);
            }
        }
    }

    #[test]
    fn everybody_who_runs_is_looked_at_in_turn() {
        let name = |name: &str| name.parse::<TenantName>().unwrap();
        let now = Instant::now();
        let ago = |seconds| now - Duration::from_secs(seconds);
        let known = [("long", 40), ("longer", 60), ("just", 3)]
            .map(|(it, seconds)| (name(it), Known { least: 0, share: 0, looked: ago(seconds) }));
        let live = ["just", "long", "longer", "new"].map(name).to_vec();
        assert_eq!(due(live, &HashMap::from(known), now), ["new", "longer", "long"].map(name));
    }

    #[test]
    fn the_reason_says_what_to_do() {
        let said = reason(StateUse { bytes: 3 << 30, share: 1 << 30 });
        assert!(said.contains("`disk_bytes`") && said.contains("remove data"), "{said}");
    }
}
