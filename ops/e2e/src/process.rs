//! What the kernel says that a process of Hearth's does.

use syscalls::Sysno;

/// Whether it waits for a message on its control socket, which is its first descriptor, and does
/// nothing else meanwhile.
pub fn waits_for_message(pid: i32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
    call.is_ok_and(|call| call.starts_with(&format!("{} 0x0 ", Sysno::recvmsg.id())))
}
