//! Landlock: from here on this process opens no file, uses no network address, and signals
//! nobody outside. It needs no privilege, and holds what it is put around whatever user that is.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

/// The newest that was tried here; an older kernel does what it can of it.
const KNOWN: ABI = ABI::V7;

/// The version, of Linux 5.19, from which on something below a directory may be moved to another.
const KNOWS_MOVES: u32 = 2;

/// Denies everything that the kernel's Landlock knows of, with no exception: what a process uses
/// it has open. For a kernel that has one.
pub fn deny_everything() -> Result<(), RulesetError> {
    everything()?.restrict_self().map(drop)
}

/// The same but for the files right beneath this directory: they are read, written, cut, made and
/// removed, and nothing else. That it is read itself is for its sync.
pub fn deny_all_but_state(directory: BorrowedFd<'_>) -> Result<(), RulesetError> {
    let files = AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::ReadDir;
    everything()?.add_rule(PathBeneath::new(directory, files))?.restrict_self().map(drop)
}

/// The same but for what is below this directory. Tells whether this kernel's can do it.
pub fn deny_all_but(directory: BorrowedFd<'_>) -> Result<bool, RulesetError> {
    if version().is_none_or(|version| version < KNOWS_MOVES) {
        return Ok(false);
    }
    let below = PathBeneath::new(directory, AccessFs::from_all(KNOWN));
    everything()?.add_rule(below)?.restrict_self()?;
    Ok(true)
}

fn everything() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()
}

/// The kernel's version of it; `None` where it has none, or it is off.
pub fn version() -> Option<u32> {
    // SAFETY: asks for the version alone, as the flag says, with no attributes.
    let version = unsafe {
        nix::libc::syscall(nix::libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1)
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}
