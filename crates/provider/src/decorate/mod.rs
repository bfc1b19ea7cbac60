//! Decorators of [`ObjectStore`](crate::ObjectStore): each adds one thing to any store.
//!
//! The wiring of the binary puts [`Retry`] around [`Timeout`] around every store, and around both what looks whose store it is; tests put
//! [`Faulty`] and [`Recording`] underneath. Implementations themselves neither retry nor limit.

mod faulty;
mod operation;
mod recording;
mod retry;
mod timeout;

pub use faulty::{Fault, Faulty, Odds, Rule};
pub use operation::Operation;
pub use recording::{Call, Recording};
pub use retry::{Retry, RetryOptions};
pub use timeout::Timeout;
