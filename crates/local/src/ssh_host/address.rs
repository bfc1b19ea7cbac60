//! `ssh://user@name:port`.

use std::fmt;
use std::str::FromStr;

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAddress {
    /// The account.
    pub user: String,
    /// Its name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The text is no address of a host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no host that can be reached by ssh: expected `ssh://user@name` or `ssh://user@name:port`"
)]
pub struct InvalidAddress(String);

impl FromStr for SshAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAddress(text.to_owned());
        let rest = text.strip_prefix("ssh://").ok_or_else(invalid)?;
        let (user, place) = rest.split_once('@').ok_or_else(invalid)?;
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, rest) = bracketed.split_once(']').ok_or_else(invalid)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or_else(invalid)?),
                };
                (host, port)
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            None => 22,
            Some(text) => text.parse().map_err(|_| invalid())?,
        };
        // Nothing that could be taken for an option or a shell's word.
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if port == 0 || !plain(user, "._-") || !plain(host, "._-:") {
            return Err(invalid());
        }
        Ok(Self {
            user: user.to_owned(),
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port } = self;
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host.clone(),
        };
        match port {
            22 => write!(f, "ssh://{user}@{host}"),
            port => write!(f, "ssh://{user}@{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ssh://postgres@db1.example", "postgres", "db1.example", 22)]
    #[case("ssh://dr@10.0.0.1:2222", "dr", "10.0.0.1", 2222)]
    #[case("ssh://dr@[2001:db8::1]:2222", "dr", "2001:db8::1", 2222)]
    #[case("ssh://dr@[::1]", "dr", "::1", 22)]
    fn an_address_is_read_and_written(
        #[case] text: &str,
        #[case] user: &str,
        #[case] host: &str,
        #[case] port: u16,
    ) {
        let address: SshAddress = text.parse().unwrap();
        assert_eq!(
            (address.user.as_str(), address.host.as_str(), address.port),
            (user, host, port)
        );
        assert_eq!(address.to_string(), text);
    }

    #[rstest]
    #[case("local")]
    #[case("ssh://db1")]
    #[case("ssh://@db1")]
    #[case("ssh://dr@")]
    #[case("ssh://dr@db1:0")]
    #[case("ssh://dr@db1:x")]
    #[case("ssh://dr@-oProxyCommand=reboot")]
    #[case("ssh://-l@db1")]
    #[case("ssh://dr@db1 reboot")]
    #[case("ssh://dr@[::1")]
    fn anything_else_is_refused(#[case] text: &str) {
        assert!(text.parse::<SshAddress>().is_err(), "{text}");
    }
}
