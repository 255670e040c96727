//! Entries of key-value stores under kills: sixty-four writers, each of entries of its own, while
//! workers and the host are killed and generations swapped. Each looks again and again at what it
//! has written: nothing that was answered is lost, and no batch is there by half. Twenty kills that
//! are always the same, or with SOAK in the environment two hundred others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::guests;
use crate::host::{Host, Tenant};
use crate::processes::{eventually, pause, signal};
use crate::traffic::{Choices, is_long};

const WRITERS: u64 = 64;
/// Between two kills, at the most.
const QUIET_US: u64 = 200_000;
/// What one writer sets at once, each to the same number.
const PARTS: [&str; 3] = ["a", "b", "c"];

struct Writer {
    tenant: Tenant,
    name: u64,
    /// The last number that was answered, and the last that was sent.
    answered: u64,
    sent: u64,
}

impl Writer {
    /// What is answered where there is somebody to answer.
    fn ask(&self, command: &str) -> Option<String> {
        let address = self.tenant.address();
        let request = address.request("POST", &format!("/kv?default,{command}"));
        let answer = request.try_send(address.to).ok()?;
        (answer.status == 200).then(|| answer.text().to_owned())
    }

    fn write(&mut self) {
        self.sent += 1;
        let set = PARTS.map(|part| format!("{}{part}={}", self.name, self.sent)).join(",");
        if let Some(said) = self.ask(&format!("set-many,{set}")) {
            assert_eq!(said, "set");
            self.answered = self.sent;
        }
    }

    /// Whether somebody answered.
    fn read(&mut self) -> bool {
        let get = PARTS.map(|part| format!("{}{part}", self.name)).join(",");
        let Some(said) = self.ask(&format!("get-many,{get}")) else { return false };
        let values =
            said.split(' ').map(|pair| pair.split_once('=').unwrap_or_else(|| panic!("{said}")).1);
        let numbers: Vec<u64> = values.map(|value| value.parse().unwrap_or(0)).collect();
        let number = numbers[0];
        assert!(numbers.iter().all(|it| *it == number), "half of a batch is there: {said}");
        assert!(number >= self.answered, "{} was answered and is lost: {said}", self.answered);
        assert!(number <= self.sent, "nobody sent that: {said}");
        // What was seen once stays.
        self.answered = number;
        true
    }

    fn run(&mut self, end: &AtomicBool, written: &AtomicU64) {
        while !end.load(Ordering::Relaxed) {
            let before = self.answered;
            self.write();
            if self.answered > before {
                written.fetch_add(1, Ordering::Relaxed);
            } else {
                // There is no host for a while after it was killed.
                pause(Duration::from_millis(20));
            }
            self.read();
        }
    }
}

struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_answered_write_is_lost_and_no_batch_is_there_by_half() {
    let kills = if is_long() { 200 } else { 20 };
    let mut choices = Choices::new();
    let mut host = Host::start();
    let tenant = host.tenant("ada");
    tenant.deploy("kv", guests::stores_draft2());
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|name| Writer { tenant: tenant.clone(), name, answered: 0, sent: 0 })
        .collect();
    let (end, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Also where the test fails in the middle of it.
        let _end = Finally(&end);
        let (end, written) = (&end, &written);
        for writer in &mut writers {
            scope.spawn(move || writer.run(end, written));
        }
        for kill in 0..kills {
            pause(Duration::from_micros(choices.below(QUIET_US)));
            // Each in its turn, so that no worker is barred for dying again and again.
            match kill % 4 {
                0 => host.kill_and_start_again(),
                1 => {
                    let options = json!({"description": kill.to_string()});
                    let address = tenant.address();
                    let files = [("kv.wasm", guests::stores_draft2())];
                    let upload = address.request("POST", "/$upload").bearer(&tenant.token);
                    let upload = crate::host::upload(upload, &files, Some(&options.to_string()));
                    // Its worker may have been killed under it.
                    let _ = upload.try_send(address.to);
                    host.workers(&tenant).first().into_iter().for_each(|pid| kill_worker(*pid));
                }
                _ => host.workers(&tenant).first().into_iter().for_each(|pid| kill_worker(*pid)),
            }
        }
    });
    for writer in &mut writers {
        eventually("a tenant that is back", || writer.read().then_some(()));
    }
    let written = written.load(Ordering::Relaxed);
    println!("{kills} kills: 0 of {written} answered batches lost");
    assert!(written > kills, "hardly anything was written: {written}");
}

fn kill_worker(pid: i32) {
    signal(pid, Signal::SIGKILL);
}
