//! The key that an approver signs with, and the file that it is in.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use dr_model::ApproverKey;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

/// What a file with a signing key begins with.
const MAGIC: &str = "dr-approver-key1";

/// The private half of an approver's key.
pub struct SigningKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// The text is not the file of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the key of an approver: one line, `{MAGIC}` and 64 hexadecimal digits")]
pub struct SigningKeyError;

impl SigningKey {
    /// Makes a new key; nothing if the system has no randomness.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).ok()?;
        Self::from_seed(seed)
    }

    fn from_seed(seed: [u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).ok()?;
        Some(Self { seed, pair })
    }

    /// Reads the content of a file: one line, `dr-approver-key1` and 64 hexadecimal digits; lines that begin with `#` are
    /// passed over.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(SigningKeyError);
        };
        let digits = line.strip_prefix(MAGIC).map(str::trim);
        let seed = digits.and_then(|digits| HEX.decode(digits.as_bytes()).ok());
        let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        seed.and_then(Self::from_seed).ok_or(SigningKeyError)
    }

    /// Returns the content of a file that [`SigningKey::parse`] reads. Secret.
    #[must_use]
    pub fn to_file(&self) -> String {
        format!("{MAGIC} {}\n", HEX.encode(&self.seed))
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> ApproverKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        ApproverKey::new(bytes)
    }

    pub(super) fn sign(&self, message: &[u8]) -> String {
        HEX.encode(self.pair.sign(message).as_ref())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("public", &self.public())
            .finish_non_exhaustive()
    }
}

/// Tells whether `signature` is that of `message` by the holder of `key`.
pub(super) fn is_signed(key: &ApproverKey, message: &[u8], signature: &str) -> bool {
    HEX.decode(signature.as_bytes()).is_ok_and(|signature| {
        let key = UnparsedPublicKey::new(&ED25519, key.as_bytes());
        key.verify(message, &signature).is_ok()
    })
}
