//! All that answering needs, the same for every connection and call of a worker.
//!
//! Holds and decides nothing: what each part is for is said where it is defined.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use hearth_host::Settings;
use hearth_wire::{Start, TenantName};
use tokio::sync::watch;

use crate::admit::Grants;
use crate::check;
use crate::finish::Finish;
use crate::generation::Generation;
use crate::instance::Instances;
use crate::limits::{ActivityCount, Calls, Newcomers, Permits};
use crate::peer::Trusted;
use crate::report::Reporter;
use crate::scrub::Scrub;
use crate::state::State;
use crate::state::sql::Sql;
use crate::ticker::Ticker;
use crate::uplink::Uplinks;

pub struct Serving {
    /// The tenant's.
    pub name: TenantName,
    pub trusted: Trusted,
    /// Below which it has a name at the front door, besides `localhost`.
    pub domain: Option<String>,
    pub generation: Arc<Generation>,
    pub state: State,
    /// Its databases.
    pub sql: Sql,
    pub grants: watch::Receiver<Arc<Grants>>,
    pub room: Room,
    pub doing: Doing,
    pub reporter: Reporter,
    pub uplinks: Uplinks,
}

/// How much there may be at once, of everything that comes from outside.
pub struct Room {
    pub permits: Permits,
    pub newcomers: Newcomers,
    pub checks: check::Room,
    /// Those from outside, as the control loop counted them last.
    pub connections: AtomicUsize,
}

/// What the worker is at, and what that takes.
pub struct Doing {
    pub activity: ActivityCount,
    /// On their way to the host, which are no calls.
    pub uploads: ActivityCount,
    pub finish: Finish,
    pub ticker: Ticker,
    pub calls: Calls,
    pub instances: Arc<Instances>,
}

impl Serving {
    pub fn new(
        generation: Generation,
        state: State,
        trusted: Trusted,
        start: &Start,
        settings: Settings,
        grants: watch::Receiver<Arc<Grants>>,
        began: Instant,
    ) -> Self {
        let limits = generation.manifest.limits;
        let generation = Arc::new(generation);
        let scrub = Scrub::new(settings.secrets());
        let sql = Sql::new(state.clone());
        let instances = Instances::new(Arc::clone(&generation), Arc::new(settings), &state, &sql);
        Self {
            name: start.tenant.clone(),
            trusted,
            domain: start.domain.clone(),
            grants,
            room: Room {
                permits: Permits::new(&limits, began),
                newcomers: Newcomers::new(&limits, began),
                checks: check::Room::new(),
                connections: AtomicUsize::new(0),
            },
            doing: Doing {
                activity: ActivityCount::new(),
                uploads: ActivityCount::new(),
                finish: Finish::new(),
                ticker: Ticker::new(generation.engines()),
                calls: Calls::default(),
                instances: Arc::new(instances),
            },
            generation,
            state,
            sql,
            reporter: Reporter::new(limits.log_bytes_per_second, scrub),
            uplinks: Uplinks::new(),
        }
    }

    /// For calls that nothing is to stop, in a process that may have no other thread yet.
    pub fn without_ticker(mut self) -> Self {
        self.doing.ticker = Ticker::none();
        self
    }
}
