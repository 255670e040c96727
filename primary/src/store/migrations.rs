//! The tables of the store: each file of `migrations/` brings them one step further, and is never
//! changed afterwards.

use super::database::Schema;

pub(super) static SCHEMA: Schema = Schema {
    name: "store",
    read_only: "hearth_store_read_only",
    steps: &[
        include_str!("migrations/0001_start.sql"),
        include_str!("migrations/0002_options_and_limits.sql"),
        include_str!("migrations/0003_users.sql"),
        include_str!("migrations/0004_resting.sql"),
        include_str!("migrations/0005_audit.sql"),
    ],
};
