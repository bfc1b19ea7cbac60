//! `dr daemon`: its store, its lock, its HTTP, its end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dr_server::control::{
    Control, LeaveAnswer, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest, SOCKET,
    WhoAnswer, serve_control,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::Place;

/// A daemon that is killed if the test ends before it.
struct Daemon {
    child: Child,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn port(place: &Place) -> u16 {
    let text = std::fs::read_to_string(place.path().join("dr.yaml")).unwrap();
    let (_, rest) = text.split_once("listen: \"127.0.0.1:").unwrap();
    rest.split_once('"').unwrap().0.parse().unwrap()
}

impl Daemon {
    fn start(place: &Place) -> Self {
        Self::start_with(place, &[])
    }

    fn start_with(place: &Place, more: &[&str]) -> Self {
        let child = place
            .command()
            .args(["daemon", "--region", "us-east-1"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::from(
                std::fs::File::create(place.path().join("daemon.log")).unwrap(),
            ))
            .spawn()
            .unwrap();
        let mut daemon = Self {
            child,
            port: port(place),
        };
        daemon.wait_until_it_answers(place);
        daemon
    }

    fn wait_until_it_answers(&mut self, place: &Place) {
        for _ in 0..600 {
            if self.get("/live").is_some() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!(
                    "{status}: {}",
                    std::fs::read_to_string(place.path().join("daemon.log")).unwrap()
                );
            }
            pause();
        }
        panic!("the daemon does not answer");
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(&mut self) -> Option<i32> {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            pause();
        }
        panic!("the daemon does not end");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "polls a process, with a deadline"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// An upgrade: the next one gets ready first, and the one that runs goes on unless it can.
#[tokio::test]
async fn another_takes_the_place_of_the_one_that_runs() {
    let place = Place::new();
    place.initialise_stores().await;
    let mut first = Daemon::start_with(&place, &["--take-over"]);
    let (west, away) = (place.store("us-west-2"), place.path().join("away"));
    std::fs::rename(&west, &away).unwrap();
    let refused = place.run(&["daemon", "--region", "us-east-1", "--take-over"]);
    assert_eq!(refused.code, 20, "{refused:?}");
    assert!(
        refused.stderr.contains("the daemon that runs goes on"),
        "{refused:?}"
    );
    assert!(first.get("/live").is_some());

    std::fs::rename(&away, &west).unwrap();
    let mut second = Daemon::start_with(&place, &["--take-over"]);
    assert_eq!(first.end(), Some(0));
    second.wait_until_it_answers(&place);
    let third = place.run(&["daemon", "--region", "us-east-1"]);
    assert!(
        third
            .stderr
            .contains(&format!("process {}", second.child.id())),
        "{third:?}"
    );
    second.signal(Signal::TERM);
    assert_eq!(second.end(), Some(0));
}

/// Changes where the daemon of the first region is to listen.
fn listen_on(place: &Place, new: u16) {
    let file = place.path().join("dr.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, after) = (port(place).to_string(), new.to_string());
    std::fs::write(file, text.replace(&before, &after)).unwrap();
}

/// Whoever could not answer does not make the one that runs leave.
#[tokio::test]
async fn an_address_of_somebody_else_is_found_before_anybody_leaves() {
    let place = Place::new();
    place.initialise_stores().await;
    let mut first = Daemon::start(&place);
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listen_on(&place, foreign.local_addr().unwrap().port());
    let refused = place.run(&["daemon", "--region", "us-east-1", "--take-over"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    for said in [
        "cannot listen on",
        "regions.us-east-1.daemon.listen",
        &format!(
            "process {}, listens on 127.0.0.1:{} and goes on",
            first.child.id(),
            first.port
        ),
    ] {
        assert!(
            refused.stderr.contains(said),
            "{said} is missing: {refused:?}"
        );
    }
    assert!(first.get("/live").is_some());

    drop(foreign);
    let mut second = Daemon::start_with(&place, &["--take-over"]);
    assert_eq!(first.end(), Some(0));
    assert_ne!(first.port, second.port);
    second.signal(Signal::TERM);
    assert_eq!(second.end(), Some(0));
}

/// A daemon that leaves, and makes it impossible to take its place as it does.
struct Spiteful {
    state: std::path::PathBuf,
    listen: std::net::SocketAddr,
}

#[async_trait]
impl Control for Spiteful {
    async fn run_job(&self, _request: RunRequest) -> Result<RunAnswer, Refusal> {
        Ok(RunAnswer {
            summary: "3 recovery points read back".to_owned(),
            detail: serde_json::Value::Null,
            alarm: Some("recovery point 1 is damaged".to_owned()),
        })
    }

    async fn push_wal(&self, _request: PushRequest) -> Result<PushAnswer, Refusal> {
        unreachable!("nobody gives it a file")
    }

    async fn who(&self) -> Result<WhoAnswer, Refusal> {
        Ok(WhoAnswer {
            process: 1,
            listen: self.listen,
        })
    }

    async fn leave(&self) -> Result<LeaveAnswer, Refusal> {
        let socket = self.state.join(SOCKET);
        std::fs::remove_file(&socket).unwrap();
        std::fs::create_dir(&socket).unwrap();
        Ok(LeaveAnswer { process: 1 })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_finds_something_to_look_at_ends_with_1() {
    let place = Place::new();
    let state = place.path().join("state/us-east-1");
    std::fs::create_dir_all(&state).unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let runs = Spiteful {
        state: state.clone(),
        listen: "127.0.0.1:1".parse().unwrap(),
    };
    let server = tokio::spawn(serve_control(&state, Arc::new(runs), stopped).unwrap());
    let mut command = place.command();
    command.args(["job", "run", "verify", "--region", "us-east-1"]);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ran: crate::support::Ran = ran.await.unwrap().into();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("3 recovery points"), "{ran:?}");
    assert!(
        ran.stderr.contains("recovery point 1 is damaged"),
        "{ran:?}"
    );
    server.abort();
}

/// From there on nobody protects the region, which must not look like any other error.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_first_has_left_is_loud() {
    let place = Place::new();
    place.initialise_stores().await;
    place.open_first_epoch().await;
    let held = std::net::TcpListener::bind(("127.0.0.1", port(&place))).unwrap();
    let state = place.path().join("state/us-east-1");
    std::fs::create_dir_all(&state).unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let runs = Spiteful {
        state: state.clone(),
        listen: held.local_addr().unwrap(),
    };
    let serving = serve_control(&state, Arc::new(runs), stopped).unwrap();
    let server = tokio::spawn(serving);
    let mut command = place.command();
    command.args(["daemon", "--region", "us-east-1", "--take-over"]);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let ran: crate::support::Ran = ran.await.unwrap().into();
    assert_eq!(ran.code, 1, "{ran:?}");
    for said in [
        "NO DAEMON OF `us-east-1` RUNS NOW",
        "cannot replace the control socket",
        "nothing protects what is in it",
    ] {
        assert!(ran.stderr.contains(said), "{said} is missing: {ran:?}");
    }
    server.abort();
}

#[test]
fn a_daemon_initialises_its_store_answers_and_stops() {
    let place = Place::new();
    let mut daemon = Daemon::start(&place);
    let log = std::fs::read_to_string(place.path().join("daemon.log")).unwrap();
    assert!(log.contains("Initialised the store of us-east-1"), "{log}");
    assert!(place.store("us-east-1").join("identity.json").is_file());
    assert!(
        !place.store("us-west-2").exists(),
        "another region's store is not ours to make"
    );
    assert!(
        daemon
            .get("/metrics")
            .unwrap()
            .contains("dr_up{region=\"us-east-1\"} 1")
    );
    assert!(
        daemon
            .get("/health")
            .unwrap()
            .contains("\"region\":\"us-east-1\"")
    );

    let second = place.run(&["daemon", "--region", "us-east-1"]);
    assert_eq!(second.code, 13, "{second:?}");
    assert!(
        second
            .stderr
            .contains(&format!("process {}", daemon.child.id())),
        "{second:?}"
    );

    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), Some(0));

    // A restart finds its store again; one that is no longer there is not made anew.
    let mut again = Daemon::start(&place);
    again.signal(Signal::INT);
    assert_eq!(again.end(), Some(0));
    std::fs::remove_dir_all(place.store("us-east-1")).unwrap();
    std::fs::create_dir(place.store("us-east-1")).unwrap();
    let refused = place.run(&["daemon", "--region", "us-east-1"]);
    assert_eq!(refused.code, 20, "{refused:?}");
    assert!(
        refused.stderr.contains("is its disk mounted?"),
        "{refused:?}"
    );
}

#[test]
fn a_store_of_another_region_or_in_use_is_refused() {
    let place = Place::new();
    place.write("stores/us-east-1/photo.jpg", "not a store");
    let foreign = place.run(&["daemon", "--region", "us-east-1"]);
    assert_eq!(foreign.code, 1, "{foreign:?}");
    assert!(
        foreign
            .stderr
            .contains("give the store a directory of its own"),
        "{foreign:?}"
    );
    assert!(!place.store("us-east-1").join("identity.json").exists());
}

#[tokio::test]
async fn a_store_with_another_regions_identity_is_refused() {
    let place = Place::new();
    place.initialise_stores().await;
    std::fs::rename(place.store("us-east-1"), place.path().join("away")).unwrap();
    std::fs::rename(place.store("us-west-2"), place.store("us-east-1")).unwrap();
    let ran = place.run(&["daemon", "--region", "us-east-1"]);
    assert_eq!(ran.code, 12, "{ran:?}");
    assert!(ran.stderr.contains("hint: see what is mounted"), "{ran:?}");
    assert!(
        ran.stderr
            .contains("it is the store of region `us-west-2`, not of `us-east-1`"),
        "{ran:?}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = Place::new();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port(&place))).unwrap();
    let ran = place.run(&["daemon", "--region", "us-east-1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("regions.us-east-1.daemon.listen"),
        "{ran:?}"
    );
    assert!(
        !place.store("us-east-1").exists(),
        "a store was made all the same"
    );
}
