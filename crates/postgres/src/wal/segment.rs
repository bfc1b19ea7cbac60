//! Whether a file is the segment that its name says (R15).

use dr_model::{Lsn, SegmentSize, SystemIdentifier, TimelineId};

use super::page::{LONG_HEADER_BYTES, PAGE_BYTES, PageHeader, major_version};

/// Bytes from the start of a file that [`check_segment`] needs.
pub const SEGMENT_HEADER_BYTES: usize = LONG_HEADER_BYTES;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Timeline in the file's name.
    pub timeline: TimelineId,
    /// Timeline of the first page: the same, or an ancestor's in the segment in which a timeline begins.
    pub page_timeline: TimelineId,
    /// Position of its first byte.
    pub start: Lsn,
    /// Its size.
    pub size: SegmentSize,
    /// Major version of the server that wrote it.
    pub major_version: u16,
}

/// A file is not the segment that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The file ends before its first page header does.
    #[error("`{name}` has {bytes} bytes, too few for a WAL segment")]
    Short {
        /// The file.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// The magic is that of no supported version.
    #[error("`{name}` does not begin as a WAL segment of a supported version (magic {magic:04X})")]
    Magic {
        /// The file.
        name: String,
        /// What stands there.
        magic: u16,
    },
    /// The first page has no long header, or its sizes are not possible ones.
    #[error("`{name}` has no valid segment header")]
    Header {
        /// The file.
        name: String,
    },
    /// It is WAL of another cluster.
    #[error("`{name}` belongs to cluster {found}, not to {expected}")]
    Cluster {
        /// The file.
        name: String,
        /// Whose it is.
        found: SystemIdentifier,
        /// Whose it should be.
        expected: SystemIdentifier,
    },
    /// The file's length is not the segment size.
    #[error("`{name}` has {bytes} bytes instead of {expected}")]
    Size {
        /// The file.
        name: String,
        /// Its length.
        bytes: u64,
        /// The segment size in its header.
        expected: u64,
    },
    /// The name is not a segment's at the segment size in the header.
    #[error("`{name}` is not the name of a WAL segment")]
    Name {
        /// The file.
        name: String,
    },
    /// The content belongs under another name.
    #[error("`{name}` holds timeline {timeline} from {address}, which belongs under another name")]
    Place {
        /// The file.
        name: String,
        /// Timeline of its first page.
        timeline: TimelineId,
        /// Position of its first page.
        address: Lsn,
    },
}

/// Checks the segment `name` (its last component, possibly with `.partial`) by the first [`SEGMENT_HEADER_BYTES`] of the
/// file and its length: magic, cluster, segment size, position, length.
pub fn check_segment(
    name: &str,
    head: &[u8],
    file_bytes: u64,
    expected: SystemIdentifier,
) -> Result<SegmentInfo, SegmentError> {
    let owned = || name.to_owned();
    let Some(head) = head.get(..LONG_HEADER_BYTES) else {
        return Err(SegmentError::Short {
            name: owned(),
            bytes: file_bytes,
        });
    };
    let header = PageHeader::parse(head);
    let Some(major_version) = major_version(header.magic) else {
        return Err(SegmentError::Magic {
            name: owned(),
            magic: header.magic,
        });
    };
    let identity = header.identity.filter(|identity| {
        PageHeader::length(head) == Some(LONG_HEADER_BYTES)
            && header.flags_known()
            && u64::from(identity.page_bytes) == PAGE_BYTES
    });
    let size = identity.and_then(|identity| SegmentSize::try_from(identity.segment_bytes).ok());
    let (Some(identity), Some(size)) = (identity, size) else {
        return Err(SegmentError::Header { name: owned() });
    };
    if identity.system_identifier != expected {
        return Err(SegmentError::Cluster {
            name: owned(),
            found: identity.system_identifier,
            expected,
        });
    }
    if file_bytes != size.bytes() {
        return Err(SegmentError::Size {
            name: owned(),
            bytes: file_bytes,
            expected: size.bytes(),
        });
    }
    let plain = name.strip_suffix(".partial").unwrap_or(name);
    let Some((timeline, start)) = size.parse_file_name(plain) else {
        return Err(SegmentError::Name { name: owned() });
    };
    if header.address != start || header.timeline > timeline {
        return Err(SegmentError::Place {
            name: owned(),
            timeline: header.timeline,
            address: header.address,
        });
    }
    Ok(SegmentInfo {
        timeline,
        page_timeline: header.timeline,
        start,
        size,
        major_version,
    })
}

/// Reads the size of a cluster's segments from the first [`SEGMENT_HEADER_BYTES`] of any of them; `None` if these are not
/// the beginning of one of its segments.
#[must_use]
pub fn segment_size(head: &[u8], expected: SystemIdentifier) -> Option<SegmentSize> {
    let head = head.get(..LONG_HEADER_BYTES)?;
    let header = PageHeader::parse(head);
    major_version(header.magic)?;
    let identity = header.identity.filter(|identity| {
        PageHeader::length(head) == Some(LONG_HEADER_BYTES)
            && header.flags_known()
            && identity.system_identifier == expected
            && u64::from(identity.page_bytes) == PAGE_BYTES
    })?;
    let size = SegmentSize::try_from(identity.segment_bytes).ok()?;
    (size.offset_of(header.address) == 0).then_some(size)
}
