//! Cancelling a statement from outside its session.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::Config;
use crate::error::Error;
use crate::transport::Transport;

/// Cancels whatever a session is doing at the moment.
#[derive(Clone)]
pub struct CancelHandle {
    config: Arc<Config>,
    backend: Option<(i32, i32)>,
}

impl CancelHandle {
    pub(crate) fn new(config: Arc<Config>, backend: Option<(i32, i32)>) -> Self {
        Self { config, backend }
    }

    /// Asks the server to cancel the session's statement, which then fails with
    /// [`crate::sql_state::QUERY_CANCELED`].
    ///
    /// Returns when the server has taken the request; it never says whether there was something to
    /// cancel.
    ///
    /// # Errors
    ///
    /// Those of connecting.
    pub async fn cancel(&self) -> Result<(), Error> {
        let timeout = self.config.connect_timeout;
        match tokio::time::timeout(timeout, self.send()).await {
            Ok(sent) => sent,
            Err(_) => Err(Error::ConnectTimeout {
                target: self.config.target(),
                timeout,
            }),
        }
    }

    async fn send(&self) -> Result<(), Error> {
        // A pooler may give no key; then there is nothing to cancel by.
        let Some((process_id, secret_key)) = self.backend else {
            return Ok(());
        };
        let mut stream = Transport::open(&self.config).await?.stream;
        let failed = |source| Error::Io {
            target: self.config.target(),
            source,
        };
        let mut request = BytesMut::new();
        frontend::cancel_request(process_id, secret_key, &mut request);
        stream.write_all(&request).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        // The server closes when it is done, in TLS without a farewell: only that matters, not how.
        let _closed = stream.read_u8().await;
        Ok(())
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is as good as a password for this one purpose.
        f.debug_struct("CancelHandle")
            .field("target", &self.config.target())
            .finish_non_exhaustive()
    }
}
