//! A tenant's settings, configuration and secrets alike, as its worker is told them: each part of them
//! in a frame of its own, and all parts before it is ready.
//!
//! A value is never printed: whatever formats a message for people shows that there is one.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::{SETTING_VALUE_MAX_BYTES, SETTINGS_MAX_BYTES};
use crate::name::SettingName;
use crate::socket::FRAME_MAX;

/// One of a tenant's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: SettingName,
    pub value: SettingValue,
    pub kind: SettingKind,
}

/// Which of both a name is. It is one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettingKind {
    /// Anybody who may look at the tenant may read it.
    Config,
    /// Functions alone read it, and no log line has it.
    Secret,
}

/// Its memory is overwritten when it goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SettingValue(#[serde(with = "text")] Zeroizing<String>);

mod text {
    use super::Zeroizing;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}

impl SettingValue {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is as short as a value has to be.
    pub fn fits(&self) -> bool {
        self.0.len() <= SETTING_VALUE_MAX_BYTES
    }
}

impl From<String> for SettingValue {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<Zeroizing<String>> for SettingValue {
    fn from(text: Zeroizing<String>) -> Self {
        Self(text)
    }
}

impl fmt::Debug for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SettingValue(…)")
    }
}

impl Setting {
    /// What a frame takes besides its settings, and a setting besides its texts.
    const REST_BYTES: usize = 16;
    /// Parts of the most that a tenant may have: each but the last is more than half full, since a
    /// setting takes far less than half a frame.
    pub const PARTS_MAX: usize = 2 * SETTINGS_MAX_BYTES / (FRAME_MAX / 2) + 2;

    fn bytes(&self) -> usize {
        Self::REST_BYTES + self.name.as_str().len() + self.value.as_str().len()
    }

    /// In parts, each of which goes into one frame.
    pub fn parts(settings: impl IntoIterator<Item = Self>) -> Vec<Vec<Self>> {
        let mut parts: Vec<Vec<Self>> = Vec::new();
        let mut room = 0;
        for setting in settings {
            let bytes = setting.bytes();
            match parts.last_mut() {
                Some(part) if bytes <= room => part.push(setting),
                _ => {
                    room = FRAME_MAX - Self::REST_BYTES;
                    parts.push(vec![setting]);
                }
            }
            room = room.saturating_sub(bytes);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SETTINGS_MAX;
    use crate::message::ToWorker;

    fn setting(name: String, bytes: usize) -> Setting {
        let value = "x".repeat(bytes).into();
        Setting { name: name.parse().unwrap(), value, kind: SettingKind::Secret }
    }

    #[test]
    fn every_part_fits_its_frame_and_nothing_is_left_out() {
        let longest = |number: usize| format!("{number:0>width$}", width = SettingName::BYTES_MAX);
        let largest = SETTING_VALUE_MAX_BYTES;
        for settings in [
            Vec::new(),
            vec![setting("a".to_owned(), 0)],
            (0..16).map(|n| setting(longest(n), largest)).collect(),
            (0..SETTINGS_MAX).map(|n| setting(longest(n), 896)).collect(),
            (0..SETTINGS_MAX).map(|n| setting(longest(n), 0)).collect(),
            // No two of these fit beside a third.
            (0..15).map(|n| setting(longest(n), largest - 10 + n)).collect(),
        ] {
            let parts = Setting::parts(settings.clone());
            assert_eq!(parts.is_empty(), settings.is_empty());
            assert!(parts.len() <= Setting::PARTS_MAX, "{}", parts.len());
            for part in &parts {
                let frame = postcard::to_allocvec(&ToWorker::Settings(part.clone())).unwrap();
                assert!(frame.len() <= FRAME_MAX, "{}", frame.len());
            }
            assert_eq!(parts.concat(), settings);
        }
    }

    #[test]
    fn no_message_shows_a_value() {
        let part = vec![setting("key".to_owned(), 9)];
        let shown = format!("{:?}", ToWorker::Settings(part));
        assert!(shown.contains("key") && !shown.contains("xxx"), "{shown}");
    }
}
