//! Page headers: what stands at the start of each 8 KiB of WAL.
//!
//! Layout: `XLogPageHeaderData` and `XLogLongPageHeaderData` in PostgreSQL's `access/xlog_internal.h`, in the byte order
//! of the machines that PostgreSQL is run on in practice, little-endian. A server with another order, another page size
//! or of another major version is recognised by its magic and refused.

use dr_model::{Lsn, SystemIdentifier, TimelineId};

/// Size of a WAL page. A server may be built with another; its segments are refused.
pub const PAGE_BYTES: u64 = 8192;

/// Bytes of an ordinary page header.
pub(super) const SHORT_HEADER_BYTES: usize = 24;
/// Bytes of the header of a segment's first page.
pub(super) const LONG_HEADER_BYTES: usize = 40;

const FIRST_IS_CONTINUATION: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
/// Full-page images on this page may be left out: for compressors of WAL, of no meaning here.
const IMAGES_REMOVABLE: u16 = 0x0004;
/// This value is that of versions up to 18.
const FIRST_IS_OVERWRITE: u16 = 0x0008;
const ALL_FLAGS: u16 = FIRST_IS_CONTINUATION | LONG_HEADER | IMAGES_REMOVABLE | FIRST_IS_OVERWRITE;

/// `XLOG_PAGE_MAGIC` of each released major version that is supported.
const MAGICS: [(u16, u16); 4] = [(0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

/// Returns the major version of the server that writes pages with this magic; `None` if it is not supported.
#[must_use]
pub fn major_version(magic: u16) -> Option<u16> {
    MAGICS
        .iter()
        .find(|(known, _)| *known == magic)
        .map(|(_, version)| *version)
}

/// What a segment's first page says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) system_identifier: SystemIdentifier,
    pub(super) segment_bytes: u32,
    pub(super) page_bytes: u32,
}

/// A page header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) magic: u16,
    flags: u16,
    pub(super) timeline: TimelineId,
    pub(super) address: Lsn,
    /// Bytes of a record begun on an earlier page that are still to come, this page's included.
    pub(super) remaining_bytes: u32,
    /// Only in a long header.
    pub(super) identity: Option<Identity>,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl PageHeader {
    /// Returns the length of the header that begins with these bytes, once enough of them are there to tell.
    pub(super) fn length(bytes: &[u8]) -> Option<usize> {
        if bytes.len() < 4 {
            return None;
        }
        let flags = u16::from_le_bytes(field(bytes, 2));
        Some(if flags & LONG_HEADER == 0 {
            SHORT_HEADER_BYTES
        } else {
            LONG_HEADER_BYTES
        })
    }

    /// Reads a header of exactly the [`length`](Self::length) that it says.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let identity = (bytes.len() >= LONG_HEADER_BYTES).then(|| Identity {
            system_identifier: SystemIdentifier(u64::from_le_bytes(field(bytes, 24))),
            segment_bytes: u32::from_le_bytes(field(bytes, 32)),
            page_bytes: u32::from_le_bytes(field(bytes, 36)),
        });
        Self {
            magic: u16::from_le_bytes(field(bytes, 0)),
            flags: u16::from_le_bytes(field(bytes, 2)),
            timeline: TimelineId(u32::from_le_bytes(field(bytes, 4))),
            address: Lsn(u64::from_le_bytes(field(bytes, 8))),
            remaining_bytes: u32::from_le_bytes(field(bytes, 16)),
            identity,
        }
    }

    /// Tells whether only flags that PostgreSQL knows are set.
    pub(super) fn flags_known(&self) -> bool {
        self.flags & !ALL_FLAGS == 0
    }

    /// Tells whether the page begins with the rest of a record from the page before.
    pub(super) fn continues(&self) -> bool {
        self.flags & FIRST_IS_CONTINUATION != 0
    }

    /// Tells whether the record begun on the page before was given up and another one begins here.
    pub(super) fn overwrites(&self) -> bool {
        self.flags & FIRST_IS_OVERWRITE != 0
    }
}
