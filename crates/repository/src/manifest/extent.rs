//! Extents: which bytes of which frame a stretch of a file is.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FileEntry, Pack};
use crate::Hash;
use crate::frame::FRAME_BYTES;

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Index of the pack in the manifest's list.
    pub pack: u32,
    /// Where in the pack's object it begins.
    pub offset: u64,
    /// Its length there; equal to the plain length if it is not compressed.
    pub stored_bytes: u32,
    /// Its plain length.
    pub plain_bytes: u32,
    /// Hash of the plain bytes.
    pub hash: Hash,
}

/// A stretch of a file.
///
/// In JSON a number for that many zeros; otherwise an array: pack, offset, stored length, plain length and hash of the
/// frame, then, unless it is the whole frame, where in its plain bytes the stretch begins and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Zeros, which are stored nowhere.
    Zeros {
        /// How many.
        bytes: u64,
    },
    /// A piece of a frame.
    Stored {
        /// The frame.
        frame: Frame,
        /// Where in its plain bytes the piece begins.
        from: u32,
        /// Length of the piece.
        bytes: u32,
    },
}

impl Extent {
    /// Returns how long the stretch is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Zeros { bytes } => *bytes,
            Self::Stored { bytes, .. } => u64::from(*bytes),
        }
    }

    /// Returns the part of the stretch that begins at `start` in it, `length` long.
    pub(crate) fn part(self, start: u64, length: u64) -> Self {
        match self {
            Self::Zeros { .. } => Self::Zeros { bytes: length },
            Self::Stored { frame, from, .. } => {
                let narrow =
                    |number: u64| u32::try_from(number).expect("a part is shorter than its whole");
                Self::Stored {
                    frame,
                    from: from + narrow(start),
                    bytes: narrow(length),
                }
            }
        }
    }

    /// Appends to a list, joining what continues its last stretch.
    pub(crate) fn append(self, list: &mut Vec<Self>) {
        match (list.last_mut(), self) {
            (Some(Self::Zeros { bytes }), Self::Zeros { bytes: more }) => *bytes += more,
            (
                Some(Self::Stored { frame, from, bytes }),
                Self::Stored {
                    frame: next,
                    from: next_from,
                    bytes: more,
                },
            ) if (frame.pack, frame.offset) == (next.pack, next.offset)
                && *from + *bytes == next_from =>
            {
                *bytes += more;
            }
            _ => list.push(self),
        }
    }
}

impl FileEntry {
    /// Checks what hashes cannot: that the entry makes sense. A wrong one would be a bug of its writer.
    pub(crate) fn check(&self, packs: &[Pack]) -> Result<(), &'static str> {
        let mut size = 0_u64;
        for extent in &self.extents {
            if let Extent::Stored { frame, from, bytes } = extent {
                let pack = packs.get(frame.pack as usize);
                let pack = pack.ok_or("a frame is in a pack that does not exist")?;
                let end = frame.offset.checked_add(u64::from(frame.stored_bytes));
                if end.is_none_or(|end| end > pack.info.bytes) {
                    return Err("a frame lies outside its pack");
                }
                if frame.plain_bytes as usize > FRAME_BYTES
                    || from
                        .checked_add(*bytes)
                        .is_none_or(|end| end > frame.plain_bytes)
                {
                    return Err("a frame has an impossible length");
                }
            }
            size = size
                .checked_add(extent.bytes())
                .ok_or("its extents are too long")?;
        }
        if size == self.size {
            Ok(())
        } else {
            Err("its extents do not add up to its size")
        }
    }
}

impl Serialize for Extent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Zeros { bytes } => serializer.serialize_u64(*bytes),
            Self::Stored { frame, from, bytes } => {
                let whole = *from == 0 && *bytes == frame.plain_bytes;
                let mut tuple = serializer.serialize_tuple(if whole { 5 } else { 7 })?;
                tuple.serialize_element(&frame.pack)?;
                tuple.serialize_element(&frame.offset)?;
                tuple.serialize_element(&frame.stored_bytes)?;
                tuple.serialize_element(&frame.plain_bytes)?;
                tuple.serialize_element(&frame.hash)?;
                if !whole {
                    tuple.serialize_element(from)?;
                    tuple.serialize_element(bytes)?;
                }
                tuple.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Extent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of zeros, or a piece of a frame")
            }

            fn visit_u64<E>(self, bytes: u64) -> Result<Extent, E> {
                Ok(Extent::Zeros { bytes })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Extent, A::Error> {
                let short = || A::Error::custom("a piece of a frame lacks elements");
                let frame = Frame {
                    pack: seq.next_element()?.ok_or_else(short)?,
                    offset: seq.next_element()?.ok_or_else(short)?,
                    stored_bytes: seq.next_element()?.ok_or_else(short)?,
                    plain_bytes: seq.next_element()?.ok_or_else(short)?,
                    hash: seq.next_element()?.ok_or_else(short)?,
                };
                let (from, bytes) = match seq.next_element()? {
                    None => (0, frame.plain_bytes),
                    Some(from) => (from, seq.next_element()?.ok_or_else(short)?),
                };
                Ok(Extent::Stored { frame, from, bytes })
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
