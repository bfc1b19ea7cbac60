//! Encryption of stored objects, described for other readers in `docs/formats/encryption.md`.
//!
//! An operator's *key file* holds one secret. Every object gets keys of its own, derived from the secret and a random salt
//! that is drawn anew for each attempt to write one, so that no two objects, nor two attempts, share a key, and positions
//! within the object can serve as nonces. What is sealed is bound to the object's name and to its place in it, and to
//! nothing about the store, so that copies stay readable.

mod key;
mod object;

pub use key::{Key, KeyError, KeyId, Keys};
pub use object::{ObjectCipher, SALT_BYTES, Salt, SealBroken, TAG_BYTES, fresh_salt};
