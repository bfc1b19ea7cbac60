//! The server: a listener, its buckets, its faults.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::access::Accounts;
use crate::backend::Backend;
use crate::bucket::Bucket;
use crate::fault::Faults;
use crate::faulty::{self, Latency};
use crate::tls::{self, Certificate};
use crate::{Account, Conditions, Rule, Stored};

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may ask.
    pub accounts: Vec<Account>,
    /// The buckets that are there at once.
    pub buckets: Vec<String>,
    /// Where objects are kept as files too, in a directory for each bucket; in memory alone unless
    /// it is set.
    pub directory: Option<PathBuf>,
    /// How long each request is under way on average.
    pub latency: Duration,
    /// By how much that differs at most, up or down, evenly.
    pub jitter: Duration,
    /// What it proves itself by; without it, it speaks plain HTTP.
    pub certificate: Option<Certificate>,
    /// The seed of faults of every kind, which some of all requests meet; none without it.
    pub faults: Option<u64>,
}

impl Default for Options {
    /// On a free port of loopback, with the bucket `store` and the keys `test` and `secret`.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            accounts: vec![Account::new("test", "secret")],
            buckets: vec!["store".to_owned()],
            directory: None,
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            certificate: None,
            faults: None,
        }
    }
}

/// A running server; it ends, and its objects with it, when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    backend: Backend,
    faults: Arc<Faults>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    ///
    /// If the address cannot be listened on, or the certificate cannot be used.
    pub async fn start(options: Options) -> io::Result<Self> {
        let backend = Backend::default();
        for bucket in options.buckets {
            let made = match &options.directory {
                None => Bucket::default(),
                Some(directory) => Bucket::on_disk(directory.join(&bucket))?,
            };
            backend.lock().buckets.insert(bucket, made);
        }
        let acceptor = options.certificate.as_ref().map(tls::acceptor);
        let acceptor = acceptor.transpose()?;
        let scheme = acceptor.as_ref().map_or("http", |_| "https");
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let mut builder = S3ServiceBuilder::new(backend.clone());
        let accounts = Accounts(options.accounts);
        builder.set_auth(accounts.clone());
        builder.set_access(accounts);
        let faults = Arc::new(Faults::new(options.faults));
        let latency = Latency {
            mean: options.latency,
            jitter: options.jitter,
        };
        let how = How {
            service: builder.build(),
            faults: Arc::clone(&faults),
            latency,
            acceptor,
        };
        let task = accept(listener, how);
        Ok(Self {
            address,
            scheme,
            backend,
            faults,
            task: tokio::spawn(task),
        })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where it listens as a URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Replaces the rules by which requests fail; the first that matches decides.
    pub fn set_faults(&self, rules: Vec<Rule>) {
        self.faults.set(rules);
    }

    /// Says what becomes of `If-None-Match` from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.backend.lock().conditions = conditions;
    }

    /// Makes a bucket keep the earlier versions of a key, or not.
    pub fn set_versioned(&self, bucket: &str, versioned: bool) {
        if let Some(bucket) = self.backend.lock().buckets.get_mut(bucket) {
            bucket.versioned = versioned;
        }
    }

    /// Keeps listings of a bucket as they are now, or lets them show everything again.
    pub fn set_stale(&self, bucket: &str, stale: bool) {
        if let Some(bucket) = self.backend.lock().buckets.get_mut(bucket) {
            bucket.listed_until = stale.then(|| bucket.sequence());
        }
    }

    /// Removes a bucket with everything in it.
    pub fn remove_bucket(&self, bucket: &str) {
        self.backend.lock().buckets.remove(bucket);
    }

    /// Removes an object as if it had never been.
    pub fn remove_object(&self, bucket: &str, key: &str) {
        if let Some(bucket) = self.backend.lock().buckets.get_mut(bucket) {
            bucket.keys.remove(key);
        }
    }

    /// Returns an object as it is kept.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Stored> {
        let state = self.backend.lock();
        state.buckets.get(bucket)?.get(key).cloned()
    }

    /// Returns how many versions of a key there are, delete markers among them.
    #[must_use]
    pub fn versions(&self, bucket: &str, key: &str) -> usize {
        let state = self.backend.lock();
        let versions = state.buckets.get(bucket).and_then(|it| it.keys.get(key));
        versions.map_or(0, Vec::len)
    }

    /// Returns how many uploads in parts are neither complete nor aborted.
    #[must_use]
    pub fn open_uploads(&self, bucket: &str) -> usize {
        let state = self.backend.lock();
        state.buckets.get(bucket).map_or(0, |it| it.uploads.len())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every connection is served by.
#[derive(Clone)]
struct How {
    service: S3Service,
    faults: Arc<Faults>,
    latency: Latency,
    acceptor: Option<TlsAcceptor>,
}

/// Accepts for ever; the connections end with it.
async fn accept(listener: TcpListener, how: How) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, how.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, how: How) {
    // A delayed acknowledgement would be counted as the client's.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match &how.acceptor {
        None => serve(stream, &how).await,
        // Who does not trust the certificate has said so.
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, &how).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, how: &How) {
    let answer =
        service_fn(|request| faulty::answer(&how.service, &how.faults, how.latency, request));
    // A connection that ends by an error is a client's, or a fault's, business.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .await,
    );
}
