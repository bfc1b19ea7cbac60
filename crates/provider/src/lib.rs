//! The seams of `dr`: what it needs from the world, as traits.
//!
//! Traits stand here, implementations in the crates above (`local`, `postgres`, later `s3`, `aws`), and the choice
//! between them in one place, the wiring of the binary. Jobs and steps know the world only through this crate.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod decorate;
pub mod driver;
pub mod error;
pub mod host;
pub mod notifier;
pub mod probe;
pub mod secret;
pub mod store;
pub mod traffic;

pub use driver::ResourceDriver;
pub use error::{Error, ErrorKind, Result};
pub use host::Host;
pub use notifier::Notifier;
pub use probe::Probe;
pub use secret::{Secret, SecretSource};
pub use store::{Key, ObjectStore};
pub use traffic::Traffic;
