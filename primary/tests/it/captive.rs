//! A process whose next system calls are somebody else's: what an attacker could do who runs code
//! of his own in it. For workers, which look at strangers' bytes.

use std::mem;

use nix::errno::Errno;
use nix::libc::{SYS_getpid, c_long, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::processes::eventually;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// To nothing: the filter has stopped it.
    Forbidden,
    Refused(Errno),
    /// To what it was for.
    Through(i64),
}

/// Held still between two instructions; let go again when it is dropped.
pub struct Captive {
    pid: Pid,
    /// As it was found.
    registers: user_regs_struct,
    /// Of an instruction that makes a system call.
    gate: u64,
    /// Below its stack, where nobody looks.
    scratch: u64,
}

const SYSCALL: u64 = 0x050f;

impl Captive {
    /// Takes a process once it waits in a system call: who has just answered may have something to
    /// do yet.
    #[track_caller]
    pub fn take(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        let (registers, gate) = eventually("a process that waits", || {
            ptrace::attach(pid).unwrap();
            assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(..)));
            let registers = ptrace::getregs(pid).unwrap();
            let gate = registers.rip - 2;
            // Negative where no call is under way, whatever instruction it stands behind.
            let waits = registers.orig_rax as i64 >= 0
                && ptrace::read(pid, gate as ptrace::AddressType)
                    .is_ok_and(|there| there as u64 & 0xffff == SYSCALL);
            if !waits {
                ptrace::detach(pid, None).unwrap();
            }
            waits.then_some((registers, gate))
        });
        let scratch = (registers.rsp - 4_096) & !15;
        Self { pid, registers, gate, scratch }
    }

    /// Puts bytes where a call can be pointed at, and says where.
    pub fn place(&self, at: u64, bytes: &[u8]) -> u64 {
        for (word, chunk) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            let address = self.scratch + at + 8 * word as u64;
            let word = i64::from_le_bytes(padded);
            ptrace::write(self.pid, address as ptrace::AddressType, word).unwrap();
        }
        self.scratch + at
    }

    /// Has it make one call, and puts it back to where it was.
    pub fn call(&self, number: c_long, arguments: [u64; 6]) -> Came {
        self.set(number, arguments);
        let came = loop {
            ptrace::step(self.pid, None).unwrap();
            match waitpid(self.pid, None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGSYS) => break Came::Forbidden,
                WaitStatus::Stopped(_, _) => {
                    let now = ptrace::getregs(self.pid).unwrap();
                    // A stop that was still to come from the call before.
                    if now.rip == self.gate {
                        continue;
                    }
                    break match now.rax as i64 {
                        error @ -4_095..0 => Came::Refused(Errno::from_raw(-error as i32)),
                        result => Came::Through(result),
                    };
                }
                ended => panic!("call {number} ended the process: {ended:?}"),
            }
        };
        ptrace::setregs(self.pid, self.registers).unwrap();
        came
    }

    /// Has it make one call and lets go, so that whatever comes of that takes its course.
    pub fn call_and_go(self, number: c_long, arguments: [u64; 6]) {
        self.set(number, arguments);
        ptrace::detach(self.pid, None).unwrap();
        mem::forget(self);
    }

    fn set(&self, number: c_long, [a, b, c, d, e, f]: [u64; 6]) {
        let registers = user_regs_struct {
            rip: self.gate,
            rax: number as u64,
            // No call is under way that would be made again.
            orig_rax: u64::MAX,
            rdi: a,
            rsi: b,
            rdx: c,
            r10: d,
            r8: e,
            r9: f,
            ..self.registers
        };
        ptrace::setregs(self.pid, registers).unwrap();
    }
}

impl Drop for Captive {
    fn drop(&mut self) {
        // A stop that is still to come from a call that was stopped would end it once it is let go.
        if !std::thread::panicking() {
            self.call(SYS_getpid, [0; 6]);
        }
        let _ = ptrace::setregs(self.pid, self.registers);
        let _ = ptrace::detach(self.pid, None);
    }
}
