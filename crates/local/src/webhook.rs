//! Tells another system by HTTP.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_provider::notifier::Message;
use dr_provider::{Error, ErrorKind, Notifier, Result, Secret};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::http::{Response, Target};
use crate::tls::Authorities;

const OPERATION: &str = "notify";

/// Bytes read of an answer that refuses a message.
const BODY_LIMIT: usize = 512;

/// A `POST` of `{"subject", "idempotency_key", "body"}` with the key also in the header
/// `Idempotency-Key`.
///
/// The path and query of the URL are treated as a credential, which they are for many services:
/// only the host is shown.
#[derive(Debug)]
pub struct Webhook {
    target: Target,
    limit: Duration,
}

impl Webhook {
    /// Makes a notifier for a URL that takes at most `limit` for a message.
    ///
    /// Fails with `Invalid` for what is no URL.
    pub fn new(url: &Secret, limit: Duration) -> Result<Self> {
        Ok(Self {
            target: Target::parse(OPERATION, url.expose())?,
            limit,
        })
    }

    /// Believes these authorities, where the URL begins with `https`.
    #[must_use]
    pub fn trusting(self, authorities: Authorities) -> Self {
        Self {
            target: self.target.trusting(authorities),
            ..self
        }
    }

    /// Takes a certificate for `name`, as where a name does not lead anywhere yet.
    #[cfg(test)]
    pub(crate) fn certified_for(self, name: &str) -> Self {
        Self {
            target: self.target.certified_for(name),
            ..self
        }
    }

    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, OPERATION, self.describe())
    }

    fn request(&self, message: &Message) -> Result<Request<Full<Bytes>>> {
        let body = json!({
            "subject": message.subject,
            "idempotency_key": message.idempotency_key,
            "body": message.body,
        });
        let key = HeaderValue::from_str(&message.idempotency_key)
            .map_err(|source| self.error(ErrorKind::Invalid).because(source))?;
        Request::post("/")
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", key)
            .body(Full::new(body.to_string().into()))
            .map_err(|source| self.error(ErrorKind::Invalid).because(source))
    }

    fn judge(&self, answer: &Response) -> Result<()> {
        let kind = match answer.status {
            status if status.is_success() => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                ErrorKind::Unavailable
            }
            StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED => {
                ErrorKind::Failed
            }
            // It may have taken the message before it stumbled.
            status if status.is_server_error() => ErrorKind::Unknown,
            _ => ErrorKind::Failed,
        };
        let said = String::from_utf8_lossy(&answer.body);
        let error = self.error(kind);
        let said = match said.trim() {
            "" => answer.status.to_string(),
            said => format!("{}: {said}", answer.status),
        };
        let error = error.because(said);
        let error = match kind {
            ErrorKind::Failed => error.with_hint(
                "it did not take the message: see whether the address is that of a webhook, which takes a `POST`",
            ),
            _ => error,
        };
        Err(match answer.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        })
    }
}

#[async_trait]
impl Notifier for Webhook {
    fn describe(&self) -> String {
        format!("webhook at {}", self.target.host)
    }

    async fn notify(&self, message: &Message) -> Result<()> {
        let request = self.request(message)?;
        let sent = self.target.send(OPERATION, request, BODY_LIMIT);
        match tokio::time::timeout(self.limit, sent).await {
            Ok(answer) => self.judge(&answer?),
            Err(_) => {
                let why = format!("no answer within {:?}", self.limit);
                Err(self.error(ErrorKind::Unknown).because(why))
            }
        }
    }
}

#[cfg(test)]
mod tests;
