//! Sorting more records than memory should hold.
//!
//! Records are pairs of bytes, sorted by key. Up to a limit they stay in memory; beyond it sorted runs go to nameless
//! temporary files, which vanish with the process. What is sorted can be walked through several times. Records with one
//! key come in no particular order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Bytes of records kept in memory by one sorter.
pub(crate) const LIMIT_BYTES: usize = 8 << 20;
/// Bytes read from a run at a time.
const READ_BYTES: usize = 32 << 10;

/// Where a record lies in the arena.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    key: u32,
    value: u32,
}

/// Takes records in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    directory: PathBuf,
    limit: usize,
    arena: Vec<u8>,
    slots: Vec<Slot>,
    runs: Vec<Run>,
}

/// A sorted file of records.
#[derive(Debug)]
struct Run {
    file: File,
    length: u64,
}

/// Records in the order of their keys.
#[derive(Debug)]
pub(crate) struct Sorted {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    runs: Vec<Run>,
}

impl Sorter {
    /// Makes a sorter whose temporary files, if it needs any, are made in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self::with_limit(directory, LIMIT_BYTES)
    }

    fn with_limit(directory: PathBuf, limit: usize) -> Self {
        Self {
            directory,
            limit,
            arena: Vec::new(),
            slots: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let held = self.arena.len() + self.slots.len() * size_of::<Slot>();
        if held + key.len() + value.len() > self.limit && !self.slots.is_empty() {
            self.spill()?;
        }
        let field = |length: usize| u32::try_from(length).map_err(io::Error::other);
        self.slots.push(Slot {
            start: field(self.arena.len())?,
            key: field(key.len())?,
            value: field(value.len())?,
        });
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.slots
            .sort_unstable_by(|a, b| key_in(arena, *a).cmp(key_in(arena, *b)));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut out = BufWriter::new(tempfile::tempfile_in(&self.directory)?);
        let mut length = 0;
        for slot in &self.slots {
            out.write_all(&slot.key.to_le_bytes())?;
            out.write_all(&slot.value.to_le_bytes())?;
            out.write_all(record_in(&self.arena, *slot))?;
            length += 8 + u64::from(slot.key) + u64::from(slot.value);
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.runs.push(Run { file, length });
        self.arena.clear();
        self.slots.clear();
        Ok(())
    }

    /// Ends the adding. If anything had to be spilled, the rest is as well, so that little stays in memory.
    pub(crate) fn finish(mut self) -> io::Result<Sorted> {
        if self.runs.is_empty() {
            self.sort();
        } else {
            if !self.slots.is_empty() {
                self.spill()?;
            }
            self.arena = Vec::new();
            self.slots = Vec::new();
        }
        Ok(Sorted {
            arena: self.arena,
            slots: self.slots,
            runs: self.runs,
        })
    }
}

fn key_in(arena: &[u8], slot: Slot) -> &[u8] {
    &arena[slot.start as usize..][..slot.key as usize]
}

fn record_in(arena: &[u8], slot: Slot) -> &[u8] {
    &arena[slot.start as usize..][..slot.key as usize + slot.value as usize]
}

impl Sorted {
    /// Begins at the smallest key.
    pub(crate) fn walk(&self) -> io::Result<Walk<'_>> {
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for run in &self.runs {
            let mut head = Head::new(run);
            if head.advance()? {
                heap.push(head);
            }
        }
        Ok(Walk {
            sorted: self,
            next: 0,
            heap,
            taken: (Vec::new(), Vec::new()),
        })
    }
}

/// Goes through sorted records.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    sorted: &'a Sorted,
    next: usize,
    heap: BinaryHeap<Head<'a>>,
    taken: (Vec<u8>, Vec<u8>),
}

impl Walk<'_> {
    /// Returns the next record, key and value.
    pub(crate) fn next(&mut self) -> io::Result<Option<(&[u8], &[u8])>> {
        if self.sorted.runs.is_empty() {
            let Some(slot) = self.sorted.slots.get(self.next) else {
                return Ok(None);
            };
            self.next += 1;
            let record = record_in(&self.sorted.arena, *slot);
            return Ok(Some(record.split_at(slot.key as usize)));
        }
        let Some(mut head) = self.heap.peek_mut() else {
            return Ok(None);
        };
        std::mem::swap(&mut self.taken.0, &mut head.key);
        std::mem::swap(&mut self.taken.1, &mut head.value);
        if !head.advance()? {
            PeekMut::pop(head);
        }
        Ok(Some((&self.taken.0, &self.taken.1)))
    }
}

/// The first record of a run that has not been taken.
#[derive(Debug)]
struct Head<'a> {
    run: &'a Run,
    /// Where the buffer's end lies in the file.
    position: u64,
    buffer: Vec<u8>,
    /// What of the buffer has been used.
    used: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Head<'a> {
    fn new(run: &'a Run) -> Self {
        Self {
            run,
            position: 0,
            buffer: Vec::new(),
            used: 0,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads the next record; false at the end of the run.
    fn advance(&mut self) -> io::Result<bool> {
        if self.used == self.buffer.len() && self.position == self.run.length {
            return Ok(false);
        }
        let mut lengths = [0; 8];
        self.read(&mut lengths)?;
        let [a, b, c, d, e, f, g, h] = lengths;
        let mut key = std::mem::take(&mut self.key);
        let mut value = std::mem::take(&mut self.value);
        key.resize(u32::from_le_bytes([a, b, c, d]) as usize, 0);
        value.resize(u32::from_le_bytes([e, f, g, h]) as usize, 0);
        self.read(&mut key)?;
        self.read(&mut value)?;
        (self.key, self.value) = (key, value);
        Ok(true)
    }

    fn read(&mut self, mut target: &mut [u8]) -> io::Result<()> {
        while !target.is_empty() {
            if self.used == self.buffer.len() {
                let left = self.run.length - self.position;
                let length = usize::try_from(left).map_or(READ_BYTES, |left| left.min(READ_BYTES));
                self.buffer.resize(length, 0);
                self.run
                    .file
                    .read_exact_at(&mut self.buffer, self.position)?;
                self.position += length as u64;
                self.used = 0;
            }
            let piece = (self.buffer.len() - self.used).min(target.len());
            let (now, later) = target.split_at_mut(piece);
            now.copy_from_slice(&self.buffer[self.used..self.used + piece]);
            self.used += piece;
            target = later;
        }
        Ok(())
    }
}

// The heap gives out its greatest element: the smallest key is made that.
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Head<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_like_a_list(records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..8), prop::collection::vec(any::<u8>(), 0..80)), 0..300), limit in 1_usize..20_000) {
            let mut sorter = Sorter::with_limit(std::env::temp_dir(), limit);
            for (key, value) in &records {
                sorter.push(key, value).unwrap();
            }
            let sorted = sorter.finish().unwrap();
            let mut expected = records;
            expected.sort();
            for _ in 0..2 {
                let mut found = Vec::new();
                let mut walk = sorted.walk().unwrap();
                while let Some((key, value)) = walk.next().unwrap() {
                    prop_assert!(found.last().is_none_or(|(last, _): &(Vec<u8>, Vec<u8>)| last.as_slice() <= key));
                    found.push((key.to_vec(), value.to_vec()));
                }
                found.sort();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
