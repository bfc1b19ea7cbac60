//! Who must agree to a move, and for how long a yes counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::ApproverName;

/// What a public key begins with in text.
const SCHEME: &str = "ed25519:";

/// How long a request for approval, and every approval of it, counts unless the configuration says otherwise.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(4 * 3600);

/// The longest that it may: what was observed a week ago is not what anybody approves.
pub const MAX_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);

/// The public key of an approver: Ed25519 (RFC 8032), written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApproverKey([u8; 32]);

/// The text is not a public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the public key of an approver: `{SCHEME}` and 64 hexadecimal digits")]
pub struct ApproverKeyError(String);

impl ApproverKey {
    /// Takes the bytes of a key.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for ApproverKey {
    type Err = ApproverKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ApproverKeyError(text.to_owned());
        let digits = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = digits.get(2 * index..2 * index + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ApproverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ApproverKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApproverKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A person who may approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// The name.
    pub name: ApproverName,
    /// The account that is this person's alone, if there is one: whoever works under it asks for a move as this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The key that the person signs with.
    pub key: ApproverKey,
}

/// Who must agree to a move of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalPolicy {
    /// How many people, besides the one who asks.
    pub quorum: u32,
    /// How long a request counts, and with it every approval of it.
    pub expires: Duration,
    /// Who they may be.
    pub approvers: Vec<Approver>,
}

impl Default for ApprovalPolicy {
    fn default() -> Self {
        Self {
            quorum: 0,
            expires: DEFAULT_EXPIRY,
            approvers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let text = format!("ed25519:{}", "0a".repeat(32));
        let key: ApproverKey = text.parse().unwrap();
        assert_eq!(key.as_bytes(), &[10; 32]);
        assert_eq!(key.to_string(), text);
        for wrong in [
            String::new(),
            "0a".repeat(32),
            text[..71].to_owned(),
            format!("{text}0a"),
            format!("ed25519:{}", "+a".repeat(32)),
            format!("ed25519:{}", "é".repeat(32)),
        ] {
            assert!(wrong.parse::<ApproverKey>().is_err(), "{wrong}");
        }
    }
}
