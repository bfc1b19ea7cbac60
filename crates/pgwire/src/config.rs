//! Where and as whom to connect.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a [`crate::Connection`] needs to know to connect.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's address.
    pub host: Host,
    /// The TCP port, or the number in the name of the unix socket.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// The database; the server takes the role's name when it is missing. Unused for replication.
    pub database: Option<String>,
    /// The password, for servers that ask for one.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted, and whom it trusts.
    pub tls: TlsMode,
    /// The name shown in `pg_stat_activity` and matched by `synchronous_standby_names`.
    pub application_name: String,
    /// The longest time that connecting, TLS and login may take together.
    pub connect_timeout: Duration,
    /// Opens a physical walsender session: replication commands instead of SQL.
    pub replication: bool,
}

impl Config {
    /// Makes a configuration with `tls: Prefer`, ten seconds to connect, and no password.
    #[must_use]
    pub fn new(host: impl Into<Host>, port: u16, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            user: user.into(),
            database: None,
            password: None,
            tls: TlsMode::Prefer,
            application_name: "dr".to_owned(),
            connect_timeout: Duration::from_secs(10),
            replication: false,
        }
    }

    /// Returns the address as people write it, for messages.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", self.port),
            Host::Tcp(name) => format!("{name}:{}", self.port),
            Host::Unix(_) => self.socket_path().unwrap_or_default().display().to_string(),
        }
    }

    /// Returns the path of the unix socket, if the host is one.
    pub(crate) fn socket_path(&self) -> Option<PathBuf> {
        match &self.host {
            Host::Tcp(_) => None,
            Host::Unix(directory) => Some(directory.join(format!(".s.PGSQL.{}", self.port))),
        }
    }
}

/// A server's address without its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name or an IP address.
    Tcp(String),
    /// The directory that holds the server's unix socket.
    Unix(PathBuf),
}

impl From<&str> for Host {
    /// Reads a host as PostgreSQL's own tools do: what begins with `/` is the directory of a unix
    /// socket.
    fn from(text: &str) -> Self {
        if text.starts_with('/') {
            Self::Unix(PathBuf::from(text))
        } else {
            Self::Tcp(text.to_owned())
        }
    }
}

impl From<String> for Host {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<PathBuf> for Host {
    fn from(directory: PathBuf) -> Self {
        Self::Unix(directory)
    }
}

/// Whether a TCP connection is encrypted; unix sockets never are, whatever is asked for (as in
/// libpq).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// No encryption.
    Disable,
    /// Encryption if the server offers it, without checking who it is: no protection from an active
    /// attacker.
    #[default]
    Prefer,
    /// Encryption or failure. The server's certificate is not checked, but a login by SCRAM is
    /// bound to it.
    Require,
    /// Encryption with a certificate that a trusted authority signed for the name or address that
    /// was connected to.
    VerifyFull {
        /// A PEM file of trusted authorities; a self-signed server certificate may stand in it as
        /// itself.
        ca_file: PathBuf,
    },
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let mut config = Config::new("db.example", 5432, "dr");
        config.password = Some("hunter2".into());
        let shown = format!("{config:?} {config:#?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn targets_are_written_as_people_write_them() {
        assert_eq!(
            Config::new("db.example", 5432, "dr").target(),
            "db.example:5432"
        );
        assert_eq!(Config::new("::1", 5432, "dr").target(), "[::1]:5432");
        assert_eq!(
            Config::new("/run/pg", 5433, "dr").target(),
            "/run/pg/.s.PGSQL.5433"
        );
    }
}
