//! The first members of `global/pg_control`, which have the same place in every version that is backed up here.
//!
//! A server writes the file while it is read. It fits into one sector, so that it is rarely seen half written, but a
//! restored cluster hangs on it: a reading counts only if its checksum holds (R5).

use std::io;

use dr_model::{Lsn, SystemIdentifier, TimelineId};

/// The file, in a data directory.
pub(crate) const PATH: &str = "global/pg_control";

/// The state of a server that accepts writes (`DB_IN_PRODUCTION`).
const IN_PRODUCTION: u32 = 6;

/// The longest that what the checksum covers can be: what is written at once (`PG_CONTROL_MAX_SAFE_SIZE`).
const SAFE_BYTES: usize = 512;

/// Where the state of the last checkpoint ends in the oldest version: no checksum stands before.
const SHORTEST_BYTES: usize = 128;

/// What a control file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) catalog_version: u32,
    /// Whether a server runs, or ran until it crashed, that accepts writes.
    pub(crate) in_production: bool,
    /// Where replay would begin after a crash.
    pub(crate) redo: Lsn,
    /// The timeline of that checkpoint.
    pub(crate) timeline: TimelineId,
}

impl Control {
    /// Reads the file's content; an error if no checksum holds.
    pub(crate) fn parse(content: &[u8]) -> io::Result<Self> {
        let safe = &content[..content.len().min(SAFE_BYTES)];
        // Where the checksum stands differs between versions; its value tells.
        let holds = |end: usize| crc32c::crc32c(&safe[..end]).to_le_bytes() == safe[end..end + 4];
        let found = (SHORTEST_BYTES..safe.len().saturating_sub(3))
            .step_by(4)
            .any(holds);
        if !found {
            let what = format!("`{PATH}` is damaged, or of another byte order: no checksum holds");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let word = |at: usize| {
            u32::from_le_bytes(safe[at..at + 4].try_into().expect("four bytes were cut"))
        };
        let long = |at: usize| {
            u64::from_le_bytes(safe[at..at + 8].try_into().expect("eight bytes were cut"))
        };
        Ok(Self {
            system_identifier: SystemIdentifier(long(0)),
            catalog_version: word(12),
            in_production: word(16) == IN_PRODUCTION,
            redo: Lsn(long(40)),
            timeline: TimelineId(word(48)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut content = vec![0; 8192];
        content[..8].copy_from_slice(&7_123_456_789_u64.to_le_bytes());
        content[12..16].copy_from_slice(&202_209_061_u32.to_le_bytes());
        content[16..20].copy_from_slice(&6_u32.to_le_bytes());
        content[40..48].copy_from_slice(&0x0200_0028_u64.to_le_bytes());
        content[48..52].copy_from_slice(&3_u32.to_le_bytes());
        let sum = crc32c::crc32c(&content[..288]);
        content[288..292].copy_from_slice(&sum.to_le_bytes());
        content
    }

    #[test]
    fn reads_what_a_server_writes() {
        let control = Control::parse(&file()).unwrap();
        assert_eq!(control.system_identifier, SystemIdentifier(7_123_456_789));
        assert_eq!(
            (control.catalog_version, control.in_production),
            (202_209_061, true)
        );
        assert_eq!(
            (control.redo, control.timeline),
            (Lsn(0x0200_0028), TimelineId(3))
        );
    }

    #[test]
    fn a_torn_or_short_file_is_refused() {
        let mut content = file();
        content[45] ^= 1;
        assert!(Control::parse(&content).is_err());
        assert!(Control::parse(&file()[..200]).is_err());
        assert!(Control::parse(&[]).is_err());
    }
}
