//! Sealing: where it lands, what it does to writers.

use dr_model::Epoch;
use dr_provider::ErrorKind;
use rstest::rstest;

use super::{Boot, ORIGIN, chain, chunk, options, request, write, writer};
use crate::chain::{ChainWriter, Error, encode, find_tail, seal};
use crate::testing::{Fault, IMPATIENT, Scripted};
use dr_provider::ObjectStore;

#[tokio::test]
async fn a_seal_ends_the_chain_where_it_hangs_together() {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    let end = write(&mut writer, &[10, 20]).await;
    // A chunk that hangs on nothing: its predecessor never arrived.
    let orphan = chunk(end.advance(5), 5);
    let key = chain(1).link_key(orphan.start);
    store
        .create(&key, encode(&chain(1), &orphan, end, "west", None))
        .await
        .unwrap();
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(sealed.lsn, end);
    assert_eq!(sealed.last.as_ref().unwrap().end, end);
    let again = seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    assert_eq!((again.lsn, &again.seal), (end, &sealed.seal));
    assert_eq!(again.last, sealed.last);
    match seal(&*store, &chain(1), &request(3), IMPATIENT).await {
        Err(Error::Superseded { seal, .. }) => assert_eq!(seal.successor, Epoch(2)),
        other => panic!("{other:?}"),
    }
    let next = chunk(writer.end(), 5);
    writer.push(next).await.unwrap();
    assert_eq!(
        writer.flush().await.unwrap_err().kind(),
        ErrorKind::Superseded
    );
    let refused = writer.push(chunk(writer.end(), 5)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Superseded);
    assert_eq!(writer.durable(), end);
    let reopened = ChainWriter::open(store, chain(1), ORIGIN, options(&Boot::default())).await;
    assert!(matches!(reopened, Err(Error::Superseded { .. })));
}

#[tokio::test]
async fn a_chain_that_nobody_wrote_can_be_sealed() {
    let store = Scripted::new("west");
    assert_eq!(
        find_tail(&*store, &chain(1), IMPATIENT).await.unwrap(),
        None
    );
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    assert_eq!((sealed.lsn, sealed.last), (ORIGIN, None));
}

#[rstest]
#[case(Fault::AnswerLost)]
#[case(Fault::RequestLost)]
#[case(Fault::Unavailable)]
#[tokio::test(start_paused = true)]
async fn a_fault_while_sealing_is_resolved(#[case] fault: Fault) {
    let store = Scripted::new("west");
    let mut writer = writer(&store).await;
    let end = write(&mut writer, &[10]).await;
    store.script([fault]);
    let sealed = seal(&*store, &chain(1), &request(2), IMPATIENT)
        .await
        .unwrap();
    assert_eq!(sealed.lsn, end);
}

#[tokio::test]
async fn sealing_and_writing_at_once_agree_on_what_was_acknowledged() {
    for length in 1..20 {
        let store = Scripted::new("west");
        let mut writer = writer(&store).await;
        let writing = async {
            for _ in 0..20 {
                let next = chunk(writer.end(), length);
                if writer.push(next).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let flushed = writer.flush().await;
            (writer.durable(), flushed.is_ok())
        };
        let request = request(2);
        let sealing = async {
            for _ in 0..length {
                tokio::task::yield_now().await;
            }
            seal(&*store, &chain(1), &request, IMPATIENT).await.unwrap()
        };
        let ((durable, complete), sealed) = tokio::join!(writing, sealing);
        assert!(
            durable <= sealed.lsn,
            "{durable} was acknowledged, sealed at {}",
            sealed.lsn
        );
        assert!(!complete || durable == sealed.lsn);
    }
}
