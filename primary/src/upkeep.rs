//! What must happen now and then whatever else does: files that nothing names are removed,
//! removed functions are forgotten, modules are looked at for damage, and figures are taken.
//!
//! Each task looks at what is and at what should be, and closes the gap; it can run at any time
//! and twice.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::fleet::Fleet;
use crate::release::Releases;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upload::Uploads;

const SWEEP_EVERY: Duration = Duration::from_secs(600);
const CENSUS_EVERY: Duration = Duration::from_secs(5);
/// One module each time: to look at all of them must cost little, and may take days.
const SCRUB_EVERY: Duration = Duration::from_secs(2);
/// How long a removed function can be rolled back.
const REMOVED_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Until told to stop. Sweeps at once, since an earlier process may have been killed.
pub async fn run(
    store: Store,
    uploads: Uploads,
    releases: Releases,
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
            _ = sweep.tick() => clean(&store, &uploads).await,
            _ = scrub.tick() => told("scrub", releases.scrub().await),
            () = releases.changed() => told("refresh", uploads.refresh().await),
            _ = census.tick() => {
                telemetry.fold();
                fleet.gauge();
                releases.gauge();
            }
        }
    }
}

fn told<E: std::error::Error + 'static>(task: &str, done: Result<(), E>) {
    if let Err(error) = done {
        error!(error = &error as &dyn std::error::Error, "{task}");
    }
}

async fn clean(store: &Store, uploads: &Uploads) {
    match store.purge_removed(Timestamp::now() - REMOVED_KEPT).await {
        Ok(0) => {}
        Ok(functions) => info!(functions, "forgot functions that were removed"),
        Err(error) => error!(error = &error as &dyn std::error::Error, "purge"),
    }
    match uploads.sweep().await {
        Ok(0) => {}
        Ok(files) => info!(files, "swept files that nothing names"),
        Err(error) => error!(error = &error as &dyn std::error::Error, "sweep"),
    }
}
