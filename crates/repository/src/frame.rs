//! Frames: up to 1 MiB of content, compressed, with the hash of the plain bytes.
//!
//! Frames are independent of each other, so that every core has one to work on and any range of a file can be read. A
//! frame may hold pieces of several files.

use std::cell::RefCell;
use std::io;

use dr_encryption::{ObjectCipher, SealBroken};
use zstd::bulk::{Compressor, Decompressor};

use crate::Hash;
use crate::manifest::Frame;

/// Most plain bytes that a frame holds.
pub const FRAME_BYTES: usize = 1 << 20;

/// Most plain bytes in a frame that collects changed blocks and small files: reading one of them back reads no more.
pub const COLLECTED_BYTES: usize = 256 << 10;

/// What the memory given out by [`decode`] begins at a multiple of: what writing past the system's cache asks for on all
/// disks known.
pub(crate) const ALIGNMENT: usize = 4096;

thread_local! {
    // Contexts and buffers are large; each worker thread keeps one.
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
    static OPENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame cannot be decompressed")]
    Compression(#[source] io::Error),
    #[error("a frame has the wrong length")]
    Length,
    #[error("a frame's content does not match its hash")]
    Hash,
    #[error("a frame cannot be decrypted")]
    Sealed(#[source] SealBroken),
}

/// Room for a frame, and what fills it.
struct Decoder {
    decompressor: Decompressor<'static>,
    memory: Vec<u8>,
    /// Where in it the room begins.
    start: usize,
}

impl Decoder {
    fn new() -> io::Result<Self> {
        let memory = vec![0; FRAME_BYTES + ALIGNMENT];
        // It may give up, and then nothing is aligned, which costs time and nothing else.
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Self {
            decompressor: Decompressor::new()?,
            memory,
            start,
        })
    }

    /// Fills the room with the plain bytes of a frame that has `length` of them, and returns them.
    fn fill(&mut self, stored: &[u8], length: usize) -> io::Result<&[u8]> {
        let room = &mut self.memory[self.start..self.start + FRAME_BYTES];
        let filled = if stored.len() == length {
            room[..length].copy_from_slice(stored);
            length
        } else {
            self.decompressor.decompress_to_buffer(stored, room)?
        };
        Ok(&self.memory[self.start..self.start + filled])
    }
}

/// Compresses frames, keeping its context and its buffer.
pub(crate) struct Encoder {
    compressor: Compressor<'static>,
    stored: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(level)?,
            stored: Vec::with_capacity(FRAME_BYTES),
        })
    }

    /// Compresses up to [`FRAME_BYTES`]; returns them as they are if that does not make them shorter.
    ///
    /// The length tells the two apart: it equals the plain length only for bytes kept as they are.
    pub(crate) fn compress<'a>(&'a mut self, plain: &'a [u8]) -> &'a [u8] {
        self.stored.clear();
        // What does not fit in the capacity is kept plain as well: it is a frame of random bytes.
        match self.compressor.compress_to_buffer(plain, &mut self.stored) {
            Ok(length) if length < plain.len() => &self.stored,
            _ => plain,
        }
    }
}

/// Tells whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Compared in words by the compiler; the first bytes decide for nearly all that is not.
    let (head, rest) = bytes.split_at(bytes.len().min(64));
    head.iter().all(|byte| *byte == 0)
        && rest
            .chunks(4096)
            .all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0)
}

/// Gives the plain bytes of a frame to `use_it` after checking them; they are aligned.
pub(crate) fn decode<T>(
    stored: &[u8],
    frame: &Frame,
    cipher: Option<&ObjectCipher>,
    use_it: impl FnOnce(&[u8]) -> T,
) -> Result<T, FrameError> {
    if stored.len() != frame.stored_bytes as usize || frame.plain_bytes as usize > FRAME_BYTES {
        return Err(FrameError::Length);
    }
    let Some(cipher) = cipher else {
        return unpack(stored, frame, Hash::of, use_it);
    };
    OPENED.with_borrow_mut(|opened| {
        opened.clear();
        opened.extend_from_slice(stored);
        let stored = cipher
            .open(frame.offset, opened)
            .map_err(FrameError::Sealed)?;
        unpack(stored, frame, |plain| cipher.hash(plain).into(), use_it)
    })
}

fn unpack<T>(
    stored: &[u8],
    frame: &Frame,
    hash: impl Fn(&[u8]) -> Hash,
    use_it: impl FnOnce(&[u8]) -> T,
) -> Result<T, FrameError> {
    let length = frame.plain_bytes as usize;
    let checked = |plain: &[u8]| {
        if plain.len() != length {
            Err(FrameError::Length)
        } else if hash(plain) != frame.hash {
            Err(FrameError::Hash)
        } else {
            Ok(())
        }
    };
    DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            None => slot.insert(Decoder::new().map_err(FrameError::Compression)?),
        };
        let plain = decoder.fill(stored, length);
        let plain = plain.map_err(FrameError::Compression)?;
        checked(plain)?;
        Ok(use_it(plain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn encode(plain: &[u8]) -> (Vec<u8>, Frame) {
        let stored = Encoder::new(1).unwrap().compress(plain).to_vec();
        let frame = Frame {
            pack: 0,
            offset: 0,
            stored_bytes: u32::try_from(stored.len()).unwrap(),
            plain_bytes: u32::try_from(plain.len()).unwrap(),
            hash: Hash::of(plain),
        };
        (stored, frame)
    }

    #[rstest]
    #[case(0, None, true)]
    #[case(63, None, true)]
    #[case(10_000, None, true)]
    #[case(10_000, Some(0), false)]
    #[case(10_000, Some(64), false)]
    #[case(10_000, Some(9_999), false)]
    fn zeros(#[case] length: usize, #[case] set: Option<usize>, #[case] zero: bool) {
        let mut bytes = vec![0; length];
        if let Some(at) = set {
            bytes[at] = 1;
        }
        assert_eq!(is_zero(&bytes), zero);
    }

    proptest! {
        #[test]
        fn frames_read_back(seed in prop::collection::vec(any::<u8>(), 0..300), times in 1_usize..50) {
            let plain = seed.repeat(times);
            let (stored, frame) = encode(&plain);
            prop_assert!(stored.len() <= plain.len());
            prop_assert_eq!(decode(&stored, &frame, None, <[u8]>::to_vec).unwrap(), plain);
            prop_assert!(decode(&stored, &frame, None, |plain| plain.as_ptr().addr().is_multiple_of(ALIGNMENT)).unwrap());
        }

        #[test]
        fn no_flipped_bit_passes(plain in prop::collection::vec(any::<u8>(), 1..2000), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let (mut stored, frame) = encode(&plain.repeat(2));
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            // A bit that decompression does not look at may change; what comes out may not.
            if let Ok(found) = decode(&stored, &frame, None, <[u8]>::to_vec) {
                prop_assert_eq!(found, plain.repeat(2));
            }
        }
    }
}
