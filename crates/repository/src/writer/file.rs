//! A file whose pieces are being written by several workers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::FrameReader;
use super::shared::Shared;
use crate::error::KEEP_LIST;
use crate::manifest::{Entry, Extent, FileEntry, Metadata};
use crate::{Error, Result, tree};

/// A file that has been begun. Whoever does the last of its pieces adds its entry to the tree.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: String,
    metadata: Metadata,
    pub(super) reader: Option<Arc<dyn FrameReader>>,
    state: Mutex<State>,
    /// Pieces that are not there yet, and one for whoever still hands out pieces.
    outstanding: AtomicUsize,
}

#[derive(Debug)]
struct State {
    /// With where in the file each begins.
    pieces: Vec<(u64, Extent)>,
    /// Where the file ends: pieces behind are dropped.
    end: u64,
    vanished: bool,
}

impl File {
    /// Begins a file that ends at `end`, or before if it turns out shorter.
    pub(super) fn new(
        path: &str,
        metadata: Metadata,
        end: u64,
        reader: Option<Arc<dyn FrameReader>>,
        pieces: Vec<(u64, Extent)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            metadata,
            reader,
            state: Mutex::new(State {
                pieces,
                end,
                vanished: false,
            }),
            outstanding: AtomicUsize::new(1),
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Announces a piece; `done` must follow.
    pub(super) fn expect(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, offset: u64, extent: Extent) {
        self.change(|state| state.pieces.push((offset, extent)));
    }

    /// Says that the file ends at `end`, or before.
    pub(super) fn end_at(&self, end: u64) {
        self.change(|state| state.end = state.end.min(end));
    }

    /// Says that the file does not exist any more: it is left out (R6).
    pub(super) fn vanish(&self) {
        self.change(|state| state.vanished = true);
    }

    /// Counts a piece as there.
    pub(super) fn done(&self, shared: &Shared) -> Result<()> {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.vanished {
            return Ok(());
        }
        let mut pieces = std::mem::take(&mut state.pieces);
        pieces.sort_unstable_by_key(|(offset, _)| *offset);
        let mut extents = Vec::with_capacity(pieces.len());
        let mut position = 0;
        for (offset, extent) in pieces {
            if offset >= state.end {
                break;
            }
            if offset != position {
                break;
            }
            let length = extent.bytes().min(state.end - offset);
            extent.part(0, length).append(&mut extents);
            position += length;
        }
        if position != state.end {
            return Err(Error::Path {
                path: self.path.clone(),
                why: "a piece of it is missing",
            });
        }
        let entry = Entry::File(FileEntry {
            path: self.path.clone(),
            metadata: self.metadata,
            size: position,
            extents,
        });
        shared.add_entry(&entry)
    }
}

impl Shared {
    /// Adds an entry to the tree.
    pub(super) fn add_entry(&self, entry: &Entry) -> Result<()> {
        let path = entry.path();
        let line = serde_json::to_vec(entry).expect("text and numbers always have a JSON form");
        let mut entries = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = entries
            .as_mut()
            .expect("no worker outlives the adding of entries");
        if let Entry::File(file) = entry {
            entries.stats.files += 1;
            entries.stats.file_bytes += file.size;
        }
        entries
            .sorter
            .push(&tree::key(path), &line)
            .map_err(Error::io(KEEP_LIST, &entries.directory))
    }
}
