//! `dr kit rehearse`.

use std::path::{Path, PathBuf};

use dr_coordination::identity::read_identity;
use dr_model::RegionName;
use futures::future::join_all;
use serde_json::json;

use crate::commands::check::{Finding, Level};
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::kit::{SECRETS, fetch, find, is_optional, program, unpack};
use crate::output::{Output, Tone, counted};
use crate::readiness::{self, Found, Standpoint};
use crate::wiring::Setup;

/// Prove that a failover can be planned from a kit alone
///
/// Fetches the newest kit of a store into an empty directory that is removed afterwards, and from
/// there looks for every secret, asks every store, makes the plan of a failover of each workload to
/// each region, and tries what it leans on: the name servers with their keys, the hosts, the
/// services. Changes nothing, and tries whether the store of the region moved to takes a small
/// object.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The store: a path, a URL, or `{ url: …, endpoint: … }` as in dr.yaml
    #[arg(long, value_name = "LOCATION")]
    from_store: String,

    /// The region that would be moved to; each unless given
    #[arg(long, value_name = "REGION")]
    to: Option<RegionName>,

    /// Where the files of secrets are that are not at their paths
    #[arg(long, value_name = "DIRECTORY")]
    secrets: Option<PathBuf>,
}

/// A directory that is removed when it is dropped.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) async fn run(args: &Args, output: &Output) -> Result<Exit> {
    // Before anything is asked over the network.
    let secrets_directory = args.secrets.as_deref().map(directory).transpose()?;
    let kit = fetch(&args.from_store).await?;
    let name = format!("dr-rehearsal-{:016x}", rand::random::<u64>());
    let room = Room(std::env::temp_dir().join(name));
    unpack(&kit, &room.0, "--secrets")?;
    if let Some(secrets) = secrets_directory {
        let there = room.0.join(SECRETS);
        std::fs::remove_dir(&there)?;
        std::os::unix::fs::symlink(secrets, there)?;
    }
    let mut findings = vec![age(&kit)?];
    let setup = Setup::load(&room.0)?;
    if let Some(to) = &args.to {
        setup.region(to)?;
    }
    findings.extend(secrets(&setup, &kit));
    findings.extend(stores(&setup).await);
    let mut is_planned = false;
    for (name, workload) in &setup.config.workloads {
        let regions = std::iter::once(&workload.home).chain(&workload.recovery);
        for to in regions.filter(|to| args.to.as_ref().is_none_or(|only| only == *to)) {
            let look = readiness::assess(&setup, name, workload, to, Standpoint::Rehearsal);
            let Some(readiness) = look.await? else {
                continue;
            };
            is_planned = true;
            let finding = |check: &readiness::Precheck| {
                let level = match check.found {
                    Found::Passed => Level::Ok,
                    Found::Warning => Level::Warning,
                    Found::Unknown => Level::Unknown,
                    Found::Failed => Level::Failed,
                };
                let subject = format!("{name} to {to}: {}", check.name);
                Finding::new(level, subject, check.detail.clone())
            };
            findings.extend(readiness.checks.iter().map(finding));
        }
    }
    if let (false, Some(to)) = (is_planned, &args.to) {
        let what = format!(
            "no move to `{to}` can be rehearsed: every workload has its primary there, or no place"
        );
        return Err(CommandError::new(Exit::Refused, what)
            .hint("leave `--to` out to rehearse every move that there is"));
    }
    report(&kit.content.hash(), &findings, output)
}

/// Returns a directory of secrets, absolute.
fn directory(path: &Path) -> Result<PathBuf> {
    let there = path.canonicalize().and_then(|there| {
        std::fs::read_dir(&there)?;
        Ok(there)
    });
    there.map_err(|error| {
        let what = format!("`--secrets {}` cannot be read", path.display());
        CommandError::new(Exit::Usage, what)
            .because(error)
            .hint("name a directory that holds the files of the secrets, under their own names")
    })
}

fn report(hash: &str, findings: &[Finding], output: &Output) -> Result<Exit> {
    let worst = findings.iter().map(|finding| finding.level).max();
    if output.json {
        output.json(&json!({ "kit": hash, "findings": findings }))?;
    } else {
        for finding in findings {
            output.data(&finding.render(output.stdout))?;
        }
        let (tone, text) = match worst {
            Some(Level::Failed | Level::Unknown) => {
                (Tone::Bad, "a failover from this kit is not sure to work")
            }
            _ => (Tone::Good, "a failover can be planned from this kit"),
        };
        let text = format!("{}: {text}.", counted(findings.len(), "check"));
        output.data(&output.stdout.paint(tone, &text))?;
    }
    Ok(match worst {
        Some(Level::Failed) => Exit::Failed,
        Some(Level::Unknown) => Exit::Unavailable,
        _ => Exit::Ok,
    })
}

/// Says of when and for which program the kit is.
fn age(kit: &dr_coordination::kit::Kit) -> Result<Finding> {
    let ours = program()?;
    let theirs = &kit.content.program;
    let subject = "recovery kit";
    let made = format!("made at {:.0} by dr {}", kit.created_at, theirs.version);
    Ok(if ours.blake3 == theirs.blake3 {
        Finding::ok(subject, format!("{made}, which is this program"))
    } else {
        Finding::new(
            Level::Warning,
            subject,
            format!("{made}, and this is another program ({})", ours.version),
        )
    })
}

/// Looks for what the kit does not hold.
fn secrets(setup: &Setup, kit: &dr_coordination::kit::Kit) -> Vec<Finding> {
    let look = |note: &dr_coordination::kit::SecretNote| {
        let subject = format!("secret {}", note.reference);
        let place = note.used_at.join(", ");
        match find(setup, note) {
            Ok(_) => Finding::ok(subject, format!("it is there, for {place}")),
            Err(error) if is_optional(setup, note) => {
                let why = dr_provider::error::chain(&error);
                let found =
                    format!("{why}; a failover does without, and nobody is told by {place}");
                Finding::new(Level::Warning, subject, found)
            }
            Err(error) => Finding::error(subject, &error)
                .remedy("set it, or name the directory of its file with --secrets"),
        }
    };
    kit.content.secrets.iter().map(look).collect()
}

/// Asks every store. That of a lost region does not answer, and nothing needs it.
async fn stores(setup: &Setup) -> Vec<Finding> {
    let looks = setup.stores.iter().map(|(region, store)| async move {
        let subject = format!("store of {region}");
        match read_identity(&**store, region).await {
            Ok(_) => Finding::ok(subject, format!("it answers at {}", store.location())),
            Err(error) if !error.is_permanent() => Finding::new(
                Level::Warning,
                subject,
                format!(
                    "{}; a failover to another region does without",
                    dr_provider::error::chain(&error)
                ),
            ),
            Err(error) => Finding::error(subject, &error),
        }
    });
    join_all(looks).await
}
