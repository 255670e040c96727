//! The system call filters that [`crate::policy`] comes to, and who reports a call that they
//! forbid.
//!
//! Two filters in the place of one: the first, with everything that a program ever needs, goes up
//! once in the zygote and is inherited; the second, which only takes away, is short, since each
//! worker pays for it. A third, beside the first, answers what a program is told not to be there.
//! A forbidden call is not made; the process is told of it by a signal, says
//! so with its last breath, and ends. Nothing that it could do about the signal gives it the call.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use nix::libc::{self, c_int, c_long, c_void};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::policy::{POLICY, Stage, Test};

/// A process that made a forbidden call and could say so.
pub const EXIT_VIOLATION: u8 = 31;
/// Enough for a message of one number.
const MESSAGE_MAX: usize = 32;
const ALLOW: SeccompAction = SeccompAction::Allow;
const TRAP: SeccompAction = SeccompAction::Trap;

#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("a filter cannot be built")]
    Build(#[from] seccompiler::BackendError),
    #[error("a filter could not be set up")]
    Apply(#[from] seccompiler::Error),
    #[error("the reporter of forbidden calls could not be set up")]
    Handler(#[source] io::Error),
}

/// What a stage may do, and nothing else. For the stages that a program begins with.
pub(crate) fn open(stage: Stage) -> Result<BpfProgram, FilterError> {
    let mut rules = BTreeMap::new();
    for row in POLICY.iter().filter(|row| row.is_of(stage)) {
        rules.insert(row.call, row.lists(stage).map(all).collect::<Result<_, _>>()?);
    }
    build(rules, TRAP, ALLOW)
}

/// Takes away what `sealed` may not do of what it may before.
pub(crate) fn seal(sealed: Stage) -> Result<BpfProgram, FilterError> {
    let mut rules = BTreeMap::new();
    let Some(open) = sealed.opened() else { return build(rules, ALLOW, TRAP) };
    for row in POLICY.iter().filter(|row| row.is_of(open)) {
        if !row.is_of(sealed) {
            rules.insert(row.call, vec![]);
            continue;
        }
        let taken = row.taken(open, sealed).map(all).collect::<Result<Vec<_>, _>>()?;
        if !taken.is_empty() {
            rules.insert(row.call, taken);
        }
    }
    build(rules, ALLOW, TRAP)
}

/// Answers what is not there for this stage. A filter has one answer, so this is one of its own;
/// of two filters the stricter one wins, so that the other lets these calls through.
pub(crate) fn absent(stage: Stage) -> Result<BpfProgram, FilterError> {
    let rows = POLICY.iter().filter(|row| row.is_absent(stage));
    let rules = rows.map(|row| (row.call, vec![])).collect();
    build(rules, ALLOW, SeccompAction::Errno(libc::ENOSYS as u32))
}

pub(crate) fn apply(filter: &BpfProgram) -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(filter)?)
}

/// For all threads of this process, those that run already as well.
pub(crate) fn apply_to_all(filter: &BpfProgram) -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter_all_threads(filter)?)
}

fn build(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    #[cfg(target_arch = "x86_64")]
    let arch = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    let arch = TargetArch::aarch64;
    Ok(SeccompFilter::new(rules, others, these, arch)?.try_into()?)
}

fn all(tests: &[Test]) -> Result<SeccompRule, FilterError> {
    let conditions = tests.iter().map(|test| condition(*test)).collect::<Result<_, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

fn condition(test: Test) -> Result<SeccompCondition, FilterError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let (argument, length, operator, value) = match test {
        Test::Is(argument, value) => (argument, Dword, SeccompCmpOp::Eq, value),
        Test::Not(argument, value) => (argument, Dword, SeccompCmpOp::Ne, value),
        Test::UpTo(argument, value) => (argument, Dword, SeccompCmpOp::Le, value),
        Test::Bits(argument, mask, value) => (argument, Dword, SeccompCmpOp::MaskedEq(mask), value),
        Test::Null(argument) => (argument, Qword, SeccompCmpOp::Eq, 0),
        Test::Given(argument) => (argument, Qword, SeccompCmpOp::Ne, 0),
    };
    Ok(SeccompCondition::new(argument, length, operator, value)?)
}

/// Writes the message of a forbidden call, by its number, into the buffer, and says how long it
/// is. It is called within a signal: it may not allocate, lock or panic.
pub type Encode = fn(u32, &mut [u8]) -> usize;

static ENCODE: OnceLock<Encode> = OnceLock::new();

/// From now on a forbidden call is told on the control socket before the process ends by it.
pub(crate) fn report_with(encode: Encode) -> Result<(), FilterError> {
    let _ = ENCODE.set(encode);
    // SAFETY: the structure is plain data, for which zeroes are a value; the handler has the
    // signature that SA_SIGINFO asks for, and does only what a handler may.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = report as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) == -1
    };
    if failed { Err(FilterError::Handler(io::Error::last_os_error())) } else { Ok(()) }
}

/// The head of what the kernel says with a SIGSYS: see sigaction(2), `_sigsys`.
#[repr(C)]
struct ForbiddenCall {
    signal: c_int,
    errno: c_int,
    code: c_int,
    _pad: c_int,
    address: *mut c_void,
    call: c_int,
}

extern "C" fn report(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a complete siginfo of its signal, and
    // the one for SIGSYS begins so on every 64-bit Linux.
    let call = unsafe { (*info.cast::<ForbiddenCall>()).call };
    // The C library ends a process that gives up by a signal to itself, which is no attack.
    let aborts = c_long::from(call) == libc::SYS_tgkill;
    let mut message = [0; MESSAGE_MAX];
    let length = match ENCODE.get() {
        Some(encode) if !aborts => encode(call.unsigned_abs(), &mut message),
        _ => 0,
    };
    let code = if aborts { 128 + libc::SIGABRT } else { c_int::from(EXIT_VIOLATION) };
    // SAFETY: the buffer is as long as is said, and both calls may be made within a signal. A
    // message that finds no room is lost: the end that follows tells enough.
    unsafe {
        if length > 0 && length <= MESSAGE_MAX {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            let part = libc::iovec { iov_base: message.as_mut_ptr().cast(), iov_len: length };
            let mut head: libc::msghdr = std::mem::zeroed();
            head.msg_iov = (&raw const part).cast_mut();
            head.msg_iovlen = 1;
            libc::sendmsg(libc::STDIN_FILENO, &head, flags);
        }
        libc::_exit(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_builds_and_the_seal_is_short() {
        for sealed in Stage::ALL.into_iter().filter(|stage| stage.is_sealed()) {
            // Each worker pays for it; what has no Landlock or copies a database has more to lose.
            let most = match sealed {
                Stage::Bare | Stage::Copier => 300,
                _ => 260,
            };
            let second = seal(sealed).unwrap();
            assert!(second.len() < most, "{sealed:?}: {}", second.len());
        }
        for stage in Stage::ALL {
            assert!(open(stage).unwrap().len() < 700, "{stage:?}");
            assert!(absent(stage).unwrap().len() < 64, "{stage:?}");
        }
    }
}
