//! `dr failover`.

mod carry_out;
mod confirm;
mod disruption;
pub(crate) mod plan_text;
mod progress;
pub(crate) mod report_text;
pub(crate) mod requester;
mod stated;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dr_config::{Runbook, Workload};
use dr_model::{ApproverName, RegionName, RunbookName, WorkloadName};
use dr_runbook::{Disruption, Mode, Plan, Refusal, Report, Request, Rung, Site, State};
use jiff::Timestamp;
use serde_json::json;

use crate::commands::daemon::died_here;
use crate::error::{CommandError, Result};
use crate::exit::Exit;
use crate::kit;
use crate::output::{Output, Tone};
use crate::wiring::Setup;

pub(crate) use carry_out::{Prepared, carry_out, require_somebody};
pub(crate) use confirm::{ask, can_ask};
pub(crate) use progress::{Progress, watched};
pub(crate) use stated::{ByHand, Stated, reason};

/// Move workloads to another region
///
/// Looks at what there is, makes a plan with what will be lost as two numbers, asks, and executes
/// it: a new epoch, a fence and a seal with a stated proof, then promotion or restore, services,
/// checks and traffic. Needs nothing from the region being left. With `--planned` the region is
/// there: its primary is shut down, nothing is promoted before the other region is proven to hold
/// everything, and it becomes the standby. Every step is journaled; what was interrupted is
/// continued by `dr execution resume`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The region to move to
    #[arg(long, value_name = "REGION")]
    to: RegionName,

    /// The workloads; all whose primary is elsewhere, if none is named
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<WorkloadName>,

    /// Only print the plan; changes nothing, and tries whether the store takes a small object
    #[arg(long)]
    plan: bool,

    /// Move by appointment, from a region that is well: no commit is lost
    #[arg(long, conflicts_with_all = ["rung", "witness", "override_reason", "disrupted_at"])]
    planned: bool,

    /// The largest estimated loss that is accepted, such as 60s; the workload's max_loss unless
    /// given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_loss: Option<Duration>,

    /// How the database comes back; the best way that there is unless given
    #[arg(long, value_enum)]
    rung: Option<RungName>,

    #[command(flatten)]
    stated: Stated,

    /// When the disruption began, such as 2026-11-21T09:30:05Z; what the region's daemon has measured
    /// unless given
    #[arg(long, value_name = "TIME")]
    disrupted_at: Option<Timestamp>,

    /// Take the configuration from the recovery kit in this store: a path, a URL, or
    /// `{ url: …, endpoint: … }` as in dr.yaml
    #[arg(long, value_name = "LOCATION")]
    from_store: Option<String>,

    /// Where the kit is unpacked; what is put into its directory `secrets` is found by its name
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "dr-kit",
        requires = "from_store"
    )]
    into: PathBuf,

    /// The runbook; failover-region unless given, or failover-planned
    #[arg(long, value_name = "NAME")]
    runbook: Option<RunbookName>,

    /// Your key, which says who asks where the workload wants approvals: `dr approval keygen` made it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Reads a duration; the error says how one is written.
pub(crate) fn duration(text: &str) -> std::result::Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("{error}; expected a number with its unit, such as `60s`, `5m` or `1h 30m`")
    })
}

/// How the database comes back.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RungName {
    /// Promote the standby
    Promote,
    /// Rebuild from the region's store
    Restore,
}

impl Args {
    /// Asks for a planned move of one workload after a runbook.
    pub(crate) fn planned(
        to: RegionName,
        workload: WorkloadName,
        runbook: RunbookName,
        plan: bool,
        by_hand: ByHand,
        key: Option<PathBuf>,
        yes: bool,
    ) -> Self {
        Self {
            to,
            workloads: vec![workload],
            plan,
            planned: true,
            max_loss: None,
            rung: None,
            stated: by_hand.into(),
            disrupted_at: None,
            from_store: None,
            into: PathBuf::new(),
            runbook: Some(runbook),
            key,
            yes,
        }
    }

    fn runbook(&self) -> RunbookName {
        let shipped = match self.planned {
            true => "failover-planned",
            false => "failover-region",
        };
        let shipped = || {
            shipped
                .parse()
                .expect("the names are written in the source and valid")
        };
        self.runbook.clone().unwrap_or_else(shipped)
    }
}

