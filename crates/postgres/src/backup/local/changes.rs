//! Which stretches of a file differ from the parent's, and what makes a file be read whole (R8).
//!
//! A page belongs to the parent if its position lies before where the parent began: it was on disk then, as it is now,
//! and every later change would have moved its position. A position of zero says nothing, so that such a page counts as
//! changed; nearly all of them are empty, and cost nothing. Pages that do not take part in this are read whole: the free
//! space map, whose changes are not logged, and the visibility map, whose changes are logged with other pages.

use std::io;
use std::ops::Range;

use dr_model::Lsn;

use super::file::DataFile;
use super::name::Fork;
use super::walk::Pages;
use crate::backup::summary::Changes;
use crate::page;

/// Bytes looked at together.
const LOOK_BYTES: usize = 256 << 10;

/// How what changed is found.
#[derive(Debug)]
pub(super) enum Method {
    /// Every page is read.
    Pages {
        /// Where the parent began.
        since: Lsn,
    },
    /// The server wrote it down.
    Summaries(Changes),
}

/// What a cluster's files are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) page_bytes: u64,
    /// Pages in each file of a relation but the last.
    pub(super) file_pages: u32,
}

impl Shape {
    /// Returns the number of the first page of a file in its relation.
    pub(super) fn first_block(self, pages: &Pages) -> u32 {
        pages.relation.segment.wrapping_mul(self.file_pages)
    }
}

/// Tells whether a file is compared with its parent at all, page by page; both lengths in bytes.
pub(super) fn is_comparable(pages: &Pages, size: u64, parent: u64, shape: Shape) -> bool {
    pages.relation.fork == Fork::Main
        && size.is_multiple_of(shape.page_bytes)
        && parent.is_multiple_of(shape.page_bytes)
}

/// Finds the stretches of a file of `size` bytes that its parent of `parent` bytes does not have, in order; `None` if the
/// file is to be read whole. Also returns how long the file turned out to be.
pub(super) fn find(
    method: &Method,
    file: &DataFile,
    pages: &Pages,
    size: u64,
    parent: u64,
    shape: Shape,
) -> io::Result<Option<(u64, Vec<Range<u64>>)>> {
    let common = size.min(parent);
    let (size, mut ranges) = match method {
        Method::Pages { since } => {
            let (reached, ranges) = by_pages(file, common, *since, shape)?;
            (if reached < common { reached } else { size }, ranges)
        }
        Method::Summaries(changes) => {
            if changes.is_new_database(pages.tablespace, pages.database) {
                return Ok(None);
            }
            let first = shape.first_block(pages);
            let relation = pages.relation;
            let key = (
                pages.tablespace,
                pages.database,
                relation.number,
                relation.fork,
            );
            let blocks = u32::try_from(common / shape.page_bytes).map_err(io::Error::other)?;
            let bytes = |block: u32| u64::from(block - first) * shape.page_bytes;
            let changed = changes.of(&key, first..first.saturating_add(blocks));
            (
                size,
                changed
                    .iter()
                    .map(|range| bytes(range.start)..bytes(range.end))
                    .collect(),
            )
        }
    };
    if size > parent {
        append(&mut ranges, parent..size);
    }
    Ok(Some((size, ranges)))
}

/// Reads the first `length` bytes; returns where the file ended, at most there, and the pages changed since.
fn by_pages(
    file: &DataFile,
    length: u64,
    since: Lsn,
    shape: Shape,
) -> io::Result<(u64, Vec<Range<u64>>)> {
    let page_bytes = usize::try_from(shape.page_bytes).map_err(io::Error::other)?;
    let mut ranges = Vec::new();
    let most = usize::try_from(length).map_or(LOOK_BYTES, |length| length.min(LOOK_BYTES));
    let mut buffer = vec![0; most];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).map_or(most, |left| left.min(most));
        let read = file.look(at, &mut buffer[..wanted])?;
        for page in buffer[..read].chunks_exact(page_bytes) {
            let lsn = page::lsn(page);
            if !lsn.is_valid() || lsn >= since {
                append(&mut ranges, at..at + shape.page_bytes);
            }
            at += shape.page_bytes;
        }
        if read < wanted {
            break;
        }
    }
    Ok((at, ranges))
}

/// Appends a stretch, to the last one if it continues it.
fn append(ranges: &mut Vec<Range<u64>>, next: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => ranges.push(next),
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges are compared"
)]
mod tests {
    use std::fs;

    use super::*;
    use crate::backup::local::file::Inspection;
    use crate::backup::local::name::Relation;
    use crate::page::PAGE_BYTES;

    const SHAPE: Shape = Shape {
        page_bytes: PAGE_BYTES as u64,
        file_pages: 131_072,
    };

    fn pages(name: &str) -> Pages {
        Pages {
            tablespace: 1663,
            database: 5,
            relation: Relation::parse(name).unwrap(),
        }
    }

    /// Finds what changed since `0/1000` in a file whose pages have these positions.
    fn changed(positions: &[u32], parent_pages: u64) -> (u64, Vec<Range<u64>>) {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("16384");
        let mut content = Vec::new();
        for position in positions {
            let mut page = vec![1; PAGE_BYTES];
            page[..4].fill(0);
            page[4..8].copy_from_slice(&position.to_le_bytes());
            content.extend(page);
        }
        fs::write(&place, &content).unwrap();
        let inspection = Inspection::new(PAGE_BYTES, false);
        let file = DataFile::new("base/5/16384".to_owned(), place, Some(0), &inspection);
        let method = Method::Pages { since: Lsn(0x1000) };
        let size = content.len() as u64;
        let page = SHAPE.page_bytes;
        let (size, ranges) = find(
            &method,
            &file,
            &pages("16384"),
            size,
            parent_pages * page,
            SHAPE,
        )
        .unwrap()
        .unwrap();
        let in_pages = ranges
            .iter()
            .map(|range| range.start / page..range.end / page);
        (size / page, in_pages.collect())
    }

    #[test]
    fn a_page_is_the_parents_if_it_is_older_than_the_parent() {
        assert_eq!(
            changed(&[0xFFF, 0x1000, 0x2000, 1, 0], 5),
            (5, vec![1..3, 4..5])
        );
        assert_eq!(changed(&[1; 40], 40), (40, Vec::new()));
        assert_eq!(changed(&[0x1000; 40], 40), (40, vec![0..40]));
    }

    #[test]
    fn what_the_parent_does_not_reach_is_changed_and_what_it_has_more_is_dropped() {
        assert_eq!(changed(&[1, 1, 1, 1], 2), (4, vec![2..4]));
        assert_eq!(changed(&[1, 0x2000, 1, 1], 2), (4, vec![1..4]));
        assert_eq!(changed(&[1, 1], 5), (2, Vec::new()));
        assert_eq!(changed(&[], 5), (0, Vec::new()));
    }

    #[test]
    fn only_whole_pages_of_main_forks_are_compared() {
        let page = SHAPE.page_bytes;
        assert!(is_comparable(&pages("16384.1"), page, 3 * page, SHAPE));
        assert!(!is_comparable(&pages("16384"), page + 512, page, SHAPE));
        assert!(!is_comparable(&pages("16384"), page, page - 1, SHAPE));
        for fork in ["16384_fsm", "16384_vm", "16384_init"] {
            assert!(!is_comparable(&pages(fork), page, page, SHAPE));
        }
    }
}
