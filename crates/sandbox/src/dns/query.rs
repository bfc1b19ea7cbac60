//! Asks a DNS server for the address of a name, as a stub resolver does: by UDP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use crate::{Error, Result};

/// How long an answer may take before the question is repeated; datagrams get lost.
const PATIENCE: Duration = Duration::from_millis(150);
const ATTEMPTS: u32 = 3;

/// An address and how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address.
    pub address: IpAddr,
    /// How long it may be kept.
    pub ttl: Duration,
}

/// Asks `server` for the IPv4 address of `name`.
pub async fn lookup(server: SocketAddr, name: &str) -> Result<Answer> {
    let failed = |detail: String| Error::Dns {
        operation: "exchange",
        detail,
    };
    let io = |error: std::io::Error| failed(format!("with {server}: {error}"));
    let name = Name::from_ascii(name).map_err(|error| failed(error.to_string()))?;
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let bytes = question
        .to_vec()
        .map_err(|error| failed(error.to_string()))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .await
        .map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    for _ in 0..ATTEMPTS {
        socket.send(&bytes).await.map_err(io)?;
        match tokio::time::timeout(PATIENCE, receive(&socket, question.id)).await {
            Ok(answer) => return read(&answer.map_err(io)?),
            Err(_late) => {}
        }
    }
    Err(failed(format!("with {server}: no answer")))
}

/// Waits for the answer to the question `id`, passing over whatever else arrives.
async fn receive(socket: &UdpSocket, id: u16) -> std::io::Result<Message> {
    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Ok(message) = Message::from_vec(&buffer[..length])
            && message.id == id
            && message.message_type == MessageType::Response
        {
            return Ok(message);
        }
    }
}

fn read(message: &Message) -> Result<Answer> {
    let failed = |detail: String| Error::Dns {
        operation: "use",
        detail,
    };
    if message.response_code != ResponseCode::NoError {
        return Err(failed(format!(
            "the server answered {}",
            message.response_code
        )));
    }
    message
        .answers
        .iter()
        .find_map(|record| match record.data {
            RData::A(address) => Some(Answer {
                address: IpAddr::V4(address.0),
                ttl: Duration::from_secs(u64::from(record.ttl)),
            }),
            _ => None,
        })
        .ok_or_else(|| failed("the name has no address".to_owned()))
}
