//! All settings as one table: which one a name means, what is said of a name that is none, and the
//! options that they make.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};
use hearth_wire::{Unknown, nearest};

use super::environment::{OTHERS, PREFIX};
use super::error::Source;
use super::sections::SECTIONS;
use super::settings::{Given, Layer, Row};

pub fn rows() -> impl Iterator<Item = &'static Row> + Clone {
    SECTIONS.iter().flat_map(|(_, _, rows)| rows.iter())
}

pub fn of_name(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.is_name(name))
}

pub fn of_variable(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.is_variable(name))
}

/// The settings of the section of this name.
pub fn section(name: &str) -> Option<&'static [Row]> {
    let mut sections = SECTIONS.iter().filter(|(section, ..)| !section.is_empty());
    sections.find(|(section, ..)| *section == name).map(|(_, _, rows)| *rows)
}

pub fn unknown_variable(name: &str) -> Unknown {
    let bare = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let others = OTHERS.iter().map(|name| (bare(name), (*name).to_owned()));
    let known = rows().map(|row| (row.name, row.variable())).chain(others);
    let near = nearest(name.strip_prefix(PREFIX).unwrap_or(name), known);
    let known = || rows().map(Row::variable).collect::<Vec<_>>().join(", ");
    Unknown::placed("setting", name, "", near.as_deref(), known)
}

/// At the top of the file.
pub fn unknown_name(name: &str, place: &str) -> Unknown {
    let names = rows().map(|row| (row.name, row.name.to_owned()));
    let known = names.chain(rows().map(|row| (row.key, row.in_section())));
    let near = nearest(name, known);
    let known = || rows().map(|row| row.name).collect::<Vec<_>>().join(", ");
    Unknown::placed("setting", name, place, near.as_deref(), known)
}

pub fn unknown_key(section: &str, key: &str, rows_of_it: &'static [Row], place: &str) -> Unknown {
    let all = || rows_of_it.iter().chain(rows());
    let keys = all().map(|row| (row.key, row.in_section()));
    let known = keys.chain(all().map(|row| (row.name, row.in_section())));
    let near = nearest(key, known);
    let known = || rows_of_it.iter().map(|row| row.key).collect::<Vec<_>>().join(", ");
    Unknown::placed("setting", &format!("{section}.{key}"), place, near.as_deref(), known)
}

pub fn unknown_section(name: &str, place: &str) -> Unknown {
    let known = SECTIONS.iter().map(|(section, ..)| *section).filter(|section| !section.is_empty());
    let near = nearest(name, known.clone().map(|section| (section, section)));
    Unknown::placed("section", name, place, near, || known.collect::<Vec<_>>().join(", "))
}

/// The options of `hearth up`. Texts all of them: they are parsed where those of the environment
/// and of the file are.
#[derive(Debug, Clone, Default)]
pub struct UpArgs {
    pub config: Option<PathBuf>,
    pub layer: Layer,
    /// For measurements and tests: how many spare children the zygote keeps at most.
    pub spares: Option<u8>,
    /// Where the tests of crashes say what is to fail.
    #[cfg(debug_assertions)]
    pub fail_points: Option<PathBuf>,
    /// Where the tests of builds have what another build would bring.
    #[cfg(debug_assertions)]
    pub bundle: Option<PathBuf>,
}

const CONFIG: &str = "config";
const SPARES: &str = "spares";
#[cfg(debug_assertions)]
const FAIL_POINTS: &str = "fail-points";
#[cfg(debug_assertions)]
const BUNDLE: &str = "bundle";

impl clap::Args for UpArgs {
    fn augment_args(command: Command) -> Command {
        let path = |name| Arg::new(name).long(name).value_parser(value_parser!(PathBuf));
        let config = path(CONFIG).value_name("FILE").help(
            "A file of settings, in TOML: the options' names are its keys, and it may have sections",
        );
        #[cfg(debug_assertions)]
        let command = command
            .arg(path(FAIL_POINTS).value_name("DIR").hide(true))
            .arg(path(BUNDLE).value_name("DIR").hide(true));
        let spares = Arg::new(SPARES).long(SPARES).value_parser(value_parser!(u8)).hide(true);
        command.args([config, spares].into_iter().chain(rows().map(Row::argument)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for UpArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut layer = Layer::new();
        for row in rows() {
            if let Some(texts) = matches.get_many::<String>(row.name) {
                let (texts, key) = (texts.cloned().collect(), row.name.to_owned());
                layer.insert(row.name, Given { texts, key, from: Source::Option(row.name) });
            }
        }
        Ok(Self {
            config: matches.get_one(CONFIG).cloned(),
            layer,
            spares: matches.get_one(SPARES).copied(),
            #[cfg(debug_assertions)]
            fail_points: matches.get_one(FAIL_POINTS).cloned(),
            #[cfg(debug_assertions)]
            bundle: matches.get_one(BUNDLE).cloned(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
