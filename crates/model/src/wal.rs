//! Names in PostgreSQL's write-ahead log: clusters, timelines, segments.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Lsn;

/// Identifies a PostgreSQL cluster for its whole life; shared by its standbys and by what is restored from it.
///
/// Written in decimal, and as a string in JSON, because it does not fit the numbers of JSON readers in scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for SystemIdentifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl FromStr for SystemIdentifier {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A timeline of a cluster: a new one begins at every promotion.
///
/// PostgreSQL manual, section "Timelines".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// Returns the timeline after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns eight hexadecimal digits, as in the names of segments.
    #[must_use]
    pub fn to_key(self) -> String {
        format!("{:08X}", self.0)
    }

    /// Returns the name of this timeline's history file, such as `00000002.history`.
    #[must_use]
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The size of a cluster's WAL segments in bytes: a power of two from 1 MiB to 1 GiB (R34).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

/// The number is not a WAL segment size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a WAL segment size: a power of two from 1 MiB to 1 GiB")]
pub struct SegmentSizeError(u64);

impl TryFrom<u32> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u32) -> Result<Self, Self::Error> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(SegmentSizeError(u64::from(bytes)))
        }
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

impl SegmentSize {
    /// PostgreSQL's default, 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);

    /// All sizes that there are, the usual one first.
    pub const ALL: [Self; 11] = [
        Self::DEFAULT,
        Self(1 << 20),
        Self(2 << 20),
        Self(4 << 20),
        Self(8 << 20),
        Self(32 << 20),
        Self(64 << 20),
        Self(128 << 20),
        Self(256 << 20),
        Self(512 << 20),
        Self(1 << 30),
    ];

    /// Returns the size in bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Returns the first position of the segment that holds `lsn`.
    #[must_use]
    pub fn start_of(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 & !(self.bytes() - 1))
    }

    /// Returns the offset of `lsn` in its segment.
    #[must_use]
    pub fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }

    /// Returns the file name of the segment that holds `lsn`: timeline, then the position in units of 4 GiB, then the
    /// segment within it.
    #[must_use]
    pub fn file_name(self, timeline: TimelineId, lsn: Lsn) -> String {
        let number = lsn.0 / self.bytes();
        let per_file = 0x1_0000_0000 / self.bytes();
        format!(
            "{:08X}{:08X}{:08X}",
            timeline.0,
            number / per_file,
            number % per_file
        )
    }

    /// Reads a segment's file name; the position is the segment's first.
    #[must_use]
    pub fn parse_file_name(self, name: &str) -> Option<(TimelineId, Lsn)> {
        if name.len() != 24
            || !name
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        {
            return None;
        }
        let field = |from: usize| u64::from_str_radix(&name[from..from + 8], 16).ok();
        let (timeline, high, low) = (field(0)?, field(8)?, field(16)?);
        let per_file = 0x1_0000_0000 / self.bytes();
        if timeline == 0 || low >= per_file {
            return None;
        }
        let timeline = TimelineId(u32::try_from(timeline).ok()?);
        Some((timeline, Lsn((high * per_file + low) * self.bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_round_trip(shift in 20_u32..=30, timeline in 1_u32.., position in any::<u64>()) {
            let size = SegmentSize::try_from(1_u32 << shift).unwrap();
            let start = size.start_of(Lsn(position));
            let name = size.file_name(TimelineId(timeline), Lsn(position));
            prop_assert_eq!(size.parse_file_name(&name), Some((TimelineId(timeline), start)));
        }
    }

    #[test]
    fn names_are_those_of_postgresql() {
        let size = SegmentSize::DEFAULT;
        assert_eq!(
            size.file_name(TimelineId(1), Lsn(0x1_0000_0000)),
            "000000010000000100000000"
        );
        assert_eq!(
            size.file_name(TimelineId(1), Lsn(0xFFFF_FFFF)),
            "0000000100000000000000FF"
        );
        assert_eq!(size.parse_file_name("000000010000000000000100"), None);
        assert_eq!(size.parse_file_name("00000001.history"), None);
    }
}
