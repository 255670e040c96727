//! The cgroups that bound each tenant from outside: memory, CPU and processes of all its workers
//! together, whatever they do. Of version 2 where the host has a subtree of its own, else of
//! version 1 where that is mounted and can be written.
//!
//! A group is made when its tenant's first worker is started, since ten thousand tenants sleep, and
//! is kept until the tenant or the host ends. A worker puts itself into it before anything else,
//! by descriptors that come with its fork.
//!
//! What a spare child has taken of memory before it was a tenant's stays charged to the host's group:
//! so much is taken off what the tenant's group may have.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use hearth_wire::limits::SPARE_MAX_BYTES;
use hearth_wire::{Limits, TenantName};
use tracing::warn;

use crate::leftovers;

/// Of all hosts on the machine; a host's own has its data directory's number behind it.
const PREFIX: &str = "hearth-";
/// In version 2 a group with groups below it has no processes: here the host itself goes.
const HOST_GROUP: &str = "hearth-host";
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// A worker has a few threads, and a tenant a few workers while one takes the other's place.
const PROCESSES_MAX: u64 = 64;
/// Workers of one tenant: the one that serves, the next one, and two that finish their calls. Older
/// ones that only pass an upload on are beyond this.
const WORKERS: u64 = 4;
/// Of the kernel's, within which a share of CPU is given: microseconds.
const PERIOD_US: u64 = 100_000;
/// Groups lie in groups; nobody lays them deeper.
const DEPTH_MAX: u32 = 16;
/// Half a second in all, which a removal can wait.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);
const USUAL_WEIGHT: u64 = 100;
const USUAL_SHARES: u64 = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    V2,
    V1,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "cgroup v2",
            Self::V1 => "cgroup v1",
        }
    }

    /// For a process of one thread that enters by itself. A whole process waits in the kernel for
    /// everybody else's (some 5 ms for each group), where a thread does not; but version 2 has
    /// groups of processes only.
    fn entry(self) -> &'static str {
        match self {
            Self::V2 => "cgroup.procs",
            Self::V1 => "tasks",
        }
    }
}

/// Where this process may make groups: one directory, or in version 1 one a controller, in the
/// order of [`CONTROLLERS`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    kind: Kind,
    directories: Vec<PathBuf>,
}

/// The groups of one host.
pub struct Cgroups {
    place: Place,
    /// Begins the names of this host's groups.
    prefix: String,
    /// Of each group's memory, what its processes may have elsewhere.
    elsewhere_bytes: u64,
    groups: Mutex<HashMap<TenantName, Arc<Group>>>,
}

/// One tenant's.
pub struct Group {
    kind: Kind,
    directories: Vec<PathBuf>,
    elsewhere_bytes: u64,
    /// Where a worker writes that it is to be in, for each.
    pub entries: Vec<OwnedFd>,
    /// What was written last.
    limits: Mutex<Option<Bounds>>,
    /// Processes that the kernel ended for want of memory, as far as somebody was told of it.
    oom_kills_told: Mutex<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    memory_bytes: u64,
    cpu_percent: u64,
    cpu_weight: u64,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.total_memory_mb << 20,
            cpu_percent: limits.cpu_percent,
            cpu_weight: limits.cpu_weight,
        }
    }

    /// What is written where, of processes that may have so much memory elsewhere. Pure.
    fn settings(
        self,
        kind: Kind,
        elsewhere_bytes: u64,
    ) -> Vec<(&'static str, &'static str, String)> {
        let Self { memory_bytes, cpu_percent, cpu_weight } = self;
        let memory_bytes = memory_bytes.saturating_sub(elsewhere_bytes);
        let quota = cpu_percent.saturating_mul(PERIOD_US) / 100;
        match kind {
            Kind::V2 => vec![
                ("memory", "memory.max", memory_bytes.to_string()),
                ("memory", "memory.oom.group", "1".to_owned()),
                ("cpu", "cpu.weight", cpu_weight.to_string()),
                (
                    "cpu",
                    "cpu.max",
                    match quota {
                        0 => format!("max {PERIOD_US}"),
                        quota => format!("{quota} {PERIOD_US}"),
                    },
                ),
                ("pids", "pids.max", PROCESSES_MAX.to_string()),
            ],
            Kind::V1 => vec![
                ("memory", "memory.limit_in_bytes", memory_bytes.to_string()),
                ("cpu", "cpu.shares", (cpu_weight * USUAL_SHARES / USUAL_WEIGHT).to_string()),
                (
                    "cpu",
                    "cpu.cfs_quota_us",
                    match quota {
                        0 => "-1".to_owned(),
                        quota => quota.to_string(),
                    },
                ),
                ("pids", "pids.max", PROCESSES_MAX.to_string()),
            ],
        }
    }
}

