//! The byte stream to a server: TCP or a unix socket, encrypted or not.

use std::io;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{Config, Host, TlsMode};
use crate::error::Error;
use crate::frame::{FrameReader, FrameWriter};
use crate::tls;

/// What every kind of connection can do.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// The reading end of a connection.
pub(crate) type Reader = FrameReader<ReadHalf<Box<dyn Stream>>>;
/// The writing end of a connection.
pub(crate) type Writer = FrameWriter<WriteHalf<Box<dyn Stream>>>;

/// A connection before login.
pub(crate) struct Transport {
    pub(crate) stream: Box<dyn Stream>,
    /// The connection cannot be overheard: it is encrypted, or does not leave the machine.
    pub(crate) confidential: bool,
    /// The `tls-server-end-point` channel binding, if the connection has one.
    pub(crate) channel_binding: Option<Vec<u8>>,
}

impl Transport {
    /// Connects and, as the configuration says, encrypts.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let target = config.target();
        let refused = |source| Error::Connect {
            target: config.target(),
            source,
        };
        let mut tcp = match &config.host {
            Host::Unix(_) => {
                let path = config.socket_path().unwrap_or_default();
                let stream = UnixStream::connect(path).await.map_err(refused)?;
                return Ok(Self::plain(Box::new(stream), true));
            }
            Host::Tcp(name) => TcpStream::connect((name.as_str(), config.port))
                .await
                .map_err(refused)?,
        };
        // Status updates are small and urgent (R21).
        tcp.set_nodelay(true).map_err(refused)?;
        if config.tls == TlsMode::Disable {
            return Ok(Self::plain(Box::new(tcp), false));
        }
        let offered = server_offers_tls(&mut tcp).await;
        match offered.map_err(|source| Error::Io {
            target: target.clone(),
            source,
        })? {
            b'S' => tls::encrypt(config, tcp).await,
            b'N' if config.tls == TlsMode::Prefer => Ok(Self::plain(Box::new(tcp), false)),
            b'N' => Err(Error::TlsRefused { target }),
            other => {
                let what = format!("answer `{}` to the TLS request", other.escape_ascii());
                Err(Error::Protocol { target, what })
            }
        }
    }

    /// Splits into a reader and a writer of messages.
    pub(crate) fn split(self) -> (Reader, Writer) {
        let (read, write) = tokio::io::split(self.stream);
        (FrameReader::new(read), FrameWriter::new(write))
    }

    fn plain(stream: Box<dyn Stream>, confidential: bool) -> Self {
        Self {
            stream,
            confidential,
            channel_binding: None,
        }
    }
}

/// Asks for TLS. Exactly one byte is read, so nothing that was injected before the handshake is
/// ever believed (CVE-2021-23222).
async fn server_offers_tls(tcp: &mut TcpStream) -> io::Result<u8> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    tcp.read_u8().await
}
