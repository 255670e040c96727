//! `without CALL[,CALL…] PROGRAM [ARGUMENT…]`: runs a program on a kernel that seems to lack these
//! system calls. For tests of what Hearth says and does where a wall cannot be had.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use syscalls::Sysno;

/// `ENOSYS`: what a kernel says that does not know a call.
const NOT_KNOWN: u32 = 38;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(calls), Some(program)) = (arguments.next(), arguments.next()) else {
        bail!("usage: without CALL[,CALL...] PROGRAM [ARGUMENT...]");
    };
    let numbers = calls.split(',').map(|name| {
        let call: Sysno = name.parse().ok().with_context(|| format!("{name} is no system call"))?;
        Ok((i64::from(call.id()), vec![]))
    });
    let rules = numbers.collect::<anyhow::Result<_>>()?;
    #[cfg(target_arch = "x86_64")]
    let arch = TargetArch::x86_64;
    #[cfg(target_arch = "aarch64")]
    let arch = TargetArch::aarch64;
    let (others, these) = (SeccompAction::Allow, SeccompAction::Errno(NOT_KNOWN));
    let filter: BpfProgram = SeccompFilter::new(rules, others, these, arch)?.try_into()?;
    seccompiler::apply_filter(&filter)?;
    Err(Command::new(&program).args(arguments).exec()).context(program)
}
