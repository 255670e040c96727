//! What an upload may leave behind on the disk, and that it is looked for once it is over.

use std::collections::HashSet;

use hearth_wire::ModuleDigest;
use tracing::error;

use crate::generations::Generations;
use crate::store::Tenant;

/// Modules that may have no name once an upload is over, however it ends. They are removed beside
/// its answer.
pub(super) struct Litter {
    generations: Generations,
    tenant: Tenant,
    pub(super) modules: HashSet<ModuleDigest>,
}

impl Litter {
    pub(super) fn new(generations: &Generations, tenant: &Tenant) -> Self {
        let (generations, tenant) = (generations.clone(), tenant.clone());
        Self { generations, tenant, modules: HashSet::new() }
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        let modules = std::mem::take(&mut self.modules);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if modules.is_empty() {
            return;
        }
        let (generations, tenant) = (self.generations.clone(), self.tenant.clone());
        runtime.spawn(async move {
            // The sweep takes what this leaves.
            if let Err(error) = generations.tidy(&tenant, modules).await {
                error!(tenant = %tenant.name, error = &error as &dyn std::error::Error, "what an upload left could not be removed");
            }
        });
    }
}
