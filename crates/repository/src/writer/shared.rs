//! What the caller and the workers of a backup share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use dr_encryption::ObjectCipher;
use dr_provider::Key;
use tokio::sync::mpsc;

use super::worker::Job;
use crate::encryption::SaltText;
use crate::manifest::{Extent, Pack, PackInfo, Stats, StoredFile};
use crate::spill::Sorter;
use crate::{Error, Label, Repository, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) repository: Repository,
    pub(super) label: Label,
    pub(super) pack_bytes: usize,
    pub(super) level: i32,
    pub(super) jobs: Mutex<mpsc::Receiver<Job>>,
    /// Memory for packs: who takes one waits until the budget has one.
    pub(super) free: Mutex<mpsc::Receiver<BytesMut>>,
    /// Memory for plain frames, used again.
    pub(super) spare: Mutex<Vec<BytesMut>>,
    pub(super) packs: Mutex<Packs>,
    /// Taken at the end.
    pub(super) tree: Mutex<Option<Tree>>,
    failed: AtomicBool,
    /// Whether a manifest was sent.
    offered: AtomicBool,
    failure: Mutex<Option<Error>>,
}

/// The entries so far.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) sorter: Sorter,
    pub(super) stats: Stats,
    /// Where the sorter spills to.
    pub(super) directory: PathBuf,
}

/// The packs that the manifest will name.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Own ones are known when they are full.
    slots: Vec<Option<Pack>>,
    own: u32,
    older: HashMap<(Label, u32), u32>,
}

impl Packs {
    /// Begins a pack of this backup; returns its index and its number.
    fn begin(&mut self) -> (u32, u32) {
        let number = self.own;
        self.own += 1;
        self.slots.push(None);
        (index(self.slots.len() - 1), number)
    }

    fn complete(&mut self, slot: u32, pack: Pack) {
        self.slots[slot as usize] = Some(pack);
    }

    /// Returns the index of a pack of an older backup.
    fn refer(&mut self, pack: &Pack) -> u32 {
        let slots = &mut self.slots;
        *self
            .older
            .entry((pack.label.clone(), pack.number))
            .or_insert_with(|| {
                slots.push(Some(pack.clone()));
                index(slots.len() - 1)
            })
    }

    /// Returns all of them, if all are complete.
    pub(super) fn finish(self) -> Option<Vec<Pack>> {
        self.slots.into_iter().collect()
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("packs of some MiB reach far beyond any disk")
}

impl Shared {
    pub(super) fn new(
        repository: Repository,
        label: Label,
        options: &super::WriterOptions,
        jobs: mpsc::Receiver<Job>,
        free: mpsc::Receiver<BytesMut>,
    ) -> Self {
        let directory = options.spill_directory.clone();
        let directory = directory.unwrap_or_else(std::env::temp_dir);
        Self {
            repository,
            label,
            pack_bytes: options.pack_bytes,
            level: options.level,
            jobs: Mutex::new(jobs),
            free: Mutex::new(free),
            spare: Mutex::default(),
            packs: Mutex::default(),
            tree: Mutex::new(Some(Tree {
                sorter: Sorter::new(directory.clone()),
                stats: Stats::default(),
                directory,
            })),
            failed: AtomicBool::new(false),
            offered: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    pub(super) fn packs(&self) -> MutexGuard<'_, Packs> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes pieces that a parent has pieces of this backup.
    pub(super) fn refer(
        &self,
        parent: &StoredFile,
        mut pieces: Vec<(u64, Extent)>,
    ) -> Vec<(u64, Extent)> {
        let mut packs = self.packs();
        for (_, extent) in &mut pieces {
            if let Extent::Stored { frame, .. } = extent {
                frame.pack = packs.refer(&parent.packs[frame.pack as usize]);
            }
        }
        pieces
    }

    pub(super) fn begin_pack(&self) -> (u32, u32) {
        self.packs().begin()
    }

    /// Returns what seals the object of that name in this attempt to write it, unless nothing is encrypted.
    pub(super) fn seal(&self, name: &Key) -> Result<Option<(SaltText, ObjectCipher)>> {
        let Some(key) = self.repository.keys().writing() else {
            return Ok(None);
        };
        let salt = SaltText::fresh()?;
        Ok(Some((salt, key.object(&salt.0, name.as_str()))))
    }

    pub(super) fn complete_pack(
        &self,
        slot: u32,
        number: u32,
        info: PackInfo,
        salt: Option<SaltText>,
    ) {
        let pack = Pack {
            label: self.label.clone(),
            number,
            info,
            salt,
        };
        self.packs().complete(slot, pack);
    }

    /// Ends the backup without success: nothing more is done. The first error is the one that is told.
    pub(super) fn fail(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.failed.swap(true, Ordering::AcqRel) {
            *failure = Some(error);
        }
    }

    /// Ends the backup because nobody wants it any more.
    pub(super) fn abandon(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Notes that a manifest is about to be sent: from then on the backup may exist.
    pub(super) fn offer(&self) {
        self.offered.store(true, Ordering::Release);
    }

    pub(super) fn was_offered(&self) -> bool {
        self.offered.load(Ordering::Acquire)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    /// Returns memory for a plain frame.
    pub(super) fn plain_buffer(&self) -> BytesMut {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(buffer);
    }
}
