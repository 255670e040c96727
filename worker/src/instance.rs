//! Instances: made for one call, or lent to one call after another where their function's
//! option `reuse` says so, and never to two at once.
//!
//! ```text
//! take() ──► ready() ──► (a call) ──┬── give_back() ──► idle ── take() of a later call
//!                                   └── end()             └── its time is over, or its place is needed
//! ```
//!
//! An instance that is kept holds no permit. It keeps what its guest has in memory; log, limits
//! and deadline are each call's own. However many engines they are in, there are never more
//! instances than one engine has room for. How a call goes, and whether it went well, is
//! [`crate::call`]'s.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hearth_engine::INSTANCES;
use hearth_host::{Backends, Guest, Handler, Settings, Surroundings};
use hearth_wire::Options;
use tokio::time::Instant;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, UpdateDeadline};
use wasmtime_wasi_http::handler::Proxy;

use crate::generation::Generation;
use crate::host;
use crate::host::log::GuestLog;
use crate::host::{GrantedDatabases, GrantedStores};
use crate::report::CallLog;
use crate::state::State;
use crate::state::sql::Sql;
use crate::ticker;

/// An instance without a call goes after this long, and its memory with it.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// As many as can run at once, in all engines together.
const INSTANCES_MAX: usize = INSTANCES as usize;

/// What one worker has of them besides those that run, and what they are made of.
pub struct Instances {
    generation: Arc<Generation>,
    /// What all functions are told by name.
    settings: Arc<Settings>,
    /// For each function.
    granted: Vec<Granted>,
    /// Those that there are, whether they run or are kept.
    live: Arc<AtomicUsize>,
    idle: Mutex<Idle>,
    /// What instances left to those that come next, and where its log goes.
    spare: Mutex<Vec<(Surroundings, GuestLog)>>,
}

/// What one function may use of its tenant's state.
struct Granted {
    stores: Arc<GrantedStores>,
    databases: Arc<GrantedDatabases>,
}

#[derive(Default)]
struct Idle {
    /// The longest idle one first.
    instances: VecDeque<(Instant, Instance)>,
    /// Whether a task looks after them.
    is_watched: bool,
}

impl Instances {
    pub fn new(
        generation: Arc<Generation>,
        settings: Arc<Settings>,
        state: &State,
        sql: &Sql,
    ) -> Self {
        let (live, idle, spare) = (Arc::default(), Mutex::default(), Mutex::default());
        let granted = |function| {
            let (stores, databases) = (generation.clone(), generation.clone());
            let stores = GrantedStores::new(state.clone(), stores, function);
            let databases = GrantedDatabases::new(state.clone(), sql.clone(), databases, function);
            Granted { stores: Arc::new(stores), databases: Arc::new(databases) }
        };
        let granted = (0..generation.manifest.functions.len()).map(granted).collect();
        Self { generation, settings, granted, live, idle, spare }
    }

    fn handler(&self, function: usize) -> &Handler {
        self.generation.handler(function)
    }

    fn options(&self, function: usize) -> &Options {
        &self.generation.manifest.functions[function].options
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spare(&self) -> MutexGuard<'_, Vec<(Surroundings, GuestLog)>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn surroundings(&self) -> (Surroundings, GuestLog) {
        let spare = self.spare().pop();
        spare.unwrap_or_else(host::surroundings)
    }

    fn keep_surroundings(&self, surroundings: Surroundings, log: GuestLog) {
        let mut spare = self.spare();
        if spare.len() < INSTANCES_MAX {
            spare.push((surroundings, log));
        }
    }

    /// The one of this function that was used last: it is the warmest.
    fn take(&self, function: usize) -> Option<Instance> {
        let instances = &mut self.idle().instances;
        let last = instances.iter().rposition(|(_, instance)| instance.function == function)?;
        instances.remove(last).map(|(_, instance)| instance)
    }

    fn keep(self: &Arc<Self>, instance: Instance) {
        let mut idle = self.idle();
        idle.instances.push_back((Instant::now(), instance));
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(self)));
        }
    }

    fn take_oldest(&self) -> Option<Instance> {
        self.idle().instances.pop_front().map(|(_, instance)| instance)
    }

    /// The oldest of those in the engine of this function, which alone makes room there.
    fn take_oldest_beside(&self, function: usize) -> Option<Instance> {
        let engine = hearth_host::engine(self.handler(function));
        let instances = &mut self.idle().instances;
        let is_beside = |kept: &Instance| Engine::same(kept.store.engine(), engine);
        let oldest = instances.iter().position(|(_, kept)| is_beside(kept))?;
        instances.remove(oldest).map(|(_, instance)| instance)
    }

    /// For an instance that is about to be made. A call goes before one that only could be called,
    /// and those that run have all been let in by a permit.
    fn place(&self) -> Place {
        let place = Place::new(&self.live);
        while self.live.load(Ordering::Relaxed) > INSTANCES_MAX {
            let Some(idle) = self.take_oldest() else { break };
            idle.end(self);
        }
        place
    }

    /// Those that are idle since then or longer.
    fn take_idle(&self, since: Instant) -> Vec<Instance> {
        let instances = &mut self.idle().instances;
        let old = instances.partition_point(|(kept, _)| *kept <= since);
        instances.drain(..old).map(|(_, instance)| instance).collect()
    }
}