impl Cgroups {
    /// What could be had here. Makes a group and removes it again.
    pub fn probe() -> Result<Kind, String> {
        let place = find()?;
        let trial: Vec<_> =
            place.directories.iter().map(|directory| directory.join("hearth-trial")).collect();
        for directory in &trial {
            make(directory).map_err(|error| cannot(directory, &error))?;
        }
        for directory in &trial {
            let _ = fs::remove_dir(directory);
        }
        Ok(place.kind)
    }

    /// Takes possession of this process's place. Before there are other processes: in version 2
    /// this one moves, and its children are born where it is. With whether workers can be spare
    /// children, which were born there.
    pub fn open(data: &Path, has_spares: bool) -> Result<Self, String> {
        let prefix = prefix(data).map_err(|error| error.to_string())?;
        let place = find()?;
        if place.kind == Kind::V2 {
            delegate(&place.directories[0])?;
        }
        let elsewhere_bytes = if has_spares { WORKERS * SPARE_MAX_BYTES } else { 0 };
        let cgroups = Self { place, prefix, elsewhere_bytes, groups: Mutex::default() };
        // Whether groups can be made shows with the first.
        let trial = cgroups.make("trial").map_err(|error| error.to_string())?;
        trial.remove();
        Ok(cgroups)
    }

    pub fn kind(&self) -> Kind {
        self.place.kind
    }

    /// The tenant's group with these limits, made where need be. Blocks for a fraction of a
    /// millisecond.
    pub fn group(&self, tenant: &TenantName, limits: &Limits) -> io::Result<Arc<Group>> {
        let found = self.lock().get(tenant).cloned();
        let group = match found {
            Some(group) => group,
            None => {
                let made = Arc::new(self.make(tenant.as_str())?);
                self.lock().entry(tenant.clone()).or_insert(made).clone()
            }
        };
        group.bound(Bounds::of(limits))?;
        Ok(group)
    }

    /// The same where there is nothing to be done for it.
    pub fn at_hand(&self, tenant: &TenantName, limits: &Limits) -> Option<Arc<Group>> {
        let group = self.lock().get(tenant).cloned()?;
        let bounds = *group.limits.lock().unwrap_or_else(PoisonError::into_inner);
        (bounds == Some(Bounds::of(limits))).then_some(group)
    }

    /// Whether the kernel ended one of the tenant's processes for want of memory that was not
    /// asked after yet: how many bytes all of them may have.
    pub fn starved(&self, tenant: &TenantName) -> Option<u64> {
        self.lock().get(tenant).cloned()?.starved()
    }

