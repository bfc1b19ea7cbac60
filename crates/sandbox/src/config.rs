//! The configuration of the sandbox, as a person would write it: `dr.yaml`, schedules, runbooks, keys and passwords.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dr_model::RegionName;
use rand::RngExt;
use rand::distr::Alphanumeric;

use crate::Result;
use crate::layout::{
    APP_ROLE, DR_ROLE, KEY_NAME, Layout, NAME, Place, STANDBY_ROLE, STORE_BUCKET, STORE_KEY,
    SUPERUSER, TTL_SECONDS, WORKLOAD,
};
use crate::process::Launcher;

/// The runbook that the product ships; the sandbox uses it as it is.
const RUNBOOK: &str = include_str!("../../../runbooks/failover-region.yaml");

/// Time between two heartbeats: how exactly the recovery point is measured.
pub const HEARTBEAT: &str = "250ms";

/// What the configuration depends on beside the layout.
#[derive(Clone, Debug)]
pub struct Options {
    /// The region where the workload is served at first.
    pub home: RegionName,
    /// The regions that it can be moved to.
    pub recovery: Vec<RegionName>,
    /// Whether commits wait for the store of the first of them.
    pub sync: bool,
    /// Whether each of them keeps a standby.
    pub standby: bool,
    /// The seconds of the lease of the guard that the server at home runs under, if it does.
    pub guard: Option<u32>,
}

/// Makes passwords and the key of DNS updates, anew for every sandbox.
pub fn write_secrets(layout: &Layout, launcher: &Launcher) -> Result<()> {
    launcher.make_directory(&layout.secrets())?;
    let password = || -> String {
        let letters = rand::rng().sample_iter(Alphanumeric).take(24);
        letters.map(char::from).collect()
    };
    for role in [SUPERUSER, DR_ROLE, APP_ROLE, STANDBY_ROLE] {
        launcher.write_file(&layout.password_file(role), &password())?;
    }
    launcher.write_file(&layout.store_secret_file(), &password())?;
    let key: [u8; 32] = rand::rng().random();
    launcher.write_file(&layout.key_file(), &STANDARD.encode(key))
}

/// Writes the configuration directory.
pub fn write(layout: &Layout, options: &Options, launcher: &Launcher) -> Result<()> {
    let at = |name: &str| layout.directory.join(name);
    for directory in ["runbooks", "schedules"] {
        launcher.make_directory(&at(directory))?;
    }
    launcher.write_file(&at("dr.yaml"), &main_file(layout, options))?;
    launcher.write_file(&at("schedules/ledger.yaml"), &schedules())?;
    launcher.write_file(&at("runbooks/failover-region.yaml"), RUNBOOK)
}

/// Writes text as a YAML string; JSON's strings are among them.
fn quoted(text: impl ToString) -> String {
    serde_json::Value::from(text.to_string()).to_string()
}

fn words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(quoted).collect();
    format!("[{}]", words.join(", "))
}

