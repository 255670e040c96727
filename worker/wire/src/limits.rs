//! The platform's bounds that more than one process must agree on, and those of them that can
//! be another for one tenant.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_options::Unknown;
pub use hearth_options::{BODY_MAX_BYTES, MEMORY_MB_MAX, TIMEOUT_MS_MAX};
use serde::{Deserialize, Serialize};

/// A tenant's functions in one generation.
pub const FUNCTIONS_MAX: usize = 100;
/// Places at which components that come with a build are mounted.
pub const MOUNTS_MAX: usize = 100;
/// Components that come with a build, which go with one message.
pub const COMPONENTS_MAX: usize = crate::FDS_MAX - 1;
/// A body that is checked against a schema, either way, and all that one worker checks at once:
/// parsed, JSON takes many times its length.
pub const CHECKED_BODY_MAX_BYTES: u64 = 16 << 20;
/// Tokens of one tenant; all of them are told to its worker in one message.
pub const TOKENS_MAX: usize = 200;
/// Settings of one tenant, configuration and secrets together: how many, one value, and all names and
/// values.
pub const SETTINGS_MAX: usize = 256;
pub const SETTING_VALUE_MAX_BYTES: usize = 16 << 10;
pub const SETTINGS_MAX_BYTES: usize = 256 << 10;
/// A secret that is as long is taken out of log lines. What is shorter may be part of any of them.
pub const SCRUBBED_MIN_BYTES: usize = 8;
/// One upload's body, as sent.
pub const UPLOAD_MAX_BYTES: u64 = 32 << 20;
/// One module, unpacked.
pub const MODULE_MAX_BYTES: u64 = 128 << 20;
/// The widest window that a zstd frame may ask for, as a power of two: 8 MiB.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// An `options` part, or what a module declares.
pub const OPTIONS_MAX_BYTES: usize = 256 << 10;

/// Calls of one tenant that run at once, and that wait for their turn.
pub const CALLS_RUNNING_MAX: usize = 64;
pub const CALLS_WAITING_MAX: usize = 256;
/// Connections of one tenant that its worker serves at once.
pub const CONNECTIONS_MAX: usize = 1_000;
/// Connections a second at a tenant's port on which nothing is asked. Where there are more, the
/// next ones wait for a moment and are taken together.
pub const SILENT_PER_SECOND: u32 = 2_000;

/// A tenant's key-value stores, and its SQL databases.
pub const STORES_MAX: u64 = 64;
pub const DATABASES_MAX: u64 = 16;

/// The bytes of a connection that were read and not parsed: a request's head, and what came
/// with it in one read.
pub const HEAD_MAX_BYTES: usize = 32 << 10;
pub const HEAD_MAX_FIELDS: usize = 128;
/// What the front door may add to a head that it passes on to a worker.
pub const PASSED_ON_BYTES: usize = 1 << 10;
pub const PASSED_ON_FIELDS: usize = 16;
pub const READ_MAX_BYTES: usize = 16 << 10;
pub const UNREAD_MAX_BYTES: usize = HEAD_MAX_BYTES + READ_MAX_BYTES;
/// From a head's first byte to its last.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Of a connection, without a byte before the first request or between two.
pub const SILENCE_MAX: Duration = Duration::from_secs(75);

/// What may follow a tenant's tar behind its end: a tar is filled up to whole records.
pub const PADDING_MAX_BYTES: u64 = 64 << 10;

/// One log line; what is longer is cut.
pub const LOG_LINE_MAX_BYTES: usize = 8 << 10;

/// Bytes for people: whole MiB as such.
pub fn size(bytes: u64) -> String {
    match bytes {
        1.. if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

/// What a spare child may have written to before it is given to a tenant. Memory stays charged to
/// whoever wrote to it first.
pub const SPARE_MAX_BYTES: u64 = 2 << 20;

/// One thing that a tenant has a bound of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    pub name: &'static str,
    pub unit: &'static str,
    /// What is bounded, for people.
    pub about: &'static str,
    pub default: u64,
    pub min: u64,
    pub max: u64,
}

macro_rules! limits {
    ($($(#[doc = $about:literal])+ $name:ident: $unit:literal = $default:expr, $min:expr => $max:expr;)+) => {
        /// What one tenant may have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Limits {
            $($(#[doc = $about])+ pub $name: u64,)+
        }

        impl Limits {
            /// All there are, in the order in which they are shown.
            pub const TABLE: &[Limit] = &[$(Limit {
                name: stringify!($name),
                unit: $unit,
                about: concat!($($about),+).trim_ascii_start(),
                default: $default,
                min: $min,
                max: $max,
            }),+];

            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)+
                    _ => None,
                }
            }

            fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = value,)+
                    _ => {}
                }
            }
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default),+ }
            }
        }
    };
}