    /// Of a tenant that is gone, with all its processes.
    pub fn remove(&self, tenant: &TenantName) {
        if let Some(group) = self.lock().remove(tenant) {
            group.remove();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TenantName, Arc<Group>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, name: &str) -> io::Result<Group> {
        let name = format!("{}{name}", self.prefix);
        let directories: Vec<_> =
            self.place.directories.iter().map(|directory| directory.join(&name)).collect();
        let mut entries = Vec::new();
        for directory in &directories {
            make(directory)?;
            let entry =
                File::options().write(true).open(directory.join(self.place.kind.entry()))?;
            entries.push(entry.into());
        }
        let group = Group {
            kind: self.place.kind,
            directories,
            elsewhere_bytes: self.elsewhere_bytes,
            entries,
            limits: Mutex::default(),
            oom_kills_told: Mutex::default(),
        };
        // One that is left of an earlier host's counts on.
        let before = group.oom_kills();
        Ok(Group { oom_kills_told: Mutex::new(before), ..group })
    }
}

/// Begins the names of the groups of whoever serves this directory.
fn prefix(data: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(data)?;
    Ok(format!("{PREFIX}{:x}-{:x}-", meta.dev(), meta.ino()))
}

/// Ends and removes what earlier hosts of the same data directory left, wherever on the machine they
/// ran. For the only host of that directory, before it makes a group.
pub fn end_leftovers(data: &Path) -> Result<usize, String> {
    let prefix = prefix(data).map_err(|error| error.to_string())?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let left = mounted(&mounts).flat_map(|mount| groups_below(Path::new(mount.at), &prefix));
    let left: Vec<_> = left.collect();
    for group in &left {
        remove(group);
    }
    Ok(left.len())
}

/// Those whose names begin so. One that is seen at two mounts is gone the second time.
fn groups_below(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let (mut found, mut left) = (Vec::new(), vec![(root.to_owned(), 0)]);
    while let Some((place, depth)) = left.pop() {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            } else if depth < DEPTH_MAX {
                left.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Kills what is in a group: all at once, from Linux 5.14 on in version 2. Else one by one, where
/// those in `told` were killed before and are not gone yet.
fn end(group: &Path, told: &mut HashSet<i32>) {
    // Opened and not made: elsewhere there is none.
    let kill = File::options().write(true).open(group.join("cgroup.kill"));
    if kill.and_then(|mut kill| kill.write_all(b"1")).is_ok() {
        return;
    }
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
        if told.insert(pid) {
            warn!(pid, group = %group.display(), "a process that is left in a cgroup is ended");
        }
        leftovers::kill_now(pid);
    }
}

impl Drop for Cgroups {
    /// The host ends, and its workers have, or do so now.
    fn drop(&mut self) {
        for group in self.lock().values() {
            group.remove();
        }
    }
}

impl Group {
    fn bound(&self, bounds: Bounds) -> io::Result<()> {
        let mut written = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == Some(bounds) {
            return Ok(());
        }
        for (controller, file, value) in bounds.settings(self.kind, self.elsewhere_bytes) {
            fs::write(self.directory(controller).join(file), value)?;
        }
        // A machine without swap has no such file.
        let swap = self.directory("memory").join("memory.swap.max");
        if self.kind == Kind::V2 && swap.exists() {
            fs::write(swap, "0")?;
        }
        *written = Some(bounds);
        Ok(())
    }

    fn directory(&self, controller: &str) -> &Path {
        let at = match self.kind {
            Kind::V2 => 0,
            Kind::V1 => CONTROLLERS.iter().position(|name| *name == controller).unwrap_or(0),
        };
        &self.directories[at]
    }

    fn starved(&self) -> Option<u64> {
        let mut told = self.oom_kills_told.lock().unwrap_or_else(PoisonError::into_inner);
        if self.oom_kills() <= *told {
            return None;
        }
        // One for each who asks: several may have been ended at once.
        *told += 1;
        let written = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        written.map(|bounds| bounds.memory_bytes)
    }

    /// How many of its processes the kernel has ended for want of memory since it was made.
    fn oom_kills(&self) -> u64 {
        let events = match self.kind {
            Kind::V2 => "memory.events",
            Kind::V1 => "memory.oom_control",
        };
        let events = fs::read_to_string(self.directory("memory").join(events));
        events.ok().and_then(|text| figure(&text, "oom_kill")).unwrap_or(0)
    }

    fn remove(&self) {
        for directory in &self.directories {
            remove(directory);
        }
    }
}

/// With all that is in it, and what that has made meanwhile. The kernel lets a group go a moment
/// after the last of its processes.
#[expect(clippy::disallowed_methods, reason = "of a group that becomes empty nobody is told")]
fn remove(directory: &Path) {
    let mut told = HashSet::new();
    for _ in 0..REMOVE_TRIES {
        end(directory, &mut told);
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(REMOVE_PAUSE);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(error = &error as &dyn std::error::Error, "a cgroup could not be removed");
                return;
            }
            _ => return,
        }
    }
    warn!(directory = %directory.display(), "a cgroup is left, since something is in it");
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// `oom_kill 3` among lines of the kind.
fn figure(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn cannot(directory: &Path, error: &io::Error) -> String {
    format!("no group can be made in {}: {error}", directory.display())
}

fn find() -> Result<Place, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    place(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?, |directory| {
        fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default()
    })
}

/// A mount of cgroups.
pub struct Mount<'a> {
    pub kind: Kind,
    root: &'a str,
    pub at: &'a str,
    /// The file system's own, for all its mounts: `memory`, `favordynmods`.
    pub options: &'a str,
}

