//! What is optional fails, and the move goes on without it, names it, and is no pass (L17).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_config::Runbook;
use dr_model::{Epoch, RegionName};
use dr_provider::host::Command;
use dr_provider::probe::Health;
use dr_provider::traffic::{TrafficState, View};
use dr_provider::{Error, ErrorKind, Probe, Result, Traffic};
use rstest::rstest;

use super::crash::mortal_site;
use super::runs::state_of;
use super::world::{Everything, Fault, east, shipped, shipped_planned, shipped_recover, west};
use crate::events::Silent;
use crate::outcome::{State, StepState};
use crate::plan::Target;
use crate::request::Request;
use crate::{
    Plan, Report, ServiceSite, Site, execute, executions, observe_to_execute, plan, resume,
};

fn mail() -> Target {
    Target::Service("mail".parse().unwrap())
}

/// Adds a service that a move goes on without, on the machine of the other one.
fn with_mail(mut site: Site) -> Site {
    let hosts = site.services.values().next().unwrap().clone();
    let beside = hosts.into_iter().map(|(region, ledger)| {
        let service = ServiceSite {
            host: ledger.host,
            start: Command::new(["mail"]),
            stop: Some(Command::new(["stop-mail"])),
            check: None,
        };
        (region, service)
    });
    let name = "mail".parse().unwrap();
    site.services.insert(name, beside.collect());
    site.optional.insert(mail());
    site
}

async fn planned_with(site: &Site, runbook: &Runbook) -> Plan {
    let seen = observe_to_execute(site, &west()).await;
    plan(runbook, &seen, &Request::new(west())).unwrap()
}

async fn moved(site: Site) -> Report {
    let plan = planned_with(&site, &shipped()).await;
    execute(Arc::new(site), plan, &Silent).await.unwrap()
}

/// A name that leads clients elsewhere, and whose server takes no switch.
#[derive(Debug)]
struct StatusPage {
    answers: bool,
}

impl StatusPage {
    fn state() -> TrafficState {
        TrafficState {
            region: Some(east()),
            answer: "10.0.2.20".to_owned(),
            epoch: Some(Epoch(1)),
            ttl_seconds: 30,
            serial: None,
        }
    }

    fn refused(&self) -> Error {
        Error::new(ErrorKind::Denied, "update", self.describe()).because("BADKEY".to_owned())
    }
}

#[async_trait]
impl Traffic for StatusPage {
    fn describe(&self) -> String {
        "rfc2136 status.acme.example".to_owned()
    }

    fn name(&self) -> &str {
        "status.acme.example"
    }

    fn answer(&self, region: &RegionName) -> Option<String> {
        Some(format!("{region}.acme.example"))
    }

    async fn observe(&self) -> Result<TrafficState> {
        match self.answers {
            true => Ok(Self::state()),
            false => Err(Error::new(ErrorKind::Unavailable, "ask", self.describe())),
        }
    }

    async fn switch(&self, _: &RegionName, _: Epoch, _: &TrafficState) -> Result<TrafficState> {
        Err(self.refused())
    }

    async fn rehearse(&self) -> Result<()> {
        Err(self.refused())
    }

    async fn views(&self) -> Vec<View> {
        panic!("whoever went on without the switch does not wait for what it would have brought");
    }
}

/// Adds that name.
fn with_status_page(mut site: Site, answers: bool) -> Site {
    let page = StatusPage { answers };
    site.optional.insert(Target::Traffic(page.describe()));
    site.traffic.push(Arc::new(page));
    site
}

/// A check that never passes.
#[derive(Debug)]
struct NewsLetter;

#[async_trait]
impl Probe for NewsLetter {
    fn describe(&self) -> String {
        "run `newsletter-is-sent`".to_owned()
    }

    async fn probe(&self) -> Health {
        Health::Unhealthy("exit status 1: no letter".to_owned())
    }
}

