//! The version of a PostgreSQL server.

use std::fmt;

/// A server's version as PostgreSQL counts it: `150018` is 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// Returns the major version, such as 15.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }

    /// Reads the text that the server reports, such as `15.18 (Debian 15.18-0+deb12u1)` or
    /// `18beta2`.
    ///
    /// `server_version_num` itself is not reported at login, so it is computed as libpq's
    /// `PQserverVersion` does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| -> Option<u32> {
            let end = text
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len());
            text[..end].parse().ok()
        };
        let major = number(text)?;
        let after_major = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let minor = after_major.strip_prefix('.').and_then(number).unwrap_or(0);
        // Before 10 there were three numbers, of which the second belonged to the major version.
        let value = if major >= 10 {
            major * 10_000 + minor
        } else {
            major * 10_000 + minor * 100
        };
        Some(Self(value))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.0 % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_servers_report() {
        let version = |text| ServerVersion::parse(text).map(|version| version.0);
        assert_eq!(version("15.18 (Debian 15.18-0+deb12u1)"), Some(150_018));
        assert_eq!(version("18beta2"), Some(180_000));
        assert_eq!(version("9.6.24"), Some(90_600));
        assert_eq!(version("devel"), None);
    }
}
