//! Who goes first where the machine has no memory left: what can be made again at the least cost.
//! The primary, without which nobody serves, offers nothing.

/// For `oom_score_adj`, which adds a share of all memory in 1,000 to what a process has: see
/// proc_pid_oom_score_adj(5).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Offer {
    /// An upload, which is told.
    Compiler = 1_000,
    /// One job in a tenant's directory.
    Tree = 900,
    /// The calls of one tenant.
    Worker = 700,
    /// The next wakes, for as long as another one takes to start.
    Zygote = 400,
}

impl Offer {
    /// Raising it is everybody's right. Where it cannot be written, or is higher already by
    /// somebody's word, the kernel chooses by size alone, as it does for others.
    pub fn make(self) {
        let _ = std::fs::write("/proc/self/oom_score_adj", (self as i32).to_string());
    }
}