fn with_newsletter(mut site: Site) -> Site {
    let checks = site.probes.entry(west()).or_default();
    checks.insert(0, Arc::new(NewsLetter));
    let target = Target::Probe(NewsLetter.describe());
    site.optional.insert(target);
    site
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time that tests are paused in is tokio's own"
)]
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn excepted(report: &Report) -> String {
    assert_eq!(report.state, State::CompletedWithExceptions, "{report:#?}");
    report.reason.clone().unwrap()
}

#[rstest]
#[case::failed(Fault::Definite, "exit status 1")]
#[case::nobody_can_tell(Fault::RequestLost, "it is unknown whether this was done")]
#[case::hangs(Fault::Hang, "no answer within")]
#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_start_is_gone_on_without(#[case] fault: Fault, #[case] why: &str) {
    let world = Everything::new().await;
    world.script("mail", [fault]);
    let report = moved(with_mail(world.site("laptop"))).await;
    let reason = excepted(&report);
    assert!(
        reason.starts_with("step `serve`: without `mail`, which is optional: "),
        "{reason}"
    );
    assert!(reason.contains(why), "{reason}");
    assert_eq!(state_of(&report, "serve"), StepState::Done);
    assert_eq!(world.count("start-service"), 1);
    assert_eq!(world.count("switch-traffic"), 1);
    assert!(
        report.rta_seconds.is_some(),
        "clients were led all the same"
    );
    let told = report.steps.iter().find(|step| step.id.0 == "serve");
    let told = told.unwrap().summary.as_deref().unwrap();
    assert!(
        told.starts_with("started `ledger`; without `mail`"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_optional_and_works_is_no_exception() {
    let world = Everything::new().await;
    let report = moved(with_mail(world.site("laptop"))).await;
    assert_eq!(report.state, State::Completed, "{report:#?}");
    assert_eq!(world.count("mail"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_needed_still_stops_everything() {
    let world = Everything::new().await;
    world.script("start-service", VecDeque::from([Fault::Definite; 8]));
    let report = moved(with_mail(world.site("laptop"))).await;
    assert_eq!(report.state, State::Stuck);
    assert_eq!(report.stuck.unwrap().step.0, "serve");
    assert_eq!(world.count("mail"), 0, "what is optional comes last");
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_say_now_is_not_overlooked() {
    let world = Everything::new().await;
    world.script("mail", [Fault::Superseded]);
    let report = moved(with_mail(world.site("laptop"))).await;
    assert_eq!(report.state, State::Superseded);
}

#[rstest]
#[case::answers(true, "it answers 10.0.2.20")]
#[case::silent(false, "what it answers is not known")]
#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_switched_is_named_with_what_it_answers(
    #[case] answers: bool,
    #[case] stands: &str,
) {
    let world = Everything::new().await;
    let site = with_status_page(world.site("laptop"), answers);
    let began = now();
    let report = moved(site).await;
    let reason = excepted(&report);
    let without = "without `rfc2136 status.acme.example`, which is optional: ";
    assert!(
        reason.contains(&format!("step `switch`: {without}")),
        "{reason}"
    );
    assert!(reason.contains(stands), "{reason}");
    let after = format!("step `prove`: {without}step `switch` went on without it");
    assert!(reason.contains(&after), "{reason}");
    assert_eq!(world.state().traffic.region, Some(west()));
    assert!(report.rta_seconds.is_some());
    assert!(began.elapsed() < Duration::from_secs(10), "nobody waited");
}

#[tokio::test(start_paused = true)]
async fn a_name_server_that_would_refuse_something_optional_refuses_no_plan() {
    let world = Everything::new().await;
    world.state().left_running = true;
    for runbook in [shipped(), shipped_planned()] {
        let site = with_status_page(world.site("laptop"), false);
        let plan = planned_with(&site, &runbook).await;
        let warned = plan.warnings.join("\n");
        let goes_on = "the execution goes on without it, because it is optional";
        assert!(warned.contains(goes_on), "{warned}");
        let switch = plan.steps.iter().find(|step| step.id.0 == "switch");
        let lanes = &switch.unwrap().lanes;
        let optional: Vec<_> = lanes.iter().map(|lane| lane.optional).collect();
        assert_eq!(optional, [false, true]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_does_not_pass_holds_clients_up_for_a_moment_only() {
    let world = Everything::new().await;
    let site = with_newsletter(world.site("laptop"));
    let began = now();
    let report = moved(site).await;
    let reason = excepted(&report);
    let why = "step `verify`: without run `newsletter-is-sent`, which is optional: ";
    assert!(reason.starts_with(why), "{reason}");
    assert!(reason.contains("exit status 1: no letter"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(15), "{began:?}");
    assert_eq!(world.count("switch-traffic"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_step_of_which_nothing_is_done_is_not_done() {
    let world = Everything::new().await;
    world.script("start-service", VecDeque::from([Fault::Definite; 8]));
    let mut site = world.site("laptop");
    site.optional
        .insert(Target::Service("ledger".parse().unwrap()));
    // Nobody would find it well then.
    site.probes.clear();
    site.clients.clear();
    let report = moved(site).await;
    let reason = excepted(&report);
    assert_eq!(state_of(&report, "serve"), StepState::Excepted);
    assert_eq!(reason.matches("without `ledger`").count(), 1, "{reason}");
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_by_its_name_is_not_gone_on_without() {
    let world = Everything::new().await;
    world.script("mail", [Fault::Definite; 8]);
    let site = with_mail(world.site("laptop"));
    let request = Request {
        component: Some("mail".to_owned()),
        ..Request::new(east())
    };
    let seen = observe_to_execute(&site, &east()).await;
    let plan = plan(&shipped_recover(), &seen, &request).unwrap();
    let report = execute(Arc::new(site), plan, &Silent).await.unwrap();
    assert_eq!(report.state, State::Stuck, "{report:#?}");
    assert_eq!(report.stuck.unwrap().step.0, "serve");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_optional_is_another_plan() {
    let world = Everything::new().await;
    let optional = with_mail(world.site("laptop"));
    let mut needed = with_mail(world.site("laptop"));
    needed.optional.clear();
    let hash = async |site: &Site| planned_with(site, &shipped()).await.hash;
    assert_ne!(hash(&optional).await, hash(&needed).await);
}

/// Dies at every write of the journal, before and after it has landed, and goes on elsewhere.
async fn every_crash_is_survived(faults: usize, end: State) {
    for lands in [false, true] {
        let mut survived = 0;
        for last in 1.. {
            let world = Everything::new().await;
            world.script("mail", vec![Fault::Definite; faults]);
            let plan = planned_with(&with_mail(world.site("laptop")), &shipped()).await;
            let site = with_mail(mortal_site(&world, &west(), last, lands));
            if execute(Arc::new(site), plan, &Silent).await.is_ok() {
                break;
            }
            let clock: Arc<dyn dr_model::Clock> = world.clock.clone();
            let (found, _) = executions::list(&world.stores, &clock).await;
            let Some(left) = found.first() else {
                assert_eq!((last, lands), (1, false));
                continue;
            };
            survived += 1;
            let at = format!("death {last}, landed: {lands}");
            let site = Arc::new(with_mail(world.site("desk")));
            match resume(site, &left.execution, "it died", vec![], &Silent).await {
                Ok(report) => {
                    assert_eq!(report.state, end, "{at}: {report:#?}");
                    let named = report.reason.is_some_and(|why| why.contains("`mail`"));
                    assert_eq!(named, faults > 0, "{at}");
                }
                // Only its last word was lost on the way back to it.
                Err(crate::Error::Over { state, .. }) => assert_eq!(state, end, "{at}"),
                Err(error) => panic!("{at}: {error}"),
            }
            assert_eq!(world.count("start-service"), 1, "{at}");
            assert_eq!(world.count("switch-traffic"), 1, "{at}");
            let head = world.register().read().await.unwrap().unwrap();
            assert_eq!((head.epoch, head.primary), (Epoch(2), west()), "{at}");
        }
        assert!(survived > 10, "{survived}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_beside_something_optional_that_fails_is_survived() {
    every_crash_is_survived(64, State::CompletedWithExceptions).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_beside_something_optional_that_works_is_survived() {
    every_crash_is_survived(0, State::Completed).await;
}