/// All of them, from `/proc/self/mountinfo`.
pub fn mounted(mounts: &str) -> impl Iterator<Item = Mount<'_>> {
    mounts.lines().filter_map(|mount| {
        // `36 35 98:0 /root /mount opts - type source superopts`: see proc_pid_mountinfo(5).
        let (before, after) = mount.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        let kind = match after.next()? {
            "cgroup2" => Kind::V2,
            "cgroup" => Kind::V1,
            _ => return None,
        };
        Some(Mount { kind, root: before.next()?, at: before.next()?, options: after.nth(1)? })
    })
}

/// From what the kernel says of this process and of what is mounted. Pure.
fn place(own: &str, mounts: &str, controllers: impl Fn(&Path) -> String) -> Result<Place, String> {
    // `12:memory:/path`, and `0::/path` for version 2: see cgroups(7).
    let paths: Vec<(&str, &str)> = own
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
        .collect();
    let mut mounted_v2 = None;
    let mut mounted_v1 = HashMap::new();
    for Mount { kind, root, at, options } in mounted(mounts) {
        match kind {
            Kind::V2 => mounted_v2 = Some((root, at)),
            Kind::V1 => mounted_v1.extend(options.split(',').map(|option| (option, (root, at)))),
        }
    }
    let below = |(root, at): (&str, &str), path: &str| {
        let path = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        match path {
            "" => PathBuf::from(at),
            path => Path::new(at).join(path),
        }
    };
    let own_v2 = paths.iter().find(|(list, _)| list.is_empty()).map(|(_, path)| *path);
    if let (Some(mount), Some(path)) = (mounted_v2, own_v2) {
        let directory = below(mount, path);
        let there = controllers(&directory);
        if CONTROLLERS.iter().all(|name| there.split_whitespace().any(|it| it == *name)) {
            return Ok(Place { kind: Kind::V2, directories: vec![directory] });
        }
    }
    let v1 = CONTROLLERS.map(|name| {
        let path = paths.iter().find(|(list, _)| list.split(',').any(|it| it == name))?.1;
        Some(below(*mounted_v1.get(name)?, path))
    });
    match v1.into_iter().collect::<Option<Vec<_>>>() {
        Some(directories) => Ok(Place { kind: Kind::V1, directories }),
        None => Err("memory, cpu and pids are not all there for this process".to_owned()),
    }
}

