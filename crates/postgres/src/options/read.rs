//! Reading the options from the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dr_model::RegionName;
use dr_model::document::{Context, FromNode, Node, Problem, Reader, Template, Value, choice, map};
use dr_pgwire::{Host as Address, TlsMode};

use super::{
    BackupOptions, BackupSource, GuardOptions, InstanceOptions, Options, SlotPolicy, StandbyPolicy,
    StoreLoss, VerifyOptions, distinct,
};

/// Time between two heartbeats unless told otherwise: the resolution of the achieved recovery point.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest heartbeat in synchronous mode. The promise conditions are written into chunks at least every 10 s
/// (PROTOCOL 5), they are looked at every 4 s, and an idle database has a chunk only when the heartbeat beats.
pub(crate) const LONGEST_SYNCHRONOUS: Duration = Duration::from_secs(5);

/// The shortest time after which synchronous mode may be given up: each time is an epoch.
const SHORTEST_DEGRADE: Duration = Duration::from_secs(5);

/// How many seconds the lease of a guard may have.
const LEASES: std::ops::RangeInclusive<u64> = 3..=300;

/// The shortest heartbeat: each one is a commit.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);

impl FromNode for Options {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let kind: Option<String> = reader.required("kind");
        let sync = reader.or_default::<Vec<RegionName>>("sync");
        let on_store_loss = reader.optional_with("on_store_loss", store_loss);
        let user = reader
            .optional_with("user", named)
            .unwrap_or_else(|| "dr".to_owned());
        let password = reader.optional::<Template>("password");
        let database = reader
            .optional_with("database", named)
            .unwrap_or_else(|| "postgres".to_owned());
        let tls = reader.optional_with("tls", tls).unwrap_or_default();
        let heartbeat = reader
            .optional_with("heartbeat", heartbeat)
            .unwrap_or(HEARTBEAT);
        let slot = reader.optional_with("slot", slot_policy);
        let backup = reader.optional_with("backup", BackupOptions::from_node);
        let verify = reader.optional_with("verify", VerifyOptions::from_node);
        let instances =
            reader.required_with("regions", map::<RegionName, _>(InstanceOptions::from_node));
        if !sync.is_empty() && heartbeat > LONGEST_SYNCHRONOUS {
            let what = "the heartbeat is too long for synchronous mode";
            let expected = format!("{} s or less beside `sync`", LONGEST_SYNCHRONOUS.as_secs());
            let span = reader.span().clone();
            reader
                .context()
                .report(Problem::error(&span, what).expected(expected));
        }
        let regions = node.get("regions");
        reader.finish();
        kind?;
        let options = Self {
            sync,
            on_store_loss: on_store_loss.unwrap_or_default(),
            user,
            password: password.map(|template| template.text().to_owned()),
            database,
            tls,
            heartbeat,
            slot: slot.unwrap_or_default(),
            backup: backup.unwrap_or_default(),
            verify: verify.unwrap_or_default(),
            instances: instances?,
        };
        if let Some(regions) = regions {
            distinct::check(regions, &options, context);
        }
        Some(options)
    }
}

/// Reads a name on the server. An empty one would be taken for that of the operating system's user.
fn named(node: &Node, context: &mut Context) -> Option<String> {
    let name = String::from_node(node, context)?;
    if name.is_empty() {
        context.report(Problem::error(&node.span, "the name is empty"));
        return None;
    }
    Some(name)
}

impl FromNode for BackupOptions {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let default = Self::default();
        let sources = [
            ("auto", BackupSource::Auto),
            ("local", BackupSource::Local),
            ("remote", BackupSource::Remote),
        ];
        let source = reader.optional_with("source", choice(&sources));
        let full_every = reader.or("full_every", default.full_every);
        let force_version = reader.or("force_version", default.force_version);
        reader.finish();
        Some(Self {
            source: source.unwrap_or(default.source),
            full_every,
            force_version,
        })
    }
}

