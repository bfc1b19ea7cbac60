//! `dr recovery-point list`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dr_model::{Lsn, RegionName, ResourceId};
use dr_provider::ObjectStore;
use dr_provider::ResourceDriver;
use dr_provider::driver::{Backup, LogReach, Proofs, RecoveryPoint, RecoveryPoints};
use dr_provider::error::chain;
use futures::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use super::word;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::output::{Output, Table, Tone, amount, seconds};
use crate::wiring::Setup;

/// List the recovery points in the stores, newest first
///
/// Ends with 1 if one of them cannot be read, failed when it was looked at, refers to a damaged pack, or holds damaged pages.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those of this resource, as WORKLOAD/RESOURCE
    #[arg(value_name = "RESOURCE")]
    resource: Option<ResourceId>,
    /// Only those in the store of this region
    #[arg(long)]
    region: Option<RegionName>,
}

/// A resource's recovery points in one region's store.
struct Listing {
    /// What is known of each, by label; or why that cannot be seen.
    proofs: std::result::Result<BTreeMap<String, Proofs>, String>,
    resource: ResourceId,
    region: RegionName,
    points: std::result::Result<Vec<RecoveryPoint>, String>,
    /// Those that cannot be read any more.
    damaged: Vec<String>,
    /// Those that are going to be deleted.
    given_up: Vec<RecoveryPoint>,
    /// How far the log behind each goes, by label, if that could be seen.
    reaches: BTreeMap<String, LogReach>,
    /// Where the newest log of the store ends, and when it was received.
    newest: Option<(Lsn, Option<Timestamp>)>,
    /// Why the store is not read: another region's is in its place.
    foreign: Option<CommandError>,
}

impl Listing {
    /// Says how far the log of a point goes, and whether there is more behind a hole.
    fn end(&self, point: &RecoveryPoint) -> String {
        match self.reaches.get(&point.label) {
            None => "unknown".to_owned(),
            Some(LogReach { end, hole: None }) => end.to_string(),
            Some(LogReach { end, hole: Some(_) }) => format!("{end}, a hole"),
        }
    }

    /// Returns how far the log of a point goes without a hole, and when the last of it was received, if that is known.
    fn window(&self, point: &RecoveryPoint) -> Option<(Lsn, Option<Timestamp>)> {
        let end = self.reaches.get(&point.label)?.end;
        let newest = self.newest.filter(|(newest, _)| *newest == end);
        Some((end, newest.and_then(|(_, at)| at)))
    }

    /// Returns all that it shows, those that are going to be deleted too.
    fn all(&self) -> impl Iterator<Item = &RecoveryPoint> {
        self.points.iter().flatten().chain(&self.given_up)
    }

    fn is_given_up(&self, point: &RecoveryPoint) -> bool {
        self.given_up.iter().any(|other| other.label == point.label)
    }
}

impl Listing {
    /// Returns the word for what is known of a recovery point.
    fn proof(&self, point: &RecoveryPoint) -> &'static str {
        match &self.proofs {
            _ if self.is_given_up(point) => "given up",
            _ if point.failure.is_some() => "FAILED",
            Ok(proofs) => word(proofs.get(&point.label)),
            Err(_) => "unknown",
        }
    }
}

