//! The content of summaries: changed blocks by relation and fork.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::ops::Range;

use crate::backup::local::name::Fork;

/// What a file begins with.
const MAGIC: u32 = 0x652B_137B;

/// Blocks that one chunk is about.
const CHUNK_BLOCKS: u32 = 1 << 16;

/// Numbers of 16 bits in a chunk that is a map of bits; with fewer they are the numbers of blocks.
const FULL_CHUNK: usize = 4096;

/// The most chunks that a fork can have: its blocks have 32-bit numbers.
const MOST_CHUNKS: u32 = 1 << 16;

/// Fork numbers (`src/include/common/relpath.h`).
const FORKS: [Fork; 4] = [Fork::Main, Fork::FreeSpace, Fork::Visibility, Fork::Init];

/// A fork of a relation: tablespace, database, relation, fork. A relation 0 stands for a whole database.
pub(crate) type Key = (u32, u32, u32, Fork);

/// Everything that changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    forks: HashMap<Key, Changed>,
}

/// What changed in one fork.
#[derive(Debug)]
struct Changed {
    /// It was made, or cut to so many blocks: what stands from here on is new.
    limit: u32,
    chunks: BTreeMap<u32, Blocks>,
}

/// Changed blocks of a chunk.
#[derive(Debug)]
enum Blocks {
    Few(Vec<u16>),
    Many(Box<[u16]>),
}

impl Changes {
    /// Tells whether a whole database was made anew by copying another one's files: the log names none of its blocks.
    pub(crate) fn is_new_database(&self, tablespace: u32, database: u32) -> bool {
        self.forks
            .contains_key(&(tablespace, database, 0, Fork::Main))
    }

    /// Returns the changed ones among `blocks` of a fork as ranges, in order.
    pub(crate) fn of(&self, key: &Key, blocks: Range<u32>) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let Some(changed) = self.forks.get(key) else {
            return ranges;
        };
        let mut add = |block: u32| match ranges.last_mut() {
            Some(last) if last.end == block => last.end += 1,
            _ => ranges.push(block..block + 1),
        };
        let known = blocks.start..blocks.end.min(changed.limit);
        if !known.is_empty() {
            let chunks = known.start / CHUNK_BLOCKS..=(known.end - 1) / CHUNK_BLOCKS;
            for (number, chunk) in changed.chunks.range(chunks) {
                chunk.each(number * CHUNK_BLOCKS, |block| {
                    if known.contains(&block) {
                        add(block);
                    }
                });
            }
        }
        let new = blocks.start.max(changed.limit)..blocks.end;
        if !new.is_empty() {
            match ranges.last_mut() {
                Some(last) if last.end == new.start => last.end = new.end,
                _ => ranges.push(new),
            }
        }
        ranges
    }
}

impl Blocks {
    /// Calls `found` with the number of each block, in order.
    fn each(&self, first: u32, mut found: impl FnMut(u32)) {
        match self {
            Self::Few(blocks) => blocks
                .iter()
                .for_each(|block| found(first + u32::from(*block))),
            Self::Many(words) => {
                for (at, word) in (0u32..).zip(words) {
                    (0..16)
                        .filter(|bit| word & (1 << bit) != 0)
                        .for_each(|bit| found(first + at * 16 + bit));
                }
            }
        }
    }

    /// Adds the blocks of another summary.
    fn merge(&mut self, other: Self) {
        let mut words = match std::mem::replace(self, Self::Few(Vec::new())) {
            Self::Few(mut blocks) => {
                if let Self::Few(others) = &other
                    && blocks.len() + others.len() < FULL_CHUNK
                {
                    blocks.extend(others);
                    blocks.sort_unstable();
                    blocks.dedup();
                    *self = Self::Few(blocks);
                    return;
                }
                let mut words = vec![0; FULL_CHUNK].into_boxed_slice();
                for block in blocks {
                    words[usize::from(block / 16)] |= 1 << (block % 16);
                }
                words
            }
            Self::Many(words) => words,
        };
        other.each(0, |block| words[block as usize / 16] |= 1 << (block % 16));
        *self = Self::Many(words);
    }
}

/// Reads a summary and adds what it says.
pub(super) fn read_into(from: &mut impl Read, changes: &mut Changes) -> io::Result<()> {
    let mut input = Summed { from, sum: 0 };
    if input.word()? != MAGIC {
        return Err(damaged("it does not begin as a block reference table"));
    }
    loop {
        let mut entry = [0; 6];
        for word in &mut entry {
            *word = input.word()?;
        }
        let [tablespace, database, relation, fork, limit, chunks] = entry;
        if entry == [0; 6] {
            break;
        }
        let fork = usize::try_from(fork).ok().and_then(|fork| FORKS.get(fork));
        let fork = *fork.ok_or_else(|| damaged("it names a fork that there is not"))?;
        if chunks > MOST_CHUNKS {
            return Err(damaged(
                "a relation in it has more blocks than a relation can have",
            ));
        }
        let changed = changes
            .forks
            .entry((tablespace, database, relation, fork))
            .or_insert_with(|| Changed {
                limit: u32::MAX,
                chunks: BTreeMap::new(),
            });
        changed.limit = changed.limit.min(limit);
        let sizes = input.numbers(chunks as usize)?;
        for (number, size) in (0u32..).zip(sizes) {
            let numbers = match usize::from(size) {
                0 => continue,
                size @ 1..=FULL_CHUNK => input.numbers(size)?,
                _ => return Err(damaged("a part of it is longer than it can be")),
            };
            let blocks = if numbers.len() == FULL_CHUNK {
                Blocks::Many(numbers.into_boxed_slice())
            } else {
                let mut numbers = numbers;
                numbers.sort_unstable();
                Blocks::Few(numbers)
            };
            match changed.chunks.get_mut(&number) {
                Some(known) => known.merge(blocks),
                None => {
                    changed.chunks.insert(number, blocks);
                }
            }
        }
    }
    let expected = input.sum;
    if input.word()? != expected {
        return Err(damaged("its checksum does not match"));
    }
    let mut beyond = [0];
    if input.from.read(&mut beyond)? != 0 {
        return Err(damaged("something follows its end"));
    }
    Ok(())
}

/// Reads and sums up what is read.
struct Summed<'a, R> {
    from: &'a mut R,
    sum: u32,
}

impl<R: Read> Summed<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        Ok(())
    }

    fn word(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn numbers(&mut self, count: usize) -> io::Result<Vec<u16>> {
        let mut bytes = vec![0; count * 2];
        self.fill(&mut bytes)?;
        let (pairs, _) = bytes.as_chunks::<2>();
        Ok(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
