//! What rows are known by.

/// Never given twice, not even after its tenant is gone. `TenantId(0)` is nobody's and stands
/// for the bundled functions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TenantId(pub(crate) i64);
