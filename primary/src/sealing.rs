//! How secrets are sealed: XChaCha20-Poly1305, with a nonce of its own for each, under one key of the
//! host's. A sealed secret is bound to its tenant's name and its own: in the place of another it does
//! not open. Knows neither the store nor the file that the key is in.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hearth_wire::{SettingName, SettingValue, TenantName};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Of a sealed secret, besides its value.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// What is sealed is nothing else that anybody might seal with the same key.
const CONTEXT: &str = "hearth secret 1";

/// A key by which secrets are told apart that another one sealed. It says nothing of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// 256 random bits, which are overwritten where they go.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: KeyId,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A secret that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("it was sealed with another key")]
    OtherKey,
    /// Or it is not where it was put.
    #[error("it is damaged")]
    Damaged,
}

impl Key {
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *bytes)?;
        Ok(Self::of(bytes))
    }

    fn of(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let digest =
            Sha256::new().chain_update("hearth key id").chain_update(bytes.as_slice()).finalize();
        let id = digest.first_chunk().copied().expect("a digest has more bytes");
        Self { bytes, id: KeyId(id) }
    }

    /// As it stands in a file: 32 bytes in base64, of either alphabet.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
        let decoded = Zeroizing::new(decoded.ok()?);
        let bytes = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(decoded.as_slice()).ok()?);
        Some(Self::of(bytes))
    }

    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_slice()) + "\n")
    }

    pub fn id(&self) -> KeyId {
        self.id
    }

    pub fn seal(
        &self,
        tenant: &TenantName,
        name: &SettingName,
        value: &SettingValue,
    ) -> Result<Vec<u8>, getrandom::Error> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce)?;
        let aad = bound_to(tenant, name);
        let payload = Payload { msg: value.as_str().as_bytes(), aad: aad.as_bytes() };
        let sealed = self.cipher().encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.expect("a value is far below what the cipher takes");
        Ok([&nonce[..], &sealed].concat())
    }

    pub fn open(
        &self,
        tenant: &TenantName,
        name: &SettingName,
        by: KeyId,
        sealed: &[u8],
    ) -> Result<SettingValue, OpenError> {
        if by != self.id {
            return Err(OpenError::OtherKey);
        }
        let (nonce, sealed) =
            sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Damaged)?;
        let aad = bound_to(tenant, name);
        let payload = Payload { msg: sealed, aad: aad.as_bytes() };
        let opened = self.cipher().decrypt(&XNonce::from(*nonce), payload);
        let text = String::from_utf8(opened.map_err(|_| OpenError::Damaged)?);
        text.map(SettingValue::from).map_err(|_| OpenError::Damaged)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new_from_slice(&*self.bytes).expect("a key has the cipher's length")
    }
}

/// Neither name has a line end.
fn bound_to(tenant: &TenantName, name: &SettingName) -> String {
    format!("{CONTEXT}\n{tenant}\n{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name<T: std::str::FromStr<Err: fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_sealed_opens_where_it_belongs_and_nowhere_else() {
        let key = Key::random().unwrap();
        for text in ["", "s3cret", "päss\nwört", &"x".repeat(16 << 10)] {
            let value = SettingValue::from(text.to_owned());
            let sealed = key.seal(&name("acme"), &name("KEY"), &value).unwrap();
            assert_eq!(sealed.len(), text.len() + OVERHEAD_BYTES);
            let open = |tenant, setting, by, sealed: &[u8]| {
                key.open(&name(tenant), &name(setting), by, sealed)
            };
            assert_eq!(open("acme", "KEY", key.id(), &sealed), Ok(value.clone()));
            for (tenant, setting) in [("beta", "KEY"), ("acme", "key"), ("acme", "KEY2")] {
                assert_eq!(open(tenant, setting, key.id(), &sealed), Err(OpenError::Damaged));
            }
            for at in [0, NONCE_BYTES, sealed.len() - 1] {
                let mut torn = sealed.clone();
                torn[at] ^= 1;
                assert_eq!(open("acme", "KEY", key.id(), &torn), Err(OpenError::Damaged));
            }
            for short in [0, NONCE_BYTES - 1, OVERHEAD_BYTES - 1] {
                let opened = open("acme", "KEY", key.id(), &sealed[..short]);
                assert_eq!(opened, Err(OpenError::Damaged));
            }
        }
    }

    #[test]
    fn nothing_is_sealed_twice_alike() {
        let key = Key::random().unwrap();
        let value = SettingValue::from("value".to_owned());
        let seal = || key.seal(&name("acme"), &name("KEY"), &value).unwrap();
        assert_ne!(seal(), seal());
    }

    #[test]
    fn another_key_is_known_for_one() {
        let [key, other] = [(); 2].map(|()| Key::random().unwrap());
        let value = SettingValue::from("value".to_owned());
        let sealed = key.seal(&name("acme"), &name("KEY"), &value).unwrap();
        assert_ne!(key.id(), other.id());
        let opened = other.open(&name("acme"), &name("KEY"), key.id(), &sealed);
        assert_eq!(opened, Err(OpenError::OtherKey));
        // One that says that it is this one.
        let opened = other.open(&name("acme"), &name("KEY"), other.id(), &sealed);
        assert_eq!(opened, Err(OpenError::Damaged));
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_as_others_write_one() {
        let key = Key::random().unwrap();
        assert_eq!(Key::parse(key.text().as_bytes()), Some(key.clone()));
        let other = URL_SAFE_NO_PAD.encode(*key.bytes);
        assert_eq!(Key::parse(format!("  {other}\r\n").as_bytes()), Some(key.clone()));
        for wrong in ["", "AAAA", "not base64 at all", &"A".repeat(44), &"A".repeat(100)] {
            assert_eq!(Key::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert!(!format!("{key:?}").contains(key.text().trim()));
    }

    /// The example of its draft (draft-irtf-cfrg-xchacha, A.3.1).
    #[test]
    fn the_cipher_is_the_one_of_its_draft() {
        let key: [u8; 32] = std::array::from_fn(|at| 0x80 + at as u8);
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + at as u8);
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
                     for the future, sunscreen would be it.";
        let cipher = Key::of(Zeroizing::new(key)).cipher();
        let sealed =
            cipher.encrypt(&XNonce::from(nonce), Payload { msg: text, aad: &aad }).unwrap();
        assert_eq!(sealed[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        let tag = &sealed[sealed.len() - TAG_BYTES..];
        assert_eq!(tag[..8], [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79]);
    }
}
