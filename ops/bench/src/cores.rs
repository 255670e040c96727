//! Who runs on which core, and how much of it they took.
//!
//! What shares a core takes turns, so that whoever makes the load would slow down what it
//! measures: server and load have a core each.

use std::fs;

use anyhow::{Context, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub fn find() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (server, load) = (cores.next(), cores.next());
        ensure!(load.is_some(), "one core is too few: the load needs another than the server");
        let (Some(server), Some(load)) = (server, load) else { unreachable!("just looked") };
        Ok(Self { server, load })
    }

    /// Does something on the load's core. On a thread of its own, since what a thread starts
    /// later stays on its core, and a host must see all of them when it starts.
    pub fn on_the_loads<T: Send>(
        self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let worked = scope.spawn(|| {
                keep(None, self.load)?;
                work()
            });
            worked.join().expect("a panic ends the process")
        })
    }
}

/// Keeps a process on one core, and with it what it will start.
pub fn keep_process(pid: i32, core: usize) -> anyhow::Result<()> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    for thread in threads.with_context(|| format!("process {pid}"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        keep(Pid::from_raw(thread), core)?;
    }
    Ok(())
}

fn keep(thread: Option<Pid>, core: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(thread, &only).with_context(|| format!("core {core} cannot be had"))
}

/// A process's time on the processor so far, seconds.
pub fn used_seconds(pid: i32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
    let fields = stat.rsplit_once(") ").context("/proc/PID/stat")?.1.split(' ').skip(11).take(2);
    let ticks: f64 = fields.map(|field| field.parse::<f64>().unwrap_or(f64::NAN)).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// What it is measured on.
pub fn machine() -> anyhow::Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism()?;
    let kernel = rustix::system::uname();
    let release = kernel.release().to_string_lossy();
    let version: Vec<_> = release.split('.').take(2).collect();
    Ok(format!("{cores} cores of {model}, Linux {}", version.join(".")))
}

/// How many wanted to run, over the last minute.
pub fn load_average() -> anyhow::Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().parse()?)
}