fn main_file(layout: &Layout, options: &Options) -> String {
    let Options {
        home,
        recovery,
        sync,
        standby,
        guard,
    } = options;
    let sync = match recovery.first() {
        Some(first) if *sync => first.to_string(),
        _ => String::new(),
    };
    let names: Vec<&str> = recovery.iter().map(RegionName::as_str).collect();
    let secret = |path: std::path::PathBuf| quoted(format!("${{file:{}}}", path.display()));
    let (mut stores, mut instances, mut answers, mut services) =
        (String::new(), String::new(), String::new(), String::new());
    for (region, place) in &layout.regions {
        let kept = if *standby && recovery.contains(region) {
            "warm"
        } else {
            "none"
        };
        stores.push_str(&format!("  {region}:\n{}\n", store(layout, place)));
        instances.push_str(&format!(
            "          {region}:\n{}\n",
            instance(layout, region, kept, guard.filter(|_| region == home))
        ));
        answers.push_str(&format!("          {region}: {}\n", place.address));
        services.push_str(&format!(
            "          {region}:\n{}\n",
            service(layout, region)
        ));
    }
    format!(
        "\
version: 1
organization: Sandbox
regions:
{stores}workloads:
  {WORKLOAD}:
    tier: critical
    owner: sandbox@sandbox.example
    objectives: {{ rpo: 15s, rto: 5m }}
    home: {home}
    recovery: [{names}]
    resources:
      database:
        kind: postgres
        sync: [{sync}]
        user: {DR_ROLE}
        password: {password}
        database: {WORKLOAD}
        heartbeat: {HEARTBEAT}
        regions:
{instances}    services:
      app:
        regions:
{services}    traffic:
      - kind: rfc2136
        name: {NAME}
        server: {dns}
        tsig: {{ name: {KEY_NAME}, secret: {key} }}
        ttl: {TTL_SECONDS}s
        answers:
{answers}    checks:
      - http: \"http://{{answer}}:{port}/health\"
      - sql: {{ resource: database, query: \"select count(*) > 0 from ledger\" }}
",
        names = names.join(", "),
        password = secret(layout.password_file(DR_ROLE)),
        dns = layout.dns,
        key = secret(layout.key_file()),
        port = layout
            .regions
            .values()
            .next()
            .map_or(0, |place| place.app_port),
    )
}

fn store(layout: &Layout, place: &Place) -> String {
    let store = match place.store_listen() {
        None => quoted(place.store().display()),
        Some(listen) => {
            let secret = format!("${{file:{}}}", layout.store_secret_file().display());
            let keys = format!(
                "{{ access_key_id: {STORE_KEY}, secret_access_key: {} }}",
                quoted(secret)
            );
            format!(
                "{{ url: \"s3://{STORE_BUCKET}\", endpoint: \"http://{listen}\", credentials: {keys} }}"
            )
        }
    };
    format!(
        "    store: {store}\n    daemon: {{ listen: \"{listen}\", state_directory: {state} }}",
        listen = place.daemon_listen(),
        state = quoted(place.daemon().display()),
    )
}

/// Returns the command that runs the server of a region under its guard.
#[must_use]
pub fn guard_command(layout: &Layout, region: &RegionName) -> Vec<String> {
    let dr = layout.dr.display().to_string();
    let directory = layout.directory.display().to_string();
    let resource = format!("{WORKLOAD}/database");
    let words = [
        &dr,
        "--config",
        &directory,
        "host",
        "guard",
        &resource,
        "--region",
        region.as_str(),
    ];
    words.map(ToOwned::to_owned).to_vec()
}

fn instance(layout: &Layout, region: &RegionName, standby: &str, guard: Option<u32>) -> String {
    let place = &layout.regions[region];
    let data = place.data_directory().display().to_string();
    let program = layout
        .postgres_programs
        .join("pg_ctl")
        .display()
        .to_string();
    let control = |more: &[&str]| {
        let own = [program.as_str(), "--pgdata", data.as_str()];
        let all: Vec<String> = own.iter().chain(more).map(ToString::to_string).collect();
        words(&all)
    };
    let log = place.log("postgres").display().to_string();
    let (start, guard) = match guard {
        None => (
            control(&["start", "--no-wait", "--silent", "--log", &log]),
            String::new(),
        ),
        Some(seconds) => {
            let programs = layout.postgres_programs.display();
            let before = [
                "sh".to_owned(),
                "-c".to_owned(),
                // It goes on when whoever has started it is gone.
                format!(
                    "cd {} && exec setsid \"$0\" \"$@\" >>{log} 2>&1 </dev/null &",
                    place.directory.display()
                ),
                "env".to_owned(),
                format!("DR_POSTGRES_BIN={programs}"),
            ];
            let all: Vec<String> = before
                .into_iter()
                .chain(guard_command(layout, region))
                .collect();
            (
                words(&all),
                format!("\n            guard: {{ lease: {seconds}s }}"),
            )
        }
    };
    format!(
        "            host: local
            address: {address}
            port: {port}
            data_directory: {directory}
            standby: {standby}
            start: {start}
            stop: {stop}{guard}",
        address = place.address,
        port = place.postgres_port,
        directory = quoted(&data),
        stop = control(&["stop", "--mode=immediate", "--timeout=1"]),
    )
}

fn service(layout: &Layout, region: &RegionName) -> String {
    let command = |verb: &str| {
        let directory = layout.directory.display().to_string();
        let demo = layout.demo.display().to_string();
        let all = [
            &demo,
            "service",
            verb,
            "--directory",
            &directory,
            "--region",
            region.as_str(),
        ];
        words(&all.map(ToOwned::to_owned))
    };
    format!(
        "            start: {}\n            stop: {}\n            check: {}",
        command("start"),
        command("stop"),
        command("check"),
    )
}

fn schedules() -> String {
    format!(
        "\
version: 1
timezone: UTC
jobs:
  snapshot: {{ job: take-snapshot, resource: {WORKLOAD}/database, in: primary, cron: \"0 2 * * *\" }}
  wal: {{ job: ship-wal, resource: {WORKLOAD}/database, in: all, continuous: true }}
  compact: {{ job: compact-wal, resource: {WORKLOAD}/database, in: all, cron: \"* * * * *\" }}
  copy: {{ job: copy-recovery-points, resource: {WORKLOAD}/database, in: recovery, after: snapshot }}
"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use dr_config::{Check, Kinds, StepKind, load};

    use super::*;

    /// Accepts every subtree: the drivers' own readers are tested beside them.
    fn kinds() -> Kinds {
        let any: Check = |_, _| {};
        let step = |uses| {
            (
                uses,
                StepKind {
                    check: any,
                    follows: &[],
                    stands_for: &[],
                },
            )
        };
        let steps = RUNBOOK.lines().filter_map(|line| {
            let (_, rest) = line.split_once("uses: ")?;
            rest.split([',', ' ', '}']).next()
        });
        let fallback = RUNBOOK.lines().filter_map(|line| {
            let (_, rest) = line.split_once("fallback: ")?;
            rest.split([',', ' ', '}']).next()
        });
        Kinds {
            stores: BTreeMap::from([("s3", any)]),
            resources: BTreeMap::from([("postgres", any)]),
            traffic: BTreeMap::from([("rfc2136", any)]),
            jobs: BTreeSet::from([
                "take-snapshot",
                "ship-wal",
                "compact-wal",
                "copy-recovery-points",
            ]),
            steps: steps.chain(fallback).map(step).collect(),
            expiries: BTreeSet::new(),
            conditions: BTreeSet::new(),
        }
    }

    #[test]
    fn what_is_written_loads_without_a_problem() {
        let root = tempfile::tempdir().unwrap();
        let regions = [("us-east-1", 1), ("us-west-2", 2)].map(|(name, last)| {
            let place = Place {
                directory: root.path().join(name),
                address: [127, 20, 20, last].into(),
                postgres_port: 6001,
                app_port: 6002,
                daemon_port: 6003,
                store_port: (last == 2).then_some(6005),
                machine: None,
            };
            (name.parse::<RegionName>().unwrap(), place)
        });
        let layout = Layout {
            directory: root.path().to_owned(),
            dns: "127.0.0.1:6004".parse().unwrap(),
            postgres_programs: "/usr/lib/postgresql/15/bin".into(),
            dr: "/usr/bin/dr".into(),
            demo: "/usr/bin/dr-demo".into(),
            s3_server: None,
            regions: BTreeMap::from(regions.clone()),
        };
        let launcher = Launcher::new(root.path(), None);
        write_secrets(&layout, &launcher).unwrap();
        let [(home, _), (recovery, _)] = regions;
        let all = [
            (false, true, None),
            (true, true, Some(10)),
            (false, false, None),
        ];
        for (sync, standby, guard) in all {
            let options = Options {
                home: home.clone(),
                recovery: vec![recovery.clone()],
                sync,
                standby,
                guard,
            };
            write(&layout, &options, &launcher).unwrap();
            let resolver = |_: &str| Ok("a secret".to_owned());
            let loaded = load(root.path(), &kinds(), Arc::new(resolver));
            assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
        }
    }
}
