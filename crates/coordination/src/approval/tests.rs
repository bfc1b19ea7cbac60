//! What counts as an approval and what does not.

use std::time::Duration;

use dr_model::{ApprovalPolicy, Approver};
use jiff::{SignedDuration, Timestamp};
use rstest::rstest;

use super::*;
use crate::testing::{Fault, Scripted, at};

const PLAN: &str = "6a5f6f0a";

fn signing(seed: u8) -> SigningKey {
    let digits = format!("{seed:02x}").repeat(32);
    SigningKey::parse(&format!("# mine\n\ndr-approver-key1 {digits}\n")).unwrap()
}

fn approver(name: &str, seed: u8) -> Approver {
    Approver {
        name: name.parse().unwrap(),
        account: None,
        key: signing(seed).public(),
    }
}

fn execution(last: u8) -> ExecutionId {
    format!("20261121T093005Z-us-west-2-{last:04x}")
        .parse()
        .unwrap()
}

fn request() -> Request {
    Request {
        execution: execution(1),
        plan: PLAN.to_owned(),
        accepted_loss_milliseconds: 60_000,
        requested_by: "grace".parse().unwrap(),
        requested_at: at(0),
        policy: ApprovalPolicy {
            quorum: 2,
            expires: Duration::from_secs(3600),
            approvers: vec![
                approver("ada", 1),
                approver("grace", 2),
                approver("mary", 3),
            ],
        },
    }
}

fn approval(name: &str, seed: u8) -> Approval {
    let name = name.parse().unwrap();
    let given = at(60);
    Approval::sign(
        &signing(seed),
        execution(1),
        PLAN.to_owned(),
        60_000,
        name,
        given,
    )
}

fn found(approval: Approval) -> Found {
    Found {
        name: approval.approver.to_string(),
        approval: Ok(approval),
    }
}

fn refusal(found: Found, now: Timestamp) -> Refused {
    let tally = tally(&request(), &[found], now);
    assert_eq!(tally.counted, []);
    tally.refused.into_iter().next().unwrap().1
}

#[test]
fn signatures_are_those_of_rfc_8032() {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let key = SigningKey::parse(&format!("dr-approver-key1 {seed}")).unwrap();
    let public = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(key.public().to_string(), public);
    assert_eq!(
        key.sign(b""),
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    );
    assert!(!format!("{key:?}").contains(seed));
    assert_eq!(
        SigningKey::parse(&key.to_file()).unwrap().public(),
        key.public()
    );
}

#[test]
fn two_keys_are_never_the_same() {
    let (one, other) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    assert_ne!(one.public(), other.public());
}

#[rstest]
#[case("")]
#[case("dr-approver-key1 00")]
#[case("dr-key1 0000000000000000000000000000000000000000000000000000000000000000")]
fn what_is_no_key_is_refused(#[case] text: &str) {
    assert_eq!(SigningKey::parse(text).unwrap_err(), SigningKeyError);
}

