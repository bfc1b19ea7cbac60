//! Against a real BIND: every way in which a switch can end.

mod named;
mod options;
mod proxy;

use std::sync::Arc;

use dr_model::{Epoch, RegionName};
use dr_provider::traffic::TrafficState;
use dr_provider::{ErrorKind, Secret, Traffic};
use rstest::rstest;

use self::named::Named;
use self::proxy::{Loss, Proxy};
use super::Rfc2136;
use super::content::{Content, parse_answer};
use super::marker::Marker;
use super::update::{self, Verdict};

const EAST: &str = "orders A 10.0.2.20";

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// Returns the server or ends the test: there is no BIND here.
macro_rules! named {
    ($records:expr) => {
        match Named::start($records).await {
            Some(named) => named,
            None => return,
        }
    };
}

async fn switch(
    record: &Rfc2136,
    to: &str,
    epoch: u64,
    previous: &TrafficState,
) -> dr_provider::Result<TrafficState> {
    record.switch(&region(to), Epoch(epoch), previous).await
}

#[tokio::test]
async fn switches_and_a_repeat_changes_nothing() {
    let named = named!(EAST);
    let record = named.record(named.options());
    let before = record.observe().await.unwrap();
    assert_eq!(before.region, Some(region("us-east-1")));
    assert_eq!((before.answer.as_str(), before.epoch), ("10.0.2.20", None));
    assert_eq!((before.ttl_seconds, before.serial), (60, Some(7)));

    let after = switch(&record, "us-west-2", 2, &before).await.unwrap();
    assert_eq!(after.region, Some(region("us-west-2")));
    assert_eq!(after.answer, "10.8.2.20");
    assert_eq!((after.epoch, after.ttl_seconds), (Some(Epoch(2)), 30));
    assert!(after.serial > before.serial);

    for previous in [&before, &after] {
        let again = switch(&record, "us-west-2", 2, previous).await.unwrap();
        assert_eq!(again, after);
    }
    assert_eq!(record.observe().await.unwrap(), after);
}

#[tokio::test]
async fn makes_a_record_that_is_not_there_yet_and_changes_its_type() {
    let named = named!("");
    let record = named.record(named.options());
    let mut state = record.observe().await.unwrap();
    assert_eq!((state.answer.as_str(), state.epoch), ("", None));
    for (epoch, to, answer) in [
        (1, "us-east-1", "10.0.2.20"),
        (2, "eu-north-1", "front.acme.example"),
        (3, "eu-west-1", "2001:db8::20"),
        (4, "us-east-1", "10.0.2.20"),
    ] {
        state = switch(&record, to, epoch, &state).await.unwrap();
        assert_eq!(state.answer, answer);
        assert_eq!(state.region, Some(region(to)));
        assert_eq!(state.epoch, Some(Epoch(epoch)));
    }
}

#[tokio::test]
async fn a_stale_executor_changes_nothing() {
    let named = named!(EAST);
    let record = named.record(named.options());
    let first = record.observe().await.unwrap();
    let away = switch(&record, "us-west-2", 2, &first).await.unwrap();
    // The address is the same again, the epoch is not.
    let back = switch(&record, "us-east-1", 3, &away).await.unwrap();
    assert_eq!(back.answer, first.answer);

    let stale = switch(&record, "us-west-2", 3, &first).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let late = switch(&record, "us-west-2", 2, &first).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    let text = dr_provider::error::chain(&late);
    assert!(text.ends_with("it is `10.0.2.20` of epoch 3"), "{text}");
    // Nor does one that looks just before it acts.
    let late = switch(&record, "us-west-2", 2, &back).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Superseded);
    assert_eq!(record.observe().await.unwrap(), back);
}

#[tokio::test]
async fn the_server_itself_refuses_an_update_that_arrives_late() {
    let named = named!(EAST);
    let record = named.record(named.options());
    let seen: Content = record.content().await.unwrap();
    let first = record.observe().await.unwrap();
    let away = switch(&record, "us-west-2", 2, &first).await.unwrap();
    let back = switch(&record, "us-east-1", 3, &away).await.unwrap();

    let answer = parse_answer("10.8.2.20").unwrap();
    let marker = Marker {
        epoch: Epoch(2),
        region: region("us-west-2"),
    };
    let verdict = record.update(&seen, (&answer, &marker)).await.unwrap();
    assert!(matches!(verdict, Verdict::Changed), "{verdict:?}");
    assert_eq!(record.observe().await.unwrap(), back);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_opposite_switches_one_wins() {
    let named = named!(EAST);
    let record = Arc::new(named.record(named.options()));
    let first = record.observe().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for to in ["us-west-2", "eu-west-1", "eu-north-1"].repeat(4) {
        let (record, first) = (Arc::clone(&record), first.clone());
        tasks.spawn(async move { (to, switch(&record, to, 2, &first).await) });
    }
    let outcomes = tasks.join_all().await;
    let now = record.observe().await.unwrap().region.unwrap();
    for (to, outcome) in outcomes {
        match outcome {
            Ok(state) => assert_eq!((region(to), state.epoch), (now.clone(), Some(Epoch(2)))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                assert_ne!(region(to), now);
            }
        }
    }
}

#[rstest]
#[case::unsigned(None, "write `tsig`")]
#[case::unknown_key(Some(("nobody", "${file:key}")), "does not know this key")]
#[case::wrong_secret(Some(("dr-test", "AAAA")), "another secret")]
#[case::not_allowed(Some(("other", "${file:key}")), "must be allowed to change")]
#[tokio::test]
async fn without_the_right_key_it_is_denied(#[case] key: Option<(&str, &str)>, #[case] hint: &str) {
    let named = named!(EAST);
    let mut options = named.options();
    match (key, &mut options.tsig) {
        (Some((name, secret)), Some(tsig)) => {
            tsig.name = name.into();
            tsig.secret = Secret::new(secret);
        }
        (_, tsig) => *tsig = None,
    }
    let record = named.record(options);
    let before = record.observe().await.unwrap();
    let rehearsed = record.rehearse().await.unwrap_err();
    let switched = switch(&record, "us-west-2", 2, &before).await.unwrap_err();
    for error in [rehearsed, switched] {
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
    }
    assert_eq!(record.observe().await.unwrap(), before);
}

/// It is taken, with a record and without one, and changes nothing, the serial number included.
#[rstest]
#[case(EAST)]
#[case("")]
#[tokio::test]
async fn a_rehearsal_is_judged_and_changes_nothing(#[case] records: &str) {
    let named = named!(records);
    let record = named.record(named.options());
    let before = record.observe().await.unwrap();
    record.rehearse().await.unwrap();
    assert_eq!(record.observe().await.unwrap(), before);
    let after = switch(&record, "us-west-2", 2, &before).await.unwrap();
    record.rehearse().await.unwrap();
    assert_eq!(record.observe().await.unwrap(), after);
}

#[tokio::test]
async fn a_rehearsal_that_nobody_answers_is_no_success() {
    let named = named!(EAST);
    let proxy = Proxy::start(named.address, &[Loss::Answer]).await;
    let mut options = named.options();
    options.server = proxy.address;
    let error = named.record(options).rehearse().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
}

#[tokio::test]
async fn a_dead_server_is_unavailable() {
    let named = named!(EAST);
    let record = named.record(named.options());
    let before = record.observe().await.unwrap();
    drop(named);
    let error = switch(&record, "us-west-2", 2, &before).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_definite());
}

