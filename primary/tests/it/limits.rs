//! Every limit at its edge: what is just inside is done, what is one past it is refused with a
//! status and a code, and neither costs host or worker more memory than it says.
//!
//! Two are tested where they are given their time, in the worker's gate: a silent connection's
//! 75 s, and the least rate of a body that moves.

mod bodies;
mod calls;
mod connections;
mod intake;
mod logs;
mod memory;
mod settings;
mod state;
mod storage;
mod time;
pub mod uploads;

use std::fs;

use serde_json::{Value, json};

use crate::host::{Host, Tenant};

/// Sets limits as the operator does; the answer shows all of them.
#[track_caller]
fn set(host: &Host, tenant: &Tenant, limits: &Value) -> Value {
    let path = format!("/tenants/{}/limits", tenant.name);
    let request = host.admin("PATCH", &path).json(&json!({ "limits": limits }));
    host.send(&request).expect(200).json()
}

#[track_caller]
fn find<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut limits = list["limits"].as_array().unwrap().iter();
    limits.find(|limit| limit["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// What the tenant has of it now.
#[track_caller]
pub fn used(tenant: &Tenant, name: &str) -> u64 {
    find(&tenant.ask("/limits"), name)["used"].as_u64().unwrap()
}

/// How much memory a process takes from a moment on, by the kernel's account.
pub struct Growth {
    pid: i32,
    before_kib: u64,
}

impl Growth {
    #[track_caller]
    pub fn of(pid: i32) -> Self {
        Self { pid, before_kib: status_kib(pid, "VmRSS:") }
    }

    #[track_caller]
    pub fn of_worker(tenant: &Tenant) -> Self {
        let pid = tenant.ask("/worker")["pid"].as_i64().expect("its worker is there");
        Self::of(pid.try_into().unwrap())
    }

    /// At its highest, which may have been at any time since.
    #[track_caller]
    pub fn stays_below(&self, mib: u64) {
        let peak = status_kib(self.pid, "VmHWM:").saturating_sub(self.before_kib);
        assert!(peak < mib << 10, "{peak} KiB more than the {} KiB before", self.before_kib);
    }
}

#[track_caller]
fn status_kib(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
