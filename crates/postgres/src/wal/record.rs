//! Record headers, and the little of their content that matters here: ends of transactions, which of them run, restore
//! points, segment switches, tablespaces that are made and changes of the level of the log.
//!
//! Layout: `XLogRecord` in `access/xlogrecord.h`, `xl_xact_commit` in `access/xact.h`, `xl_running_xacts` in
//! `storage/standbydefs.h`, `xl_restore_point` and `xl_parameter_change` in `access/xlog_internal.h`, `xl_tblspc_create_rec` in
//! `commands/tablespace.h`; the same in versions 15 to 18.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use dr_model::Lsn;
use jiff::Timestamp;

use super::ending::Ending;

/// Bytes of a record header (`SizeOfXLogRecord`).
pub(super) const HEADER_BYTES: usize = 24;
/// The checksum stands last in the header and covers what is before it.
pub(super) const CHECKSUM_OFFSET: usize = 20;
/// Bytes kept from the start of every record. Of what is read out of one by these alone a restore point is the longest: header, two
/// bytes of data header, its time and its name.
pub(super) const HEAD_BYTES: usize = HEADER_BYTES + 2 + 8 + RESTORE_POINT_NAME_BYTES;
/// Bytes of a restore point's name with the zeros behind it (`MAXFNAMELEN`).
const RESTORE_POINT_NAME_BYTES: usize = 64;

const XLOG_MANAGER: u8 = 0;
const TRANSACTION_MANAGER: u8 = 1;
const TABLESPACE_MANAGER: u8 = 5;
const STANDBY_MANAGER: u8 = 8;
/// Highest built-in resource manager (`RM_LOGICALMSG_ID`); extensions have 128 to 255.
const LAST_BUILT_IN_MANAGER: u8 = 21;
const FIRST_CUSTOM_MANAGER: u8 = 128;

/// The upper half of `xl_info` belongs to the resource manager.
const MANAGER_INFO: u8 = 0xF0;
const SWITCH: u8 = 0x40;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const TRANSACTION_OPERATION: u8 = 0x70;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const RUNNING_TRANSACTIONS: u8 = 0x10;
const CREATE_TABLESPACE: u8 = 0x00;

/// The managers of the records that change rows (`RM_HEAP2_ID`, `RM_HEAP_ID`).
const HEAP_MANAGERS: [u8; 2] = [9, 10];
/// Highest number of a reference to a block (`XLR_MAX_BLOCK_ID`).
const LAST_BLOCK: u8 = 32;
/// Flags of such a reference: an image of the block follows, and the relation is that of the one before.
const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_SAME_RELATION: u8 = 0x80;
/// Bytes of an image's header, and its flags for a hole and for being compressed; with both two more bytes follow.
const IMAGE_HEADER_BYTES: usize = 5;
const IMAGE_HAS_HOLE: u8 = 0x01;
const IMAGE_COMPRESSED: u8 = 0x04 | 0x08 | 0x10;
/// The end of a transaction says more than its time (`XLOG_XACT_HAS_INFO`), in four bytes behind it: what follows.
const END_HAS_INFO: u8 = 0x80;

const DATA_SHORT: u8 = 255;
const DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOP_LEVEL_TRANSACTION: u8 = 252;

/// Where the number of the next transaction stands among those that run: behind two counts and a flag.
const NEXT_TRANSACTION_OFFSET: usize = 12;
/// The same in a checkpoint (`CheckPoint` in `catalog/pg_control.h`): behind a position, two timelines, a flag, and since 17 the level of
/// the log, in what was padding.
const NEXT_OF_CHECKPOINT_OFFSET: usize = 24;
/// The checkpoint of a server that shuts down (`XLOG_CHECKPOINT_SHUTDOWN`): while it is written no transaction gets a number.
const SHUTDOWN_CHECKPOINT: u8 = 0x00;
/// Where the level of the log stands in a change of parameters: behind five numbers.
const WAL_LEVEL_OFFSET: usize = 20;
/// The number of `wal_level = minimal` (`WAL_LEVEL_MINIMAL`).
pub(super) const WAL_LEVEL_MINIMAL: u32 = 0;

/// Seconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_SECONDS: i64 = 946_684_800;

