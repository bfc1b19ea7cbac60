//! The driver for self-managed PostgreSQL.

pub mod wal;
