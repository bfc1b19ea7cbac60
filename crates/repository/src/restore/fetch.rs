//! Reading ranges of packs and writing their frames into files.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use dr_provider::ErrorKind;

use super::blocking;
use super::place::Plan;
use crate::manifest::Frame;
use crate::verify::missing;
use crate::{BackupReader, Error, Result, frame, store};

/// Frames next to each other are read in one go up to this many bytes.
const LONGEST_RANGE_BYTES: u64 = 4 << 20;

/// A piece of a file to be written.
#[derive(Clone, Copy, Debug)]
struct Piece {
    frame: Frame,
    /// Index of the file in the plan.
    file: usize,
    /// Where in the file it goes.
    position: u64,
}

/// Pieces next to each other in one pack.
#[derive(Debug)]
pub(super) struct Range {
    pack: u32,
    offset: u64,
    length: u64,
    pieces: Vec<Piece>,
}

/// Finds what has to be read, in the order of the packs.
pub(super) fn ranges(plan: &Plan) -> Vec<Range> {
    let mut pieces = Vec::new();
    for (index, file) in plan.files.iter().enumerate() {
        let mut position = 0;
        for frame in &file.frames {
            pieces.push(Piece {
                frame: *frame,
                file: index,
                position,
            });
            position += u64::from(frame.plain_bytes);
        }
    }
    pieces.sort_by_key(|piece| (piece.frame.pack, piece.frame.offset));
    let mut ranges: Vec<Range> = Vec::new();
    for piece in pieces {
        let stored = u64::from(piece.frame.stored_bytes);
        let joins = ranges.last_mut().filter(|range| {
            range.pack == piece.frame.pack
                && range.offset + range.length == piece.frame.offset
                && range.length + stored <= LONGEST_RANGE_BYTES
        });
        if let Some(range) = joins {
            range.length += stored;
            range.pieces.push(piece);
        } else {
            ranges.push(Range {
                pack: piece.frame.pack,
                offset: piece.frame.offset,
                length: stored,
                pieces: vec![piece],
            });
        }
    }
    ranges
}

/// Reads a range, checks its frames and writes them. Returns the bytes read and written.
pub(super) async fn restore_range(
    reader: &BackupReader,
    plan: Arc<Plan>,
    range: Range,
) -> Result<(u64, u64)> {
    let repository = &reader.repository;
    let key = repository.pack_key(reader.label(), range.pack as usize);
    let object = store::name(&**repository.store(), &key);
    let bytes = match repository
        .store()
        .get_range(&key, range.offset, range.length)
        .await
    {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let file = range
                .pieces
                .first()
                .map(|piece| &plan.files[piece.file].path);
            return Err(Error::damaged(object, missing(file)));
        }
        Err(error) => return Err(store::failed(format!("read `{key}`"))(error)),
    };
    blocking(move || {
        let mut written = 0;
        for piece in &range.pieces {
            let file = &plan.files[piece.file];
            let damaged = |what: &dyn std::fmt::Display| {
                Error::damaged(object.clone(), format!("`{}`: {what}", file.path))
            };
            let from = usize::try_from(piece.frame.offset - range.offset).ok();
            let stored = from
                .and_then(|from| bytes.get(from..from + piece.frame.stored_bytes as usize))
                .ok_or_else(|| damaged(&"the pack ends inside it"))?;
            let plain = frame::decode(stored, &piece.frame).map_err(|error| damaged(&error))?;
            let handle = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&file.at)
                .map_err(Error::io("open", &file.at))?;
            let done = handle.write_all_at(&plain, piece.position);
            done.map_err(Error::io("write", &file.at))?;
            written += plain.len() as u64;
        }
        Ok((bytes.len() as u64, written))
    })
    .await
}
