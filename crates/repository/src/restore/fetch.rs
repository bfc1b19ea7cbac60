//! Reading ranges of packs and writing their frames into files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dr_provider::ErrorKind;
use tokio::sync::mpsc;

use super::blocking;
use super::output::Output;
use super::piece::{Piece, When};
use crate::spill::Sorted;
use crate::verify::missing;
use crate::{BackupReader, Error, Result, frame, store};

/// Frames near each other are read in one go up to this many bytes.
const LONGEST_RANGE_BYTES: u64 = 2 << 20;
/// Reading this much in vain is quicker than another request.
const GAP_BYTES: u64 = 64 << 10;
/// Most pieces written for one range, so that a list of them stays short.
const MOST_PIECES: usize = 8192;

/// Pieces of frames near each other in one pack, in the order of the frames.
#[derive(Debug)]
pub(super) struct Range {
    pack: u32,
    offset: u64,
    length: u64,
    pieces: Vec<Piece>,
}

impl Range {
    fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// Takes a piece that is near enough, and all those of a frame that is in it.
    fn take(&mut self, piece: Piece) -> Option<Piece> {
        let frame = &piece.frame;
        let last = self.pieces.last().map(|last| last.frame.offset);
        if self.pack == frame.pack && last == Some(frame.offset) {
            self.pieces.push(piece);
            return None;
        }
        let end = frame.offset.saturating_add(u64::from(frame.stored_bytes));
        let near = self.pack == frame.pack
            && frame.offset >= self.end()
            && frame.offset - self.end() <= GAP_BYTES
            && end - self.offset <= LONGEST_RANGE_BYTES
            && self.pieces.len() < MOST_PIECES;
        if !near {
            return Some(piece);
        }
        self.length = end - self.offset;
        self.pieces.push(piece);
        None
    }
}

/// In two turns all pieces are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// What others are written over, and all frames of which nothing is written over anything.
    First,
    /// The rest. A frame is read twice only if there are pieces of both kinds in it.
    Second,
}

impl Turn {
    /// Leaves of the pieces of one frame those whose turn it is.
    fn choose(self, frame: &mut Vec<Piece>) {
        let waits = frame.iter().any(|piece| piece.when == When::Over);
        frame.retain(|piece| match self {
            Self::First => !waits || piece.when == When::Under,
            Self::Second => waits && piece.when != When::Under,
        });
    }
}

/// Finds what has to be read in a turn, in the order of the packs.
pub(super) fn cut_ranges(pieces: &Sorted, turn: Turn, sender: &mpsc::Sender<Range>) -> Result<()> {
    let failed = |error| Error::io("keep a list in", Path::new("temporary files"))(error);
    let mut walk = pieces.walk().map_err(failed)?;
    let mut cut = Cut {
        range: None,
        sender,
    };
    let mut frame: Vec<Piece> = Vec::new();
    while let Some((key, value)) = walk.next().map_err(failed)? {
        let piece = Piece::read(key, value)
            .ok_or_else(|| failed(io::Error::other("a record cannot be read back")))?;
        let is_next = |last: &Piece| last.key() != piece.key();
        if frame.last().is_some_and(is_next) {
            turn.choose(&mut frame);
            for piece in frame.drain(..) {
                if !cut.take(piece) {
                    return Ok(());
                }
            }
        }
        frame.push(piece);
    }
    turn.choose(&mut frame);
    if frame.into_iter().all(|piece| cut.take(piece))
        && let Some(range) = cut.range
    {
        // Who does not take it has an error of its own to tell.
        drop(sender.blocking_send(range));
    }
    Ok(())
}

/// A range that grows until the next piece is too far away.
struct Cut<'a> {
    range: Option<Range>,
    sender: &'a mpsc::Sender<Range>,
}

