//! The ledger: the application that the sandbox protects, and the client that judges it.
//!
//! The *application* (one a region) inserts a commit into its region's database and says what became of it. The
//! *client* reaches it through the DNS name only and writes down each answer with its time. What was acknowledged must
//! be in the recovered database; `judge` compares.

mod app;
mod client;
mod commit;
mod load;
mod pool;
mod resolver;

pub use app::{App, serve};
pub use commit::{Commit, Outage, Outcome, outage};
pub use load::{Load, Options, Record};
