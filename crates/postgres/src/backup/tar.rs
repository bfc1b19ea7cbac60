//! Reading the tar archives of `BASE_BACKUP`.
//!
//! A server writes plain `ustar` headers (`src/port/tar.c`): names below 100 bytes, three kinds of entries, numbers in
//! octal digits or, beyond 8 GiB, in base 256. The archives arrive in pieces that end anywhere and several of them share
//! one stream; a reader that is pushed passes those pieces on without copying a byte, where one that pulls would need a
//! task and a channel between. That is why this is not a crate.

use bytes::{Buf as _, Bytes, BytesMut};

/// Headers and content are padded to this.
const BLOCK_BYTES: usize = 512;

/// What an archive consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An entry begins; for a file, its content and [`Event::FileEnd`] follow.
    Entry(Entry),
    /// The next bytes of a file.
    Data(Bytes),
    /// The file is complete.
    FileEnd,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative, without a `/` at its end.
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink(String),
}

/// The bytes are not an archive that a server writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("the checksum of a header does not match")]
    Checksum,
    #[error("a header has a field that is not a number")]
    Number,
    #[error("a header has a name that is not text")]
    Name,
    #[error("`{path}` is an entry of type `{kind}`, which no server sends")]
    Kind { path: String, kind: char },
    #[error("the archive ends in the middle of an entry")]
    Unfinished,
}

#[derive(Debug)]
enum State {
    Header(BytesMut),
    Content(u64),
    Padding(usize),
}

/// Reads one archive.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// Padding that follows the file being read.
    padding: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            state: State::Header(BytesMut::new()),
            padding: 0,
        }
    }

    /// Takes from `input` what makes the next event; `None` if more input is needed.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, Error> {
        loop {
            match &mut self.state {
                State::Content(0) => {
                    self.state = State::Padding(self.padding);
                    return Ok(Some(Event::FileEnd));
                }
                State::Padding(0) => self.state = State::Header(BytesMut::new()),
                _ if input.is_empty() => return Ok(None),
                State::Content(left) => {
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len());
                    *left -= length as u64;
                    return Ok(Some(Event::Data(input.split_to(length))));
                }
                State::Padding(left) => {
                    let length = (*left).min(input.len());
                    input.advance(length);
                    *left -= length;
                }
                State::Header(block) => {
                    let length = (BLOCK_BYTES - block.len()).min(input.len());
                    block.extend_from_slice(&input.split_to(length));
                    if block.len() < BLOCK_BYTES {
                        return Ok(None);
                    }
                    let block = std::mem::take(block);
                    // Blocks of zeros end an archive; what may follow them are more of the same.
                    if block.iter().all(|byte| *byte == 0) {
                        continue;
                    }
                    let (entry, size) = parse(&block)?;
                    if entry.kind == Kind::File {
                        let tail = usize::try_from(size % BLOCK_BYTES as u64)
                            .expect("a remainder of 512 fits");
                        self.padding = (BLOCK_BYTES - tail) % BLOCK_BYTES;
                        self.state = State::Content(size);
                    }
                    return Ok(Some(Event::Entry(entry)));
                }
            }
        }
    }

    /// Checks that the archive did not end inside an entry.
    pub(super) fn finish(self) -> Result<(), Error> {
        match self.state {
            State::Header(block) if block.is_empty() => Ok(()),
            State::Padding(0) => Ok(()),
            _ => Err(Error::Unfinished),
        }
    }
}

/// Reads a header; the size is that of a file's content.
fn parse(block: &[u8]) -> Result<(Entry, u64), Error> {
    let stated = number(&block[148..156])?;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    if stated != sum {
        return Err(Error::Checksum);
    }
    let name = text(&block[..100])?;
    let kind = match block[156] {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Directory,
        b'2' => Kind::Symlink(text(&block[157..257])?),
        kind => {
            return Err(Error::Kind {
                path: name,
                kind: char::from(kind),
            });
        }
    };
    let size = number(&block[124..136])?;
    let entry = Entry {
        path: name
            .trim_end_matches('/')
            .trim_start_matches("./")
            .to_owned(),
        kind,
        mode: u32::try_from(number(&block[100..108])?).map_err(|_| Error::Number)? & 0o7777,
        mtime: i64::try_from(number(&block[136..148])?).map_err(|_| Error::Number)?,
    };
    Ok((entry, size))
}

fn text(field: &[u8]) -> Result<String, Error> {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    String::from_utf8(field[..end].to_vec()).map_err(|_| Error::Name)
}

/// Reads octal digits, or what has the first bit set: big-endian base 256.
fn number(field: &[u8]) -> Result<u64, Error> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        let mut value: u64 = 0;
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 { byte & 0x7F } else { *byte };
            value = value
                .checked_mul(256)
                .and_then(|value| value.checked_add(u64::from(byte)))
                .ok_or(Error::Number)?;
        }
        return Ok(value);
    }
    let digits = text(field)?;
    let digits = digits.trim();
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| Error::Number)
}

#[cfg(test)]
mod tests;
