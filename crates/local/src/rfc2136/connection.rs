//! DNS messages over a TCP connection (RFC 7766).

use std::net::SocketAddr;

use dr_provider::{Error, ErrorKind, Result};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to one server. Calls have no time limit: callers set one for all that they do with
/// it.
#[derive(Debug)]
pub(super) struct Connection {
    server: SocketAddr,
    stream: TcpStream,
    /// Whether the server is asked to ask others: a resolver is, an authority is not.
    recursive: bool,
}

impl Connection {
    pub(super) async fn open(server: SocketAddr, recursive: bool) -> Result<Self> {
        let stream = TcpStream::connect(server).await.map_err(|source| {
            Error::new(
                ErrorKind::Unavailable,
                "connect to DNS server",
                server.to_string(),
            )
            .because(source)
        })?;
        stream.set_nodelay(true).ok();
        Ok(Self {
            server,
            stream,
            recursive,
        })
    }

    /// Asks for records of one type; a name that does not exist has none.
    pub(super) async fn query(&mut self, name: &Name, record_type: RecordType) -> Result<Message> {
        let mut message = Message::query();
        message.metadata.recursion_desired = self.recursive;
        message.add_query(Query::query(name.clone(), record_type));
        let error = |kind| {
            let what = format!("{name} {record_type} at {}", self.server);
            Error::new(kind, "look up", what)
        };
        let request = message
            .to_vec()
            .map_err(|source| error(ErrorKind::Invalid).because(source))?;
        let answer = exchange(&mut self.stream, &request)
            .await
            .and_then(|answer| read(&answer, message.metadata.id))
            .map_err(|source| error(ErrorKind::Unavailable).because(source))?;
        let because = |kind, code| error(kind).because(format!("the server answered {code}"));
        match answer.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
            code @ ResponseCode::Refused => Err(because(ErrorKind::Denied, code).with_hint(
                "the server does not serve this zone, or not to us: see `server`, and whom it lets ask",
            )),
            code @ ResponseCode::ServFail => Err(because(ErrorKind::Unavailable, code)),
            code => Err(because(ErrorKind::Failed, code)),
        }
    }

    /// Asks for records of one type and returns what stands in the answer.
    pub(super) async fn records(
        &mut self,
        name: &Name,
        record_type: RecordType,
    ) -> Result<Vec<Record>> {
        Ok(self.query(name, record_type).await?.answers)
    }

    /// Sends a finished message and returns the answer's bytes and content. A failure leaves its
    /// effect unknown.
    pub(super) async fn send(
        mut self,
        id: u16,
        request: &[u8],
    ) -> std::io::Result<(Vec<u8>, Message)> {
        let answer = exchange(&mut self.stream, request).await?;
        let message = read(&answer, id)?;
        Ok((answer, message))
    }
}

/// Sends one message and receives one, each preceded by its length.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(request.len()).map_err(std::io::Error::other)?;
    let mut framed = Vec::with_capacity(request.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(request);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn read(answer: &[u8], id: u16) -> std::io::Result<Message> {
    let message = Message::from_vec(answer).map_err(std::io::Error::other)?;
    let metadata = &message.metadata;
    if metadata.id == id && metadata.message_type == MessageType::Response {
        Ok(message)
    } else {
        Err(std::io::Error::other("the answer is to another question"))
    }
}
