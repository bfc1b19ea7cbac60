//! The journal of an execution: intent before, outcome after, and who may go on (PROTOCOL 9).
//!
//! Entries are create-only and dense from 1, so writing one is also the proof that nobody else has written since. Whoever
//! finds the next number taken has been superseded and stops at once. Taking over is writing an entry too; no clock decides.
//! That alone stops nobody in the middle of an effect: every effect carries a fence of its own.
//!
//! Format: `docs/formats/journal.md`.

mod client;
mod entry;
mod error;

#[cfg(test)]
mod tests;

pub use client::{Journal, list};
pub use entry::{Body, Entry, FORMAT_VERSION};
pub use error::Error;
