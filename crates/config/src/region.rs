//! Regions: their stores and daemons.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Value, one_of, socket_address};

use crate::scope::Scope;

/// A place that can be lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Where everything that `dr` keeps in this region is kept.
    pub store: StoreLocation,
    /// How the daemon of this region runs; `None` if none of it was configured.
    pub daemon: Option<Daemon>,
    /// How its hosts are reached by ssh; `None` if none of it was configured.
    pub ssh: Option<Ssh>,
}

/// How the hosts of a region are reached by ssh. Nothing is taken from the account's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// The private key that is shown. Absolute.
    pub identity: PathBuf,
    /// The host keys that are believed. Absolute.
    pub known_hosts: PathBuf,
    /// `dr` on the hosts: a path there, or a name to look up.
    pub program: String,
    /// Where `dr` remembers epochs on the hosts, a path there; that of the region's daemon if it is left out.
    pub state_directory: Option<String>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreLocation {
    /// A directory, absolute.
    Directory(PathBuf),
    /// A location with one of the schemes that the binary knows.
    Other {
        /// The scheme, such as `s3`.
        scheme: String,
        /// The location, or a map with it as `url` and how it is spoken to: its owner reads it.
        node: Node,
    },
}

/// How a daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Where it answers health and metrics.
    pub listen: SocketAddr,
    /// Where it keeps what it need not lose: its socket, lock and catalog. Absolute.
    pub state_directory: PathBuf,
}

impl FromNode for Daemon {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let listen = reader.required_with("listen", socket_address(None));
        let state_directory = reader.required("state_directory");
        reader.finish();
        Some(Self {
            listen: listen?,
            state_directory: state_directory?,
        })
    }
}

impl FromNode for Ssh {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let identity = reader.required("identity");
        let known_hosts = reader.required("known_hosts");
        let program = reader.or("program", "dr".to_owned());
        let state_directory = reader.optional_with("state_directory", absolute);
        let connect_timeout = reader.optional_with("connect_timeout", seconds);
        reader.finish();
        Some(Self {
            identity: identity?,
            known_hosts: known_hosts?,
            program,
            state_directory,
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(5)),
        })
    }
}

/// Reads a path on another machine, where nothing is relative to this configuration.
fn absolute(node: &Node, context: &mut Context) -> Option<String> {
    let text = String::from_node(node, context)?;
    if text.starts_with('/') {
        return Some(text);
    }
    let problem = Problem::error(&node.span, "a path on another machine must be absolute")
        .expected("a path such as `/var/lib/dr`");
    context.report(problem);
    None
}

/// Reads whole seconds, which is what the ssh client counts in.
fn seconds(node: &Node, context: &mut Context) -> Option<Duration> {
    let duration = Duration::from_node(node, context)?;
    let most = Duration::from_secs(60);
    if duration >= Duration::from_secs(1) && duration <= most && duration.subsec_nanos() == 0 {
        return Some(duration);
    }
    let problem = Problem::error(&node.span, format!("found {duration:?}"))
        .expected("whole seconds from `1s` to `60s`");
    context.report(problem);
    None
}

impl Region {
    pub(crate) fn read(node: &Node, context: &mut Context, scope: &Scope<'_>) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let store = reader.required_with("store", |node, context| store(node, context, scope));
        let daemon = reader.optional("daemon");
        let ssh = reader.optional("ssh");
        reader.finish();
        Some(Self {
            store: store?,
            daemon,
            ssh,
        })
    }
}

/// Reads a path, a location, or a map whose `url` is a location.
fn store(node: &Node, context: &mut Context, scope: &Scope<'_>) -> Option<StoreLocation> {
    let location = match &node.value {
        Value::Map(_) => match node.get("url") {
            Some(url) => url,
            None => {
                let problem = Problem::error(&node.span, "`url` is missing")
                    .expected("where the store is, such as `s3://acme-dr-use1`");
                context.report(problem);
                return None;
            }
        },
        _ => node,
    };
    let text = String::from_node(location, context)?;
    let with_scheme = text.split_once("://");
    if let Some((scheme, _)) = with_scheme
        && let Some(check) = scope.kinds.stores.get(scheme)
    {
        let before = context.errors();
        check(node, context);
        let scheme = scheme.to_owned();
        let node = node.clone();
        return (context.errors() == before).then_some(StoreLocation::Other { scheme, node });
    }
    if let Value::Map(_) = node.value
        && with_scheme.is_none_or(|(scheme, _)| scheme == "file")
    {
        let problem = Problem::error(&location.span, "a directory takes no settings")
            .hint("write the path as `store` itself");
        context.report(problem);
        return None;
    }
    let Some((scheme, rest)) = with_scheme else {
        return PathBuf::from_node(node, context).map(StoreLocation::Directory);
    };
    if scheme == "file" {
        if rest.starts_with('/') {
            return Some(StoreLocation::Directory(PathBuf::from(rest)));
        }
        let problem = Problem::error(&node.span, "a `file://` location must be absolute")
            .expected("`file:///srv/dr/store`, or a path relative to the configuration");
        context.report(problem);
        return None;
    }
    let mut known = vec!["file"];
    known.extend(scope.kinds.stores.keys());
    let written = location.as_text().unwrap_or_default();
    let what = format!("`{written}` is no store that can be used");
    let problem = Problem::error(&location.span, what).expected(format!(
        "a path, or a location with the scheme {}",
        one_of(&known)
    ));
    context.report(problem);
    None
}
