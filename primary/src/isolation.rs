//! Which walls stand around workers on this machine, what level that comes to, and what would
//! raise it. Pure but for [`survey`]; the walls themselves are `hearth-jail`'s, and the groups that
//! bound a tenant from outside are `fleet/cgroups.rs`'s.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use hearth_wire::{Birth, FromZygote, ToZygote, VERSION, Walls};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fleet::cgroups::Cgroups;
use crate::fleet::zygote::{self, Spawned};
use crate::owner::{self, NoUids};

/// The version of Landlock, of Linux 6.7, that forbids addresses too. Before it they are the
/// filter's and the empty network's to forbid.
const KNOWS_ADDRESSES: u32 = 4;

/// How much stands between a tenant's code and everybody else besides WebAssembly's own wall; the
/// lowest first. Below D nothing starts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
pub enum Level {
    /// A filter of system calls.
    D,
    /// And Landlock.
    C,
    /// And namespaces.
    B,
    /// And a user and cgroups for each tenant.
    A,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
        }
    }

    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::A => "own uids, cgroups, namespaces, Landlock, system call filter",
            Self::B => "namespaces, Landlock, system call filter",
            Self::C => "Landlock, system call filter",
            Self::D => "system call filter alone",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What stands here.
#[derive(Debug, Clone)]
pub struct Isolation {
    pub walls: Walls,
    /// Which cgroups, or why there are none.
    pub cgroups: Result<&'static str, String>,
    /// Whether tenants have user ids of their own, or why not.
    pub uids: Result<(), NoUids>,
    pub root: bool,
}

/// One wall, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wall {
    pub name: &'static str,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Stands(String),
    Missing {
        why: String,
        /// What that means for tenants.
        lost: &'static str,
        /// A command, or a line for the service's file.
        fix: &'static str,
    },
}

impl Isolation {
    /// Tenants would have these user ids.
    pub fn new(
        walls: Walls,
        cgroups: Result<&'static str, String>,
        ids: &RangeInclusive<u32>,
    ) -> Self {
        let uids = match owner::can_give(ids) {
            Ok(()) if !walls.uids => Err(NoUids::Rights("CAP_SETUID CAP_SETGID".to_owned())),
            uids => uids,
        };
        Self { walls, cgroups, uids, root: geteuid().is_root() }
    }

    pub fn level(&self) -> Level {
        let Walls { namespaces, uids: _, landlock } = &self.walls;
        match (landlock, namespaces, self.uids.is_ok() && self.cgroups.is_ok()) {
            (None, ..) => Level::D,
            (Some(_), Err(_), _) => Level::C,
            (Some(_), Ok(()), false) => Level::B,
            (Some(_), Ok(()), true) => Level::A,
        }
    }

    /// All walls, the lowest first.
    pub fn table(&self) -> Vec<Wall> {
        let Walls { namespaces, uids: _, landlock } = &self.walls;
        let filter = State::Stands("no call that a worker does not need".to_owned());
        let landlock = match landlock {
            Some(version) if *version < KNOWS_ADDRESSES => {
                State::Stands(format!("version {version}: no file"))
            }
            Some(version) => State::Stands(format!("version {version}: no file, no address")),
            None => State::Missing {
                why: "the kernel has none, or it is off".to_owned(),
                lost: "files and the network are closed by the filter alone",
                fix: "boot a kernel from 5.13 on with lsm=landlock,… on its command line",
            },
        };
        let namespaces = match namespaces {
            Ok(()) => State::Stands("no network, an empty root".to_owned()),
            Err(why) => State::Missing {
                why: why.clone(),
                lost: "workers see the host's network and root, though they can use neither",
                fix: if self.root {
                    "give the service CAP_SYS_ADMIN, or start it outside of a container"
                } else {
                    "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000; on \
                     Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0"
                },
            },
        };
        let uids = match &self.uids {
            Ok(()) => State::Stands("one for each tenant".to_owned()),
            Err(reason) => {
                let (why, fix) = match reason {
                    NoUids::NotRoot => (
                        "the host does not run as root".to_owned(),
                        "run the host as root: hearth install",
                    ),
                    NoUids::Rights(missing) => (
                        format!("the host runs as root without {missing}"),
                        "CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_CHOWN … in the service's \
                         file, or --cap-add of a container",
                    ),
                    NoUids::Ids(ids) => (
                        format!(
                            "this user namespace has not all of the ids {}-{}",
                            ids.start(),
                            ids.end()
                        ),
                        "start the host outside of it, or give it ids that /proc/self/uid_map and \
                         gid_map have: --uids FIRST-LAST",
                    ),
                };
                let lost = "all workers run as the host's user, kept apart by filter and Landlock";
                State::Missing { why, lost, fix }
            }
        };
        let cgroups = match &self.cgroups {
            Ok(kind) => State::Stands(format!("{kind}: memory, CPU and processes of each tenant")),
            Err(why) => State::Missing {
                why: why.clone(),
                lost: "each worker bounds its own memory and threads; CPU is shared by the \
                       kernel's mood",
                fix: "Delegate=cpu memory pids in the service's file: hearth install",
            },
        };
        [
            ("system calls", filter),
            ("landlock", landlock),
            ("namespaces", namespaces),
            ("uids", uids),
            ("cgroups", cgroups),
        ]
        .map(|(name, state)| Wall { name, state })
        .into()
    }