impl FromNode for VerifyOptions {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let again = reader.or("again", Self::default().again);
        let scratch = reader.optional::<PathBuf>("scratch");
        let checks = reader.or_default::<Vec<String>>("checks");
        reader.finish();
        Some(Self {
            again,
            scratch,
            checks,
        })
    }
}

impl FromNode for InstanceOptions {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let host = reader.required_with("host", host);
        let address = reader.optional::<String>("address");
        let port = reader.optional_with("port", port).unwrap_or(5432);
        let data_directory = reader.required::<PathBuf>("data_directory");
        let standby = reader.optional_with(
            "standby",
            choice(&[("warm", StandbyPolicy::Warm), ("none", StandbyPolicy::None)]),
        );
        let settings = reader.or_default::<BTreeMap<String, String>>("settings");
        let start = reader.optional::<Vec<String>>("start");
        let stop = reader.optional::<Vec<String>>("stop");
        let promote = reader.optional::<Vec<String>>("promote");
        let guard = reader.optional_with("guard", GuardOptions::from_node);
        if guard.is_some() && start.is_none() {
            let span = reader.span().clone();
            let problem = Problem::error(&span, "nothing says how the server is started under its guard")
                .expected("`start` beside `guard`")
                .hint("for example `start: [systemctl, start, dr-guard@orders]`; `pg_ctl` would start it without the guard");
            reader.context().report(problem);
        }
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
            promote,
            guard,
        })
    }
}

impl FromNode for GuardOptions {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let lease = reader.required_with("lease", lease);
        let arguments = reader.or_default::<Vec<String>>("arguments");
        reader.finish();
        Some(Self {
            lease: lease?,
            arguments,
        })
    }
}

/// Reads the length of a lease: whole seconds, because the register holds it so.
fn lease(node: &Node, context: &mut Context) -> Option<Duration> {
    let lease = Duration::from_node(node, context)?;
    if LEASES.contains(&lease.as_secs()) && lease.subsec_nanos() == 0 {
        return Some(lease);
    }
    let problem = Problem::error(&node.span, "the lease of a guard cannot be that long")
        .expected(format!("{} to {} whole seconds", LEASES.start(), LEASES.end()))
        .hint("shorter, and a slow answer of the store stops the primary; longer, and a failover waits as long");
    context.report(problem);
    None
}

/// Reads a port. At none a server can be reached at port 0.
fn port(node: &Node, context: &mut Context) -> Option<u16> {
    let number = u16::from_node(node, context)?;
    if number == 0 {
        context.report(Problem::error(&node.span, "`0` is not a port").expected("1 to 65535"));
        return None;
    }
    Some(number)
}

