//! A way to a region's store that can be shut at exactly one entry of a journal: whoever writes it waits there, before it lands or
//! before the answer comes, until it is killed or let on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode, header, request};
use bytes::Bytes;
use dr_sandbox::Sandbox;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::executions::Running;
use crate::support::LIMIT;

/// On which side of an entry its writer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It has not landed.
    Before,
    /// It has, and its writer does not know.
    After,
}

/// Tells of an entry, by its number and its text, whether it is the one.
type Wanted = Box<dyn FnMut(usize, &str) -> bool + Send>;

/// The ways to the stores of some regions.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    /// The configuration that leads through here.
    directory: PathBuf,
    wanted: Mutex<Option<(Side, Wanted)>>,
    held: watch::Sender<bool>,
    shut: watch::Sender<bool>,
}

impl Gate {
    /// Makes ways to the stores of these regions, which must be on S3, and a configuration that takes them.
    pub(crate) async fn before(sandbox: &Sandbox, regions: &[&str]) -> Self {
        let layout = sandbox.layout();
        let directory = layout.directory.join("gated");
        let gate = Self(Arc::new(Inner {
            directory: directory.clone(),
            wanted: Mutex::new(None),
            held: watch::Sender::new(false),
            shut: watch::Sender::new(true),
        }));
        let mut text = std::fs::read_to_string(layout.directory.join("dr.yaml")).unwrap();
        for region in regions {
            let place = sandbox.region(region).unwrap().place();
            let store = place.store_listen().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let here = listener.local_addr().unwrap();
            text = text.replace(&format!("http://{store}"), &format!("http://{here}"));
            let way = Way {
                gate: gate.clone(),
                store,
            };
            let router = Router::new().fallback(pass).with_state(way);
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
        let launcher = sandbox.launcher();
        launcher.make_directory(&directory).unwrap();
        launcher
            .write_file(&directory.join("dr.yaml"), &text)
            .unwrap();
        for folder in ["runbooks", "schedules"] {
            launcher.make_directory(&directory.join(folder)).unwrap();
            for entry in std::fs::read_dir(layout.directory.join(folder)).unwrap() {
                let entry = entry.unwrap();
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let copy = directory.join(folder).join(entry.file_name());
                launcher.write_file(&copy, &text).unwrap();
            }
        }
        gate
    }

    /// Starts a `dr` command that goes this way.
    pub(crate) fn start(&self, sandbox: &Sandbox, words: &[&str]) -> Running {
        let layout = sandbox.layout();
        let mut command = sandbox.launcher().command(&layout.dr, &layout.directory);
        command.arg("--config").arg(self.directory()).args(words);
        Running::command(sandbox, command)
    }

    fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Holds the next writer of an entry that `wanted` answers for.
    pub(crate) fn hold(
        &self,
        side: Side,
        wanted: impl FnMut(usize, &str) -> bool + Send + 'static,
    ) {
        self.0.held.send_replace(false);
        self.0.shut.send_replace(true);
        *self.lock() = Some((side, Box::new(wanted)));
    }

    /// Waits until somebody is held; answers false if the command ends without.
    pub(crate) async fn holds(&self, running: &Running) -> bool {
        let mut held = self.0.held.subscribe();
        tokio::select! {
            seen = tokio::time::timeout(LIMIT, held.wait_for(|held| *held)) => {
                seen.unwrap().is_ok()
            }
            () = running.ending() => false,
        }
    }

    /// Runs a command until it is held at that entry, which has to come, and kills it there.
    pub(crate) async fn kill(
        &self,
        sandbox: &Sandbox,
        words: &[&str],
        side: Side,
        wanted: impl FnMut(usize, &str) -> bool + Send + 'static,
    ) {
        self.hold(side, wanted);
        let running = self.start(sandbox, words);
        let held = self.holds(&running).await;
        running.signal(Signal::KILL);
        let output = running.end().await;
        assert!(held, "it never came there: {output:?}");
    }

    /// Lets whoever is held go on.
    pub(crate) fn open(&self) {
        self.0.shut.send_replace(false);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Side, Wanted)>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells on which side of this request its sender is to be held.
    fn decide(&self, parts: &request::Parts, body: &[u8]) -> Option<Side> {
        let path = parts.uri.path();
        let number = path.contains("/execution/") && parts.method == Method::PUT;
        let number = path.rsplit('/').next().filter(|_| number)?.parse().ok()?;
        let mut wanted = self.lock();
        let (side, is_wanted) = wanted.as_mut()?;
        let side = *side;
        is_wanted(number, &String::from_utf8_lossy(body)).then(|| {
            *wanted = None;
            side
        })
    }

    async fn wait(&self) {
        self.0.held.send_replace(true);
        let mut shut = self.0.shut.subscribe();
        // Who was killed waits no longer: its connection ends, and this with it.
        shut.wait_for(|shut| !*shut).await.unwrap();
    }
}

/// Tells whether an entry ends with the intent to do an action of this step. The first one, the plan, intends nothing.
pub(crate) fn intends(text: &str, step: &str) -> bool {
    intended(text).is_some_and(|last| last.contains(&format!("\"step\": \"{step}\"")))
}

/// The same for any step.
pub(crate) fn intends_any(text: &str) -> bool {
    intended(text).is_some()
}

/// Tells whether an entry begins with what came of an action.
pub(crate) fn concludes(text: &str) -> bool {
    let first = text.split_once("\"record\": ");
    first.is_some_and(|(_, first)| first.starts_with("\"concluded\""))
}

fn intended(text: &str) -> Option<&str> {
    let (_, last) = text.rsplit_once("\"record\": ")?;
    last.strip_prefix("\"intended\"")
}

/// The way to one store.
#[derive(Clone)]
struct Way {
    gate: Gate,
    store: SocketAddr,
}

async fn pass(State(way): State<Way>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return refused();
    };
    let body = body.to_bytes();
    let side = way.gate.decide(&parts, &body);
    if side == Some(Side::Before) {
        way.gate.wait().await;
    }
    let response = forward(way.store, parts, body).await;
    if side == Some(Side::After) {
        way.gate.wait().await;
    }
    // A store that is gone is a gateway's error to whoever asks.
    response.unwrap_or_else(|_| refused())
}

fn refused() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

/// Asks the store the same, as it was signed, and returns what it answers.
async fn forward(
    store: SocketAddr,
    parts: request::Parts,
    body: Bytes,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(store).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::spawn(connection);
    let request = Request::from_parts(parts, Full::new(body));
    let (mut parts, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    parts.headers.remove(header::TRANSFER_ENCODING);
    Ok(Response::from_parts(parts, Body::from(body)))
}
