//! Looks at a workload by HTTP.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dr_provider::probe::Health;
use dr_provider::{Error, ErrorKind, Probe, Result};
use http_body_util::Full;
use hyper::{Request, StatusCode};

use crate::http::Target;
use crate::tls::Authorities;

/// Bytes read of an answer.
const BODY_LIMIT: usize = 4096;

/// Characters shown of it.
const SHOWN: usize = 120;

/// A `GET` that is healthy if the answer is 2xx. Redirections are not followed: they are not
/// healthy.
#[derive(Debug)]
pub struct HttpProbe {
    url: String,
    target: Target,
    limit: Duration,
}

impl HttpProbe {
    /// Makes a probe of a URL that takes at most `limit`.
    ///
    /// Fails with `Invalid` for what is no URL.
    pub fn new(url: impl Into<String>, limit: Duration) -> Result<Self> {
        let url = url.into();
        Ok(Self {
            target: Target::parse("probe", &url)?,
            url,
            limit,
        })
    }

    /// Asks the server for `name`, as a client does whom that led to the URL's address.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            target: self.target.named(name),
            ..self
        }
    }

    /// Believes these authorities, where the URL begins with `https`.
    #[must_use]
    pub fn trusting(self, authorities: Authorities) -> Self {
        Self {
            target: self.target.trusting(authorities),
            ..self
        }
    }

    /// Takes a certificate for `name`, although the URL's address is asked.
    #[must_use]
    pub fn certified_for(self, name: &str) -> Self {
        Self {
            target: self.target.certified_for(name),
            ..self
        }
    }

    async fn get(&self) -> Result<(StatusCode, String)> {
        let request = Request::get("/")
            .body(Full::new(Bytes::new()))
            .map_err(|source| Error::new(ErrorKind::Invalid, "probe", &self.url).because(source))?;
        let answer = self.target.send("probe", request, BODY_LIMIT).await?;
        Ok((answer.status, excerpt(&answer.body)))
    }
}

#[async_trait]
impl Probe for HttpProbe {
    fn describe(&self) -> String {
        format!("GET {}", self.url)
    }

    async fn probe(&self) -> Health {
        match tokio::time::timeout(self.limit, self.get()).await {
            Ok(Ok((status, body))) => {
                let seen = format!("{status}{body}");
                if status.is_success() {
                    Health::Healthy(seen)
                } else {
                    Health::Unhealthy(seen)
                }
            }
            Ok(Err(error)) => Health::Unknown(dr_provider::error::chain(&error)),
            Err(_) => Health::Unknown(format!("no answer within {:?}", self.limit)),
        }
    }
}

/// Returns the beginning of a body on one line, or nothing if it is empty.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(SHOWN) {
        None if line.is_empty() => String::new(),
        None => format!(": {line}"),
        Some((end, _)) => format!(": {}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests;