/// Returns the recovery points in a store, and those that are going to be deleted.
pub(super) async fn listed(
    backup: &dyn Backup,
    store: &Arc<dyn ObjectStore>,
) -> dr_provider::Result<(RecoveryPoints, Vec<RecoveryPoint>)> {
    let mut points = backup.list(store).await?;
    let given_up = backup.given_up(store).await?;
    // One may have been given up between the two.
    points
        .complete
        .retain(|point| given_up.iter().all(|other| other.label != point.label));
    Ok((points, given_up))
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let setup = Setup::load(config)?;
    if let Some(region) = &args.region {
        setup.region(region)?;
    }
    let mut looks = Vec::new();
    for id in resources(&setup, args)? {
        for (region, store) in &setup.stores {
            if args.region.as_ref().is_none_or(|wanted| wanted == region) {
                let (id, driver) = (id.clone(), setup.driver(&id)?);
                let setup = &setup;
                looks.push(async move { look(setup, id, driver, region, store).await });
            }
        }
    }
    let listings = join_all(looks).await;
    let unseen: Vec<_> = listings
        .iter()
        .filter_map(|listing| {
            let why = listing
                .points
                .as_ref()
                .err()
                .or(listing.proofs.as_ref().err())?;
            Some(format!("{} in {}: {why}", listing.resource, listing.region))
        })
        .collect();
    show(&setup, &listings, &unseen, output)?;
    let mut listings = listings;
    if let Some(error) = listings
        .iter_mut()
        .find_map(|listing| listing.foreign.take())
    {
        return Err(error);
    }
    if unseen.len() == listings.len() && !listings.is_empty() {
        return Err(CommandError::new(Exit::Unavailable, "no store can be read")
            .hint("see why with `dr check --online`"));
    }
    let damaged = listings.iter().flat_map(|listing| {
        let place = format!("{} in {}", listing.resource, listing.region);
        listing
            .damaged
            .iter()
            .map(move |what| format!("{place}: {what}"))
    });
    let damaged: Vec<String> = damaged.collect();
    if !damaged.is_empty() {
        let mut error = CommandError::new(Exit::Failed, "recovery points are damaged");
        error.causes = damaged;
        return Err(error.hint("restores pass them over; take a new one, and look into the store"));
    }
    let failed: Vec<String> = listings.iter().flat_map(failed).collect();
    if !failed.is_empty() {
        let mut error = CommandError::new(Exit::Failed, "recovery points cannot be relied on");
        error.causes = failed;
        return Err(error.hint(
            "restores take another one if there is one; take a new one, and look into the store: that of another region may \
             hold a good copy",
        ));
    }
    let holding = listings.iter().flat_map(holding_damage);
    let holding: Vec<String> = holding.collect();
    if holding.is_empty() {
        // What lies in a store that was not read is not known.
        return Ok(if unseen.is_empty() {
            Exit::Ok
        } else {
            Exit::Unknown
        });
    }
    let mut error = CommandError::new(
        Exit::Failed,
        "recovery points hold damaged pages of the database",
    );
    error.causes = holding;
    Err(error.hint("they restore what the database held, damage and all: repair the database, or restore an older one"))
}

/// Looks into a store, at all of it at once: one that has fallen silent is waited for once.
async fn look(
    setup: &Setup,
    resource: ResourceId,
    driver: Arc<dyn ResourceDriver>,
    region: &RegionName,
    store: &Arc<dyn ObjectStore>,
) -> Listing {
    let unread = |points: String, foreign| Listing {
        proofs: Ok(BTreeMap::new()),
        resource: resource.clone(),
        region: region.clone(),
        points: Err(points),
        damaged: Vec::new(),
        given_up: Vec::new(),
        reaches: BTreeMap::new(),
        newest: None,
        foreign,
    };
    match setup.identity(region).await {
        Ok(_) => {}
        // What lies there says nothing of this region, whatever it is.
        Err(error) if error.exit == Exit::Refused => {
            return unread(error.message.clone(), Some(error));
        }
        Err(error) => {
            let why = std::iter::once(error.message).chain(error.causes);
            return unread(why.collect::<Vec<_>>().join(": "), None);
        }
    }
    let points = async {
        match driver.backup() {
            Some(backup) => listed(backup, store).await.map_err(|error| chain(&error)),
            None => Ok((RecoveryPoints::default(), Vec::new())),
        }
    };
    let reaches = async {
        match driver.restore() {
            Some(restore) => restore.reaches(region).await.unwrap_or_default(),
            None => BTreeMap::new(),
        }
    };
    let proofs = async {
        match driver.verify_role() {
            Some(verify) => verify.proofs(store).await.map_err(|error| chain(&error)),
            None => Ok(BTreeMap::new()),
        }
    };
    let facts = driver.observe(std::slice::from_ref(region));
    let (points, reaches, proofs, facts) = futures::join!(points, reaches, proofs, facts);
    let seen = facts.regions.get(region).map(|seen| seen.log.clone());
    let log = seen.and_then(|log| log.ok().flatten());
    let (points, damaged, given_up) = match points {
        Ok((points, given_up)) => (Ok(points.complete), points.damaged, given_up),
        Err(why) => (Err(why), Vec::new(), Vec::new()),
    };
    Listing {
        proofs,
        resource,
        region: region.clone(),
        points,
        damaged,
        given_up,
        reaches,
        newest: log.map(|log| (log.end, log.received_at)),
        foreign: None,
    }
}

