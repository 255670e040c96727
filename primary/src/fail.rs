//! Named points on every step that changes what is kept, for the tests of crashes: at each of
//! them this process can be killed, and a step be refused as a failing disk refuses it.
//!
//! ```text
//! hearth up --fail-points DIR       an option that a release does not have
//!     DIR/points     written at start: the names of all points
//!     DIR/reached    appended to: one line for each point that was come to, NAME step|moment
//!     DIR/armed      read: NAME N WHAT, which happens when NAME stands in `reached` N times;
//!                    WHAT is `kill`, `EIO`, `ENOSPC`, `EDQUOT` or `EROFS`
//! ```
//!
//! Without debug assertions nothing of this is compiled in. Which steps there are is for those to
//! say who make them.

#[cfg(not(debug_assertions))]
use std::io;

macro_rules! points {
    ($($point:ident)*) => {
        #[derive(Clone, Copy)]
        pub enum Point {
            $($point),*
        }

        #[cfg(debug_assertions)]
        impl Point {
            const NAMES: &[&str] = &[$(stringify!($point)),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$point => stringify!($point)),*
                }
            }
        }
    };
}

points! {
    DataSync TmpClear StartBundle StartAdopt StartStrangers StartFirst StartAdmin StartReady
    SpoolCreate SpoolWrite ModuleCreate ModuleWrite ModuleSync ModulePlace ModuleSyncDir ModuleRemove
    ArtifactCreate ArtifactSync ArtifactDir ArtifactPlace ArtifactSyncDir ArtifactRemove
    ReleaseDir ReleaseCreate ReleaseLink ReleaseWrite ReleaseSync ReleaseSyncHalf ReleaseClear
    ReleasePlace ReleaseSyncDir ReleaseRemove
    StoreCommit StoreCommitted
    UploadReceived UploadAdmitted ChangeWritten ChangeCommitted ChangeDone
    WorkerFork SwapReady WorkerAccept WorkerQuiesce SwapAnswer
    TenantBound TenantMade TenantState TenantFounded
    TenantDeleted TenantLogs TenantTree TenantArtifacts TenantGone
    TokenPush TokenPushed
    KeySync KeySyncNew KeyPlace KeySyncDir
}

#[cfg(debug_assertions)]
pub use reaching::{arm, moment, step};

#[cfg(debug_assertions)]
mod reaching {
    use std::fs::{self, File};
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock};

    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    static DIRECTORY: OnceLock<Mutex<PathBuf>> = OnceLock::new();

    /// To be called once, before anything is changed.
    pub fn arm(directory: &Path) -> io::Result<()> {
        fs::write(directory.join("points"), Point::NAMES.join("\n"))?;
        let _ = DIRECTORY.set(Mutex::new(directory.to_owned()));
        Ok(())
    }

    /// A step is about to be made that the disk can refuse.
    pub fn step(point: Point) -> io::Result<()> {
        match reach(point, "step") {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }

    /// A moment between two steps, in which this process can only die.
    pub fn moment(point: Point) {
        reach(point, "moment");
    }

    fn reach(point: Point, kind: &str) -> Option<Errno> {
        let directory = DIRECTORY.get()?.lock().expect("nobody panics while holding it");
        let reached = directory.join("reached");
        let line = format!("{} {kind}\n", point.name());
        let noted = File::options().create(true).append(true).open(&reached);
        noted.and_then(|mut file| file.write_all(line.as_bytes())).expect("the tests' own file");
        let armed = fs::read_to_string(directory.join("armed")).ok()?;
        let [name, times, what] = armed.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let all = fs::read_to_string(reached).expect("it was written just now");
        let times_reached = all.lines().filter(|reached| *reached == line.trim_end()).count();
        if name != point.name() || times != times_reached.to_string() {
            return None;
        }
        match what {
            "EIO" => Some(Errno::IO),
            "ENOSPC" => Some(Errno::NOSPC),
            "EDQUOT" => Some(Errno::DQUOT),
            "EROFS" => Some(Errno::ROFS),
            _ => {
                kill_process(getpid(), Signal::KILL).expect("it may kill itself");
                unreachable!("nobody outlives that")
            }
        }
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn step(_: Point) -> io::Result<()> {
    Ok(())
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn moment(_: Point) {}
