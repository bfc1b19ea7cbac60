//! Packs: objects of many frames, so that a backup is hundreds of objects and not millions.
//!
//! Layout: magic, salt, frames without gaps, an index of them, their number, and the hash of all that. Readers of a backup
//! go by the manifest; the index lets a pack be checked, and salvaged, without one. Packs of format 1 have no salt.

use bytes::{BufMut, Bytes, BytesMut};
use dr_encryption::{ObjectCipher, SALT_BYTES, TAG_BYTES};

use crate::Hash;
use crate::encryption::SaltText;
use crate::manifest::PackInfo;

/// The first bytes of a pack of format 1.
const MAGIC_1: &[u8; 8] = b"dr-pack1";
/// The first bytes of every pack written now.
const MAGIC: &[u8; 8] = b"dr-pack2";

/// Bytes of one frame in the index: stored length, plain length, hash.
const INDEX_ENTRY_BYTES: usize = 4 + 4 + Hash::BYTES;
/// Bytes after the index: number of frames, hash.
const FOOTER_BYTES: usize = 4 + Hash::BYTES;

/// Where a frame was put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) stored_bytes: u32,
    pub(crate) hash: Hash,
}

/// A pack being filled.
#[derive(Debug)]
pub(crate) struct Builder {
    cipher: Option<ObjectCipher>,
    bytes: BytesMut,
    index: Vec<u8>,
    frames: u32,
}

impl Builder {
    /// Begins a pack in `bytes`, whose content is dropped, with room for what is expected.
    pub(crate) fn new(
        mut bytes: BytesMut,
        expected_bytes: usize,
        seal: Option<(SaltText, ObjectCipher)>,
    ) -> Self {
        bytes.clear();
        bytes.reserve(expected_bytes);
        bytes.put_slice(MAGIC);
        let (salt, cipher) = seal.unzip();
        bytes.put_slice(&salt.map_or([0; SALT_BYTES], |salt| salt.0));
        Self {
            cipher,
            bytes,
            index: Vec::new(),
            frames: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Returns the size that the object would have if it were finished after `more` stored bytes.
    pub(crate) fn size_with(&self, more: usize) -> usize {
        let tag = self.cipher.as_ref().map_or(0, |_| TAG_BYTES);
        self.bytes.len() + more + tag + self.index.len() + INDEX_ENTRY_BYTES + FOOTER_BYTES
    }

    /// Appends a frame: `stored` is what compression made of `plain`.
    pub(crate) fn push(&mut self, plain: &[u8], stored: &[u8]) -> Placed {
        let offset = self.bytes.len() as u64;
        let start = self.bytes.len();
        self.bytes.put_slice(stored);
        let hash = match &self.cipher {
            None => Hash::of(plain),
            Some(cipher) => {
                let tag = cipher.seal(offset, &mut self.bytes[start..]);
                self.bytes.put_slice(&tag);
                cipher.hash(plain).into()
            }
        };
        let stored_bytes = u32::try_from(self.bytes.len() - start).expect("a frame is about 1 MiB");
        let plain_bytes = u32::try_from(plain.len()).expect("a frame is at most 1 MiB");
        self.index.put_u32_le(stored_bytes);
        self.index.put_u32_le(plain_bytes);
        self.index.put_slice(hash.as_bytes());
        self.frames += 1;
        Placed {
            offset,
            stored_bytes,
            hash,
        }
    }

    /// Returns the object and what the manifest says of it.
    pub(crate) fn finish(mut self) -> (Bytes, PackInfo) {
        self.bytes.put_slice(&self.index);
        self.bytes.put_u32_le(self.frames);
        let mut hasher = blake3::Hasher::new();
        let inner = hasher.update(&self.bytes).finalize();
        self.bytes.put_slice(inner.as_bytes());
        let bytes = self.bytes.freeze();
        let info = PackInfo {
            bytes: bytes.len() as u64,
            hash: hasher.update(inner.as_bytes()).finalize().into(),
        };
        (bytes, info)
    }
}

/// Checks a pack by itself: magic, hash, and that the index describes the bytes before it. Says what is wrong.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let not_a_pack = "it does not begin as a pack";
    let body = match bytes.strip_prefix(MAGIC) {
        Some(rest) => rest.get(SALT_BYTES..).ok_or(not_a_pack)?,
        None => bytes.strip_prefix(MAGIC_1).ok_or(not_a_pack)?,
    };
    let (hashed, hash) = bytes
        .split_last_chunk::<{ Hash::BYTES }>()
        .ok_or("it is too short")?;
    if Hash::of(hashed).as_bytes() != hash {
        return Err("its content does not match its hash");
    }
    let short = "its index does not fit";
    let rest = body.len().checked_sub(FOOTER_BYTES).ok_or(short)?;
    let count = body
        .get(rest..rest + 4)
        .and_then(|field| field.try_into().ok())
        .ok_or(short)?;
    let index_bytes = INDEX_ENTRY_BYTES * u32::from_le_bytes(count) as usize;
    let frames_bytes = rest.checked_sub(index_bytes).ok_or(short)?;
    let described: usize = body[frames_bytes..rest]
        .chunks_exact(INDEX_ENTRY_BYTES)
        .map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) as usize)
        .sum();
    if described == frames_bytes {
        Ok(())
    } else {
        Err(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_check_out_and_no_flipped_bit_passes() {
        let mut builder = Builder::new(BytesMut::new(), 1000, None);
        for text in ["first", "second, second, second, second, second", ""] {
            builder.push(text.as_bytes(), text.as_bytes());
        }
        let expected = builder.size_with(0) - INDEX_ENTRY_BYTES;
        let (bytes, info) = builder.finish();
        assert_eq!(bytes.len(), expected);
        assert_eq!(info.bytes, bytes.len() as u64);
        assert_eq!(check(&bytes), Ok(()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(check(&damaged).is_err(), "{at}");
            assert!(check(&bytes[..at]).is_err(), "{at}");
        }
    }
}
