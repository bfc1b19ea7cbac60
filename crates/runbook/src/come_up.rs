//! What the steps that bring a database up have in common: the gate before, and the heartbeat read back after.
//!
//! There are two gates. What comes up in the place of the old primary needs a proof that this has stopped, and its log sealed
//! ([`check`]: promote, restore and replace). The old primary itself, started again where it was, needs that nobody else has become
//! the primary ([`is_not_superseded`]: restart). `resume-primary` has a gate of its own, in its driver: the standby that would have
//! been promoted is seen not to be.

use std::time::Duration;

use dr_provider::driver::{Applied, Evidence, Recovered};
use dr_provider::error::chain;
use dr_provider::{Error, ErrorKind, Result};

use crate::plan::{Mode, Target};
use crate::proof;
use crate::request::override_reason;
use crate::step::{Unmet, Work};
use crate::steps::{assess_region, promote_database, restore_database, seal_wal, stop_writes};

/// How long reading the heartbeat back may take.
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(5);

/// How often what is to come up is looked at before it counts as out of reach.
const TRIES: u32 = 3;

/// How often in a planned move, which nothing makes hurry: whoever is to get the last of the log may have to connect again, as after
/// a move just before this one.
const PLANNED_TRIES: u32 = 30;

/// The pause between two of these looks.
const TRY_INTERVAL: Duration = Duration::from_millis(500);

/// Holds back a resource that is not proven to have stopped elsewhere, or whose log is not sealed.
pub(crate) fn check(work: &Work, target: &Target) -> std::result::Result<(), Unmet> {
    let Target::Resource(name) = target else {
        return Ok(());
    };
    if !work.history.has_done(seal_wal::NAME) {
        return Err(Unmet::Forbidden {
            why: format!("the log of `{target}` is not sealed"),
            remedy: "resume once the store moved to can be written".to_owned(),
        });
    }
    let from = &work.plan().from;
    if !proof::may_come_up(&work.history, name) {
        if let Some(seen) = proof::alive(&work.history, name) {
            return Err(Unmet::Forbidden {
                why: format!("`{target}` in {from} is alive, whatever was witnessed: {seen}"),
                remedy: format!(
                    "`dr execution abort {}` gives the place back to it, and nothing is lost; or stop it for good, and what it writes until then is lost",
                    work.history.execution
                ),
            });
        }
        return Err(Unmet::Forbidden {
            why: format!("nothing proves that `{target}` in {from} accepts no more writes"),
            remedy: format!(
                "make sure that it has stopped and say so with `--witness \"NAME: what was seen\"`, or go on without \
                 proof with `--override \"reason\"`, on `dr execution resume {}`",
                work.history.execution
            ),
        });
    }
    let budget =
        Duration::try_from_secs_f64(work.plan().loss.budget_seconds).unwrap_or(Duration::MAX);
    if let Some(ran_on) = proof::ran_on(&work.history, name)
        && ran_on > budget
        && override_reason(&work.history.statements).is_none()
    {
        return Err(Unmet::Forbidden {
            why: format!(
                "`{target}` in {from} went on for {:.0} s after the log was sealed, until it was stopped: what it acknowledged \
                 meanwhile would be lost, and {budget:?} are accepted",
                ran_on.as_secs_f64()
            ),
            remedy: format!(
                "keep its data directory, which has those commits; accept the loss with `dr execution resume {} --override \
                 \"reason\"`",
                work.history.execution
            ),
        });
    }
    if work.plan().mode == Mode::Planned
        && let Err(why) = proof::is_whole(&work.history, name)
    {
        let id = &work.history.execution;
        return Err(Unmet::Forbidden {
            why,
            remedy: format!("start the old primary again: `dr execution abort {id}`"),
        });
    }
    Ok(())
}

/// Holds back what was the primary once its epoch has been ended by another, or while nobody can tell: an executor that slept, or that
/// goes on while the register is silent, would make it a second one.
pub(crate) async fn is_not_superseded(work: &Work) -> std::result::Result<(), Unmet> {
    match assess_region::register(work).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::Superseded => {
            Err(Unmet::Superseded(chain(&error)))
        }
        Err(error) => Err(Unmet::Forbidden {
            why: format!(
                "it cannot be told whether another region has become the primary: {}",
                chain(&error)
            ),
            remedy: "resume once the register can be read".to_owned(),
        }),
    }
}

