//! One HTTP/1.1 request on a connection of its own, encrypted where the address begins with `https`.

use bytes::Bytes;
use dr_provider::{Error, ErrorKind, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::{Authorities, is_distrust};

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<std::time::Duration>,
    /// The beginning of the body, at most as much as was asked for.
    pub(crate) body: Bytes,
}

/// What a request is sent on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a URL leads.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: Uri,
    pub(crate) host: String,
    port: u16,
    /// Whom the server is asked for, if not for `host`.
    name: Option<String>,
    /// Whom its certificate has to be for, if not for whom it is asked.
    certified: Option<String>,
    /// Who has to have signed that; `None` if nothing is encrypted.
    authorities: Option<Authorities>,
}

impl Target {
    /// Reads a URL; fails with `Invalid` for what is none.
    ///
    /// The error does not show the URL, whose path or query may be a credential.
    pub(crate) fn parse(operation: &str, url: &str) -> Result<Self> {
        let uri: Uri = url
            .parse()
            .map_err(|source| Error::new(ErrorKind::Invalid, operation, "URL").because(source))?;
        let host = uri.host().unwrap_or_default().to_owned();
        let error = |kind| Error::new(kind, operation, format!("URL at {host}"));
        let (port, authorities) = match uri.scheme_str() {
            Some("http") if !host.is_empty() => (80, None),
            Some("https") if !host.is_empty() => (443, Some(Authorities::System)),
            _ => {
                let expected = "expected `http://host[:port]/path`, or `https`";
                return Err(error(ErrorKind::Invalid).because(expected));
            }
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(port),
            host,
            uri,
            name: None,
            certified: None,
            authorities,
        })
    }

    /// Believes these, where anybody has to be believed.
    pub(crate) fn trusting(self, authorities: Authorities) -> Self {
        Self {
            authorities: self.authorities.map(|_| authorities),
            ..self
        }
    }

    /// Takes a certificate for `name`, as where the address is a machine's and the certificate that of a name which leads to it.
    pub(crate) fn certified_for(self, name: &str) -> Self {
        Self {
            certified: Some(name.to_owned()),
            ..self
        }
    }

    /// Asks the server for `name`, as somebody does whom that led to it.
    pub(crate) fn named(self, name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..self
        }
    }

    /// Sends a request and reads up to `body_limit` bytes of the answer. No time limit of its own.
    ///
    /// `Unavailable` means that nothing was sent, `Unknown` that the answer was lost.
    pub(crate) async fn send(
        &self,
        operation: &str,
        mut request: Request<Full<Bytes>>,
        body_limit: usize,
    ) -> Result<Response> {
        let error = |kind| Error::new(kind, operation, format!("{}:{}", self.host, self.port));
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path
            .parse()
            .map_err(|source| error(ErrorKind::Invalid).because(source))?;
        let name = self.name.as_ref().unwrap_or(&self.host);
        let authority = format!("{name}:{}", self.port);
        let authority = HeaderValue::from_str(&authority)
            .map_err(|source| error(ErrorKind::Invalid).because(source))?;
        request.headers_mut().insert(HOST, authority);

        let host = self.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, self.port))
            .await
            .map_err(|source| error(ErrorKind::Unavailable).because(source))?;
        let stream: Box<dyn Stream> = match &self.authorities {
            None => Box::new(stream),
            Some(authorities) => {
                let shown = self.certified.as_deref().or(self.name.as_deref());
                let encrypted = authorities.encrypt(stream, shown.unwrap_or(host)).await;
                Box::new(encrypted.map_err(|source| match is_distrust(&source) {
                    true => error(ErrorKind::Denied).because(source).with_hint(
                        "its certificate is not trusted for this name: name the authority that signed it as `ca_file`",
                    ),
                    false => error(ErrorKind::Unavailable).because(source),
                })?)
            }
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| error(ErrorKind::Unavailable).because(source))?;
        let lost = |source: hyper::Error| error(ErrorKind::Unknown).because(source);
        let exchange = async {
            let response = sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let retry_after = response
                .headers()
                .get(hyper::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.parse().ok())
                .map(std::time::Duration::from_secs);
            let body = beginning(response.into_body(), body_limit).await;
            Ok(Response {
                status,
                retry_after,
                body,
            })
        };
        // The connection has to be driven beside the exchange and ends with it.
        tokio::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = connection => {
                ended.map_err(lost)?;
                exchange.await
            }
        }
    }
}

/// Reads the beginning of a body; what comes after the limit or breaks off is left out.
async fn beginning(body: hyper::body::Incoming, limit: usize) -> Bytes {
    let mut body = Limited::new(body, limit);
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
    }
    read.into()
}

#[cfg(test)]
pub(crate) mod tests {
    //! A server for the tests of what stands on this file.

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    /// Takes one request, gives the answer as it stands, hangs up; yields the port and then the
    /// request.
    pub(crate) async fn serve(answer: &str) -> (u16, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = answer.to_owned();
        let request = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        (port, request)
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        body.len() >= length
    }
}
