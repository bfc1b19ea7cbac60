//! Network addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::scalar::{report_unparsed, text};
use super::{Context, Node};

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn split(text: &str, default_port: Option<u16>) -> Option<Endpoint> {
    if text.parse::<Ipv6Addr>().is_ok() {
        let host = text.to_owned();
        return default_port.map(|port| Endpoint { host, port });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, default_port),
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let valid = match bare {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(allowed)
        }
    };
    let host = bare.unwrap_or(host).to_owned();
    valid.then_some(())?;
    port.map(|port| Endpoint { host, port })
}

/// Makes a function that reads `name`, `name:port`, `10.0.0.1:53` or `[::1]:53`; without a default the port must stand
/// there.
pub fn endpoint(default_port: Option<u16>) -> impl Fn(&Node, &mut Context) -> Option<Endpoint> {
    move |node, context| {
        let expected = match default_port {
            Some(port) => format!("`host` or `host:port` (port {port} if left out)"),
            None => "`host:port`".to_owned(),
        };
        let text = text(node, context, &expected)?;
        let found = split(&text, default_port);
        if found.is_none() {
            let what = format!("`{text}` is not a network address");
            report_unparsed(node, context, &expected, &what);
        }
        found
    }
}

/// Makes a function that reads an IP address with a port; without a default the port must stand there.
pub fn socket_address(
    default_port: Option<u16>,
) -> impl Fn(&Node, &mut Context) -> Option<SocketAddr> {
    move |node, context| {
        let expected = match default_port {
            Some(port) => format!("an IP address, with a port unless it is {port}"),
            None => "an IP address and a port, such as `127.0.0.1:8421`".to_owned(),
        };
        let text = text(node, context, &expected)?;
        let address = split(&text, default_port)
            .and_then(|e| Some(SocketAddr::new(e.host.parse::<IpAddr>().ok()?, e.port)));
        if address.is_none() {
            let what = format!("`{text}` is not an address that can be used here");
            report_unparsed(node, context, &expected, &what);
        }
        address
    }
}