limits! {
    /// the longest `timeout_ms` that a function may ask for
    timeout_ms: "ms" = TIMEOUT_MS_MAX as u64, 1 => TIMEOUT_MS_MAX as u64;
    /// the largest `memory_mb` that a function may ask for
    memory_mb: "MiB" = MEMORY_MB_MAX as u64, 1 => MEMORY_MB_MAX as u64;
    /// what all its processes may take of memory together
    total_memory_mb: "MiB" = 1_024, 64 => 1 << 20;
    /// of one core's time, as a share in 100; 0 means no such limit
    cpu_percent: "%" = 0, 0 => 100_000;
    /// how much of a core it gets where others want it as well
    cpu_weight: "parts" = 100, 1 => 10_000;
    /// the largest `max_body` that a function may ask for
    max_body: "bytes" = BODY_MAX_BYTES, 1 => BODY_MAX_BYTES;
    /// calls that run at once
    calls_running: "calls" = CALLS_RUNNING_MAX as u64, 1 => CALLS_RUNNING_MAX as u64;
    /// calls that wait for their turn
    calls_waiting: "calls" = CALLS_WAITING_MAX as u64, 0 => CALLS_WAITING_MAX as u64;
    /// calls a second, in the long run; 0 means no such limit
    rate_per_second: "calls/s" = 0, 0 => 1_000_000;
    /// calls at once that the rate allows after a pause
    rate_burst: "calls" = 200, 1 => 1_000_000;
    /// connections that the worker serves at once
    connections: "connections" = CONNECTIONS_MAX as u64, 1 => CONNECTIONS_MAX as u64;
    /// functions of its own; those that come with Hearth do not count
    functions: "functions" = FUNCTIONS_MAX as u64, 1 => FUNCTIONS_MAX as u64;
    /// versions that are kept of one function
    versions: "versions" = 20, 1 => 200;
    /// one upload as it is sent
    upload_bytes: "bytes" = UPLOAD_MAX_BYTES, 1 => UPLOAD_MAX_BYTES;
    /// one module, unpacked
    module_bytes: "bytes" = MODULE_MAX_BYTES, 1 => MODULE_MAX_BYTES;
    /// what the tenant's modules, artifacts, releases, logs and state take on disk
    disk_bytes: "bytes" = 1 << 30, 1 << 20 => 1 << 40;
    /// its key-value stores
    stores: "stores" = STORES_MAX, 1 => STORES_MAX;
    /// its SQL databases
    databases: "databases" = DATABASES_MAX, 1 => DATABASES_MAX;
    /// what its functions may log
    log_bytes_per_second: "bytes/s" = 1 << 20, 1 << 10 => 16 << 20;
}

/// What a tenant's worker has of its limits at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub calls_running: u64,
    pub calls_waiting: u64,
    pub connections: u64,
}

impl Usage {
    /// Where a worker tells it, to the management API alone.
    pub const PATH: &str = "/$usage";
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("{0}")]
    Unknown(Unknown),
    #[error("the limit `{name}` must be a whole number of {unit} from {min} to {max}, or null")]
    Value { name: &'static str, unit: &'static str, min: u64, max: u64 },
}

impl Limit {
    pub fn find(name: &str) -> Result<&'static Self, LimitError> {
        let known = Limits::TABLE.iter();
        known.clone().find(|limit| limit.name == name).ok_or_else(|| {
            LimitError::Unknown(Unknown::new("limit", name, known.map(|limit| limit.name)))
        })
    }
}

/// What of a tenant's limits was set; the rest is as by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LimitsPatch(BTreeMap<String, u64>);

impl LimitsPatch {
    /// Sets these; what is `None` is as by default again. All or nothing.
    pub fn change(
        &mut self,
        changes: impl IntoIterator<Item = (String, Option<u64>)>,
    ) -> Result<(), LimitError> {
        let mut changed = self.0.clone();
        for (name, value) in changes {
            let limit = Limit::find(&name)?;
            match value {
                None => drop(changed.remove(&name)),
                Some(value) if (limit.min..=limit.max).contains(&value) => {
                    changed.insert(name, value);
                }
                Some(_) => {
                    let Limit { name, unit, min, max, .. } = *limit;
                    return Err(LimitError::Value { name, unit, min, max });
                }
            }
        }
        self.0 = changed;
        Ok(())
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Within today's bounds, which may be narrower than when these were set.
    pub fn resolve(&self) -> Limits {
        let mut limits = Limits::default();
        for limit in Limits::TABLE {
            if let Some(value) = self.0.get(limit.name) {
                limits.set(limit.name, *value.clamp(&limit.min, &limit.max));
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_bounds_and_found_by_name() {
        let limits = Limits::default();
        for limit in Limits::TABLE {
            assert!((limit.min..=limit.max).contains(&limit.default), "{limit:?}");
            assert_eq!(limits.get(limit.name), Some(limit.default), "{limit:?}");
            assert!(limit.about.starts_with(|c: char| c.is_lowercase()), "{limit:?}");
        }
        assert_eq!(limits.get("nix"), None);
    }

    #[test]
    fn a_change_is_whole_or_nothing() {
        let mut patch = LimitsPatch::default();
        let change = |name: &str, value| (name.to_owned(), value);
        patch.change([change("functions", Some(3)), change("memory_mb", Some(16))]).unwrap();
        assert_eq!(patch.resolve(), Limits { functions: 3, memory_mb: 16, ..Limits::default() });
        let refused = [change("functions", None), change("memory_mb", Some(257))];
        assert_eq!(
            patch.change(refused).unwrap_err().to_string(),
            "the limit `memory_mb` must be a whole number of MiB from 1 to 256, or null"
        );
        assert!(patch.is_set("functions"));
        let unknown = |name| patch.clone().change([change(name, Some(1))]).unwrap_err().to_string();
        assert_eq!(unknown("memory-mb"), "unknown limit `memory-mb`; did you mean `memory_mb`?");
        assert!(unknown("nix").starts_with("unknown limit `nix`; known limits: timeout_ms, "));
        patch.change([change("functions", None), change("memory_mb", None)]).unwrap();
        assert_eq!(patch, LimitsPatch::default());
    }

    #[test]
    fn the_documentation_lists_them() {
        let documented = include_str!("../../../docs/limits.md");
        let mut table =
            "| limit | default | from, to | unit | of what |\n|---|---|---|---|---|\n".to_owned();
        for limit in Limits::TABLE {
            let Limit { name, unit, about, default, min, max } = limit;
            table += &format!("| `{name}` | {default} | {min} to {max} | {unit} | {about} |\n");
        }
        assert!(documented.contains(&table), "docs/limits.md should have\n{table}");
    }
}
