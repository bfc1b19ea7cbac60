//! Implementations of the seams that need no cloud.
//!
//! A store on a directory, commands on this machine and on others by ssh, DNS by dynamic update, HTTP probes and
//! webhooks, secrets from the environment and from files. What they promise is written at the
//! traits of `dr-provider`.

pub mod directory_store;
mod errno;
pub mod host;
mod http;
pub mod http_probe;
pub mod remote;
pub mod rfc2136;
pub mod secrets;
pub mod ssh_host;
mod tls;
pub mod webhook;

pub use directory_store::DirectoryStore;
pub use host::LocalHost;
pub use http_probe::HttpProbe;
pub use rfc2136::Rfc2136;
pub use secrets::LocalSecrets;
pub use ssh_host::{SshAddress, SshHost, SshOptions};
pub use tls::Authorities;
pub use webhook::Webhook;