#[tokio::test(start_paused = true)]
async fn each_person_counts_once() {
    let store = Scripted::new("west");
    // The answer is lost; it is written all the same, once.
    store.script([Fault::AnswerLost]);
    assert_eq!(give(&*store, &approval("ada", 1)).await.unwrap(), None);
    let later = Approval::sign(
        &signing(1),
        execution(1),
        PLAN.to_owned(),
        60_000,
        "ada".parse().unwrap(),
        at(90),
    );
    let standing = give(&*store, &later).await.unwrap();
    assert_eq!(standing, Some(found(approval("ada", 1))));
    give(&*store, &approval("mary", 3)).await.unwrap();
    let all = read_all(&*store, &execution(1)).await.unwrap();
    let tally = tally(&request(), &all, at(100));
    let names: Vec<_> = tally.counted.iter().map(|c| c.approver.as_str()).collect();
    assert_eq!((names, tally.refused), (vec!["ada", "mary"], vec![]));
    assert_eq!(tally.counted[0].approved_at, at(60));
    assert_eq!(read_all(&*store, &execution(2)).await.unwrap(), []);
    // The journal beside them is listed as one execution.
    assert_eq!(crate::journal::list(&*store).await.unwrap(), [execution(1)]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_has_not_said_that_nobody_approved() {
    let store = Scripted::new("west");
    store.set_down(true);
    assert!(give(&*store, &approval("ada", 1)).await.is_err());
    assert!(read_all(&*store, &execution(1)).await.is_err());
}

#[test]
fn whoever_asked_does_not_approve() {
    let refused = refusal(found(approval("grace", 2)), at(61));
    assert_eq!(
        refused.to_string(),
        "`grace` asked for it, and nobody approves what they asked for"
    );
    let request = request();
    assert!(request.approver(&signing(2).public(), at(1)).is_err());
    assert_eq!(
        request
            .approver(&signing(1).public(), at(1))
            .unwrap()
            .name
            .as_str(),
        "ada"
    );
    assert_eq!(
        request.approver(&signing(9).public(), at(1)).unwrap_err(),
        Refused::NotAKey(signing(9).public())
    );
}

#[test]
fn nothing_counts_after_the_request_has_expired() {
    let end = request().expires_at();
    assert_eq!(end, at(3600));
    let just_before = end - SignedDuration::from_secs(1);
    let given = || found(approval("ada", 1));
    assert_eq!(tally(&request(), &[given()], just_before).counted.len(), 1);
    assert_eq!(refusal(given(), end), Refused::Expired(end));
    assert_eq!(
        request().approver(&signing(1).public(), end).unwrap_err(),
        Refused::Expired(end)
    );
}

#[test]
fn another_plan_is_not_this_one() {
    let of = |execution_id, plan: &str, loss| {
        let name = "ada".parse().unwrap();
        let key = signing(1);
        found(Approval::sign(
            &key,
            execution_id,
            plan.to_owned(),
            loss,
            name,
            at(60),
        ))
    };
    let plan = refusal(of(execution(1), "0000", 60_000), at(61));
    assert!(
        matches!(&plan, Refused::OtherPlan { plan, .. } if plan == "0000"),
        "{plan:?}"
    );
    let loss = refusal(of(execution(1), PLAN, 60_001), at(61));
    assert!(
        matches!(&loss, Refused::OtherPlan { loss: 60_001, .. }),
        "{loss:?}"
    );
    let other = refusal(of(execution(2), PLAN, 60_000), at(61));
    assert_eq!(other, Refused::OtherExecution(execution(2)));
}

#[test]
fn a_signature_is_of_everything() {
    let good = approval("ada", 1);
    let changes: [fn(&mut Approval); 4] = [
        |a| a.plan.push('0'),
        |a| a.accepted_loss_milliseconds += 1,
        |a| a.approved_at = at(61),
        |a| a.execution = execution(2),
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let refused = refusal(found(changed), at(62));
        assert_eq!(refused, Refused::Signature("ada".parse().unwrap()));
    }
    // Signed with a key that is not hers, or not in hexadecimal.
    let signature = Refused::Signature("ada".parse().unwrap());
    assert_eq!(refusal(found(approval("ada", 3)), at(62)), signature);
    let mut garbled = good;
    garbled.signature = "no".to_owned();
    assert_eq!(refusal(found(garbled), at(62)), signature);
}

#[test]
fn what_lies_elsewhere_or_is_nobodys_does_not_count() {
    let copied = Found {
        name: "mary".to_owned(),
        approval: Ok(approval("ada", 1)),
    };
    assert_eq!(
        refusal(copied, at(62)),
        Refused::OtherApprover("mary".to_owned())
    );
    let stranger = refusal(found(approval("eve", 1)), at(62));
    assert_eq!(stranger, Refused::NotAnApprover("eve".to_owned()));
    let unreadable = Found {
        name: "ada".to_owned(),
        approval: Approval::from_bytes(b"{\"version\": 2}"),
    };
    assert!(matches!(
        refusal(unreadable, at(62)),
        Refused::Unreadable(_)
    ));
    let mut later = approval("ada", 1);
    later.version = 2;
    let why = Approval::from_bytes(&later.to_bytes()).unwrap_err();
    assert_eq!(why, "format version 2 is not known");
}
