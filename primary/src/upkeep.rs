//! What must happen now and then whatever else does: files that nothing names are removed,
//! removed functions and old changes are forgotten, modules are looked at for damage, and figures
//! are taken.
//!
//! Each task looks at what is and at what should be, and closes the gap; it can run at any time
//! and twice.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::fleet::Fleet;
use crate::generations::{GenerationError, Generations};
use crate::provision::Provision;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;
use crate::upload::Uploads;

const SWEEP_EVERY: Duration = Duration::from_secs(600);
const CENSUS_EVERY: Duration = Duration::from_secs(5);
/// One module each time: to look at all of them must cost little, and may take days.
const SCRUB_EVERY: Duration = Duration::from_secs(2);
/// How long a removed function can be rolled back.
const REMOVED_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// For how long it is told who changed what.
const AUDIT_KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Until told to stop. Sweeps at once, since an earlier process may have been killed.
pub async fn run(
    store: Store,
    uploads: Uploads,
    provision: Provision,
    generations: Generations,
    fleet: Fleet,
    telemetry: Telemetry,
    stop: CancellationToken,
) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut scrub = tokio::time::interval(SCRUB_EVERY);
    let mut census = tokio::time::interval(CENSUS_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = sweep.tick() => {
                caught("purge", purge(&store, &generations)).await;
                caught("strangers", provision.sweep()).await;
                caught("sweep", clean(&uploads)).await;
            }
            _ = scrub.tick() => caught("scrub", generations.scrub()).await,
            () = generations.changed() => caught("refresh", uploads.refresh()).await,
            _ = census.tick() => {
                telemetry.fold();
                fleet.gauge();
                generations.gauge();
            }
        }
    }
}

/// Whatever one of these meets, the others go on, and it itself the next time.
async fn caught<E: std::error::Error + 'static>(
    task: &str,
    work: impl Future<Output = Result<(), E>>,
) {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(error = &error as &dyn std::error::Error, "{task}"),
        Err(_) => error!("{task} panicked"),
    }
}

async fn purge(store: &Store, generations: &Generations) -> Result<(), StoreError> {
    let (now, bundled) = (Timestamp::now(), generations.bundle().folded());
    let functions = store.purge(now - REMOVED_KEPT, now - AUDIT_KEPT, bundled).await?;
    if functions > 0 {
        info!(functions, "forgot functions that were removed");
    }
    Ok(())
}

async fn clean(uploads: &Uploads) -> Result<(), GenerationError> {
    let files = uploads.sweep().await?;
    if files > 0 {
        info!(files, "removed files that nothing refers to");
    }
    Ok(())
}