/// Says of each recovery point that the proofs speak against what they say.
fn failed(listing: &Listing) -> impl Iterator<Item = String> + '_ {
    let points = listing.points.iter().flatten();
    points.filter_map(|point| {
        let (resource, region, label) = (&listing.resource, &listing.region, &point.label);
        let why = point.failure.as_ref()?;
        Some(format!("{resource} in {region}: {label}: {why}"))
    })
}

/// Says of each recovery point with damaged pages how many there are, and where.
fn holding_damage(listing: &Listing) -> impl Iterator<Item = String> + '_ {
    let points = listing.points.iter().flatten();
    let damaged = points.filter(|point| point.taken.damaged_pages > 0);
    damaged.map(|point| {
        let taken = &point.taken;
        let place = format!(
            "{} in {}: {}",
            listing.resource, listing.region, point.label
        );
        format!(
            "{place}: {} pages: {}",
            taken.damaged_pages,
            taken.damaged.join("; ")
        )
    })
}

fn resources(setup: &Setup, args: &Args) -> Result<Vec<ResourceId>> {
    if let Some(id) = &args.resource {
        // Says so if there is no such resource.
        setup.postgres_options(id)?;
        return Ok(vec![id.clone()]);
    }
    let workloads = setup.config.workloads.iter();
    let all = workloads.flat_map(|(name, workload)| {
        workload.resources.keys().map(|resource| ResourceId {
            workload: name.clone(),
            resource: resource.clone(),
        })
    });
    Ok(all.collect())
}

fn show(setup: &Setup, listings: &[Listing], unseen: &[String], output: &Output) -> Result<()> {
    for why in unseen {
        output.say(&format!(
            "{} {why}",
            output.stderr.paint(Tone::Warning, "warning:")
        ));
    }
    let mut rows: Vec<(&Listing, &RecoveryPoint)> = Vec::new();
    for listing in listings {
        rows.extend(listing.all().map(|point| (listing, point)));
    }
    // Labels of one second are in no order.
    rows.sort_by_key(|(_, point)| Reverse((point.started_at, point.label.clone())));
    if output.json {
        let mut points = Vec::new();
        for (listing, point) in &rows {
            let (resource, region) = (&listing.resource, &listing.region);
            let window = listing.window(point);
            points.push(json!({
                "resource": resource,
                "region": region,
                "recovery_point": point,
                "window_end": window.map(|(lsn, at)| json!({ "lsn": lsn, "at": at })),
                "hole": listing.reaches.get(&point.label).and_then(|reach| reach.hole.as_ref()),
                "given_up": listing.is_given_up(point),
                "proof": listing.proof(point),
            }));
        }
        return output.json(&json!({ "recovery_points": points, "unseen": unseen }));
    }
    if rows.is_empty() {
        // What lies in a store that cannot be read is not known.
        match unseen.len() {
            0 => output.say("There are no recovery points."),
            silent if silent < listings.len() => {
                output.say("There are no recovery points in the stores that can be read.");
            }
            _ => {}
        }
        return Ok(());
    }
    let now = setup.clock.now();
    let mut table = Table::new(&[
        "RECOVERY POINT",
        "RESOURCE",
        "REGION",
        "AGE",
        "TIMELINE",
        "FROM",
        "KIND",
        "CHANGED",
        "TO",
        "UNTIL",
        "DATABASE",
        "STORED",
        "PROOF",
    ]);
    for (listing, point) in rows {
        let window = listing.window(point);
        table.row([
            point.label.clone(),
            listing.resource.to_string(),
            listing.region.to_string(),
            seconds(now.duration_since(point.started_at).as_secs_f64().max(0.0)),
            point.timeline.to_string(),
            point.start.to_string(),
            kind(point),
            changed(point),
            listing.end(point),
            window
                .and_then(|(_, at)| at)
                .map_or_else(|| "unknown".to_owned(), |at| format!("{at:.0}")),
            amount(point.database_bytes),
            amount(point.stored_bytes),
            listing.proof(point).to_owned(),
        ]);
    }
    output.data(&table.render(output.stdout))
}

/// Says what of it was read anew.
fn kind(point: &RecoveryPoint) -> String {
    let kind = if point.taken.parent.is_some() {
        "incremental"
    } else {
        "full"
    };
    match point.taken.damaged_pages {
        0 => kind.to_owned(),
        pages => format!("{kind}, {pages} damaged pages"),
    }
}

/// Says how much no older one holds, where that is known.
fn changed(point: &RecoveryPoint) -> String {
    match point.taken.changed_bytes {
        0 => "-".to_owned(),
        bytes => amount(bytes),
    }
}
