//! A position in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in a write-ahead log, written as PostgreSQL writes it: `16/B374D848`.
///
/// PostgreSQL manual, section "pg_lsn Type". Positions are comparable only within one timeline's ancestry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The invalid position, `0/0`: PostgreSQL never writes a record there.
    pub const INVALID: Self = Self(0);

    /// Tells whether this is a real position.
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Returns the position `bytes` further on.
    #[must_use]
    pub fn advance(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// Returns the number of bytes from `earlier` to this position, or 0 if this one is not later.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns sixteen hexadecimal digits, which sort as the positions do; used in object keys.
    #[must_use]
    pub fn to_key(self) -> String {
        format!("{:016X}", self.0)
    }

    /// Reads what [`Lsn::to_key`] wrote.
    #[must_use]
    pub fn from_key(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not a WAL position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a WAL position such as `16/B374D848`")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseLsnError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let part = |digits: &str| {
            if digits.is_empty() || digits.len() > 8 || digits.starts_with('+') {
                return Err(error());
            }
            u32::from_str_radix(digits, 16).map_err(|_| error())
        };
        Ok(Self((u64::from(part(high)?) << 32) | u64::from(part(low)?)))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_key_round_trip(value in any::<u64>()) {
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
            prop_assert_eq!(Lsn::from_key(&lsn.to_key()).unwrap(), lsn);
        }

        #[test]
        fn keys_sort_as_positions(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(a.cmp(&b), Lsn(a).to_key().cmp(&Lsn(b).to_key()));
        }
    }

    #[test]
    fn refuses_what_is_not_a_position() {
        for text in ["", "0", "0/", "/0", "0/+1", "0/123456789", "x/y", "1/2/3"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