/// A complete record whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position of its first byte.
    pub start: Lsn,
    /// Position after it as PostgreSQL reports it (`EndRecPtr`, the replay position once it is replayed): rounded up to 8
    /// bytes, and for a segment switch the end of the segment.
    pub end: Lsn,
    /// Number of the resource manager that wrote it (`xl_rmid`).
    pub resource_manager: u8,
    /// Flags and kind of record (`xl_info`).
    pub info: u8,
    /// Transaction that it belongs to; 0 if none.
    pub transaction: u32,
    /// If it commits a transaction, plainly or prepared: when, by the server's clock, the one that `recovery_target_time`
    /// is compared with.
    pub committed_at: Option<Timestamp>,
    /// If it ends a transaction, and says of it more than when: what.
    pub ending: Option<Box<Ending>>,
    /// If it says which transactions run: the number of the next one. All with this number or a later one have written nothing
    /// before this record.
    pub next_transaction: Option<u32>,
    /// If it is a restore point: what it says.
    pub restore_point: Option<Box<RestorePoint>>,
    /// If it says with which parameters the server goes on: its `wal_level`, as a number.
    pub wal_level: Option<u32>,
    /// If it changes rows: the files of the table that they are in.
    pub relation: Option<Relation>,
    /// If it makes a tablespace: which, and where. Replay makes the link to that place, whatever is there.
    pub created_tablespace: Option<Box<CreatedTablespace>>,
}

/// A tablespace that is made (`CREATE TABLESPACE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTablespace {
    /// Its number.
    pub number: u32,
    /// Where it is; empty if it stands in the data directory itself.
    pub location: PathBuf,
}

/// The files of a relation, by the numbers in their paths (`RelFileLocator`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// The tablespace.
    pub tablespace: u32,
    /// The database; 0 for what all databases share.
    pub database: u32,
    /// The file.
    pub number: u32,
}

/// How a record ends a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// [`Record::transaction`] commits.
    Commit,
    /// [`Record::transaction`] aborts.
    Abort,
    /// A prepared transaction ends, whose number is [`Ending::prepared`].
    Prepared,
}

/// A restore point (`pg_create_restore_point`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// The server's clock when it was made.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
}

impl Record {
    /// Returns how the record ends a transaction; `None` if it ends none.
    #[must_use]
    pub fn transaction_end(&self) -> Option<TransactionEnd> {
        if self.resource_manager != TRANSACTION_MANAGER {
            return None;
        }
        match self.info & TRANSACTION_OPERATION {
            COMMIT => Some(TransactionEnd::Commit),
            ABORT => Some(TransactionEnd::Abort),
            COMMIT_PREPARED | ABORT_PREPARED => Some(TransactionEnd::Prepared),
            _ => None,
        }
    }

    /// Tells whether the record is the checkpoint of a server that shut down, or of one that was promoted.
    #[must_use]
    pub fn is_shutdown_checkpoint(&self) -> bool {
        self.resource_manager == XLOG_MANAGER && self.info & MANAGER_INFO == SHUTDOWN_CHECKPOINT
    }
}

/// The fields of a record header.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    pub(super) total_bytes: u32,
    pub(super) transaction: u32,
    pub(super) previous: Lsn,
    pub(super) info: u8,
    pub(super) resource_manager: u8,
    pub(super) checksum: u32,
}

impl RecordHeader {
    pub(super) fn parse(head: &[u8; HEAD_BYTES]) -> Self {
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Self {
            total_bytes: word(0),
            transaction: word(4),
            previous: Lsn(u64::from(word(8)) | u64::from(word(12)) << 32),
            info: head[16],
            resource_manager: head[17],
            checksum: word(20),
        }
    }

    pub(super) fn manager_known(&self) -> bool {
        self.resource_manager <= LAST_BUILT_IN_MANAGER
            || self.resource_manager >= FIRST_CUSTOM_MANAGER
    }

    pub(super) fn is_switch(&self) -> bool {
        self.resource_manager == XLOG_MANAGER && self.info & MANAGER_INFO == SWITCH
    }

    /// Tells whether the record's content is kept behind the head too.
    pub(super) fn is_kept_whole(&self) -> bool {
        self.ends_transaction() || self.creates_tablespace()
    }

    fn creates_tablespace(&self) -> bool {
        self.resource_manager == TABLESPACE_MANAGER && self.info & MANAGER_INFO == CREATE_TABLESPACE
    }

    fn ends_transaction(&self) -> bool {
        self.resource_manager == TRANSACTION_MANAGER
            && matches!(
                self.info & TRANSACTION_OPERATION,
                COMMIT | ABORT | COMMIT_PREPARED | ABORT_PREPARED
            )
    }

    /// Reads the commit time out of a commit record's first bytes.
    pub(super) fn committed_at(&self, head: &[u8]) -> Option<Timestamp> {
        let operation = self.info & TRANSACTION_OPERATION;
        if self.resource_manager != TRANSACTION_MANAGER
            || (operation != COMMIT && operation != COMMIT_PREPARED)
        {
            return None;
        }
        let data = data_offset(head)?;
        time(head.get(data..data + 8)?)
    }

