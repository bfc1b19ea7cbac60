//! Executions whose journals are not what they should be.

use crate::support::Place;

const ID: &str = "20261121T093005Z-us-west-2-0001";

/// A journal that nobody can believe is named by its entry, refused with its own exit code, and hides nothing else.
#[tokio::test]
async fn a_journal_that_was_tampered_with_is_refused() {
    let place = Place::new();
    place.initialise_stores().await;
    let journal = place.store("us-west-2").join("execution").join(ID);
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join("000001"), "{}").unwrap();
    for command in [
        &["execution", "show", ID][..],
        &["execution", "resume", ID],
        &["execution", "abort", ID],
        &["execution", "pause", ID],
    ] {
        let ran = place.run(command);
        assert_eq!(ran.code, 12, "{command:?}: {ran:?}");
        assert!(ran.stderr.contains("entry 1 of execution"), "{ran:?}");
        assert!(ran.stderr.contains("do not go on with it"), "{ran:?}");
    }
    assert_eq!(std::fs::read_dir(&journal).unwrap().count(), 1);
    let listed = place.run(&["execution", "list"]);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert!(listed.stderr.contains(ID), "{listed:?}");
}
