//! The `dr` binary as a user meets it: what it prints where, and how it ends.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod approvals;
mod configuration;
mod daemon;
mod executions;
mod failing;
mod kit;
mod reference;
mod ssh;
mod support;
mod wal_fetch;
mod wal_push;
