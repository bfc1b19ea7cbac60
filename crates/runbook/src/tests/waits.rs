//! A step that stands still says what it waits for.

use std::sync::{Arc, Mutex};

use super::runs::planned;
use super::world::{Everything, west};
use crate::events::{Event, Monitor};
use crate::execute;
use crate::outcome::State;
use crate::request::Request;

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Monitor for Said {
    fn event(&self, event: &Event<'_>) {
        if let Event::ActionWaits { target, seen } = event {
            self.0.lock().unwrap().push(format!("{target}: {seen}"));
        }
    }
}

/// It is said once, however long it takes, unless it becomes something else.
#[tokio::test(start_paused = true)]
async fn what_does_not_become_healthy_is_told_while_it_is_waited_for() {
    let world = Everything::new().await;
    world.state().healthy = false;
    let plan = planned(&world, &Request::new(west())).await;
    let said = Said::default();
    let report = execute(Arc::new(world.site("laptop")), plan, &said).await;
    assert_eq!(report.unwrap().state, State::Stuck);
    let said = said.0.lock().unwrap().clone();
    assert_eq!(said, ["GET http://10.8.2.20:8080/health: unhealthy: 503"]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_straight_through_waits_for_nothing() {
    let world = Everything::new().await;
    let plan = planned(&world, &Request::new(west())).await;
    let said = Said::default();
    let report = execute(Arc::new(world.site("laptop")), plan, &said).await;
    assert_eq!(report.unwrap().state, State::Completed);
    assert!(said.0.lock().unwrap().is_empty());
}