    /// What is asked for and not reached, for who starts the host.
    pub fn refuse_below(&self, least: Level) -> anyhow::Result<()> {
        let level = self.level();
        if level >= least {
            return Ok(());
        }
        let mut text = format!("isolation reaches level {level} here, and {least} is asked for");
        for Wall { name, state } in self.table() {
            if let State::Missing { why, fix, .. } = state {
                text += &format!("\n  {name}: {why}\n    → {fix}");
            }
        }
        bail!(text)
    }
}

/// Starts a zygote for nothing but to see what stands, and has it try its walls. For a program
/// that waits.
pub fn survey(
    worker_program: &Path,
    ids: &RangeInclusive<u32>,
) -> anyhow::Result<(Isolation, Vec<String>)> {
    let zygote = zygote::spawn(worker_program).context("hearth-worker cannot be started")?;
    let surveyed = survey_by(&zygote, ids);
    match (surveyed, zygote.end()) {
        (Err(error), Some(said)) => Err(error.context(format!("hearth-worker said {said}"))),
        (surveyed, _) => surveyed,
    }
}

fn survey_by(
    zygote: &Spawned,
    ids: &RangeInclusive<u32>,
) -> anyhow::Result<(Isolation, Vec<String>)> {
    let cgroups = Cgroups::probe().map(|kind| kind.as_str());
    let walls = match ask(zygote.socket(), ToZygote::Hello { version: VERSION })? {
        FromZygote::Hello { version: VERSION, walls, .. } => walls,
        other => bail!("the zygote said {other:?}; install all programs from one build"),
    };
    let isolation = Isolation::new(walls, cgroups, ids);
    // The first of them is the compiler's, which is nobody's else.
    let uid = isolation.uids.is_ok().then_some(*ids.start());
    let escapes = match ask(zygote.socket(), ToZygote::Try { uid, birth: Birth::Forked })? {
        FromZygote::Tried { escapes, .. } => escapes,
        other => bail!("the zygote said {other:?}; install all programs from one build"),
    };
    Ok((isolation, escapes))
}

/// It builds its engine and tries its walls in a second or two on a busy machine.
const ANSWER_DEADLINE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

fn ask(socket: &OwnedFd, question: ToZygote) -> anyhow::Result<FromZygote> {
    hearth_wire::send(socket, &question, &[])?;
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&ANSWER_DEADLINE))? == 0 {
        bail!("the zygote does not answer");
    }
    let (answer, _) = hearth_wire::recv::<FromZygote>(socket)?.context("the zygote ended")?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isolation(uids: bool, namespaces: bool, landlock: bool, cgroups: bool) -> Isolation {
        let namespaces = if namespaces { Ok(()) } else { Err("not allowed".to_owned()) };
        let walls = Walls { namespaces, uids, landlock: landlock.then_some(7) };
        let cgroups = if cgroups { Ok("cgroup v2") } else { Err("read-only".to_owned()) };
        let uids = if uids { Ok(()) } else { Err(NoUids::NotRoot) };
        let root = uids.is_ok();
        Isolation { walls, cgroups, uids, root }
    }

    #[test]
    fn what_keeps_tenants_from_user_ids_has_a_remedy_of_its_own() {
        let told = |reason| {
            let isolation = Isolation { uids: Err(reason), ..isolation(true, true, true, true) };
            assert_eq!(isolation.level(), Level::B);
            let wall = isolation.table().into_iter().find(|wall| wall.name == "uids").unwrap();
            let State::Missing { why, fix, .. } = wall.state else { panic!("it stands") };
            format!("{why} → {fix}")
        };
        let rights = told(NoUids::Rights("CAP_CHOWN".to_owned()));
        assert!(
            rights.contains("as root without CAP_CHOWN") && rights.contains("--cap-add"),
            "{rights}"
        );
        let ids = told(NoUids::Ids(70_000..=70_010));
        assert!(ids.contains("70000-70010") && ids.contains("--uids FIRST-LAST"), "{ids}");
        assert!(!ids.contains("CAP_"), "{ids}");
    }

    #[test]
    fn a_level_is_reached_when_all_of_its_walls_stand() {
        for (stands, level) in [
            ((true, true, true, true), Level::A),
            ((true, true, true, false), Level::B),
            ((false, true, true, true), Level::B),
            ((true, false, true, true), Level::C),
            ((false, false, true, false), Level::C),
            ((true, true, false, true), Level::D),
            ((false, false, false, false), Level::D),
        ] {
            let (uids, namespaces, landlock, cgroups) = stands;
            assert_eq!(isolation(uids, namespaces, landlock, cgroups).level(), level, "{stands:?}");
        }
        assert!(Level::A > Level::B && Level::B > Level::C && Level::C > Level::D);
    }

    #[test]
    fn a_start_below_what_is_asked_for_names_what_is_missing() {
        let here = isolation(false, false, true, false);
        assert!(here.refuse_below(Level::C).is_ok());
        let refused = here.refuse_below(Level::B).unwrap_err().to_string();
        assert!(refused.starts_with("isolation reaches level C here, and B is asked for"));
        for part in ["namespaces: not allowed", "→ sysctl ", "uids: ", "cgroups: read-only"] {
            assert!(refused.contains(part), "{refused}");
        }
        assert!(!refused.contains("landlock"), "{refused}");
    }
}
