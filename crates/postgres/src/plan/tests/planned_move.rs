//! Moving by appointment, and taking it back.

use super::*;

/// The journal of the move says whether a promotion was begun; where it does not tell, the standby has to be seen.
#[test]
fn the_old_primary_is_resumed_without_a_standby_only_if_none_was_promoted() {
    let mut facts = left(Instance::Stopped, 7, 1, "shut down");
    let mut plan = |instance: Instance, unpromoted| {
        facts.regions.get_mut(&west()).unwrap().instance = instance;
        let goal = Goal::ResumePrimary {
            region: region("us-east-1"),
            standby: west(),
            unpromoted,
        };
        let actions = driver().plan_goal(&goal, &facts);
        actions.map(|actions| names(&actions).join(" "))
    };
    for unpromoted in [true, false] {
        let both = plan(standby(1), unpromoted).unwrap();
        let primary_first = "resume-primary attach-standby";
        let standby_first = "attach-standby resume-primary";
        assert_eq!(
            both,
            if unpromoted {
                primary_first
            } else {
                standby_first
            }
        );
        let promoted = Instance::Running {
            role: Role::Primary,
            timeline: TimelineId(2),
            position: Lsn(900),
            replayed: None,
        };
        plan(promoted, unpromoted).unwrap_err();
    }
    for gone in [Instance::Stopped, Instance::Absent] {
        assert_eq!(plan(gone.clone(), true).unwrap(), "resume-primary");
        plan(gone, false).unwrap_err();
    }
}

/// What follows the end of the old primary is done on the other region's host: one that cannot be reached is not left to be found out then.
/// The old primary is brought back without it, as long as nothing was promoted.
#[test]
fn a_primary_is_not_stopped_for_a_host_that_cannot_be_reached() {
    let mut facts = left(primary(1), 7, 1, "in production");
    let seen = facts.regions.get_mut(&west()).unwrap();
    seen.instance = standby(1);
    seen.detail = serde_json::json!({
        "host": "west", "data_directory": "/db", "directory": { "Err": "connection refused" },
        "is_host_away": true, "claimed": null,
    });
    let region = region("us-east-1");
    let stop = Goal::StopWrites {
        region: region.clone(),
        to: west(),
    };
    let refused = driver().plan_goal(&stop, &facts).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    assert!(refused.hint().unwrap().contains("the host `west`"));

    facts.regions.get_mut(&region).unwrap().instance = Instance::Stopped;
    let resume = |unpromoted| {
        let goal = Goal::ResumePrimary {
            region: region.clone(),
            standby: west(),
            unpromoted,
        };
        driver().plan_goal(&goal, &facts).unwrap()
    };
    let alone = resume(true);
    assert_eq!(names(&alone), ["resume-primary"]);
    assert!(
        alone[0]
            .summary
            .contains("is left as it is: connection refused")
    );
    // A promotion that was begun may still be done: it has to be kept from it.
    assert_eq!(names(&resume(false)), ["attach-standby", "resume-primary"]);
}

/// Nobody can tell what stands on a host that does not answer, and it may answer tomorrow; what is seen there forbids it.
#[rstest]
#[case::host_away(true, ErrorKind::Unavailable, Some("the host `east`"))]
#[case::nothing_there(false, ErrorKind::Conflict, None)]
fn an_old_primary_that_cannot_be_looked_at_is_not_resumed(
    #[case] away: bool,
    #[case] kind: ErrorKind,
    #[case] hint: Option<&str>,
) {
    let mut facts = left(Instance::Stopped, 7, 1, "shut down");
    facts.regions.get_mut(&region("us-east-1")).unwrap().detail = serde_json::json!({
        "host": "east", "data_directory": "/db", "directory": { "Err": "not seen" },
        "is_host_away": away, "claimed": null,
    });
    let goal = Goal::ResumePrimary {
        region: region("us-east-1"),
        standby: west(),
        unpromoted: true,
    };
    let refused = driver().plan_goal(&goal, &facts).unwrap_err();
    assert_eq!(refused.kind(), kind, "{refused:?}");
    match (hint, refused.hint()) {
        (Some(hint), Some(said)) => assert!(said.contains(hint), "{said}"),
        (hint, said) => assert_eq!(hint, said),
    }
}
