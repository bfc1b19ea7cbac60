//! Reading the options from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dr_model::RegionName;
use dr_model::document::{Context, FromNode, Node, Problem, Reader, Template, choice, map};
use dr_pgwire::{Host as Address, TlsMode};

use super::{InstanceOptions, Options, StandbyPolicy};

/// Time between two heartbeats unless told otherwise: the resolution of the achieved recovery point.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The shortest heartbeat: each one is a commit.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);

impl FromNode for Options {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let kind: Option<String> = reader.required("kind");
        let sync = reader.or_default::<Vec<RegionName>>("sync");
        reader.optional_with("on_store_loss", choice(&[("block", ())]));
        let user = reader.or("user", "dr".to_owned());
        let password = reader.optional::<Template>("password");
        let database = reader.or("database", "postgres".to_owned());
        let tls = reader.optional_with("tls", tls).unwrap_or_default();
        let heartbeat = reader
            .optional_with("heartbeat", heartbeat)
            .unwrap_or(HEARTBEAT);
        let slot = reader.optional_with("slot", choice(&[("limited", false), ("unlimited", true)]));
        let instances =
            reader.required_with("regions", map::<RegionName, _>(InstanceOptions::from_node));
        reader.finish();
        kind?;
        Some(Self {
            sync,
            user,
            password: password.map(|template| template.text().to_owned()),
            database,
            tls,
            heartbeat,
            slot_unlimited: slot.unwrap_or(false),
            instances: instances?,
        })
    }
}

impl FromNode for InstanceOptions {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let host = reader.required_with("host", host);
        let address = reader.optional::<String>("address");
        let port = reader.or("port", 5432);
        let data_directory = reader.required::<PathBuf>("data_directory");
        let standby = reader.optional_with(
            "standby",
            choice(&[("warm", StandbyPolicy::Warm), ("none", StandbyPolicy::None)]),
        );
        let settings = reader.or_default::<BTreeMap<String, String>>("settings");
        let start = reader.optional::<Vec<String>>("start");
        let stop = reader.optional::<Vec<String>>("stop");
        reader.finish();
        Some(Self {
            host: host?,
            address: Address::from(address.unwrap_or_else(|| "127.0.0.1".to_owned())),
            port,
            data_directory: data_directory?,
            standby: standby.unwrap_or(StandbyPolicy::None),
            settings,
            start,
            stop,
        })
    }
}

/// Reads a host. Hosts over ssh are not there yet: refused here, not on the day.
fn host(node: &Node, context: &mut Context) -> Option<String> {
    let text = String::from_node(node, context)?;
    if text == "local" {
        return Some(text);
    }
    let what = if text.starts_with("ssh://") {
        format!("host `{text}`: this version of dr reaches hosts only as `local`")
    } else {
        format!("`{text}` is not a host")
    };
    context.report(
        Problem::error(&node.span, what)
            .expected("`local`")
            .hint("run the daemon of each region on the machine of its server"),
    );
    None
}

fn tls(node: &Node, context: &mut Context) -> Option<TlsMode> {
    if let Some(text) = node.as_text()
        && let Some(path) = text.strip_prefix("verify-full:")
    {
        return Some(TlsMode::VerifyFull {
            ca_file: context.base().join(path),
        });
    }
    let words = [
        ("disable", TlsMode::Disable),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-full:/path/to/ca.pem", TlsMode::Prefer),
    ];
    choice(&words)(node, context)
}

fn heartbeat(node: &Node, context: &mut Context) -> Option<Duration> {
    let interval = Duration::from_node(node, context)?;
    if interval >= SHORTEST_HEARTBEAT {
        return Some(interval);
    }
    context.report(
        Problem::error(&node.span, "the heartbeat is too short")
            .expected(format!("{} ms or more", SHORTEST_HEARTBEAT.as_millis())),
    );
    None
}
