//! Frames: up to 1 MiB of one file, compressed, with the hash of the plain bytes.
//!
//! Frames are independent of each other, so that every core has one to work on and any range of a file can be read.

use std::cell::RefCell;
use std::io;

use zstd::bulk::{Compressor, Decompressor};

use crate::Hash;
use crate::manifest::Frame;

/// Most plain bytes that a frame holds.
pub const FRAME_BYTES: usize = 1 << 20;

/// The fastest level: at it, compression is most of what a backup costs, and higher ones gain little on database pages.
const LEVEL: i32 = 1;

thread_local! {
    // Contexts are large; each worker thread keeps one.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A frame ready to be put into a pack.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) stored: Vec<u8>,
    pub(crate) plain_bytes: u32,
    pub(crate) hash: Hash,
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
}

/// Compresses up to [`FRAME_BYTES`]; keeps them as they are if that does not make them shorter.
///
/// The stored length tells the two apart: it equals the plain length only for bytes kept as they are.
pub(crate) fn encode(plain: &[u8]) -> Encoded {
    let compressed = compress(plain).filter(|stored| stored.len() < plain.len());
    Encoded {
        stored: compressed.unwrap_or_else(|| plain.to_vec()),
        plain_bytes: u32::try_from(plain.len()).expect("a frame is at most 1 MiB"),
        hash: Hash::of(plain),
    }
}

fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(LEVEL).ok()?),
        };
        // What does not fit in fewer bytes than there were is kept plain, so the buffer need not be larger.
        let mut stored = Vec::with_capacity(plain.len());
        compressor.compress_to_buffer(plain, &mut stored).ok()?;
        stored.shrink_to_fit();
        Some(stored)
    })
}

/// Returns the plain bytes of a frame after checking them.
pub(crate) fn decode(stored: &[u8], frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let length = frame.plain_bytes as usize;
    if stored.len() != frame.stored_bytes as usize || length > FRAME_BYTES {
        return Err(FrameError::Length);
    }
    let plain = if frame.stored_bytes == frame.plain_bytes {
        stored.to_vec()
    } else {
        decompress(stored, length).map_err(FrameError::Compression)?
    };
    if plain.len() != length {
        return Err(FrameError::Length);
    }
    if Hash::of(&plain) != frame.hash {
        return Err(FrameError::Hash);
    }
    Ok(plain)
}

fn decompress(stored: &[u8], length: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new()?),
        };
        let mut plain = Vec::with_capacity(length);
        decompressor.decompress_to_buffer(stored, &mut plain)?;
        Ok(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn described(encoded: &Encoded) -> Frame {
        Frame {
            pack: 0,
            offset: 0,
            stored_bytes: u32::try_from(encoded.stored.len()).unwrap(),
            plain_bytes: encoded.plain_bytes,
            hash: encoded.hash,
        }
    }

    proptest! {
        #[test]
        fn frames_read_back(seed in prop::collection::vec(any::<u8>(), 0..300), times in 1_usize..50) {
            let plain = seed.repeat(times);
            let encoded = encode(&plain);
            prop_assert!(encoded.stored.len() <= plain.len());
            prop_assert_eq!(decode(&encoded.stored, &described(&encoded)).unwrap(), plain);
        }

        #[test]
        fn no_flipped_bit_passes(plain in prop::collection::vec(any::<u8>(), 1..2000), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut encoded = encode(&plain.repeat(2));
            let described = described(&encoded);
            let at = at.index(encoded.stored.len());
            encoded.stored[at] ^= 1 << bit;
            // A bit that decompression does not look at may change; what comes out may not.
            if let Ok(found) = decode(&encoded.stored, &described) {
                prop_assert_eq!(found, plain.repeat(2));
            }
        }
    }
}
