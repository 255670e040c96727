//! The nouns that have settings, one line each, and what follows from these lines: the whole
//! configuration, and the table of all settings.

use std::path::PathBuf;

use super::error::ConfigError;
#[cfg(test)]
use super::settings::{Bad, Good};
use super::settings::{Layers, Row, Section};
use super::{front, host, log, tenants, uploads};
use crate::fleet::zygote::SPARES;

macro_rules! sections {
    ($($name:ident: $section:ident)+) => {
        /// Everything that `hearth up` was told, complete and valid. Prints itself without secrets.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $(pub $name: $name::$section,)+
            /// Rather than in a file, which nothing is said of then.
            pub admin_token_in_environment: bool,
            /// Where systemd wants to be told that Hearth serves.
            pub notify_socket: Option<PathBuf>,
            /// How many spare children the zygote keeps at most.
            pub spares: u8,
            /// Where the tests of crashes say what is to fail.
            #[cfg(debug_assertions)]
            pub fail_points: Option<PathBuf>,
            /// Where the tests of builds have what another build would bring.
            #[cfg(debug_assertions)]
            pub bundle: Option<PathBuf>,
        }

        /// Each with its name in the file, what it is about, and its settings.
        pub const SECTIONS: &[(&str, &str, &[Row])] = &[$((
            $name::$section::NAME,
            $name::$section::ABOUT,
            $name::$section::ROWS,
        )),+];

        impl Config {
            /// Of what is not a setting, nothing is said yet.
            pub fn resolve(layers: &Layers) -> Result<Self, ConfigError> {
                Ok(Self {
                    $($name: Section::resolve(layers)?,)+
                    admin_token_in_environment: false,
                    notify_socket: None,
                    spares: SPARES,
                    #[cfg(debug_assertions)]
                    fail_points: None,
                    #[cfg(debug_assertions)]
                    bundle: None,
                })
            }

            pub fn list(&self) -> Vec<(&'static str, String)> {
                [$(self.$name.list()),+].concat()
            }
        }

        #[cfg(test)]
        pub const EXAMPLES: &[(&[Good], &[Bad])] = &[$((
            $name::examples::GOOD,
            $name::examples::BAD,
        )),+];
    };
}

sections! {
    host: Host
    front: Front
    tenants: Tenants
    uploads: Uploads
    log: Log
}