impl Cut<'_> {
    /// Takes the next piece; `false` if nobody wants the ranges any more.
    fn take(&mut self, piece: Piece) -> bool {
        let left = match &mut self.range {
            Some(range) => range.take(piece),
            None => Some(piece),
        };
        let Some(piece) = left else { return true };
        let next = Range {
            pack: piece.frame.pack,
            offset: piece.frame.offset,
            length: u64::from(piece.frame.stored_bytes),
            pieces: vec![piece],
        };
        let full = self.range.replace(next);
        full.is_none_or(|full| self.sender.blocking_send(full).is_ok())
    }
}

/// What became of a range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// From the store.
    pub(super) read_bytes: u64,
    /// At their places now.
    pub(super) placed_bytes: u64,
    /// Of these, the ones that were not there before.
    pub(super) written_bytes: u64,
}

impl Done {
    pub(super) fn add(&mut self, more: Self) {
        self.read_bytes += more.read_bytes;
        self.placed_bytes += more.placed_bytes;
        self.written_bytes += more.written_bytes;
    }
}

/// Reads a range, checks its frames and writes them; with `compare`, only where something else is.
pub(super) async fn restore_range(
    reader: &BackupReader,
    root: Arc<PathBuf>,
    range: Range,
    compare: bool,
) -> Result<Done> {
    let repository = &reader.repository;
    let pack = &reader.packs()[range.pack as usize];
    let key = repository.pack_key(&pack.label, pack.number);
    let object = store::name(&**repository.store(), &key);
    let cipher = reader.cipher(pack.salt.as_ref(), key.as_str())?;
    let bytes = match repository
        .store()
        .get_range(&key, range.offset, range.length)
        .await
    {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let file = range.pieces.first().map(|piece| piece.at.as_str());
            return Err(Error::damaged(object, missing(file)));
        }
        Err(error) => return Err(store::failed(format!("read `{key}`"))(error)),
    };
    blocking(move || {
        let mut done = Done {
            read_bytes: bytes.len() as u64,
            ..Done::default()
        };
        let mut open = None;
        for pieces in range
            .pieces
            .chunk_by(|a, b| a.frame.offset == b.frame.offset)
        {
            let Some(first) = pieces.first() else {
                continue;
            };
            let frame = &first.frame;
            let damaged = |what: &dyn std::fmt::Display| {
                Error::damaged(object.clone(), format!("`{}`: {what}", first.at))
            };
            let from = usize::try_from(frame.offset - range.offset).ok();
            let stored = from
                .and_then(|from| bytes.get(from..from + frame.stored_bytes as usize))
                .ok_or_else(|| damaged(&"the pack ends inside it"))?;
            let written = frame::decode(stored, frame, cipher.as_ref(), |plain| {
                pieces.iter().try_fold(0, |sum, piece| {
                    Ok::<u64, Error>(sum + write(&root, piece, plain, &mut open, compare)?)
                })
            });
            done.written_bytes += written.map_err(|error| damaged(&error))??;
            // What is written over something has its place already.
            let placed = pieces.iter().filter(|piece| piece.when != When::Over);
            done.placed_bytes += placed.map(|piece| u64::from(piece.bytes)).sum::<u64>();
        }
        Ok(done)
    })
    .await
}

/// Writes a piece, unless it is there already and that is looked at; `open` is the file of the piece before. Returns the bytes
/// written.
fn write(
    root: &Path,
    piece: &Piece,
    plain: &[u8],
    open: &mut Option<(PathBuf, Output)>,
    compare: bool,
) -> Result<u64> {
    let from = piece.from as usize;
    let content = &plain[from..from + piece.bytes as usize];
    let path = root.join(&piece.at);
    let (path, output) = match open {
        Some(open) if open.0 == path => open,
        other => {
            let output = Output::open(&path)?;
            other.insert((path, output))
        }
    };
    if compare && output.holds(path, content, piece.position)? {
        return Ok(0);
    }
    output.write(path, content, piece.position)?;
    Ok(u64::from(piece.bytes))
}
