//! `dr recovery-point list`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dr_model::{Lsn, RegionName, ResourceId, TimelineId};
use dr_provider::ObjectStore;
use dr_provider::ResourceDriver;
use dr_provider::driver::{Backup, HoldNote, LogReach, Proofs, RecoveryPoint, RecoveryPoints};
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
/// Ends with 1 if one of them cannot be read, here for want of its key or at all, failed when it was looked at, refers to a damaged pack,
/// or holds damaged pages.
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
    proofs: Result<BTreeMap<String, Proofs>>,
    resource: ResourceId,
    region: RegionName,
    points: Result<Vec<RecoveryPoint>>,
    /// Why those cannot be read here whose keys are not at hand, by label.
    no_key: BTreeMap<String, String>,
    /// Those that cannot be read any more.
    damaged: Vec<String>,
    /// Those that are going to be deleted.
    given_up: Vec<RecoveryPoint>,
    /// Those that are kept whatever expires, and who wants that, by label.
    held: BTreeMap<String, HoldNote>,
    /// How far the log behind each goes, by label, if that could be seen.
    reaches: BTreeMap<String, LogReach>,
    /// The timeline of the store's newest log, where that ended when it was looked at, and when it was received.
    newest: Option<(TimelineId, Lsn, Option<Timestamp>)>,
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
        let LogReach { end, hole } = self.reaches.get(&point.label)?;
        // Log arrives while it is looked at: what is behind the newest then only reaches further.
        let newest = self.newest.filter(|(timeline, newest, _)| {
            newest == end || (hole.is_none() && newest < end && *timeline == point.timeline)
        });
        Some((*end, newest.and_then(|(_, _, at)| at)))
    }

    /// Returns all that it shows, those that are going to be deleted too.
    fn all(&self) -> impl Iterator<Item = &RecoveryPoint> {
        self.points.iter().flatten().chain(&self.given_up)
    }

    /// Says why nothing is known of what the store holds, or of what was proven of it.
    fn unread(&self) -> Option<&CommandError> {
        self.points.as_ref().err().or(self.proofs.as_ref().err())
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
            _ if self.no_key.contains_key(&point.label) => "no key",
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
    let unread = |listing: &'_ Listing| -> Option<String> {
        let error = listing.unread()?;
        let why = std::iter::once(&error.message).chain(&error.causes);
        let why: Vec<&str> = why.map(String::as_str).collect();
        let (resource, region) = (&listing.resource, &listing.region);
        Some(format!("{resource} in {region}: {}", why.join(": ")))
    };
    let unseen: Vec<String> = listings.iter().filter_map(unread).collect();
    show(&setup, &listings, &unseen, output)?;
    let mut listings = listings;
    if let Some(error) = listings
        .iter_mut()
        .find_map(|listing| listing.foreign.take())
    {
        return Err(error);
    }
    if unseen.len() == listings.len() && !listings.is_empty() {
        return Err(nothing_read(&listings));
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
    let closed: Vec<String> = listings.iter().flat_map(closed).collect();
    if !closed.is_empty() {
        let what = "recovery points cannot be read here: their keys are not at hand";
        let mut error = CommandError::new(Exit::Failed, what);
        error.causes = closed;
        return Err(error.hint(
            "name the file of each key under `encryption` in `dr.yaml`; nothing is known to be wrong with the recovery points",
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

/// Says that nothing could be read, as whoever restores would hear it: one that turns us away is no store that does not answer.
fn nothing_read(listings: &[Listing]) -> CommandError {
    let all = || listings.iter().filter_map(Listing::unread);
    let is_away = |error: &CommandError| error.exit as u8 == Exit::Unavailable as u8;
    let exit = match all().any(is_away) {
        true => Exit::Unavailable,
        false => all().next().map_or(Exit::Unavailable, |error| error.exit),
    };
    let mut made = CommandError::new(exit, "no store can be read");
    for hint in all().flat_map(|error| &error.hints) {
        if !made.hints.contains(hint) {
            made.hints.push(hint.clone());
        }
    }
    match made.hints.is_empty() {
        true => made.hint("see why with `dr check --online`"),
        false => made,
    }
}

/// Looks into a store, at all of it at once: one that has fallen silent is waited for once.
async fn look(
    setup: &Setup,
    resource: ResourceId,
    driver: Arc<dyn ResourceDriver>,
    region: &RegionName,
    store: &Arc<dyn ObjectStore>,
) -> Listing {
    let unread = |points: CommandError, foreign| Listing {
        proofs: Ok(BTreeMap::new()),
        resource: resource.clone(),
        region: region.clone(),
        points: Err(points),
        no_key: BTreeMap::new(),
        damaged: Vec::new(),
        given_up: Vec::new(),
        held: BTreeMap::new(),
        reaches: BTreeMap::new(),
        newest: None,
        foreign,
    };
    match setup.identity(region).await {
        Ok(_) => {}
        // What lies there says nothing of this region, whatever it is.
        Err(error) if error.exit == Exit::Refused => {
            let why = CommandError::new(error.exit, &error.message);
            return unread(why, Some(error));
        }
        Err(error) => return unread(error, None),
    }
    let points = async {
        match driver.backup() {
            Some(backup) => listed(backup, store).await.map_err(CommandError::from),
            None => Ok((RecoveryPoints::default(), Vec::new())),
        }
    };
    // The log is looked at first, so that what is seen of the reaches is not behind it.
    let log_and_reaches = async {
        let facts = driver.observe(std::slice::from_ref(region)).await;
        let reaches = match driver.restore() {
            Some(restore) => restore.reaches(region).await.unwrap_or_default(),
            None => BTreeMap::new(),
        };
        (facts, reaches)
    };
    let held = async {
        match driver.expire_role() {
            Some(expire) => expire.holds(store).await.unwrap_or_default(),
            None => BTreeMap::new(),
        }
    };
    let proofs = async {
        match driver.verify_role() {
            Some(verify) => verify.proofs(store).await.map_err(CommandError::from),
            None => Ok(BTreeMap::new()),
        }
    };
    let (points, (facts, reaches), proofs, held) =
        futures::join!(points, log_and_reaches, proofs, held);
    let seen = facts.regions.get(region).map(|seen| seen.log.clone());
    let log = seen.and_then(|log| log.ok().flatten());
    let (points, given_up) = match points {
        Ok((points, given_up)) => (Ok(points), given_up),
        Err(why) => (Err(why), Vec::new()),
    };
    let (points, damaged, no_key) = match points {
        Ok(points) => (Ok(points.complete), points.damaged, points.no_key),
        Err(why) => (Err(why), Vec::new(), BTreeMap::new()),
    };
    Listing {
        proofs,
        resource,
        region: region.clone(),
        points,
        no_key,
        damaged,
        given_up,
        held,
        reaches,
        newest: log.map(|log| (log.timeline, log.end, log.received_at)),
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

/// Says of each recovery point whose key is not at hand which key that is.
fn closed(listing: &Listing) -> impl Iterator<Item = String> + '_ {
    let points = listing.points.iter().flatten();
    points.filter_map(|point| {
        let (resource, region, label) = (&listing.resource, &listing.region, &point.label);
        let why = listing.no_key.get(label)?;
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
                "held": listing.held.get(&point.label),
                "no_key": listing.no_key.get(&point.label),
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
    output.data(&table.render(output.stdout))?;
    for listing in listings {
        for (label, note) in &listing.held {
            let (resource, region) = (&listing.resource, &listing.region);
            let held = format!("{resource} in {region}: {label} is held {}", held(note));
            output.data(&held)?;
        }
    }
    Ok(())
}

/// Says by whom a recovery point is held, since when, and why.
pub(super) fn held(note: &HoldNote) -> String {
    format!("by {} since {:.0}: {}", note.by, note.since, note.reason)
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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn listing(points: Result<Vec<RecoveryPoint>>) -> Listing {
        Listing {
            proofs: Ok(BTreeMap::new()),
            resource: "orders/database".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            points,
            no_key: BTreeMap::new(),
            damaged: Vec::new(),
            given_up: Vec::new(),
            held: BTreeMap::new(),
            reaches: BTreeMap::new(),
            newest: None,
            foreign: None,
        }
    }

    #[test]
    fn one_without_its_key_has_not_failed() {
        let point: RecoveryPoint = serde_json::from_value(json!({
            "label": "20261121T093005Z-0001",
            "system_identifier": "7",
            "timeline": 1,
            "start": "0/3000028",
            "stop": "0/3000100",
            "started_at": "2026-11-21T09:30:05Z",
            "stopped_at": "2026-11-21T09:30:06Z",
            "database_bytes": 1,
            "stored_bytes": 1,
        }))
        .unwrap();
        let mut listing = listing(Ok(vec![point.clone()]));
        assert_eq!(listing.proof(&point), "committed");
        let why = "it is encrypted with key 0e5c; no key is configured".to_owned();
        listing.no_key.insert(point.label.clone(), why.clone());
        assert_eq!(listing.proof(&point), "no key");
        assert_eq!(failed(&listing).count(), 0);
        assert!(closed(&listing).all(|said| said.ends_with(&why)));
        // What a look found once stays found.
        let failure = Some("a pack is damaged".to_owned());
        let failed = RecoveryPoint { failure, ..point };
        assert_eq!(listing.proof(&failed), "FAILED");
    }

    #[rstest]
    #[case::turned_away(&[Exit::Failed, Exit::Failed], Exit::Failed)]
    #[case::one_is_away(&[Exit::Failed, Exit::Unavailable], Exit::Unavailable)]
    fn where_nothing_is_read_the_stores_say_why(#[case] exits: &[Exit], #[case] exit: Exit) {
        let listings = exits.iter().map(|exit| {
            let error = CommandError::new(*exit, "it did not work").hint("check the keys");
            listing(Err(error))
        });
        let made = nothing_read(&listings.collect::<Vec<_>>());
        assert_eq!(made.exit as u8, exit as u8);
        assert_eq!(made.hints, ["check the keys"]);
    }
}