pub(crate) async fn run(args: &Args, config: &Path, output: &Output) -> Result<Exit> {
    let Some(location) = &args.from_store else {
        return Box::pin(run_with(&Setup::load(config)?, args, output)).await;
    };
    let kit = kit::fetch(location).await?;
    let verb = match kit::unpack(&kit, &args.into, "--into")? {
        kit::Unpacked::Written => "was unpacked into",
        kit::Unpacked::Present => "is in",
    };
    let into = args.into.display();
    output.say(&format!(
        "The recovery kit of {:.0} {verb} `{into}`; `--config {into}` uses it from now on.",
        kit.created_at
    ));
    let setup = Setup::load(&args.into).map_err(|error| {
        error.hint(format!(
            "what is missing may be secrets, which `{into}/README.txt` names: put files into `{into}/{}/`, and set variables",
            kit::SECRETS
        ))
    })?;
    refuse_missing(&setup, &kit, &args.into, output)?;
    let ended = Box::pin(run_with(&setup, args, output)).await;
    // Said last: whoever has to go on copies a command from what stands above.
    if !matches!(ended, Ok(Exit::Ok)) {
        output.say(&format!(
            "Every command named above goes by the kit: it takes `--config {into}` as well."
        ));
    }
    ended
}

/// A secret that is missing would stop the move half-way; one that only says whom to tell is a warning.
fn refuse_missing(
    setup: &Setup,
    kit: &dr_coordination::kit::Kit,
    into: &Path,
    output: &Output,
) -> Result<()> {
    let missing = kit::missing(setup, &kit.content).into_iter();
    let (optional, missing): (Vec<_>, Vec<_>) =
        missing.partition(|note| kit::is_optional(setup, note));
    for note in optional {
        output.say(&format!(
            "{} {} ({}) is missing: whoever that webhook would tell is not told.",
            output.stderr.paint(Tone::Warning, "warning:"),
            note.reference,
            note.used_at.join(", ")
        ));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut error = CommandError::new(
        Exit::Configuration,
        "secrets are missing that the recovery kit needs and does not hold",
    );
    for note in missing {
        error = error.because(format!("{} ({})", note.reference, note.used_at.join(", ")));
    }
    Err(error.hint(format!(
        "put files into `{}/{}/` under their own names, and set variables",
        into.display(),
        kit::SECRETS
    )))
}

/// Moves workloads with a configuration that has been loaded.
pub(crate) async fn run_with(setup: &Setup, args: &Args, output: &Output) -> Result<Exit> {
    setup.region(&args.to)?;
    if let Some(at) = args.disrupted_at.filter(|at| *at > setup.clock.now()) {
        let what = format!("`--disrupted-at {at}` is in the future");
        return Err(CommandError::new(Exit::Usage, what).hint(
            "the time since then is what the report measures; leave it out if it is not known",
        ));
    }
    let name = args.runbook();
    let runbook = setup.runbook(&name)?;
    let unfit = match Mode::of(runbook) {
        Mode::InPlace => Some((
            "it stays in the primary's region",
            format!("`dr runbook run {name} WORKLOAD` carries it out"),
        )),
        Mode::Undo => Some((
            "it takes a move back",
            "`dr execution abort` carries it out".to_owned(),
        )),
        Mode::Planned | Mode::Unplanned => None,
    };
    if let Some((why, hint)) = unfit {
        let what = format!("the runbook `{name}` moves no workload: {why}");
        return Err(CommandError::new(Exit::Usage, what).hint(hint));
    }
    if args.planned && Mode::of(runbook) != Mode::Planned {
        return Err(CommandError::new(
            Exit::Usage,
            format!("the runbook `{name}` does not stop the primary in good order: it is not one for a planned move"),
        )
        .hint("a planned one uses the step `stop-writes`"));
    }
    require_somebody(args.plan || args.yes, "--plan")?;
    // Another store in this one's place makes whatever a plan says of it wrong. One that does not answer is no reason to
    // hide that there is nothing to do.
    let unanswered = match setup.identified(&args.to).await {
        Err(error) if error.exit == Exit::Unavailable => Some(error),
        identified => identified.map(|_| None)?,
    };
    let Plans { found, refused } =
        plans(setup, args, runbook, unanswered.is_none(), output).await?;
    if let Some(error) = unanswered {
        return Err(error);
    }
    warn_of_dead_daemon(setup, &args.to, output)?;
    let several = found.len() + refused.len() > 1;
    for Unmoved { name, error } in &refused {
        output.say(&format!("Leaving {name} where it is:"));
        output.complain(error);
    }
    if several && !args.plan {
        let names: Vec<_> = found
            .iter()
            .map(|prepared| prepared.name.to_string())
            .collect();
        output.say(&format!(
            "Moving {} workloads, one after the other: {}.",
            names.len(),
            names.join(", ")
        ));
    }
    if args.plan {
        return print_plans(&found, &refused, several, output);
    }
    let mut reports = Vec::new();
    let mut unmoved = refused;
    let mut exit = worst(&unmoved);
    let mut left = found.into_iter();
    while let Some(prepared) = left.next() {
        let name = prepared.name.clone();
        let what = format!("move it to {}", args.to);
        let again = async |seen: &Prepared<'_>| {
            let requester = seen.plan.requester.clone();
            plan(args, requester, runbook, seen.workload, &seen.site, true).await
        };
        let what = (!args.yes).then_some(what.as_str());
        let ended = Box::pin(carry_out(setup, prepared, what, again, output)).await;
        match ended {
            Ok((report, code)) => {
                exit = exit.worse(code);
                let others_go_on = others_go_on(&report);
                reports.push(report);
                if !others_go_on {
                    say_left(left, output);
                    break;
                }
            }
            // Nobody was there to stop it, so that nobody wants the others to be stopped with it.
            Err(error) if several && args.yes && Mode::of(runbook) == Mode::Unplanned => {
                output.say(&format!("Moving {name}:"));
                output.complain(&error);
                exit = exit.worse(error.exit);
                unmoved.push(Unmoved { name, error });
            }
            Err(error) => {
                say_left(left, output);
                print_reports(&reports, &unmoved, several, output)?;
                return Err(error);
            }
        }
    }
    print_reports(&reports, &unmoved, several, output)?;
    Ok(exit)
}

