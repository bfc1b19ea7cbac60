//! Protocol messages from and to a byte stream.
//!
//! Both halves are cancellation-safe: all progress is kept in their buffers, so a dropped future
//! loses nothing. A message body is a slice of the block that the socket was read into; WAL is not
//! copied after it left the kernel, except for the unfinished message at the end of a block.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::backend::{Header, Message};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The block size of an ordinary session, whose messages are short.
const BLOCK_BYTES: usize = 16 << 10;

/// The block size of a stream. A walsender sends up to 128 KiB in a message, so several fit.
const STREAM_BLOCK_BYTES: usize = 1 << 20;

/// The longest message that is accepted, so that a confused peer cannot make us reserve gigabytes.
const MESSAGE_LIMIT_BYTES: usize = 256 << 20;

/// `CopyBothResponse`, which starts WAL streaming and which `postgres-protocol` does not know.
const COPY_BOTH_RESPONSE_TAG: u8 = b'W';

/// A message from the server.
pub(crate) enum Frame {
    /// Streaming begins, in both directions.
    CopyBoth,
    /// Any other message.
    Message(Message),
}

/// Reads messages.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    block_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            block_bytes: BLOCK_BYTES,
        }
    }

    /// Reads in larger blocks from now on.
    pub(crate) fn expect_bulk(&mut self) {
        self.block_bytes = STREAM_BLOCK_BYTES;
    }

    /// Returns the next message, or `None` when the peer has closed the connection.
    /// Cancellation-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let missing = match self.missing_bytes()? {
                0 => return self.take().map(Some),
                missing => missing,
            };
            if self.buffer.capacity() - self.buffer.len() < missing {
                self.buffer.reserve(missing.max(self.block_bytes));
            }
            // `read_buf` is cancellation-safe: what it read is in the buffer, or was not read.
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Returns how many bytes are missing, as far as is known, before a whole message is in the
    /// buffer.
    fn missing_bytes(&self) -> io::Result<usize> {
        let Some(header) = Header::parse(&self.buffer)? else {
            return Ok(5 - self.buffer.len());
        };
        // `Header::parse` has refused lengths below 4.
        let total = usize::try_from(header.len())
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        if total > MESSAGE_LIMIT_BYTES {
            let what = format!("message `{}` of {total} bytes", char::from(header.tag()));
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(total.saturating_sub(self.buffer.len()))
    }

    /// Takes the message that is whole in the buffer.
    fn take(&mut self) -> io::Result<Frame> {
        if self.buffer[0] == COPY_BOTH_RESPONSE_TAG {
            let length = (&self.buffer[1..5]).get_u32();
            self.buffer.advance(length as usize + 1);
            return Ok(Frame::CopyBoth);
        }
        match Message::parse(&mut self.buffer)? {
            Some(message) => Ok(Frame::Message(message)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "message of unstable length",
            )),
        }
    }
}

/// Writes messages.
#[derive(Debug)]
pub(crate) struct FrameWriter<W> {
    io: W,
    pending: BytesMut,
    copy_done_queued: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> Self {
        Self {
            io,
            pending: BytesMut::new(),
            copy_done_queued: false,
        }
    }

    /// Returns the buffer to append whole messages to.
    pub(crate) fn queue(&mut self) -> &mut BytesMut {
        &mut self.pending
    }

    /// Appends a `CopyData` message.
    pub(crate) fn queue_copy_data(&mut self, body: &[u8]) {
        self.pending.put_u8(b'd');
        let length = u32::try_from(body.len() + 4).expect("only short messages are sent");
        self.pending.put_u32(length);
        self.pending.put_slice(body);
    }

    /// Appends a `CopyDone` message, unless this copy has one already.
    pub(crate) fn queue_copy_done(&mut self) {
        if !self.copy_done_queued {
            self.copy_done_queued = true;
            self.pending.put_slice(b"c\0\0\0\x04");
        }
    }

    /// Tells whether this copy still takes data from us.
    pub(crate) fn is_copying(&self) -> bool {
        !self.copy_done_queued
    }

    /// Starts a copy, or marks it as over before it began.
    pub(crate) fn begin_copy(&mut self, running: bool) {
        self.copy_done_queued = !running;
    }

    /// Writes what is queued. Cancellation-safe: what is not written stays queued, and nothing is
    /// written twice.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            if self.io.write_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.io.flush().await
    }

    /// Closes the connection.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }
}

/// Takes a NUL-terminated text from the front of `body`.
pub(crate) fn take_text(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8(body.split_to(end).to_vec()).ok()?;
    body.advance(1);
    Some(text)
}
