//! The WAL of one epoch in one store: a chain of chunks that ends in a seal (PROTOCOL 3).
//!
//! A chunk's key is the position at which it starts, its header says where it ends, and that is the next key: writing a
//! chunk is a compare-and-swap on the chain's tail. Several may be written at once; only what hangs together from the
//! origin counts. A seal at the tail's key ends the chain for ever: (timeline, position) is then exactly what was promised,
//! because no later chunk can hang on it.
//!
//! - Writing: [`ChainWriter`]. Two writers of one chain write the same bytes or lose the create.
//! - Ending: [`seal()`].
//! - Looking: [`find_tail`], [`summarise`], [`chains`], [`available()`], [`prove`]. Listings are hints; what is returned rests on
//!   reads.
//! - Reading back: [`ChainReader`].
//! - Merging: [`Compactor`] makes pieces of chunks, and removes chunks behind a [`Floor`].
//! - Loss: [`GapRecord`], and [`pass_over`] for a chain to go on behind it, and [`fill()`] for when it comes after all.
//!
//! Format: `docs/formats/wal.md`.

mod available;
mod catalogue;
mod chunk;
mod compact;
mod coverage;
mod encryption;
mod envelope;
mod error;
mod expire;
mod fill;
mod floor;
mod follow;
mod gap;
mod history;
mod id;
mod link;
mod lost;
mod piece;
mod reader;
mod records;
mod seal;
mod sealer;
mod section;
mod start;
mod summary;
mod tail;
mod uploader;
mod writer;

#[cfg(test)]
mod tests;

pub use available::{
    Available, Examined, available, bounds, examine, prove, prove_by_names, prove_readable,
};
pub use catalogue::{chains, newest_chain, timelines};
pub use chunk::{Chunk, ChunkHeader, Encoding, Facts, MAX_LOG_BYTES, Promise};
pub use compact::{CompactOptions, Compacted, Compactor, KEPT_LINKS};
pub use encryption::{Cipher, Encryption, Flaw, NoRandomness, SaltText};
pub use envelope::{decode, decode_header, encode};
pub use error::Error;
pub use expire::{LogExpired, LogExpiry, Needed, expire_log, plan_log_expiry};
pub use fill::fill;
pub use floor::Floor;
pub use gap::{GapRecord, open_gaps, open_gaps_of, record_gap};
pub use history::{read_history, write_history};
pub use id::ChainId;
pub use lost::pass_over;
pub use piece::{
    MAX_PIECE_BYTES, PieceFacts, PieceHeader, Span, decode_piece, encode_piece, pieces,
};
pub use reader::ChainReader;
pub use records::{Origin, SealRecord};
pub use seal::{SealRequest, Sealed, seal};
pub use section::Section;
pub use start::{LogStart, log_start};
pub use summary::{ChainSummary, summarise};
pub use tail::{Tail, find_tail};
pub use uploader::{BootTime, ChainWriter, Options, Progress, WritableTail, boot_time};

/// The version of the formats of origin, chunk and seal that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What the model check drives.
#[cfg(test)]
pub(crate) mod internals {
    pub(crate) use super::link::{Link, Reply, link_with_log};
    pub(crate) use super::sealer::{End as SealEnd, Sealer, Task as SealTask};
    pub(crate) use super::tail::{Walk, WalkEnd};
    pub(crate) use super::writer::{Failure, Task as WriterTask, Writer};
}