/// What can be moved, in the order in which it is, and what cannot.
struct Plans<'a> {
    found: Vec<Prepared<'a>>,
    refused: Vec<Unmoved>,
}

/// A workload that keeps no other in a lost region.
struct Unmoved {
    name: WorkloadName,
    error: CommandError,
}

impl Unmoved {
    fn json(&self) -> serde_json::Value {
        json!({
            "workload": self.name,
            "error": self.error.message,
            "because": self.error.causes,
            "hint": (!self.error.hints.is_empty()).then(|| self.error.hints.join("; ")),
            "exit_code": self.error.exit as u8,
        })
    }
}

fn worst(unmoved: &[Unmoved]) -> Exit {
    let exits = unmoved.iter().map(|unmoved| unmoved.error.exit);
    exits.fold(Exit::Ok, Exit::worse)
}

/// Tells whether the next workload is moved after this one. What one is stuck at keeps no other in a region that is lost; a move by
/// appointment can wait, and so can all of them where a person stopped one.
fn others_go_on(report: &Report) -> bool {
    match report.state {
        State::Stuck | State::Failed => report.mode == Mode::Unplanned,
        State::Aborted => false,
        state => state.is_final(),
    }
}

/// Says which workloads were not begun.
fn say_left<'a>(left: impl Iterator<Item = Prepared<'a>>, output: &Output) {
    let names: Vec<_> = left.map(|prepared| prepared.name.to_string()).collect();
    if !names.is_empty() {
        output.say(&format!("Not begun: {}.", names.join(", ")));
    }
}

/// Says that the daemon of the region moved to is known to have died: the move itself needs none, and what protects the workload
/// afterwards does.
fn warn_of_dead_daemon(setup: &Setup, to: &RegionName, output: &Output) -> Result<()> {
    let Some(daemon) = &setup.region(to)?.daemon else {
        return Ok(());
    };
    if let Some(process) = died_here(&daemon.state_directory) {
        output.say(&format!(
            "{} the daemon of {to} was killed or died (process {process} of this machine): start it, or the workload moves and is not protected afterwards; `rearm-protection` waits for it.",
            output.stderr.paint(Tone::Warning, "warning:")
        ));
    }
    Ok(())
}

