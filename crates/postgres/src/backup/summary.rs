//! WAL summaries: which blocks the log has changed, as servers from 17 on write it down in `pg_wal/summaries`.
//!
//! A summary is a block reference table (`src/common/blkreftable.c`): per fork of a relation the blocks that records
//! between two positions name, and the lowest length it was cut to. Its file name says which positions; a checksum
//! stands at its end. What cannot be read, or does not reach, is an error: whoever asks falls back to reading every page,
//! because a block that is missed is a wrong backup (R8).

mod table;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use dr_model::{Lsn, TimelineId};

pub(crate) use table::Changes;

/// Where a server keeps them, in its data directory.
pub(crate) const DIRECTORY: &str = "pg_wal/summaries";

/// A summary, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Summary {
    start: Lsn,
    end: Lsn,
    place: PathBuf,
}

/// Summaries that together reach from one position to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cover(Vec<PathBuf>);

/// How far summaries reach that do not reach far enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short {
    pub(crate) reached: Lsn,
    /// Whether others begin behind a hole: then it is not filled any more.
    pub(crate) hole: bool,
}

/// Finds the summaries of a timeline that reach from `from` to `to`.
pub(crate) fn cover(
    data_directory: &Path,
    timeline: TimelineId,
    from: Lsn,
    to: Lsn,
) -> io::Result<Result<Cover, Short>> {
    let directory = data_directory.join(DIRECTORY);
    let mut summaries = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let place = entry?.path();
        let name = place.file_name().and_then(|name| name.to_str());
        if let Some((of, start, end)) = name.and_then(parse_name)
            && of == timeline
        {
            summaries.push(Summary { start, end, place });
        }
    }
    summaries.sort_unstable();
    let mut reached = from;
    let mut chosen = Vec::new();
    while reached < to {
        // Of those that go on without a hole, the one that reaches furthest.
        let next = summaries
            .iter()
            .filter(|summary| summary.start <= reached && reached < summary.end)
            .max_by_key(|summary| summary.end);
        let Some(next) = next else {
            let hole = summaries.iter().any(|summary| summary.start > reached);
            return Ok(Err(Short { reached, hole }));
        };
        reached = next.end;
        chosen.push(next.place.clone());
    }
    Ok(Ok(Cover(chosen)))
}

impl Cover {
    /// Reads the summaries into one table.
    pub(crate) fn read(&self) -> io::Result<Changes> {
        let mut changes = Changes::default();
        for place in &self.0 {
            File::open(place)
                .and_then(|file| {
                    table::read_into(&mut BufReader::with_capacity(1 << 16, file), &mut changes)
                })
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("`{}`: {error}", place.display()))
                })?;
        }
        Ok(changes)
    }
}

/// Reads a summary's name: timeline, start and end, each part of 8 hexadecimal digits.
fn parse_name(name: &str) -> Option<(TimelineId, Lsn, Lsn)> {
    let digits = name.strip_suffix(".summary")?;
    if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let timeline = u32::from_str_radix(&digits[..8], 16).ok()?;
    let position = |at: usize| u64::from_str_radix(&digits[at..at + 16], 16).ok().map(Lsn);
    Some((TimelineId(timeline), position(8)?, position(24)?))
}

#[cfg(test)]
mod tests;
