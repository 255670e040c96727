//! A user of its own for each worker, and capabilities for nobody.

use std::io;

use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What a zygote needs to give its children users of their own.
pub const TO_CHANGE_USER: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Whether this process can give a child another user.
pub fn can_change_user() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(TO_CHANGE_USER))
}

/// Becomes this user for good, with the group of the same number and no other, and makes sure
/// that there is no way back.
pub fn become_user(id: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    setgroups(&[])?;
    // The group first: afterwards the right to change it is gone.
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    let (users, groups) = (getresuid()?, getresgid()?);
    let is_user = [users.real, users.effective, users.saved] == [user; 3];
    let is_group = [groups.real, groups.effective, groups.saved] == [group; 3];
    if !(is_user && is_group)
        || setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok()
    {
        return Err(io::Error::other(format!("user {id} is not what this process became")));
    }
    Ok(())
}

/// Keeps these of the capabilities that it has, and can never have another again.
pub fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let sets = capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(kept).iter() {
            match remove_capability_from_bounding_set(capability) {
                // This kernel is older than the capability.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    // What is not there is no error: kernels before 4.3 have no ambient set.
    let _ = clear_ambient_capability_set();
    let kept = sets.permitted.intersection(kept);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
