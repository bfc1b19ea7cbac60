//! What has to be known of a record, and how it stands in the configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dr_model::RegionName;
use dr_model::document::{
    Context, FromNode, Node, Problem, Reader, Spanned, Template, choice, list, socket_address,
};
use dr_provider::Secret;
use hickory_proto::rr::Name;

use super::content::parse_answer;

const DNS_PORT: u16 = 53;

/// A record that is switched between regions.
#[derive(Clone, Debug)]
pub struct Rfc2136Options {
    /// Its name: `orders.acme.example`.
    pub name: String,
    /// The zone's primary server, which takes updates.
    pub server: SocketAddr,
    /// The key that signs updates; without one they go unsigned.
    pub tsig: Option<Tsig>,
    /// How long clients may keep an answer; whole seconds.
    pub ttl: Duration,
    /// Per region an IPv4 or IPv6 address, or a name for a CNAME.
    pub answers: BTreeMap<RegionName, String>,
    /// The zone; found by asking `server` if it is left out.
    pub zone: Option<String>,
    /// More authoritative servers to look at when the switch is verified, besides those that the
    /// zone names.
    pub servers: Vec<SocketAddr>,
    /// Resolvers of clients to look at when the switch is verified.
    pub resolvers: Vec<SocketAddr>,
}

/// A shared key (RFC 8945).
#[derive(Clone, Debug)]
pub struct Tsig {
    /// Its name, as the server knows it.
    pub name: String,
    /// What it is used with.
    pub algorithm: Algorithm,
    /// The key in base64, or references to it, which are resolved at each use.
    pub secret: Secret,
}

/// How updates are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`.
    #[default]
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

impl FromNode for Rfc2136Options {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        // Whoever chose this type has read what every kind has.
        reader.node("kind");
        reader.node("optional");
        let name = reader.required_with("name", domain_name);
        let server = reader.required_with("server", socket_address(Some(DNS_PORT)));
        let tsig = reader.optional::<Tsig>("tsig");
        let ttl = reader.required_with("ttl", ttl);
        let answers = reader.required_with("answers", answers);
        let zone = reader.optional_with("zone", domain_name);
        let servers = reader.optional_with("servers", list(socket_address(Some(DNS_PORT))));
        let resolvers = reader.optional_with("resolvers", list(socket_address(Some(DNS_PORT))));
        reader.finish();
        Some(Self {
            name: name?,
            server: server?,
            tsig,
            ttl: ttl?,
            answers: answers?,
            zone,
            servers: servers.unwrap_or_default(),
            resolvers: resolvers.unwrap_or_default(),
        })
    }
}

impl FromNode for Tsig {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let name = reader.required_with("name", domain_name);
        let algorithm = reader.optional_with(
            "algorithm",
            choice(&[
                ("hmac-sha256", Algorithm::HmacSha256),
                ("hmac-sha384", Algorithm::HmacSha384),
                ("hmac-sha512", Algorithm::HmacSha512),
            ]),
        );
        let secret = reader.required::<Template>("secret");
        reader.finish();
        Some(Self {
            name: name?,
            algorithm: algorithm.unwrap_or_default(),
            secret: Secret::new(secret?.text()),
        })
    }
}

fn domain_name(node: &Node, context: &mut Context) -> Option<String> {
    let text = String::from_node(node, context)?;
    if !text.is_empty() && Name::from_ascii(&text).is_ok_and(|name| name.num_labels() > 0) {
        return Some(text);
    }
    let problem =
        Problem::error(&node.span, "not a domain name").expected("such as `dr.acme.example`");
    context.report(problem);
    None
}

fn ttl(node: &Node, context: &mut Context) -> Option<Duration> {
    let ttl = Duration::from_node(node, context)?;
    if ttl.subsec_nanos() == 0 && u32::try_from(ttl.as_secs()).is_ok_and(|ttl| ttl < 1 << 31) {
        return Some(ttl);
    }
    let problem = Problem::error(&node.span, "cannot be a time to live");
    context.report(problem.expected("whole seconds, such as `30s`"));
    None
}

fn answers(node: &Node, context: &mut Context) -> Option<BTreeMap<RegionName, String>> {
    let written = BTreeMap::<RegionName, Spanned<String>>::from_node(node, context)?;
    for answer in written.values() {
        if parse_answer(&answer.value).is_none() {
            let problem = Problem::error(&answer.span, "cannot be an answer")
                .expected("an IPv4 or IPv6 address, or a domain name");
            context.report(problem);
        }
    }
    let answers = written.into_iter();
    Some(
        answers
            .map(|(region, answer)| (region, answer.value))
            .collect(),
    )
}