/// Reads a host. What an address over ssh has to look like is for whoever opens it.
fn host(node: &Node, context: &mut Context) -> Option<String> {
    let text = String::from_node(node, context)?;
    if text == "local" || text.starts_with("ssh://") {
        return Some(text);
    }
    context.report(
        Problem::error(&node.span, format!("`{text}` is not a host"))
            .expected("`local` or `ssh://user@name`"),
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

/// Reads `block`, or `degrade_after` with its time.
fn store_loss(node: &Node, context: &mut Context) -> Option<StoreLoss> {
    if !matches!(node.value, Value::Map(_)) {
        return choice(&[("block", StoreLoss::Block)])(node, context);
    }
    let mut reader = Reader::open(node, context)?;
    let after = reader.required_with("degrade_after", degrade_after);
    reader.finish();
    after.map(StoreLoss::DegradeAfter)
}

/// Reads `limited`, `unlimited`, which is never dropped either, or both choices one by one.
fn slot_policy(node: &Node, context: &mut Context) -> Option<SlotPolicy> {
    let words = [("limited", false), ("unlimited", true)];
    let never_if = |unlimited: bool| SlotPolicy {
        unlimited,
        drop_below_percent: SlotPolicy::default()
            .drop_below_percent
            .filter(|_| !unlimited),
    };
    if !matches!(node.value, Value::Map(_)) {
        return choice(&words)(node, context).map(never_if);
    }
    let mut reader = Reader::open(node, context)?;
    let unlimited = reader.optional_with("keep", choice(&words));
    let drop_below = reader.optional_with("drop_below", drop_below);
    reader.finish();
    let default = never_if(unlimited.unwrap_or(false));
    Some(SlotPolicy {
        drop_below_percent: drop_below.unwrap_or(default.drop_below_percent),
        ..default
    })
}

/// Reads a part of the disk, or `never`. A half or more would be a slot that is dropped for what others keep there.
fn drop_below(node: &Node, context: &mut Context) -> Option<Option<u8>> {
    let text = String::from_node(node, context)?;
    if text == "never" {
        return Some(None);
    }
    let percent = text.strip_suffix('%').and_then(|text| text.parse().ok());
    if let Some(percent @ 1..=50) = percent {
        return Some(Some(percent));
    }
    let problem = Problem::error(&node.span, format!("`{text}` is not a part of a disk"));
    context.report(problem.expected("`1%` to `50%`, or `never`"));
    None
}

fn degrade_after(node: &Node, context: &mut Context) -> Option<Duration> {
    let after = Duration::from_node(node, context)?;
    if after >= SHORTEST_DEGRADE {
        return Some(after);
    }
    context.report(
        Problem::error(
            &node.span,
            "a store may be silent for longer than that and be well",
        )
        .expected(format!("{} s or more", SHORTEST_DEGRADE.as_secs())),
    );
    None
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

#[cfg(test)]
mod tests {
    use dr_model::document::{Span, Spanned};
    use rstest::rstest;

    use super::*;

    fn node(value: Value) -> Node {
        Spanned::new(Span::new("dr.yaml", 1, 1), value)
    }

    fn text(value: &str) -> Node {
        node(Value::String(value.to_owned()))
    }

    fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
        let key = |name: &str| Spanned::new(Span::new("dr.yaml", 1, 1), name.to_owned());
        node(Value::Map(
            entries.map(|(name, value)| (key(name), value)).into(),
        ))
    }

    fn problems(sync: &[&str], heartbeat: &str, host: &str) -> Vec<String> {
        let instance = map([("host", text(host)), ("data_directory", text("/data"))]);
        let resource = map([
            ("kind", text("postgres")),
            (
                "sync",
                node(Value::List(
                    sync.iter().map(|region| text(region)).collect(),
                )),
            ),
            ("heartbeat", text(heartbeat)),
            ("regions", map([("us-east-1", instance)])),
        ]);
        let mut context = Context::without_references("/etc/dr");
        let read = Options::from_node(&resource, &mut context);
        let problems = context.into_problems();
        assert_eq!(read.is_some() && problems.is_empty(), problems.is_empty());
        problems.iter().map(ToString::to_string).collect()
    }

    #[rstest]
    #[case::plain(&[], "1m", "local", None)]
    #[case::synchronous(&["us-west-2"], "5s", "local", None)]
    #[case::too_long(&["us-west-2"], "10s", "local", Some("5 s or less beside `sync`"))]
    #[case::too_short(&[], "1ms", "local", Some("50 ms or more"))]
    #[case::ssh(&[], "5s", "ssh://postgres@db", None)]
    #[case::no_host(&[], "5s", "db", Some("`local` or `ssh://user@name`"))]
    fn what_cannot_work_is_refused_when_it_is_read(
        #[case] sync: &[&str],
        #[case] heartbeat: &str,
        #[case] host: &str,
        #[case] expected: Option<&str>,
    ) {
        let problems = problems(sync, heartbeat, host);
        match expected {
            None => assert_eq!(problems, Vec::<String>::new()),
            Some(expected) => assert!(problems[0].contains(expected), "{problems:?}"),
        }
    }

    #[rstest]
    #[case("user")]
    #[case("database")]
    fn an_empty_name_is_refused(#[case] key: &str) {
        let mut context = Context::without_references("/etc/dr");
        let resource = map([("kind", text("postgres")), (key, text(""))]);
        assert!(Options::from_node(&resource, &mut context).is_none());
        let problems = context.into_problems();
        let said = |p: &Problem| p.to_string().contains(&format!("{key}: the name is empty"));
        assert!(problems.iter().any(said), "{problems:?}");
    }

    #[rstest]
    #[case::block(text("block"), Ok(StoreLoss::Block))]
    #[case::degrade(
        map([("degrade_after", text("30s"))]), Ok(StoreLoss::DegradeAfter(Duration::from_secs(30)))
    )]
    #[case::at_once(map([("degrade_after", text("1s"))]), Err("5 s or more"))]
    #[case::word(text("degrade"), Err("block"))]
    #[case::key(map([("degrade_before", text("30s"))]), Err("degrade_before"))]
    fn what_happens_when_a_store_is_lost(
        #[case] written: Node,
        #[case] expected: std::result::Result<StoreLoss, &str>,
    ) {
        let mut context = Context::without_references("/etc/dr");
        let read = store_loss(&written, &mut context);
        let problems: Vec<_> = context
            .into_problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        match expected {
            Ok(expected) => assert_eq!((read, problems), (Some(expected), Vec::new())),
            Err(said) => assert!(problems.iter().any(|p| p.contains(said)), "{problems:?}"),
        }
    }

    #[rstest]
    #[case::limited(text("limited"), Ok((false, Some(5))))]
    #[case::unlimited(text("unlimited"), Ok((true, None)))]
    #[case::nothing_said(map([]), Ok((false, Some(5))))]
    #[case::earlier(map([("drop_below", text("20%"))]), Ok((false, Some(20))))]
    #[case::never(map([("drop_below", text("never"))]), Ok((false, None)))]
    #[case::by_the_disk_alone(
        map([("keep", text("unlimited")), ("drop_below", text("10%"))]), Ok((true, Some(10)))
    )]
    #[case::too_much(map([("drop_below", text("51%"))]), Err("`1%` to `50%`"))]
    #[case::nothing_left(map([("drop_below", text("0%"))]), Err("`1%` to `50%`"))]
    #[case::bytes(map([("drop_below", text("10GB"))]), Err("`1%` to `50%`"))]
    #[case::word(text("none"), Err("limited"))]
    #[case::key(map([("drop_above", text("5%"))]), Err("drop_above"))]
    fn how_much_slots_may_keep(
        #[case] written: Node,
        #[case] expected: std::result::Result<(bool, Option<u8>), &str>,
    ) {
        let mut context = Context::without_references("/etc/dr");
        let read = slot_policy(&written, &mut context);
        let problems = context.into_problems();
        match expected {
            Ok((unlimited, drop_below_percent)) => {
                let policy = SlotPolicy {
                    unlimited,
                    drop_below_percent,
                };
                assert_eq!((read, problems.len()), (Some(policy), 0));
            }
            Err(said) => assert!(
                problems.iter().any(|p| p.to_string().contains(said)),
                "{problems:?}"
            ),
        }
    }

    fn backup(entries: &[(&str, Node)]) -> (Option<BackupOptions>, Vec<String>) {
        let key = |name: &str| Spanned::new(Span::new("dr.yaml", 1, 1), name.to_owned());
        let entries = entries
            .iter()
            .map(|(name, value)| (key(name), value.clone()));
        let node = node(Value::Map(entries.collect()));
        let mut context = Context::without_references("/etc/dr");
        let read = BackupOptions::from_node(&node, &mut context);
        let problems = context.into_problems();
        (read, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn backups_are_as_they_are_unless_told_otherwise() {
        assert_eq!(backup(&[]), (Some(BackupOptions::default()), Vec::new()));
        let (read, problems) = backup(&[
            ("source", text("remote")),
            ("full_every", text("0s")),
            ("force_version", node(Value::Bool(true))),
        ]);
        let expected = BackupOptions {
            source: BackupSource::Remote,
            full_every: Duration::ZERO,
            force_version: true,
        };
        assert_eq!((read, problems), (Some(expected), Vec::new()));
    }

    #[rstest]
    #[case("source", "agent", "`auto`, `local` or `remote`")]
    #[case("full_every", "weekly", "duration")]
    #[case("incremental", "on", "incremental")]
    fn what_a_backup_cannot_be_is_refused(
        #[case] name: &str,
        #[case] value: &str,
        #[case] expected: &str,
    ) {
        let (_, problems) = backup(&[(name, text(value))]);
        assert!(problems[0].contains(expected), "{problems:?}");
    }

    #[test]
    fn how_recovery_points_are_proven() {
        let mut context = Context::without_references("/etc/dr");
        let node = map([("scratch", text("scratch")), ("again", text("7d"))]);
        let read = VerifyOptions::from_node(&node, &mut context);
        let expected = VerifyOptions {
            again: Duration::from_secs(7 * 24 * 3600),
            scratch: Some("/etc/dr/scratch".into()),
            checks: Vec::new(),
        };
        assert_eq!((read, context.into_problems().len()), (Some(expected), 0));
    }

    #[rstest]
    #[case::whole("10s", true, None)]
    #[case::too_short("1s", true, Some("3 to 300 whole seconds"))]
    #[case::broken("3500ms", true, Some("3 to 300 whole seconds"))]
    #[case::started_without_it("10s", false, Some("`start` beside `guard`"))]
    fn a_guard_has_a_lease_and_is_what_starts_the_server(
        #[case] lease: &str,
        #[case] is_started: bool,
        #[case] expected: Option<&str>,
    ) {
        let mut entries = vec![
            ("host", text("local")),
            ("data_directory", text("/data")),
            ("guard", map([("lease", text(lease))])),
        ];
        if is_started {
            entries.push(("start", node(Value::List(vec![text("start")]))));
        }
        let key = |name: &str| Spanned::new(Span::new("dr.yaml", 1, 1), name.to_owned());
        let entries = entries.into_iter().map(|(name, value)| (key(name), value));
        let mut context = Context::without_references("/etc/dr");
        InstanceOptions::from_node(&node(Value::Map(entries.collect())), &mut context);
        let problems = context.into_problems();
        match expected {
            None => assert!(problems.is_empty(), "{problems:?}"),
            Some(expected) => {
                assert!(problems[0].to_string().contains(expected), "{problems:?}");
            }
        }
    }

    /// Two regions, each as a data directory and a port.
    fn of_two_regions(instances: [(&str, i64); 2]) -> Vec<String> {
        let [home, recovery] = instances.map(|(directory, port)| {
            map([
                ("host", text("local")),
                ("data_directory", text(directory)),
                ("port", node(Value::Integer(port))),
            ])
        });
        let resource = map([
            ("kind", text("postgres")),
            (
                "regions",
                map([("us-east-1", home), ("us-west-2", recovery)]),
            ),
        ]);
        let mut context = Context::without_references("/etc/dr");
        Options::from_node(&resource, &mut context);
        let problems = context.into_problems();
        problems.iter().map(ToString::to_string).collect()
    }

    #[rstest]
    #[case::distinct([("/data/east", 5432), ("/data/west", 5433)], None)]
    #[case::directory([("/data", 5432), ("/data/", 5433)], Some("the data directory in `us-west-2`"))]
    #[case::address([("/data/east", 5432), ("/data/west", 5432)], Some("the address and port"))]
    fn one_server_is_not_two_regions(
        #[case] instances: [(&str, i64); 2],
        #[case] expected: Option<&str>,
    ) {
        let problems = of_two_regions(instances);
        match expected {
            None => assert_eq!(problems, Vec::<String>::new()),
            Some(expected) => assert!(problems[0].contains(expected), "{problems:?}"),
        }
    }
}
