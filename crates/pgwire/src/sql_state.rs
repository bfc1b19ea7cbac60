//! The SQLSTATE codes that `dr` decides by.
//!
//! PostgreSQL manual, appendix "PostgreSQL Error Codes".

/// A login without the right: `pg_hba.conf` has no entry, or the role does not exist.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// A wrong password.
pub const INVALID_PASSWORD: &str = "28P01";
/// The server is starting, stopping or recovering.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// The server is stopping, or an administrator ended the session.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// Another backend crashed, and the server restarts.
pub const CRASH_SHUTDOWN: &str = "57P02";
/// The statement was cancelled.
pub const QUERY_CANCELED: &str = "57014";
/// The role may not do this.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// The object, for instance a replication slot, does not exist.
pub const UNDEFINED_OBJECT: &str = "42704";
/// The object, for instance a replication slot, exists already.
pub const DUPLICATE_OBJECT: &str = "42710";
/// The object, for instance a replication slot, is being used by another session.
pub const OBJECT_IN_USE: &str = "55006";
/// A file, for instance a WAL segment or timeline history, is no longer there.
pub const UNDEFINED_FILE: &str = "58P01";
/// A write in a read-only transaction, as every transaction on a standby is.
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// Data did not match its checksum.
pub const DATA_CORRUPTED: &str = "XX001";
