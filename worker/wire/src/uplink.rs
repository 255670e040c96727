//! What a worker may ask of the host: which services there are, where each is found, and on
//! which connections it is asked.
//!
//! Owns the words that both ends go by. The worker's end is `worker/src/uplink.rs`; the host's is
//! `primary/src/uplink.rs`, which serves all of them. A service is a row in [`Service`]; a kind
//! is a row in [`Kind`].

use http::Method;
use serde::{Deserialize, Serialize};

use crate::name::{FunctionPath, NameError};
use crate::problem::{Code, Problem};

/// Services that share connections. Each kind has its own, so that one that is full delays no
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// What callers upload at the tenant's own port.
    Upload,
}

/// How much of one kind a worker may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at once. A further one is opened when those that are there are full or broken.
    pub connections: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// Of one body, either way, that was sent and not read.
    pub window_bytes: u32,
    /// Requests that wait in the worker for a connection, or for room on one.
    pub waiting: usize,
}

impl Bounds {
    /// Of all bodies on one connection: so much that those which nobody reads leave the others
    /// what is theirs.
    pub const fn connection_window_bytes(&self) -> u32 {
        self.streams * self.window_bytes
    }
}

impl Kind {
    pub const ALL: [Self; 1] = [Self::Upload];

    pub const fn bounds(self) -> Bounds {
        match self {
            Self::Upload => {
                Bounds { connections: 4, streams: 32, window_bytes: 64 << 10, waiting: 64 }
            }
        }
    }

    /// As it is written in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
        }
    }
}

/// What a worker asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// `/$upload`, or below a directory of functions: an upload, as it came to the worker.
    Upload { dir: Option<FunctionPath> },
}

impl Service {
    /// Of which connections it is asked.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Upload { .. } => Kind::Upload,
        }
    }

    /// Where it is found.
    pub fn path(&self) -> String {
        match self {
            Self::Upload { dir } => {
                format!("{}{UPLOAD}", dir.as_ref().map_or("", FunctionPath::as_str))
            }
        }
    }

    /// The service that a request asks for, if its kind's connections lead to one there.
    pub fn find(kind: Kind, method: &Method, path: &str) -> Result<Self, Box<Problem>> {
        match kind {
            Kind::Upload => {
                let Some(dir) = upload_dir(method, path) else { return Err(nowhere().into()) };
                Ok(Self::Upload { dir: dir? })
            }
        }
    }
}

fn nowhere() -> Problem {
    Problem::new(Code::NotFound, "this address does not exist for workers")
}

/// How the address of an upload ends.
const UPLOAD: &str = "/$upload";

/// The directory that an upload's address names, if it may be one.
pub type UploadDir = Result<Option<FunctionPath>, Problem>;

/// The same wherever uploads are taken. `None` where it is no upload's address at all.
pub fn upload_dir(method: &Method, path: &str) -> Option<UploadDir> {
    let dir = path.strip_suffix(UPLOAD)?;
    if method != Method::POST {
        let detail = "an upload is a POST of multipart/form-data";
        return Some(Err(Problem::new(Code::MethodNotAllowed, detail)));
    }
    if dir.is_empty() {
        return Some(Ok(None));
    }
    let parsed = dir.parse().map(Some);
    Some(parsed.map_err(|error: NameError| Problem::new(Code::InvalidPath, error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_uploads_go() {
        let dir = |path| upload_dir(&Method::POST, path);
        assert_eq!(dir("/$upload"), Some(Ok(None)));
        assert_eq!(dir("/jobs/nightly/$upload"), Some(Ok("/jobs/nightly".parse().ok())));
        assert_eq!(dir("/hello"), None);
        assert_eq!(dir("/$upload/x"), None);
        for bad in ["/../$upload", "/%2e%2e/$upload", "/a//$upload", "/./$upload", "//$upload"] {
            let problem = dir(bad).unwrap().unwrap_err();
            assert_eq!(problem.code, Code::InvalidPath, "{bad}");
        }
        let problem = upload_dir(&Method::GET, "/$upload").unwrap().unwrap_err();
        assert_eq!(problem.code, Code::MethodNotAllowed);
    }

    /// A row for each service: both ends mean the same by it.
    #[test]
    fn each_service_is_found_where_it_is_asked_for() {
        for service in [
            Service::Upload { dir: None },
            Service::Upload { dir: Some("/jobs/nightly".parse().unwrap()) },
        ] {
            let found = Service::find(service.kind(), &Method::POST, &service.path());
            assert_eq!(found, Ok(service));
        }
        for path in ["/", "", "*", "/api/v1/tenants", "/$upload/", "/$uploads", "/egress"] {
            for method in [Method::GET, Method::POST, Method::CONNECT] {
                for kind in Kind::ALL {
                    let problem = Service::find(kind, &method, path).unwrap_err();
                    assert_eq!(problem.code, Code::NotFound, "{method} {path}");
                }
            }
        }
    }

    /// Bodies that nobody reads fill their own windows and no other's.
    #[test]
    fn windows_are_what_the_protocol_allows() {
        for kind in Kind::ALL {
            let Bounds { connections, streams, window_bytes, waiting } = kind.bounds();
            assert!(connections > 0 && streams > 0 && waiting > 0, "{kind:?}");
            let all = u64::from(streams) * u64::from(window_bytes);
            // What HTTP/2 begins with cannot be less on a connection, nor more than 31 bits.
            assert!((65_535..1 << 31).contains(&all), "{kind:?}");
            assert_eq!(u64::from(kind.bounds().connection_window_bytes()), all);
        }
    }
}