    /// Reads what the end of a transaction says beside its time, out of the record as far as it was kept.
    pub(super) fn ending(&self, kept: &[u8], major_version: u16) -> Option<Box<Ending>> {
        if !self.ends_transaction() || self.info & END_HAS_INFO == 0 {
            return None;
        }
        let flags = data_offset(kept)? + 8;
        let content = kept.get(flags + 4..)?;
        let flags = u32::from_le_bytes(kept.get(flags..flags + 4)?.try_into().ok()?);
        Ending::parse(flags, content, major_version).map(Box::new)
    }

    /// Reads which tablespace is made, and where, out of the record as far as it was kept.
    pub(super) fn created_tablespace(&self, kept: &[u8]) -> Option<Box<CreatedTablespace>> {
        if !self.creates_tablespace() {
            return None;
        }
        let number = data_offset(kept)?;
        let location = kept.get(number + 4..)?.split(|byte| *byte == 0).next()?;
        Some(Box::new(CreatedTablespace {
            number: u32::from_le_bytes(kept.get(number..number + 4)?.try_into().ok()?),
            location: PathBuf::from(OsStr::from_bytes(location)),
        }))
    }

    /// Reads the number of the next transaction out of the first bytes of a record that says which of them run, or of the checkpoint of a
    /// server that shut down.
    pub(super) fn next_transaction(&self, head: &[u8]) -> Option<u32> {
        let offset = match (self.resource_manager, self.info & MANAGER_INFO) {
            (STANDBY_MANAGER, RUNNING_TRANSACTIONS) => NEXT_TRANSACTION_OFFSET,
            (XLOG_MANAGER, SHUTDOWN_CHECKPOINT) => NEXT_OF_CHECKPOINT_OFFSET,
            _ => return None,
        };
        let at = data_offset(head)? + offset;
        Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?))
    }

    /// Reads the table out of the first bytes of a record that changes rows: references to blocks come first, and the first
    /// of them names its relation.
    pub(super) fn relation(&self, head: &[u8]) -> Option<Relation> {
        if !HEAP_MANAGERS.contains(&self.resource_manager) || *head.get(HEADER_BYTES)? > LAST_BLOCK
        {
            return None;
        }
        let flags = *head.get(HEADER_BYTES + 1)?;
        let mut at = HEADER_BYTES + 4;
        if flags & BLOCK_HAS_IMAGE != 0 {
            let image = *head.get(at + 4)?;
            at += IMAGE_HEADER_BYTES;
            if image & IMAGE_HAS_HOLE != 0 && image & IMAGE_COMPRESSED != 0 {
                at += 2;
            }
        }
        if flags & BLOCK_SAME_RELATION != 0 {
            return None;
        }
        let word = |at: usize| {
            let bytes = head.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        Some(Relation {
            tablespace: word(at)?,
            database: word(at + 4)?,
            number: word(at + 8)?,
        })
    }

    /// Reads a restore point out of its record's first bytes: it refers to nothing, and its data is short.
    pub(super) fn restore_point(&self, head: &[u8]) -> Option<Box<RestorePoint>> {
        if self.resource_manager != XLOG_MANAGER || self.info & MANAGER_INFO != RESTORE_POINT {
            return None;
        }
        if *head.get(HEADER_BYTES)? != DATA_SHORT {
            return None;
        }
        let data = HEADER_BYTES + 2;
        let at = time(head.get(data..data + 8)?)?;
        let name = head.get(data + 8..data + 8 + RESTORE_POINT_NAME_BYTES)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        Some(Box::new(RestorePoint { at, name }))
    }

    /// Reads the level of the log out of the first bytes of a record that changes parameters: it refers to nothing, and its data is
    /// short.
    pub(super) fn wal_level(&self, head: &[u8]) -> Option<u32> {
        if self.resource_manager != XLOG_MANAGER || self.info & MANAGER_INFO != PARAMETER_CHANGE {
            return None;
        }
        if *head.get(HEADER_BYTES)? != DATA_SHORT {
            return None;
        }
        let at = HEADER_BYTES + 2 + WAL_LEVEL_OFFSET;
        let bytes = head.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }
}

/// Returns where the data of a record begins that refers to no blocks: behind a few short headers, the replication origin and
/// the top-level transaction, each if there is one, and the length of the data.
fn data_offset(head: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        match *head.get(at)? {
            ORIGIN => at += 3,
            TOP_LEVEL_TRANSACTION => at += 5,
            DATA_SHORT => return Some(at + 2),
            DATA_LONG => return Some(at + 5),
            _ => return None,
        }
    }
}

/// Reads a `TimestampTz`: microseconds since 2000.
fn time(bytes: &[u8]) -> Option<Timestamp> {
    let since_2000 = i64::from_le_bytes(bytes.try_into().ok()?);
    let microseconds = since_2000.checked_add(EPOCH_SECONDS * 1_000_000)?;
    Timestamp::from_microsecond(microseconds).ok()
}
