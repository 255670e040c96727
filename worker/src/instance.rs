//! Instances: made for one call, or lent to one call after another where their function's
//! option `reuse` says so, and never to two at once.
//!
//! ```text
//! take() ──► ready() ──► (a call) ──┬── give_back() ──► idle ── take() of a later call
//!                                   └── end()             └── its time is over, or its place is needed
//! ```
//!
//! An instance that is kept holds no permit. It keeps what its guest has in memory; log, limits
//! and deadline are each call's own. How a call goes, and whether it went well, is
//! [`crate::call`]'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hearth_host::{Backends, Guest, Surroundings};
use tokio::time::Instant;
use wasmtime::{PoolConcurrencyLimitError, Store, UpdateDeadline};
use wasmtime_wasi_http::handler::Proxy;

use crate::host;
use crate::host::log::GuestLog;
use crate::report::CallLog;
use crate::serve::Tenant;

/// An instance without a call goes after this long, and its memory with it.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// As many as can run at once.
const KEPT_MAX: usize = 64;

/// What one tenant has of them besides those that run.
#[derive(Default)]
pub struct Instances {
    idle: Mutex<Idle>,
    /// What instances left to those that come next, and where its log goes.
    spare: Mutex<Vec<(Surroundings, GuestLog)>>,
}

#[derive(Default)]
struct Idle {
    /// The longest idle one first.
    instances: VecDeque<(Instant, Instance)>,
    /// Whether a task looks after them.
    is_watched: bool,
}

impl Instances {
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
        if spare.len() < KEPT_MAX {
            spare.push((surroundings, log));
        }
    }

    /// The one of this function that was used last: it is the warmest.
    fn take(&self, function: usize) -> Option<Instance> {
        let instances = &mut self.idle().instances;
        let last = instances.iter().rposition(|(_, instance)| instance.function == function)?;
        instances.remove(last).map(|(_, instance)| instance)
    }

    fn keep(&self, instance: Instance, tenant: &Arc<Tenant>) {
        let mut idle = self.idle();
        let crowded_out = match idle.instances.len() < KEPT_MAX {
            true => None,
            false => idle.instances.pop_front(),
        };
        idle.instances.push_back((Instant::now(), instance));
        if !std::mem::replace(&mut idle.is_watched, true) {
            tokio::spawn(watch(Arc::downgrade(tenant)));
        }
        drop(idle);
        if let Some((_, instance)) = crowded_out {
            instance.end(tenant);
        }
    }

    fn take_oldest(&self) -> Option<Instance> {
        self.idle().instances.pop_front().map(|(_, instance)| instance)
    }

    /// Those that are idle since then or longer.
    fn take_idle(&self, since: Instant) -> Vec<Instance> {
        let instances = &mut self.idle().instances;
        let old = instances.partition_point(|(kept, _)| *kept <= since);
        instances.drain(..old).map(|(_, instance)| instance).collect()
    }
}

/// Ends instances that were idle for too long, until there are none.
async fn watch(tenant: Weak<Tenant>) {
    loop {
        let oldest = {
            let Some(tenant) = tenant.upgrade() else { return };
            let mut idle = tenant.instances.idle();
            let Some((oldest, _)) = idle.instances.front() else {
                idle.is_watched = false;
                return;
            };
            *oldest
        };
        tokio::time::sleep_until(oldest + IDLE_MAX).await;
        let Some(tenant) = tenant.upgrade() else { return };
        for instance in tenant.instances.take_idle(Instant::now() - IDLE_MAX) {
            instance.end(&tenant);
        }
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
}

impl Instance {
    /// For one call, whose log this is.
    pub fn take(tenant: &Tenant, function: usize, log: &Arc<CallLog>) -> Self {
        let options = &tenant.generation.manifest.functions[function].options;
        let kept = if options.reuse > 1 { tenant.instances.take(function) } else { None };
        let mut instance = kept.unwrap_or_else(|| {
            let (store, log) = store(tenant, function);
            Self { function, store, log, proxy: None, calls: 0 }
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
        tenant: &Tenant,
        log: &Arc<CallLog>,
    ) -> wasmtime::Result<(&mut Store<Guest>, &Proxy)> {
        let proxy = match self.proxy.take() {
            Some(proxy) => proxy,
            None => self.instantiate(tenant, log).await?,
        };
        Ok((&mut self.store, self.proxy.insert(proxy)))
    }

    async fn instantiate(
        &mut self,
        tenant: &Tenant,
        log: &Arc<CallLog>,
    ) -> wasmtime::Result<Proxy> {
        let handler = tenant.generation.handler(self.function);
        loop {
            let made = handler.instantiate_async(&mut self.store).await;
            let lacks_room =
                made.as_ref().is_err_and(wasmtime::Error::is::<PoolConcurrencyLimitError>);
            let idle = if lacks_room { tenant.instances.take_oldest() } else { None };
            let Some(idle) = idle else { return made };
            // A call goes before an instance that only could be called.
            idle.end(tenant);
            (self.store, self.log) = store(tenant, self.function);
            self.begin(log);
        }
    }

    /// Whether the guest asked for more memory in this call than it may have.
    pub fn memory_was_reached(&mut self) -> bool {
        self.store.data_mut().memory().was_reached()
    }

    /// After a call that went well: kept for another one, or ended.
    pub fn give_back(mut self, tenant: &Arc<Tenant>) {
        let options = &tenant.generation.manifest.functions[self.function].options;
        if self.calls >= options.reuse || !hearth_host::is_settled(&mut self.store) {
            return self.end(tenant);
        }
        self.log.end();
        tenant.instances.keep(self, tenant);
    }

    pub fn end(self, tenant: &Tenant) {
        let guest = self.store.into_data();
        self.log.end();
        tenant.instances.keep_surroundings(guest.into_surroundings(), self.log);
    }
}

fn store(tenant: &Tenant, function: usize) -> (Store<Guest>, GuestLog) {
    let options = &tenant.generation.manifest.functions[function].options;
    let memory_bytes = options.memory_mb as usize * (1 << 20);
    let (surroundings, log) = tenant.instances.surroundings();
    let guest = Guest::new(surroundings, Backends::denied(), memory_bytes);
    let mut store = hearth_host::store(&tenant.engine, guest);
    // Tokio's own yield, since only that lets the runtime look at its sockets and clocks first.
    store.epoch_deadline_callback(|_| {
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    (store, log)
}
