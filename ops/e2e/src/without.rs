//! `without WHAT[,WHAT…] PROGRAM [ARGUMENT…]`: runs a program on a kernel that seems to lack these
//! system calls, or those parts of one that came later. For tests of what Hearth says and does where
//! a wall cannot be had, and on the kernels of years ago.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

/// `ENOSYS`: what a kernel says that does not know a call.
const NOT_KNOWN: u32 = 38;

/// A part of a call: the argument that asks for it, and what a kernel says that does not know it.
struct Part {
    name: &'static str,
    of: Sysno,
    argument: (u8, u64),
    refusal: u32,
}

const PARTS: &[Part] = &[
    // `PR_GET_AUXV`, Linux 6.4; `EINVAL`.
    Part { name: "auxv", of: Sysno::prctl, argument: (0, 0x4155_5856), refusal: 22 },
    // `PAGEMAP_SCAN`, Linux 6.7; `ENOTTY`.
    Part { name: "pagemap_scan", of: Sysno::ioctl, argument: (1, 0xc060_6610), refusal: 25 },
];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(what), Some(program)) = (arguments.next(), arguments.next()) else {
        bail!("usage: without WHAT[,WHAT...] PROGRAM [ARGUMENT...]");
    };
    for name in what.split(',') {
        let (call, rules, refusal) = match PARTS.iter().find(|part| part.name == name) {
            Some(part) => {
                let (at, value) = part.argument;
                let (length, is) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
                let condition = SeccompCondition::new(at, length, is, value)?;
                (part.of, vec![SeccompRule::new(vec![condition])?], part.refusal)
            }
            None => {
                let call =
                    name.parse().ok().with_context(|| format!("{name} is not a system call"))?;
                (call, vec![], NOT_KNOWN)
            }
        };
        seccompiler::apply_filter(&refusing(call, rules, refusal)?)?;
    }
    Err(Command::new(&program).args(arguments).exec()).context(program)
}

fn refusing(call: Sysno, rules: Vec<SeccompRule>, errno: u32) -> anyhow::Result<BpfProgram> {
    #[cfg(target_arch = "x86_64")]
    let arch = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    let arch = TargetArch::aarch64;
    let (others, this) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let rules = BTreeMap::from([(i64::from(call.id()), rules)]);
    Ok(SeccompFilter::new(rules, others, this, arch)?.try_into()?)
}
