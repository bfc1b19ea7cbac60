//! The names of backups.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a backup, `20261121T093005Z-7f3a`: the time at which it was begun and four hexadecimal digits that keep two
/// writers apart. Labels sort by time, except those of one second.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// The text is not the label of a backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the label of a backup, such as `20261121T093005Z-7f3a`")]
pub struct LabelError(String);

impl Label {
    /// Makes the label of a backup begun `at` from 16 bits of `entropy`.
    #[must_use]
    pub fn new(at: Timestamp, entropy: u16) -> Self {
        Self(format!("{}-{entropy:04x}", at.strftime("%Y%m%dT%H%M%SZ")))
    }

    /// Returns the part that is the time, to the second, at which the backup was begun.
    #[must_use]
    pub fn second(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(second, _)| second)
    }

    /// Returns that time.
    #[must_use]
    pub fn begun_at(&self) -> Option<Timestamp> {
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", self.second()).ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(time.timestamp())
    }

    /// Returns the label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = b"dddddddd\0dddddd\0\0xxxx";
        let fits = text.len() == shape.len()
            && text
                .bytes()
                .zip(shape)
                .enumerate()
                .all(|(at, (byte, kind))| match (kind, at) {
                    (b'd', _) => byte.is_ascii_digit(),
                    (b'x', _) => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
                    (_, 8) => byte == b'T',
                    (_, 15) => byte == b'Z',
                    _ => byte == b'-',
                });
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(LabelError(text.to_owned()))
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn labels_read_back_and_sort_by_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let label = Label::new(at(1_795_253_405), 0x7f3a);
        assert_eq!(label.as_str(), "20261121T093005Z-7f3a");
        assert_eq!(label.as_str().parse(), Ok(label.clone()));
        assert_eq!(label.begun_at(), Some(at(1_795_253_405)));
        assert!(label < Label::new(at(1_795_253_406), 0));
    }

    #[rstest]
    #[case("")]
    #[case("20261121T093005Z-7F3A")]
    #[case("20261121T093005Z-7f3")]
    #[case("20261121 093005Z-7f3a")]
    #[case("../20261121T093005Z-7")]
    fn refuses(#[case] text: &str) {
        assert!(text.parse::<Label>().is_err());
    }
}
