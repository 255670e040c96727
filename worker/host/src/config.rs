//! `wasi:config`, and what Spin calls variables: a tenant's configuration and secrets, which an
//! instance reads and nobody changes while it lives. One set of names stands behind all of their
//! texts. An unknown name and one that nothing can have are answered as each text has it: by nothing,
//! or by its own error.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_wire::{Setting, SettingKind, SettingName, SettingValue};
use wasmtime::component::{Accessor, HasData};

use crate::Guest;

mod generated {
    wasmtime::component::bindgen!({
        path: [
            "../../sdk/wit/wasi-config/draft",
            "../../sdk/wit/wasi-config/2024-09-27",
            "../../sdk/wit/wasi-config/rc.1",
            "../../sdk/wit/spin-variables/2.0.0",
            "../../sdk/wit/spin-variables/3.0.0",
        ],
        inline: "
            package hearth:host;
            world settings {
                import wasi:config/runtime@0.2.0-draft;
                import wasi:config/store@0.2.0-draft;
                import wasi:config/store@0.2.0-draft-2024-09-27;
                import wasi:config/store@0.2.0-rc.1;
                import fermyon:spin/variables@2.0.0;
                import spin:variables/variables@3.0.0;
            }
        ",
    });
}

pub(crate) use generated::fermyon::spin::variables as variables_2;
pub(crate) use generated::spin::variables::variables as variables_3;
pub(crate) use generated::wasi::{
    config0_2_0_draft as draft, config0_2_0_draft_2024_09_27 as draft_2024_09_27,
    config0_2_0_rc_1 as rc_1,
};

/// What a tenant's functions are told, by name.
#[derive(Debug, Default)]
pub struct Settings {
    values: BTreeMap<SettingName, SettingValue>,
    secrets: Vec<SettingName>,
}

impl Settings {
    pub fn new(settings: impl IntoIterator<Item = Setting>) -> Self {
        let mut all = Self::default();
        for Setting { name, value, kind } in settings {
            if kind == SettingKind::Secret {
                all.secrets.push(name.clone());
            }
            all.values.insert(name, value);
        }
        all
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(SettingValue::as_str)
    }

    /// Those that no line may show.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().filter_map(|name| self.get(name.as_str()))
    }

    fn all(&self) -> Vec<(String, String)> {
        let text = |(name, value): (&SettingName, &SettingValue)| {
            (name.to_string(), value.as_str().to_owned())
        };
        self.values.iter().map(text).collect()
    }
}

/// What an instance has for it.
pub(crate) struct Config;

impl HasData for Config {
    type Data<'a> = &'a Arc<Settings>;
}

pub(crate) fn view(guest: &mut Guest) -> &Arc<Settings> {
    &guest.settings
}

/// The three texts of `wasi:config/store` and the one of `runtime` say the same.
macro_rules! config {
    ($($interface:path, $error:ident;)+) => {
        $(const _: () = {
            use $interface as interface;
            impl interface::Host for &Arc<Settings> {
                fn get(&mut self, key: String) -> Result<Option<String>, interface::$error> {
                    Ok(Settings::get(self, &key).map(str::to_owned))
                }

                fn get_all(&mut self) -> Result<Vec<(String, String)>, interface::$error> {
                    Ok(self.all())
                }
            }
        };)+
    };
}

config! {
    draft::runtime, ConfigError;
    draft::store, Error;
    draft_2024_09_27::store, Error;
    rc_1::store, Error;
}

/// Why there is no variable of that name.
enum Missing {
    Invalid,
    Undefined,
}

impl Settings {
    fn variable(&self, name: &str) -> Result<String, Missing> {
        match self.get(name) {
            Some(value) => Ok(value.to_owned()),
            None if SettingName::is_valid(name) => Err(Missing::Undefined),
            None => Err(Missing::Invalid),
        }
    }
}

impl variables_2::Host for &Arc<Settings> {
    fn get(&mut self, name: String) -> Result<String, variables_2::Error> {
        self.variable(&name).map_err(|missing| match missing {
            Missing::Invalid => variables_2::Error::InvalidName(name),
            Missing::Undefined => variables_2::Error::Undefined(name),
        })
    }
}

impl variables_3::Host for &Arc<Settings> {}

impl<T> variables_3::HostWithStore<T> for Config {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> Result<String, variables_3::Error> {
        let found = accessor.with(|mut access| access.get().variable(&name));
        found.map_err(|missing| match missing {
            Missing::Invalid => variables_3::Error::InvalidName(name),
            Missing::Undefined => variables_3::Error::Undefined(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Arc<Settings> {
        let setting = |name: &str, value: &str, kind| Setting {
            name: name.parse().unwrap(),
            value: value.to_owned().into(),
            kind,
        };
        Arc::new(Settings::new([
            setting("region", "eu", SettingKind::Config),
            setting("API-Key", "s3cret", SettingKind::Secret),
            setting("empty", "", SettingKind::Config),
        ]))
    }

    #[test]
    fn every_text_says_the_same_of_a_name() {
        let settings = settings();
        let mut view = &settings;
        for (name, value) in [
            ("region", Some("eu")),
            ("API-Key", Some("s3cret")),
            ("empty", Some("")),
            ("api-key", None),
            ("", None),
            ("not a name", None),
        ] {
            let value = value.map(str::to_owned);
            assert_eq!(draft::runtime::Host::get(&mut view, name.into()).unwrap(), value);
            assert_eq!(draft::store::Host::get(&mut view, name.into()).unwrap(), value);
            assert_eq!(draft_2024_09_27::store::Host::get(&mut view, name.into()).unwrap(), value);
            assert_eq!(rc_1::store::Host::get(&mut view, name.into()).unwrap(), value);
            assert_eq!(variables_2::Host::get(&mut view, name.into()).ok(), value);
        }
    }

    #[test]
    fn all_of_them_are_listed_in_order() {
        let settings = settings();
        let all = rc_1::store::Host::get_all(&mut &settings).unwrap();
        let all: Vec<_> = all.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(all, [("API-Key", "s3cret"), ("empty", ""), ("region", "eu")]);
        assert_eq!(settings.secrets().collect::<Vec<_>>(), ["s3cret"]);
    }

    #[test]
    fn a_variable_that_is_not_there_has_its_own_error() {
        use variables_2::Error;
        let settings = settings();
        let get = |name: &str| variables_2::Host::get(&mut &settings, name.to_owned());
        assert!(matches!(get("missing"), Err(Error::Undefined(name)) if name == "missing"));
        assert!(matches!(get("no name"), Err(Error::InvalidName(name)) if name == "no name"));
        assert!(matches!(get(""), Err(Error::InvalidName(_))));
    }

    #[test]
    fn nobody_sees_a_value_by_looking_at_them() {
        let shown = format!("{:?}", settings());
        assert!(!shown.contains("s3cret") && !shown.contains("\"eu\""), "{shown}");
    }
}
