//! Sealing and opening pieces of one object.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Bytes of a salt.
pub const SALT_BYTES: usize = 32;
/// Bytes that sealing adds.
pub const TAG_BYTES: usize = MAX_TAG_LEN;

pub(crate) type Bytes32 = [u8; 32];

/// What makes the keys of an object its own. Not secret; stands in the object.
pub type Salt = [u8; SALT_BYTES];

/// Draws the salt of one attempt to write an object; nothing if the system has no randomness.
#[must_use]
pub fn fresh_salt() -> Option<Salt> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}

/// The bytes were not sealed with this key for this place of this object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was changed, or is not where it was written, or was encrypted with another key")]
pub struct SealBroken;

/// Seals and opens pieces of one object.
#[derive(Debug)]
pub struct ObjectCipher {
    sealing: LessSafeKey,
    hashing: Bytes32,
    /// The object's name, and room for an offset.
    bound_to: Vec<u8>,
}

impl ObjectCipher {
    pub(crate) fn new(secret: &Bytes32, salt: &Salt, name: &str) -> Self {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let derive = |info: &[u8]| {
            let mut key = [0; 32];
            extracted
                .expand(&[info], hkdf::HKDF_SHA256)
                .and_then(|derived| derived.fill(&mut key))
                .expect("32 bytes are what SHA-256 gives");
            key
        };
        let key = UnboundKey::new(&AES_256_GCM, &derive(b"dr1 seal"));
        Self {
            sealing: LessSafeKey::new(key.expect("the key is of the length of the cipher's")),
            hashing: derive(b"dr1 hash"),
            bound_to: name.as_bytes().to_vec(),
        }
    }

    /// Encrypts in place what stands at `offset` of the object and returns the tag that follows it there.
    ///
    /// No offset may be used twice with one salt.
    #[must_use]
    pub fn seal(&self, offset: u64, bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let aad = self.bound_to(offset);
        let tag = self
            .sealing
            .seal_in_place_separate_tag(nonce(offset), Aad::from(aad), bytes)
            .expect("an object is shorter than what AES-GCM can take");
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Decrypts in place what stands at `offset`, tag included; returns it without the tag.
    pub fn open<'a>(&self, offset: u64, bytes: &'a mut [u8]) -> Result<&'a mut [u8], SealBroken> {
        let aad = self.bound_to(offset);
        self.sealing
            .open_in_place(nonce(offset), Aad::from(aad), bytes)
            .map_err(|_| SealBroken)
    }

    /// Hashes plain bytes so that the hash tells nothing to who has not the key.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.hashing, bytes)
    }

    fn bound_to(&self, offset: u64) -> Vec<u8> {
        let mut aad = self.bound_to.clone();
        aad.extend(offset.to_be_bytes());
        aad
    }
}

/// Offsets grow within an object and its key is its own, so that they count what is sealed.
fn nonce(offset: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&offset.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn key(digit: char) -> Key {
        Key::parse(&format!("dr-key1 {}", digit.to_string().repeat(64))).unwrap()
    }

    #[test]
    fn only_the_same_key_salt_name_and_place_open() {
        let plain = b"some pages";
        let (salt, other) = (fresh_salt().unwrap(), fresh_salt().unwrap());
        assert_ne!(salt, other);
        let mut sealed = plain.to_vec();
        let tag = key('1').object(&salt, "a/b").seal(40, &mut sealed);
        sealed.extend(tag);
        assert_ne!(&sealed[..plain.len()], plain);
        let open = |key: Key, salt: &Salt, name: &str, offset, sealed: &[u8]| {
            let mut bytes = sealed.to_vec();
            let opened = key.object(salt, name).open(offset, &mut bytes);
            opened.map(|bytes| bytes.to_vec())
        };
        assert_eq!(open(key('1'), &salt, "a/b", 40, &sealed).unwrap(), plain);
        assert!(open(key('2'), &salt, "a/b", 40, &sealed).is_err());
        assert!(open(key('1'), &other, "a/b", 40, &sealed).is_err());
        assert!(open(key('1'), &salt, "a/c", 40, &sealed).is_err());
        assert!(open(key('1'), &salt, "a/b", 41, &sealed).is_err());
        assert!(open(key('1'), &salt, "a/b", 40, &sealed[1..]).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(key('1'), &salt, "a/b", 40, &changed).is_err(), "{at}");
        }
        let hash = |key: Key, salt| key.object(salt, "a/b").hash(plain);
        assert_ne!(hash(key('1'), &salt), hash(key('2'), &salt));
        assert_ne!(hash(key('1'), &salt), blake3::hash(plain));
    }
}
