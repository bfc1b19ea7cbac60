//! The DNS server, asked over its real protocol.

#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use dr_sandbox::dns::{Zone, lookup, serve};
use dr_sandbox::network::free_port;
use dr_sandbox::wait;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio_util::sync::CancellationToken;

use support::{NAME, ZONE, by_tcp, by_udp, name, sign, signer, switch};

const KEY: &str = "c2FuZGJveC1zYW5kYm94LXNhbmRib3gtc2FuZGJveCE=";
const OTHER: &str = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3Q=";

async fn start() -> SocketAddr {
    let ip = [127, 0, 0, 1].into();
    let address = SocketAddr::new(ip, free_port(&[ip]).unwrap());
    let zone = Zone::new(name(ZONE), address, name(NAME), [127, 9, 9, 1].into(), 1);
    tokio::spawn(async move {
        serve(address, zone, "dr-sandbox", KEY, CancellationToken::new())
            .await
            .unwrap();
    });
    wait::until("the server", Duration::from_secs(5), async || {
        lookup(address, NAME)
            .await
            .map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    address
}

async fn answer(server: SocketAddr) -> String {
    lookup(server, NAME).await.unwrap().address.to_string()
}

fn question(kind: RecordType) -> Vec<u8> {
    let mut question = Message::query();
    question.add_query(Query::query(name(NAME), kind));
    question.to_vec().unwrap()
}

#[tokio::test]
async fn a_signed_update_is_made_once_and_its_answer_is_signed() {
    let server = start().await;
    let signer = signer("dr-sandbox", KEY);
    let from_first_to_second = || switch([127, 9, 9, 1].into(), [127, 9, 9, 2].into(), 2);

    let mut request = from_first_to_second();
    let bytes = sign(&mut request, &signer);
    let mac = request.signature().unwrap().data.mac.clone();
    let reply = by_udp(server, &bytes).await;
    assert_eq!(
        Message::from_vec(&reply).unwrap().response_code,
        ResponseCode::NoError
    );
    signer
        .verify_message_byte(&reply, Some(&mac), true)
        .unwrap();
    assert_eq!(answer(server).await, "127.9.9.2");

    let reply = by_udp(server, &sign(&mut from_first_to_second(), &signer)).await;
    assert_eq!(
        Message::from_vec(&reply).unwrap().response_code,
        ResponseCode::NXRRSet
    );

    let reply = by_tcp(server, &question(RecordType::SOA)).await;
    let reply = Message::from_vec(&reply).unwrap();
    assert!(reply.authoritative);
    let RData::SOA(soa) = &reply.authorities[0].data else {
        panic!("{reply:?}")
    };
    assert_eq!(soa.serial, 2, "one change was made");
}

#[tokio::test]
async fn whoever_does_not_sign_with_the_key_changes_nothing() {
    let server = start().await;
    let update = || switch([127, 9, 9, 1].into(), [127, 9, 9, 2].into(), 2);
    let cases = [
        (update().to_vec().unwrap(), ResponseCode::Refused),
        (
            sign(&mut update(), &signer("dr-sandbox", OTHER)),
            ResponseCode::NotAuth,
        ),
        (
            sign(&mut update(), &signer("somebody", KEY)),
            ResponseCode::NotAuth,
        ),
    ];
    for (bytes, code) in cases {
        let reply = Message::from_vec(&by_tcp(server, &bytes).await).unwrap();
        assert_eq!(reply.response_code, code);
    }
    let mut changed = sign(&mut update(), &signer("dr-sandbox", KEY));
    let at = changed
        .windows(4)
        .position(|bytes| bytes == [127, 9, 9, 2])
        .unwrap();
    changed[at + 3] = 3;
    let reply = Message::from_vec(&by_udp(server, &changed).await).unwrap();
    assert_eq!(
        reply.response_code,
        ResponseCode::NotAuth,
        "changed on the way"
    );
    assert_eq!(answer(server).await, "127.9.9.1");
}

#[tokio::test]
async fn absences_and_foreign_names_are_told_apart() {
    let server = start().await;
    let ask = async |owner: &str, kind| {
        let mut question = Message::query();
        question.add_query(Query::query(name(owner), kind));
        let reply = by_udp(server, &question.to_vec().unwrap()).await;
        Message::from_vec(&reply).unwrap().response_code
    };
    assert_eq!(ask(NAME, RecordType::AAAA).await, ResponseCode::NoError);
    assert_eq!(
        ask("gone.sandbox.example.", RecordType::A).await,
        ResponseCode::NXDomain
    );
    assert_eq!(
        ask("www.example.com.", RecordType::A).await,
        ResponseCode::Refused
    );
}