/// Looks once more, right before the epoch is opened or writes are stopped, whether what was planned to bring the resources up can
/// still be done. People take days to approve a plan, and a standby that has gone meanwhile would leave a healthy primary stopped for
/// nothing. Looks at `only` one of them, or at all.
pub(crate) async fn is_still_possible(
    work: &Work,
    only: Option<&Target>,
) -> std::result::Result<(), Unmet> {
    let mut tries = match work.plan().mode {
        Mode::Planned => 1..=PLANNED_TRIES,
        _ => 1..=TRIES,
    };
    loop {
        let _try = tries.next();
        match look_once(work, only).await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Unavailable && !tries.is_empty() => {
                tokio::time::sleep(TRY_INTERVAL).await;
            }
            Err(error) if error.kind() == ErrorKind::Superseded => {
                return Err(Unmet::Superseded(chain(&error)));
            }
            Err(error) => {
                let why = chain(&error);
                return Err(Unmet::Unfit(match error.hint() {
                    Some(hint) => format!("{why} ({hint})"),
                    None => why,
                }));
            }
        }
    }
}

async fn look_once(work: &Work, only: Option<&Target>) -> Result<()> {
    let plan = work.plan();
    let looked_at = [
        promote_database::NAME,
        restore_database::NAME,
        stop_writes::NAME,
    ];
    let lanes = plan.steps.iter().flat_map(|step| &step.lanes);
    let looks = lanes
        .filter(|lane| looked_at.contains(&lane.uses.as_str()))
        .filter(|lane| only.is_none_or(|only| lane.target == *only))
        .map(|lane| async move {
            let driver = work.driver(&lane.target)?;
            // Where nothing is handed over the region left is not asked.
            let both = [plan.to.clone(), plan.from.clone()];
            let regions = match lane.uses == stop_writes::NAME {
                true => &both[..],
                false => &both[..1],
            };
            let mut facts = driver.observe(regions).await;
            driver.look_closely(&plan.to, &mut facts).await;
            let Err(error) = driver.still_holds(&lane.actions, &facts) else {
                return Ok(());
            };
            let other = lane.fallback.as_ref();
            match other.and_then(|branch| branch.actions.as_ref().ok()) {
                Some(actions) if driver.still_holds(actions, &facts).is_ok() => Ok(()),
                _ => Err(gone(work, &lane.target, &error)),
            }
        });
    let Err(gone) = futures::future::try_join_all(looks).await else {
        return Ok(());
    };
    // Whoever has promoted it meanwhile has opened an epoch first, and is worth more to be told of.
    match assess_region::register(work).await {
        Err(error) if error.kind() == ErrorKind::Superseded => Err(error),
        _ => Err(gone),
    }
}

/// Says what has become of what was to be brought up.
fn gone(work: &Work, target: &Target, error: &Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::Unavailable => ErrorKind::Unavailable,
        _ => ErrorKind::Failed,
    };
    let to = &work.plan().to;
    let told = Error::new(kind, "bring up", format!("{target} in {to}"));
    let told = told.because(format!(
        "it is not as it was when the plan was made: {}",
        chain(error)
    ));
    match error.hint() {
        Some(hint) => told.with_hint(hint),
        None => told,
    }
}

/// Tells whether a step has brought a resource up.
pub(crate) fn is_up_by(work: &Work, target: &Target, step: &str) -> bool {
    let mut done = work.history.done(step, target);
    done.any(|applied| Recovered::from_evidence(&applied.evidence).is_some())
}

/// Adds the newest heartbeat found in the database that has come up, if the driver did not read it itself.
///
/// A heartbeat that is younger than the execution was written by the new primary and says nothing about the old one.
pub(crate) async fn with_heartbeat(work: &Work, target: &Target, mut applied: Applied) -> Applied {
    let Some(mut recovered) = Recovered::from_evidence(&applied.evidence) else {
        return applied;
    };
    if recovered.heartbeat.is_some() {
        return applied;
    }
    let Ok(driver) = work.driver(target) else {
        return applied;
    };
    let Some(stream) = driver.log_stream() else {
        return applied;
    };
    let read = stream.last_beat(&work.plan().to);
    if let Ok(Ok(Some(beat))) = tokio::time::timeout(HEARTBEAT_LIMIT, read).await
        && beat < work.history.started_at
    {
        recovered.heartbeat = Some(beat);
        let added = recovered.to_evidence();
        if let (Some(all), Some(new)) = (applied.evidence.as_object_mut(), added.as_object()) {
            all.extend(new.clone());
        }
    }
    applied
}
