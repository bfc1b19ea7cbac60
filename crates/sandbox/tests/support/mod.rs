//! A client of signed DNS updates, as small as it can be.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use dr_model::{Clock, SystemClock};
use hickory_proto::op::{Message, MessageType, OpCode, Query, UpdateMessage};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

pub(crate) const ZONE: &str = "sandbox.example.";
pub(crate) const NAME: &str = "ledger.sandbox.example.";

pub(crate) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(crate) fn signer(key_name: &str, secret: &str) -> TSigner {
    let secret = base64::engine::general_purpose::STANDARD
        .decode(secret)
        .unwrap();
    TSigner::new(secret, TsigAlgorithm::HmacSha256, name(key_name), 300).unwrap()
}

/// Makes an update that replaces the address of the name, if it is `previous`, and the epoch beside it.
pub(crate) fn switch(previous: IpAddr, next: IpAddr, epoch: u32) -> Message {
    let a = |address: IpAddr, ttl| match address {
        IpAddr::V4(v4) => Record::from_rdata(name(NAME), ttl, RData::A(A(v4))),
        IpAddr::V6(_) => panic!("the sandbox's addresses are of version 4"),
    };
    let delete = |owner: &str, kind| {
        let mut record = Record::update0(name(owner), 0, kind).into_record_of_rdata();
        record.dns_class = DNSClass::ANY;
        record
    };
    let owner = format!("_dr.{NAME}");
    let text = RData::TXT(TXT::new(vec![format!("epoch={epoch}")]));
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Update);
    message.add_query(Query::query(name(ZONE), RecordType::SOA));
    message.add_pre_requisite(a(previous, 0));
    message.add_update(delete(NAME, RecordType::A));
    message.add_update(a(next, 1));
    message.add_update(delete(&owner, RecordType::TXT));
    message.add_update(Record::from_rdata(name(&owner), 1, text));
    message
}

/// Signs a message; returns its bytes.
pub(crate) fn sign(message: &mut Message, signer: &TSigner) -> Vec<u8> {
    let now = u64::try_from(SystemClock::new().now().as_second()).unwrap();
    let (signature, _) = signer.sign_message(message, now).unwrap();
    message.set_signature(signature);
    message.to_vec().unwrap()
}

/// Sends a message by UDP; returns the answer's bytes.
pub(crate) async fn by_udp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(message, server).await.unwrap();
    let mut buffer = vec![0; 1500];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

/// Sends a message by TCP; returns the answer's bytes.
pub(crate) async fn by_tcp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream
        .write_u16(u16::try_from(message.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(message).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}
