//! The ground that a worker stands on, for those who are compared with it: a cgroup of the same
//! weight beside its own, and turns at the core as short as its own. Without that, who shares the
//! machine's cores with whom would be measured, and not what an answer takes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, ensure};

use crate::measure::calm;

/// What says how much of the cores a group may have: in version 2, and in version 1.
const SHARES: [&str; 2] = ["cpu.weight", "cpu.shares"];
const MEMBERS: &str = "cgroup.procs";
/// A second in all.
const END_TRIES: u32 = 100;
static GROUPS: AtomicU32 = AtomicU32::new(0);

/// One group for all others of a measurement. It ends with the measurement.
pub struct Ground {
    /// None where workers have no group either.
    group: Option<PathBuf>,
}

impl Ground {
    /// As this worker has it.
    pub fn of(worker: i32) -> anyhow::Result<Self> {
        let theirs = fs::read_to_string(format!("/proc/{worker}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let theirs = group_of(&theirs, &mounts).and_then(|it| Some((shares(&it)?, it)));
        let Some(((file, share), theirs)) = theirs else { return Ok(Self { group: None }) };
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        let name = format!("hearth-bench-{}-{number}", std::process::id());
        let parent = theirs.parent().context("a worker's group lies in another")?;
        let group = parent.join(name);
        fs::create_dir(&group).with_context(|| group.display().to_string())?;
        let ground = Self { group: Some(group.clone()) };
        fs::write(group.join(file), share)?;
        Ok(ground)
    }

    /// Moves a process there, with all of its threads.
    pub fn take_in(&self, pid: i32) -> anyhow::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        fs::write(group.join(MEMBERS), pid.to_string())?;
        let members = fs::read_to_string(group.join(MEMBERS))?;
        ensure!(members.lines().any(|it| it == pid.to_string()), "{pid} is not in its group");
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let Some(group) = &self.group else { return };
        // Whoever is in it has been killed, and is not gone at once.
        let mut tries = 0..END_TRIES;
        while fs::remove_dir(group).is_err() && tries.next().is_some() {
            calm();
        }
    }
}

/// Starts a program that has its turns as early as a worker has. Whoever it starts is born so.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    thread::scope(|scope| {
        let spawned = scope.spawn(|| {
            hearth_jail::take_short_turns();
            command.spawn()
        });
        spawned.join().expect("a panic ends the process")
    })
}

/// The directory of a process's group that shares the cores, from `/proc/PID/cgroup` and
/// `/proc/self/mounts`.
fn group_of(groups: &str, mounts: &str) -> Option<PathBuf> {
    let hierarchy = |is_it: &dyn Fn(&str) -> bool| {
        let line = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_it(controllers).then_some(path)
        });
        line.map(|path| path.trim_start_matches('/'))
    };
    let mounted = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let &[_, at, its_kind, options, ..] = fields.as_slice() else { return None };
            let has = option.is_empty() || options.split(',').any(|it| it == option);
            (its_kind == kind && has).then_some(Path::new(at))
        })
    };
    let first = hierarchy(&|controllers| controllers.split(',').any(|it| it == "cpu"));
    match first.filter(|path| !path.is_empty()) {
        Some(path) => Some(mounted("cgroup", "cpu")?.join(path)),
        None => {
            let path = hierarchy(&str::is_empty).filter(|path| !path.is_empty())?;
            Some(mounted("cgroup2", "")?.join(path))
        }
    }
}

fn shares(group: &Path) -> Option<(&'static str, String)> {
    SHARES.into_iter().find_map(|file| Some((file, fs::read_to_string(group.join(file)).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
        cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";

    #[test]
    fn a_group_is_found_in_either_version() {
        let first = "4:memory:/m\n2:cpu,cpuacct:/hearth-1\n0::/\n";
        let second = "4:memory:/\n0::/slice/hearth-1\n";
        let found = |groups| group_of(groups, MOUNTS);
        assert_eq!(found(first), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/hearth-1")));
        assert_eq!(found(second), Some(PathBuf::from("/sys/fs/cgroup/unified/slice/hearth-1")));
        assert_eq!(found("2:cpu:/\n0::/\n"), None, "the root is no group to stand beside");
    }
}