#[rstest]
#[case::request(&[Loss::Request], Ok(()))]
#[case::answer(&[Loss::Answer], Ok(()))]
#[case::both(&[Loss::Request, Loss::Answer], Ok(()))]
#[case::forged_once(&[Loss::Forged], Ok(()))]
#[case::always(&[Loss::Request; 9], Err(ErrorKind::Unknown))]
#[case::forged(&[Loss::Forged; 9], Err(ErrorKind::Unknown))]
#[tokio::test]
async fn a_lost_answer_is_settled_by_looking(
    #[case] losses: &[Loss],
    #[case] expected: Result<(), ErrorKind>,
) {
    let named = named!(EAST);
    let proxy = Proxy::start(named.address, losses).await;
    let mut options = named.options();
    options.server = proxy.address;
    let record = named.record(options);
    let before = record.observe().await.unwrap();
    let switched = switch(&record, "us-west-2", 2, &before).await;
    let now = named.record(named.options()).observe().await.unwrap();
    assert_eq!(
        switched.as_ref().map(|_| ()).map_err(|error| error.kind()),
        expected
    );
    match switched {
        Ok(state) => assert_eq!(state, now),
        Err(_) => assert_eq!(now, before),
    }
}

#[tokio::test]
async fn views_show_every_server_or_why_it_cannot_be_seen() {
    let named = named!(EAST);
    let mut options = named.options();
    options.resolvers = vec![named.address];
    options.servers = vec!["127.0.0.2:9".parse().unwrap()];
    options.zone = Some("acme.example".into());
    let views = named.record(options).views().await;
    let names: Vec<&str> = views.iter().map(|view| view.observer.as_str()).collect();
    let (server, resolver) = (
        format!("server {}", named.address),
        format!("resolver {}", named.address),
    );
    let expected = [
        server.as_str(),
        "server 127.0.0.2:9",
        "server ns2.elsewhere.invalid.",
        resolver.as_str(),
    ];
    // `ns1` is at the address of the configured server, hence not asked twice.
    assert_eq!(names, expected);
    let state = views[0].state.as_ref().unwrap();
    assert_eq!(
        (state.answer.as_str(), state.serial),
        ("10.0.2.20", Some(7))
    );
    assert!(views[1].state.as_ref().unwrap_err().contains("refused"));
    assert!(views[2].state.as_ref().unwrap_err().contains("address"));
    let state = views[3].state.as_ref().unwrap();
    assert_eq!((state.answer.as_str(), state.serial), ("10.0.2.20", None));
}

#[tokio::test]
async fn a_wildcard_that_answers_for_the_name_is_pointed_out() {
    let named = named!("* A 10.0.2.20");
    let record = named.record(named.options());
    let before = record.observe().await.unwrap();
    assert_eq!(before.answer, "10.0.2.20");
    let error = switch(&record, "us-west-2", 2, &before).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().unwrap().contains("wildcard"));
}

#[tokio::test]
async fn a_zone_that_the_server_does_not_have_is_not_switched() {
    let named = named!(EAST);
    let mut options = named.options();
    options.name = "orders.other.example".into();
    let error = named.record(options).observe().await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
}

#[test]
fn the_decision_rests_on_the_epoch_first() {
    let marker = |epoch| Marker {
        epoch: Epoch(epoch),
        region: region("us-west-2"),
    };
    let answer = parse_answer("10.8.2.20").unwrap();
    let empty = Content::default();
    let decide = |unchanged| update::decide(&empty, (&answer, &marker(2)), |_| unchanged);
    assert_eq!(decide(true), update::Decision::Go);
    assert_eq!(decide(false), update::Decision::Conflict);
}

#[test]
fn a_mistyped_address_is_no_name() {
    for text in ["10.8.2", "10.8.2.256", "", ".", "a b"] {
        assert_eq!(parse_answer(text), None, "{text}");
    }
}
