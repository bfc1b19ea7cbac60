//! A piece of a frame and the place in a file that it goes to, as a record to be sorted by frame.

use crate::Hash;
use crate::manifest::Frame;

/// When a piece is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before others are written over a part of it.
    Under,
    /// At any time.
    Alone,
    /// After what it is written over.
    Over,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) frame: Frame,
    /// Where in the frame's plain bytes.
    pub(super) from: u32,
    pub(super) bytes: u32,
    /// Where in the file.
    pub(super) position: u64,
    pub(super) when: When,
    /// The file, below the root.
    pub(super) at: String,
}

impl Piece {
    /// Returns bytes that sort by pack and place in it.
    pub(super) fn key(&self) -> [u8; 12] {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&self.frame.pack.to_be_bytes());
        key[4..].copy_from_slice(&self.frame.offset.to_be_bytes());
        key
    }

    /// Returns what the key does not say.
    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(25 + Hash::BYTES + self.at.len());
        value.extend(self.frame.stored_bytes.to_be_bytes());
        value.extend(self.frame.plain_bytes.to_be_bytes());
        value.extend(self.from.to_be_bytes());
        value.extend(self.bytes.to_be_bytes());
        value.extend(self.position.to_be_bytes());
        value.push(match self.when {
            When::Under => 0,
            When::Alone => 1,
            When::Over => 2,
        });
        value.extend(self.frame.hash.as_bytes());
        value.extend(self.at.as_bytes());
        value
    }

    /// Reads a record back.
    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (pack, offset) = key.split_first_chunk()?;
        let (stored, value) = value.split_first_chunk()?;
        let (plain, value) = value.split_first_chunk()?;
        let (from, value) = value.split_first_chunk()?;
        let (bytes, value) = value.split_first_chunk()?;
        let (position, value) = value.split_first_chunk()?;
        let (when, value) = value.split_first()?;
        let (hash, at) = value.split_first_chunk()?;
        Some(Self {
            frame: Frame {
                pack: u32::from_be_bytes(*pack),
                offset: u64::from_be_bytes(offset.try_into().ok()?),
                stored_bytes: u32::from_be_bytes(*stored),
                plain_bytes: u32::from_be_bytes(*plain),
                hash: Hash::from_bytes(*hash),
            },
            from: u32::from_be_bytes(*from),
            bytes: u32::from_be_bytes(*bytes),
            position: u64::from_be_bytes(*position),
            when: match when {
                0 => When::Under,
                1 => When::Alone,
                _ => When::Over,
            },
            at: String::from_utf8(at.to_vec()).ok()?,
        })
    }
}
