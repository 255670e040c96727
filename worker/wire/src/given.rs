//! What a worker is given at its birth, each by its name: with a fork's message and with the one that
//! gives a spare child away, the names stand in the order of the descriptors.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// What one descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Given {
    /// The worker's own control socket.
    Control,
    /// Its tenant's.
    Listener,
    /// The directory of its generation.
    Release,
    /// The pipe that is its standard error.
    Errors,
    /// The directory of its tenant's state, as a place.
    State,
    /// The file of a cgroup that it enters by writing to it; there may be several.
    Cgroup,
}

/// All of it.
#[derive(Debug)]
pub struct Birthright {
    pub control: OwnedFd,
    pub listener: OwnedFd,
    pub release: OwnedFd,
    pub errors: OwnedFd,
    /// `None` where the worker is to have no state.
    pub state: Option<OwnedFd>,
    pub cgroups: Vec<OwnedFd>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GivenError {
    #[error("{descriptors} descriptors came with {names} names")]
    Unnamed { names: usize, descriptors: usize },
    #[error("{0:?} came twice")]
    Twice(Given),
    #[error("{0:?} did not come")]
    Missing(Given),
}

impl Birthright {
    /// Of what came with a message.
    pub fn of(given: &[Given], fds: Vec<OwnedFd>) -> Result<Self, GivenError> {
        if given.len() != fds.len() {
            return Err(GivenError::Unnamed { names: given.len(), descriptors: fds.len() });
        }
        let (mut control, mut listener, mut release) = (None, None, None);
        let (mut errors, mut state, mut cgroups) = (None, None, Vec::new());
        for (&name, fd) in given.iter().zip(fds) {
            let place = match name {
                Given::Control => &mut control,
                Given::Listener => &mut listener,
                Given::Release => &mut release,
                Given::Errors => &mut errors,
                Given::State => &mut state,
                Given::Cgroup => {
                    cgroups.push(fd);
                    continue;
                }
            };
            if place.replace(fd).is_some() {
                return Err(GivenError::Twice(name));
            }
        }
        let there = |fd: Option<OwnedFd>, name| fd.ok_or(GivenError::Missing(name));
        Ok(Self {
            control: there(control, Given::Control)?,
            listener: there(listener, Given::Listener)?,
            release: there(release, Given::Release)?,
            errors: there(errors, Given::Errors)?,
            state,
            cgroups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    fn fds(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| File::open("/dev/null").unwrap().into()).collect()
    }

    #[test]
    fn each_has_its_name_wherever_it_stands() {
        use Given::{Cgroup, Control, Errors, Listener, Release, State};
        let given = [Cgroup, State, Release, Control, Cgroup, Errors, Listener];
        let fds = fds(given.len());
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let birthright = Birthright::of(&given, fds).unwrap();
        assert_eq!(birthright.state.unwrap().as_raw_fd(), numbers[1]);
        assert_eq!(birthright.release.as_raw_fd(), numbers[2]);
        assert_eq!(birthright.listener.as_raw_fd(), numbers[6]);
        assert_eq!(birthright.cgroups.len(), 2);
        let least = [Control, Listener, Release, Errors];
        assert!(Birthright::of(&least, self::fds(4)).unwrap().state.is_none());
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        use Given::{Control, Errors, Listener, Release};
        let refused = |given: &[Given], count| Birthright::of(given, fds(count)).unwrap_err();
        let unnamed = GivenError::Unnamed { names: 1, descriptors: 2 };
        assert_eq!(refused(&[Control], 2), unnamed);
        assert_eq!(refused(&[Control, Control], 2), GivenError::Twice(Control));
        let missing = GivenError::Missing(Errors);
        assert_eq!(refused(&[Control, Listener, Release], 3), missing);
    }
}