/// Ends instances that were idle for too long, until there are none.
async fn watch(instances: Weak<Instances>) {
    loop {
        let oldest = {
            let Some(instances) = instances.upgrade() else { return };
            let mut idle = instances.idle();
            let Some((oldest, _)) = idle.instances.front() else {
                idle.is_watched = false;
                return;
            };
            *oldest
        };
        tokio::time::sleep_until(oldest + IDLE_MAX).await;
        let Some(instances) = instances.upgrade() else { return };
        for instance in instances.take_idle(Instant::now() - IDLE_MAX) {
            instance.end(&instances);
        }
    }
}

/// Counts one instance, from before it is made until it is gone.
struct Place {
    live: Arc<AtomicUsize>,
}

impl Place {
    fn new(live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, Ordering::Relaxed);
        Self { live: Arc::clone(live) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A store, and the guest in it.
pub struct Instance {
    function: usize,
    store: Store<Guest>,
    log: GuestLog,
    /// Once it is instantiated.
    proxy: Option<Proxy>,
    calls: u32,
    /// Given back behind the store.
    place: Place,
}

impl Instance {
    /// For one call, whose log this is.
    pub fn take(instances: &Instances, function: usize, log: &Arc<CallLog>) -> Self {
        let is_reused = instances.options(function).reuse > 1;
        let kept = if is_reused { instances.take(function) } else { None };
        let mut instance = kept.unwrap_or_else(|| {
            let place = instances.place();
            let (store, log) = store(instances, function);
            Self { function, store, log, proxy: None, calls: 0, place }
        });
        instance.calls += 1;
        instance.begin(log);
        instance
    }

    fn begin(&mut self, log: &Arc<CallLog>) {
        self.log.begin(Arc::clone(log));
        self.store.data_mut().memory().begin();
        self.store.set_epoch_deadline(1);
    }

    /// Instantiated, if it was not.
    pub async fn ready(
        &mut self,
        instances: &Instances,
        log: &Arc<CallLog>,
    ) -> wasmtime::Result<(&mut Store<Guest>, &Proxy)> {
        let proxy = match self.proxy.take() {
            Some(proxy) => proxy,
            None => self.instantiate(instances, log).await?,
        };
        Ok((&mut self.store, self.proxy.insert(proxy)))
    }

    async fn instantiate(
        &mut self,
        instances: &Instances,
        log: &Arc<CallLog>,
    ) -> wasmtime::Result<Proxy> {
        let handler = instances.handler(self.function);
        loop {
            let made = handler.instantiate_async(&mut self.store).await;
            let lacks_room =
                made.as_ref().is_err_and(wasmtime::Error::is::<PoolConcurrencyLimitError>);
            // One may take more than an instance's share of memories and tables.
            let idle = lacks_room.then(|| instances.take_oldest_beside(self.function)).flatten();
            let Some(idle) = idle else { return made };
            idle.end(instances);
            (self.store, self.log) = store(instances, self.function);
            self.begin(log);
        }
    }

    /// Whether the guest asked for more memory in this call than it may have.
    pub fn memory_was_reached(&mut self) -> bool {
        self.store.data_mut().memory().was_reached()
    }

    /// After a call that went well: kept for another one, or ended.
    pub fn give_back(mut self, instances: &Arc<Instances>) {
        let reuse = instances.options(self.function).reuse;
        if self.calls >= reuse || !hearth_host::is_settled(&mut self.store) {
            return self.end(instances);
        }
        self.log.end();
        instances.keep(self);
    }

    pub fn end(self, instances: &Instances) {
        let Self { store, log, place, .. } = self;
        let guest = store.into_data();
        drop(place);
        log.end();
        instances.keep_surroundings(guest.into_surroundings(), log);
    }
}

fn store(instances: &Instances, function: usize) -> (Store<Guest>, GuestLog) {
    let memory_bytes = instances.options(function).memory_mb as usize * (1 << 20);
    let (surroundings, log) = instances.surroundings();
    let settings = Arc::clone(&instances.settings);
    let Granted { stores, databases } = &instances.granted[function];
    let backends = Backends::of(settings, stores.clone(), databases.clone());
    let guest = Guest::new(surroundings, backends, memory_bytes);
    let engine = hearth_host::engine(instances.handler(function));
    let mut store = hearth_host::store(engine, guest);
    store.epoch_deadline_callback(|_| {
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(ticker::give_way())))
    });
    (store, log)
}
