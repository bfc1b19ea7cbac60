//! What the record that ends a transaction says beside its time: who ends with it, and the files that go.
//!
//! Layout: `xl_xact_parsed_commit` and its parts in `access/xact.h`, in the order in which `ParseCommitRecord` and
//! `ParseAbortRecord` (`xactdesc.c`) read them; the same in versions 15 to 18 but for the statistics that are dropped.

use super::record::Relation;

/// Bytes of a record's end that are kept behind its head: enough for a quarter of a million subtransactions.
pub(super) const REST_BYTES: usize = 1 << 20;

/// Flags of what stands behind the time (`xinfo`).
const HAS_DATABASE: u32 = 1 << 0;
const HAS_CHILDREN: u32 = 1 << 1;
const HAS_FILES: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED: u32 = 1 << 4;
const HAS_STATISTICS: u32 = 1 << 8;

/// Bytes of the entries of each list.
const NUMBER_BYTES: usize = 4;
const INVALIDATION_BYTES: usize = 16;
/// Of a dropped statistic, whose object has a number of eight bytes since version 18.
const STATISTIC_BYTES: usize = 12;
const STATISTIC_BYTES_SINCE_18: usize = 16;

/// What the end of a transaction says of it beside its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The subtransactions that end with it; one that was rolled back before is not among those of a commit.
    pub children: Vec<u32>,
    /// If it ends a prepared transaction: its number, the record's own being that of nobody.
    pub prepared: Option<u32>,
    /// The files of tables and indexes that go with it, as after `drop`, `truncate` and whatever writes a table anew.
    pub dropped: Vec<Relation>,
    /// Whether this is all: not if the record is longer than what is read of one.
    pub is_whole: bool,
}

impl Ending {
    /// Reads what follows the time of a record of a server of this version; `None` if nothing does.
    pub(super) fn parse(flags: u32, content: &[u8], major_version: u16) -> Option<Self> {
        let told = HAS_CHILDREN | HAS_FILES | HAS_PREPARED;
        if flags & told == 0 {
            return None;
        }
        let mut ending = Self::default();
        let mut content = Content(content);
        ending.is_whole = ending.read(flags, &mut content, major_version).is_some();
        Some(ending)
    }

    /// Returns `None` where the content ends too soon; what stands before is kept.
    fn read(&mut self, flags: u32, content: &mut Content<'_>, major_version: u16) -> Option<()> {
        if flags & HAS_DATABASE != 0 {
            content.take(2 * NUMBER_BYTES)?;
        }
        if flags & HAS_CHILDREN != 0 {
            for _ in 0..content.number()? {
                self.children.push(content.number()?);
            }
        }
        if flags & HAS_FILES != 0 {
            for _ in 0..content.number()? {
                self.dropped.push(Relation {
                    tablespace: content.number()?,
                    database: content.number()?,
                    number: content.number()?,
                });
            }
        }
        if flags & HAS_STATISTICS != 0 {
            let bytes = match major_version {
                ..18 => STATISTIC_BYTES,
                _ => STATISTIC_BYTES_SINCE_18,
            };
            content.skip_list(bytes)?;
        }
        if flags & HAS_INVALIDATIONS != 0 {
            content.skip_list(INVALIDATION_BYTES)?;
        }
        if flags & HAS_PREPARED != 0 {
            self.prepared = Some(content.number()?);
        }
        Some(())
    }
}

/// What of a record is not read yet.
struct Content<'a>(&'a [u8]);

impl<'a> Content<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(NUMBER_BYTES)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    fn skip_list(&mut self, entry_bytes: usize) -> Option<()> {
        let count = usize::try_from(self.number()?).ok()?;
        self.take(count.checked_mul(entry_bytes)?).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    #[test]
    fn all_parts_are_passed_over_or_read() {
        let flags = HAS_DATABASE
            | HAS_CHILDREN
            | HAS_FILES
            | HAS_STATISTICS
            | HAS_INVALIDATIONS
            | HAS_PREPARED;
        let before = [5, 1663, 2, 701, 702, 1, 1663, 5, 16384];
        let dropped = Relation {
            tablespace: 1663,
            database: 5,
            number: 16384,
        };
        for (version, statistic) in [(15, 3), (17, 3), (18, 4)] {
            let mut content = before.to_vec();
            content.push(1);
            content.extend(vec![9; statistic]);
            content.extend([1, 8, 8, 8, 8, 700]);
            let content = numbers(&content);
            let ending = Ending::parse(flags, &content, version).unwrap();
            assert_eq!(ending.children, [701, 702]);
            assert_eq!(ending.dropped, [dropped]);
            assert_eq!((ending.prepared, ending.is_whole), (Some(700), true));
            let short = Ending::parse(flags, &content[..content.len() - 1], version).unwrap();
            assert_eq!((short.prepared, short.is_whole), (None, false));
        }
        assert_eq!(Ending::parse(HAS_INVALIDATIONS, &[], 15), None);
    }

    #[test]
    fn a_count_beyond_the_content_is_not_believed() {
        let content = numbers(&[u32::MAX, 701]);
        let ending = Ending::parse(HAS_CHILDREN, &content, 15).unwrap();
        assert_eq!((ending.children, ending.is_whole), (vec![701], false));
        let ending = Ending::parse(HAS_INVALIDATIONS | HAS_PREPARED, &content, 15).unwrap();
        assert!(!ending.is_whole);
    }
}
