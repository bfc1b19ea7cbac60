//! Schedules: when a job runs, for which resource, where.

use dr_model::document::{
    Context, FromNode, Node, Problem, Reader, Span, Spanned, choice, map, one_of,
};
use dr_model::{ResourceId, Retention, ScheduleName};
use jiff::tz::TimeZone;

use crate::cron::{self, Cron};
use crate::scope::{Scope, known_word, version};

/// When a job runs for which resource.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Where it stands.
    pub span: Span,
    /// The name of its file, without `schedules/` and `.yaml`.
    pub group: String,
    /// Its name there.
    pub name: ScheduleName,
    /// The job, which is known.
    pub job: String,
    /// The resource that the job is for.
    pub resource: ResourceId,
    /// Where it runs.
    pub place: Place,
    /// What makes it run.
    pub trigger: Trigger,
    /// What an expiry keeps; `None` where none was written.
    pub keep: Option<Retention>,
}

/// A role that a region has: so a schedule stays true after a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Where the workload is served.
    Primary,
    /// In each of its other regions.
    Recovery,
    /// In all of its regions.
    All,
}

/// What makes a schedule run.
#[derive(Clone, Debug)]
pub enum Trigger {
    /// The clock.
    Cron(Cron),
    /// The success of another schedule of the same file.
    After(ScheduleName),
    /// It never ends.
    Continuous,
}

/// Reads what an expiry keeps.
fn keep(node: &Node, context: &mut Context) -> Option<Retention> {
    let mut reader = Reader::open(node, context)?;
    let keep = Retention {
        last: reader.or_default("last"),
        within: reader.optional("within"),
        daily: reader.or_default("daily"),
        weekly: reader.or_default("weekly"),
        monthly: reader.or_default("monthly"),
        yearly: reader.or_default("yearly"),
        log: reader.optional("log"),
    };
    let keeps_nothing = Retention { log: None, ..keep } == Retention::NOTHING;
    if keeps_nothing {
        let problem = Problem::error(reader.span(), "this would keep nothing")
            .expected("`last`, `within`, `daily`, `weekly`, `monthly` or `yearly`");
        reader.context().report(problem);
    }
    reader.finish();
    Some(keep)
}

/// Reads one file of `schedules/`.
pub(crate) fn read(
    group: &str,
    node: &Node,
    context: &mut Context,
    scope: &Scope<'_>,
) -> Vec<Schedule> {
    let Some(mut reader) = Reader::open(node, context) else {
        return Vec::new();
    };
    version(&mut reader);
    let zone = reader
        .required_with("timezone", cron::zone)
        .unwrap_or(TimeZone::UTC);
    let names = reader.node("jobs").and_then(Node::keys).unwrap_or_default();
    let entry = |n: &Node, c: &mut Context| Entry::read(n, c, &zone, &names, scope);
    let entries = reader
        .required_with("jobs", map::<ScheduleName, _>(entry))
        .unwrap_or_default();
    reader.finish();
    let finish = |(name, entry): (_, Entry)| entry.finish(group, name);
    let schedules: Vec<_> = entries.into_iter().map(finish).collect();
    check_circles(&schedules, context);
    schedules
}

/// Reports each schedule that waits for itself.
fn check_circles(schedules: &[Schedule], context: &mut Context) {
    let next = |schedule: &Schedule| match &schedule.trigger {
        Trigger::After(name) => schedules.iter().find(|s| s.name == *name),
        _ => None,
    };
    for schedule in schedules {
        let mut at = next(schedule);
        for _ in schedules {
            if at.is_some_and(|s| s.name == schedule.name) {
                let what = format!("`{}` waits for itself", schedule.name);
                let problem = Problem::error(&schedule.span, what)
                    .hint("one schedule of a chain needs `cron`");
                context.within(&format!("jobs.{}", schedule.name), |c| c.report(problem));
                break;
            }
            at = at.and_then(next);
        }
    }
}

/// Reads the name of another schedule of the file.
fn follows(node: &Node, context: &mut Context, names: &[&str]) -> Option<ScheduleName> {
    let name = ScheduleName::from_node(node, context)?;
    if !names.contains(&name.as_str()) {
        let written = node.as_text().unwrap_or_default();
        let what = format!("there is no schedule `{written}` in this file");
        let problem = Problem::error(&node.span, what)
            .expected(one_of(names))
            .suggest(name.as_str(), names);
        context.report(problem);
    }
    Some(name)
}

/// A schedule before its file has been read to the end.
struct Entry {
    span: Span,
    job: String,
    resource: ResourceId,
    place: Place,
    cron: Option<Cron>,
    after: Option<ScheduleName>,
    keep: Option<Retention>,
}

impl Entry {
    fn read(
        node: &Node,
        context: &mut Context,
        zone: &TimeZone,
        names: &[&str],
        scope: &Scope<'_>,
    ) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let job = reader.required_with("job", |n, c| known_word(n, c, "job", &scope.kinds.jobs));
        let resource = reader.required_with("resource", |n, c| scope.resource(n, c));
        let places = [
            ("primary", Place::Primary),
            ("recovery", Place::Recovery),
            ("all", Place::All),
        ];
        let place = reader.required_with("in", choice(&places));
        let cron = reader.optional_with("cron", |n, c| Cron::read(n, c, zone));
        let after = reader.optional_with("after", |n, c| follows(n, c, names));
        let continuous: Option<Spanned<bool>> = reader.optional("continuous");
        if let Some(Spanned { span, value: false }) = &continuous {
            let problem = Problem::error(span, "found `false`")
                .expected("`true`")
                .hint("leave the key out");
            reader.context().report(problem);
        }
        let triggers = ["cron", "after", "continuous"];
        let written = triggers
            .iter()
            .filter(|key| reader.node(key).is_some())
            .count();
        if written != 1 {
            let problem = Problem::error(reader.span(), format!("there are {written} triggers"))
                .expected("exactly one of `cron`, `after` and `continuous`");
            reader.context().report(problem);
        }
        let kept = reader.optional_with("keep", keep);
        if let (Some(node), Some(job)) = (reader.node("keep"), &job)
            && !scope.kinds.expiries.contains(job.value.as_str())
        {
            let what = format!("`{}` deletes nothing, and keeps all", job.value);
            let problem = Problem::error(&node.span, what).expected("`keep` only beside an expiry");
            reader.context().report(problem);
        }
        reader.finish();
        let triggered = cron.is_some() || after.is_some() || continuous.is_some();
        triggered.then_some(())?;
        Some(Self {
            span: node.span.clone(),
            job: job?.value,
            resource: resource?,
            place: place?,
            cron,
            after,
            keep: kept,
        })
    }

    fn finish(self, group: &str, name: ScheduleName) -> Schedule {
        let trigger = match (self.cron, self.after) {
            (Some(cron), _) => Trigger::Cron(cron),
            (None, Some(after)) => Trigger::After(after),
            (None, None) => Trigger::Continuous,
        };
        Schedule {
            span: self.span,
            group: group.to_owned(),
            name,
            job: self.job,
            resource: self.resource,
            place: self.place,
            trigger,
            keep: self.keep,
        }
    }
}