/// Plans a move of each workload before any of them is moved; `answers` tells whether the target's store does.
async fn plans<'a>(
    setup: &'a Setup,
    args: &Args,
    runbook: &Runbook,
    answers: bool,
    output: &Output,
) -> Result<Plans<'a>> {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let mut candidates = setup.workloads(&args.workloads)?;
    // Where nobody says in which order, the one that may be away for the shortest time comes first.
    if args.workloads.is_empty() {
        candidates.sort_by_key(|(_, workload)| workload.objectives.rto);
    }
    // One that was named, or is the only one, has to be moved; of several, those that can be.
    let must = !args.workloads.is_empty() || candidates.len() == 1;
    for (name, workload) in candidates {
        let site = Arc::new(setup.site(&name, workload)?);
        let key = args.key.as_deref();
        let requester = requester::of(key, args.plan, &name, workload, &site)?;
        match plan(args, requester, runbook, workload, &site, answers).await {
            Ok(plan) => found.push(Prepared {
                name,
                workload,
                site,
                plan,
            }),
            Err(refusal @ (Refusal::TargetIsPrimary { .. } | Refusal::NotARegion { .. }))
                if !must =>
            {
                output.say(&format!("Leaving {name} where it is: {refusal}."));
            }
            // What is refused for one keeps no other in a lost region.
            Err(refusal) if !must && Mode::of(runbook) == Mode::Unplanned => {
                let error = CommandError::from(refusal);
                refused.push(Unmoved { name, error });
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
    if found.is_empty() && !refused.is_empty() {
        let Unmoved { error, .. } = refused.remove(0);
        return Err(error);
    }
    if found.is_empty() {
        return Err(CommandError::new(
            Exit::Refused,
            format!("no workload can be moved to {}", args.to),
        )
        .hint("`dr status` shows who is primary"));
    }
    Ok(Plans { found, refused })
}

async fn plan(
    args: &Args,
    requester: Option<ApproverName>,
    runbook: &Runbook,
    workload: &Workload,
    site: &Site,
    answers: bool,
) -> std::result::Result<Plan, Refusal> {
    let world = match answers {
        true => dr_runbook::observe_to_execute(site, &args.to).await,
        false => dr_runbook::observe(site, &args.to).await,
    };
    let disruption = match args.disrupted_at {
        Some(at) => Some(Disruption::stated(at)),
        // A move by appointment leaves a region that is well.
        None if args.planned => None,
        None => disruption::measured(site, &args.to, &world).await,
    };
    let request = Request {
        max_loss: Some(args.max_loss.unwrap_or(workload.max_loss)),
        rung: args.rung.map(|rung| match rung {
            RungName::Promote => Rung::Promote,
            RungName::Restore => Rung::Restore,
        }),
        statements: args.stated.statements(),
        disruption,
        requester,
        ..Request::new(args.to.clone())
    };
    dr_runbook::plan(runbook, &world, &request)
}

fn print_plans(
    found: &[Prepared<'_>],
    refused: &[Unmoved],
    several: bool,
    output: &Output,
) -> Result<Exit> {
    if output.json {
        let plans: Vec<_> = found.iter().map(|prepared| &prepared.plan).collect();
        match plans.as_slice() {
            [plan] if !several => output.json(plan)?,
            plans => output.json(&json!({ "plans": plans, "unmoved": all(refused) }))?,
        }
    } else {
        for prepared in found {
            output.data(&plan_text::render(&prepared.plan, output.stdout))?;
        }
    }
    Ok(worst(refused))
}

fn all(unmoved: &[Unmoved]) -> Vec<serde_json::Value> {
    unmoved.iter().map(Unmoved::json).collect()
}

fn print_reports(
    reports: &[Report],
    unmoved: &[Unmoved],
    several: bool,
    output: &Output,
) -> Result<()> {
    match reports {
        _ if !output.json => Ok(()),
        [report] if !several => output.json(report),
        // The error says it.
        [] if unmoved.is_empty() => Ok(()),
        reports => output.json(&json!({ "reports": reports, "unmoved": all(unmoved) })),
    }
}
