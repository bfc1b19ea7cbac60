//! Workloads: what the business calls an application.

mod approval;
mod check;
mod definition;
mod parts;
mod places;
mod watching;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dr_model::document::{
    Context, FromNode, Node, Problem, Reader, Span, Spanned, Template, Value, list, map,
};
use dr_model::{ApprovalPolicy, RegionName, ResourceName, ServiceName};

use crate::scope::Scope;
use check::Names;
pub use check::{HealthCheck, HealthCheckKind};
use places::Places;
pub use watching::{Detection, Readiness};

/// What the business calls an application, with everything that moves with it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where it stands.
    pub span: Span,
    /// How critical it is, in the words of the organization.
    pub tier: Option<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// What was promised of its recovery.
    pub objectives: Objectives,
    /// The largest loss that a failover accepts without being asked again; the recovery point objective unless set.
    pub max_loss: Duration,
    /// The region where it is normally served.
    pub home: RegionName,
    /// The regions that it can be moved to, best first; never the home.
    pub recovery: Vec<RegionName>,
    /// Who must agree to a failover.
    pub approval: ApprovalPolicy,
    /// Its state.
    pub resources: BTreeMap<ResourceName, Resource>,
    /// What is started where it is served.
    pub services: BTreeMap<ServiceName, Service>,
    /// What leads clients to a region, in the order written.
    pub traffic: Vec<Traffic>,
    /// What tells whether it works, in the order written.
    pub checks: Vec<HealthCheck>,
    /// Who is told.
    pub notify: Vec<Notify>,
    /// How often it is looked whether it could be moved.
    pub readiness: Readiness,
    /// How another region finds out that its primary is down.
    pub detection: Detection,
}

/// What was promised of a workload's recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// The longest stretch of commits that may be lost.
    pub rpo: Duration,
    /// The longest time until it is served again.
    pub rto: Duration,
}

/// One thing with state; only its driver knows what the node says.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The kind, which is known.
    pub kind: String,
    /// The whole entry, `kind` included.
    pub node: Node,
}

/// Something that is started where the workload is served.
#[derive(Clone, Debug)]
pub struct Service {
    /// Whether a move goes on without it.
    pub optional: bool,
    /// How, per region.
    pub regions: BTreeMap<RegionName, ServiceInstance>,
}

/// How a service is started, stopped and checked in one region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInstance {
    /// The host that the commands run on: `local` or `ssh://user@name`.
    pub host: String,
    /// Starts it; must succeed if it runs already.
    pub start: Vec<String>,
    /// Stops it; must succeed if it is stopped already.
    pub stop: Option<Vec<String>>,
    /// Succeeds if it runs.
    pub check: Option<Vec<String>>,
}

/// What leads clients to a region; only its implementation knows what the node says.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The kind, which is known.
    pub kind: String,
    /// Whether a move goes on without it; never so of the first, which checks are about.
    pub optional: bool,
    /// The whole entry, `kind` included.
    pub node: Node,
}

/// Somebody to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notify {
    /// An address that messages are posted to.
    Webhook {
        /// The address, which may hold a token.
        url: Template,
        /// Who has to have signed the certificate of an `https` address; the authorities of the machine if nobody is named.
        ca_file: Option<PathBuf>,
    },
}

impl FromNode for Objectives {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let rpo = reader.required_with("rpo", positive);
        let rto = reader.required_with("rto", positive);
        reader.finish();
        Some(Self {
            rpo: rpo?,
            rto: rto?,
        })
    }
}

/// Reports a first traffic record that is optional: `{answer}` is the one that it has, and the time to recover is taken when it is proven.
fn first_is_needed(traffic: Option<&Node>, context: &mut Context) {
    let Some(Value::List(records)) = traffic.map(|node| &node.value) else {
        return;
    };
    let first = records.first().and_then(|first| first.get("optional"));
    if let Some(word) = first.filter(|word| word.value == Value::Bool(true)) {
        let problem = Problem::error(&word.span, "the first record cannot be optional").hint(
            "what checks are about, and when clients are led, is told by it: put another one first",
        );
        context.within("traffic[0].optional", |context| context.report(problem));
    }
}

fn positive(node: &Node, context: &mut Context) -> Option<Duration> {
    let duration = Duration::from_node(node, context)?;
    if duration.is_zero() {
        let problem = Problem::error(&node.span, "an objective of zero cannot be measured")
            .expected("a duration above zero")
            .hint("`sync` on a resource makes commits wait for the recovery region's store");
        context.report(problem);
    }
    Some(duration)
}

impl Workload {
    pub(crate) fn read(node: &Node, context: &mut Context, scope: &Scope<'_>) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let tier = reader.optional("tier");
        let owner = reader.optional("owner");
        let objectives: Option<Objectives> = reader.required("objectives");
        let max_loss: Option<Spanned<Duration>> = reader.optional("max_loss");
        let home = reader.required_with("home", |n, c| scope.region(n, c));
        let recovery = reader.required_with(
            "recovery",
            list(|n: &Node, c: &mut Context| scope.region(n, c)),
        );
        let approval = reader.optional_with("approval", approval::read);
        let places = Places::new(home.as_ref(), recovery.as_deref());
        places.check(reader.context());
        let resource = |n: &Node, c: &mut Context| Resource::read(n, c, scope, &places);
        let resources = reader.required_with("resources", map(resource));
        let service = |n: &Node, c: &mut Context| Service::read(n, c, scope, &places);
        let services = reader.optional_with("services", map(service));
        let traffic = |n: &Node, c: &mut Context| Traffic::read(n, c, scope, &places);
        let traffic = reader.optional_with("traffic", list(traffic));
        let names = Names {
            resources: reader.node("resources"),
            services: reader.node("services"),
        };
        let check = |n: &Node, c: &mut Context| HealthCheck::read(n, c, names);
        let checks = reader.optional_with("checks", list(check));
        check::one_is_needed(reader.node("checks"), checks.as_deref(), reader.context());
        first_is_needed(reader.node("traffic"), reader.context());
        let notify = reader.or_default("notify");
        let readiness = reader.or_default("readiness");
        let detection = reader.or_default("detection");
        reader.finish();
        let objectives = objectives?;
        if let Some(max_loss) = max_loss.as_ref().filter(|max| max.value > objectives.rpo) {
            let what =
                "a failover accepts the loss of more than the objective `rpo`, and asks nobody";
            let problem = Problem::warning(&max_loss.span, what)
                .hint("make it at most `rpo`; on the day `--max-loss` accepts more");
            context.within("max_loss", |context| context.report(problem));
        }
        Some(Self {
            span: node.span.clone(),
            tier,
            owner,
            objectives,
            max_loss: max_loss.map_or(objectives.rpo, |max| max.value),
            home: home?.value,
            recovery: recovery?.into_iter().map(|r| r.value).collect(),
            approval: approval.unwrap_or_default(),
            resources: resources?,
            services: services.unwrap_or_default(),
            traffic: traffic.unwrap_or_default(),
            checks: checks.unwrap_or_default(),
            notify,
            readiness,
            detection,
        })
    }
}
