//! What an execution saw before it did anything, and what it could not see.

use std::sync::Arc;

use super::runs::planned;
use super::world::{Everything, west};
use crate::events::Silent;
use crate::execute;
use crate::outcome::Report;
use crate::request::{Request, Statement};
use crate::sight::Sight;

async fn moved(world: &Everything) -> Report {
    let request = Request {
        statements: vec![Statement::Override("it burns".to_owned())],
        ..Request::new(west())
    };
    let plan = planned(world, &request).await;
    let site = Arc::new(world.site("laptop"));
    execute(site, plan, &Silent).await.unwrap()
}

fn not_seen(sight: &Sight, what: &str) -> Option<String> {
    let mut all = sight.not_seen.iter();
    Some(all.find(|missing| missing.what == what)?.why.clone())
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_silent_is_said_not_to_have_been_seen() {
    let world = Everything::new().await;
    world.state().left_reachable = false;
    world.state().name_server_silent = true;
    let report = moved(&world).await;
    let sight = report.sight.unwrap();
    assert_eq!(sight.looked_from, "laptop");
    let why = not_seen(&sight, "`database` in us-east-1").unwrap();
    assert!(why.contains("connection timed out"), "{why}");
    let why = not_seen(&sight, "`rfc2136 orders.acme.example`").unwrap();
    assert!(why.contains("no answer"), "{why}");
    let left = |line: &&String| line.contains("`database` in us-east-1");
    assert_eq!(sight.seen.iter().find(left), None, "unknown is not well");
    let here = |line: &&String| line.contains("`database` in us-west-2 is a standby");
    assert!(sight.seen.iter().any(|line| here(&line)), "{sight:#?}");
    let told = report.steps[0].summary.as_deref().unwrap();
    assert!(told.contains("not seen: `database` in us-east-1"), "{told}");
    // Whoever reads the journal alone sees the same.
    let journals = world.journals().await.join("\n");
    assert!(
        journals.contains(r#""looked_from": "laptop""#),
        "{journals}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_answers_is_seen_in_the_region_being_left() {
    let world = Everything::new().await;
    world.state().left_running = true;
    let sight = moved(&world).await.sight.unwrap();
    let alive = |line: &String| line.starts_with("`database` in us-east-1 is a primary");
    assert!(sight.seen.iter().any(alive), "{sight:#?}");
    assert_eq!(not_seen(&sight, "`database` in us-east-1"), None);
    let clients = "`rfc2136 orders.acme.example` answers 10.0.2.20".to_owned();
    assert!(sight.seen.contains(&clients), "{sight:#?}");
}