/// Makes a subtree of version 2 ours: its only process, this one, goes into a leaf, and what is
/// bounded is said.
fn delegate(directory: &Path) -> Result<(), String> {
    let failed = |error: io::Error| cannot(directory, &error);
    let is_root_of_all = !directory.join("cgroup.type").exists();
    if !is_root_of_all && directory.file_name().is_none_or(|name| name != HOST_GROUP) {
        let procs = fs::read_to_string(directory.join("cgroup.procs")).map_err(failed)?;
        let own = std::process::id().to_string();
        if procs.lines().any(|pid| pid != own) {
            return Err("other processes share this one's cgroup".to_owned());
        }
        let leaf = directory.join(HOST_GROUP);
        make(&leaf).map_err(failed)?;
        fs::write(leaf.join("cgroup.procs"), own).map_err(failed)?;
    }
    let wanted = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
    fs::write(directory.join("cgroup.subtree_control"), wanted).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS_V1: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn version_2_is_taken_where_it_has_the_controllers() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        let own = "0::/system.slice/hearth.service\n";
        let all = |_: &Path| "cpuset cpu io memory pids".to_owned();
        let found = place(own, mounts, all).unwrap();
        let directory = PathBuf::from("/sys/fs/cgroup/system.slice/hearth.service");
        assert_eq!(found, Place { kind: Kind::V2, directories: vec![directory] });
        let few = place(own, mounts, |_| "cpu memory".to_owned());
        assert!(few.unwrap_err().contains("not all there"));
    }

    #[test]
    fn version_1_is_one_directory_a_controller() {
        let own = "5:pids:/\n4:memory:/user\n3:cpu,cpuacct:/user/a\n0::/\n";
        let found = place(own, MOUNTS_V1, |_| "hugetlb".to_owned()).unwrap();
        let directories = ["memory/user", "cpu,cpuacct/user/a", "pids"]
            .map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(found, Place { kind: Kind::V1, directories: directories.into() });
        let without = own.replace("pids", "rdma");
        assert!(place(&without, MOUNTS_V1, |_| String::new()).is_err());
    }

    #[test]
    fn a_mount_of_a_part_is_reckoned_from_its_root() {
        let mounts = "29 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
        let all = |_: &Path| "cpu memory pids".to_owned();
        let found = place("0::/docker/abc/hearth\n", mounts, all).unwrap();
        assert_eq!(found.directories, [Path::new("/sys/fs/cgroup/hearth")]);
    }

    #[test]
    fn limits_are_written_as_each_version_says_them() {
        let bounds = Bounds { memory_bytes: 1 << 30, cpu_percent: 0, cpu_weight: 100 };
        let text = |bounds: Bounds, kind| {
            let settings = bounds.settings(kind, 0);
            settings.iter().map(|(_, file, value)| format!("{file}={value}")).collect::<Vec<_>>()
        };
        let v2 = text(bounds, Kind::V2);
        assert!(v2.contains(&"memory.max=1073741824".to_owned()), "{v2:?}");
        assert!(v2.contains(&"cpu.max=max 100000".to_owned()), "{v2:?}");
        let with_spares = bounds.settings(Kind::V2, 8 << 20);
        let memory = with_spares.iter().find(|(_, file, _)| *file == "memory.max").unwrap();
        assert_eq!(memory.2, ((1_u64 << 30) - (8 << 20)).to_string());
        let half = Bounds { cpu_percent: 50, cpu_weight: 200, ..bounds };
        let v1 = text(half, Kind::V1);
        assert!(v1.contains(&"cpu.cfs_quota_us=50000".to_owned()), "{v1:?}");
        assert!(v1.contains(&"cpu.shares=2048".to_owned()), "{v1:?}");
    }

    /// Of whichever version this machine has mounted and lets this user make groups in.
    #[test]
    fn what_is_in_a_group_ends_with_it() {
        use std::io::Read;
        use std::os::unix::process::ExitStatusExt;
        use std::process::{Command, Stdio};

        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let name = format!("hearth-test-{}", std::process::id());
        let mut tried = Vec::new();
        for mount in mounted(&mounts) {
            let group = Path::new(mount.at).join(&name);
            if tried.contains(&mount.kind) || fs::create_dir(&group).is_err() {
                continue;
            }
            let mut shell = Command::new("sh");
            shell.args(["-c", "read go; sleep 1000 & echo gone; wait"]);
            shell.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut children = Vec::new();
            for _ in 0..2 {
                let mut child = shell.spawn().unwrap();
                fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
                // Only then it makes one of its own, which the group has too.
                drop(child.stdin.take());
                let mut said = child.stdout.take().unwrap();
                said.read_exact(&mut [0; 5]).unwrap();
                children.push((child, said));
            }
            remove(&group);
            assert!(!group.exists(), "{}", group.display());
            for (mut child, mut said) in children {
                assert_eq!(child.wait().unwrap().signal(), Some(9));
                // The child's own child had the other end as well.
                assert_eq!(said.read(&mut [0; 1]).unwrap(), 0);
            }
            tried.push(mount.kind);
        }
        assert!(!tried.is_empty(), "no cgroups can be made here: run the tests as root");
    }

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let events = "low 0\noom 2\noom_kill 1\noom_group_kill 7\n";
        assert_eq!(figure(events, "oom_kill"), Some(1));
        assert_eq!(figure(events, "oom_kil"), None);
    }
}
