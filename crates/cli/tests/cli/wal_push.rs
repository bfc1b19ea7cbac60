//! `dr wal push`: by the daemon if one listens, else by this process; 0 only for what is durable, and never a code from
//! which PostgreSQL's archiver would start anew (R12).

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dr_server::control::{
    Control, LeaveAnswer, PushAnswer, PushRequest, Refusal, RunAnswer, RunRequest, WhoAnswer,
    serve_control,
};
use tokio::sync::watch;

use crate::support::{Place, Ran};

const SEGMENT: &str = "000000010000000000000003";

/// A daemon that says what it is told to, and remembers what it was asked.
struct Told {
    kind: Option<&'static str>,
    asked: Mutex<Vec<PushRequest>>,
}

#[async_trait]
impl Control for Told {
    async fn run_job(&self, _: RunRequest) -> Result<RunAnswer, Refusal> {
        unreachable!("no job is run here");
    }

    async fn who(&self) -> Result<WhoAnswer, Refusal> {
        unreachable!("nobody asks who it is")
    }

    async fn leave(&self) -> Result<LeaveAnswer, Refusal> {
        unreachable!("nobody leaves here");
    }

    async fn push_wal(&self, request: PushRequest) -> Result<PushAnswer, Refusal> {
        self.asked.lock().unwrap().push(request);
        match self.kind {
            None => Ok(PushAnswer {
                summary: "the daemon has it".to_owned(),
            }),
            Some(kind) => Err(Refusal {
                kind: kind.to_owned(),
                message: "the daemon says no".to_owned(),
                hint: Some("look at it".to_owned()),
            }),
        }
    }
}

async fn push(place: &Place, by: Option<Told>) -> (Ran, Vec<PushRequest>) {
    push_from(place, place.path(), &["--in", "us-east-1"], by).await
}

async fn push_from(
    place: &Place,
    directory: &Path,
    region: &[&str],
    by: Option<Told>,
) -> (Ran, Vec<PushRequest>) {
    let state = place.path().join("state/us-east-1");
    std::fs::create_dir_all(&state).unwrap();
    let (_stop, stopped) = watch::channel(false);
    let told = by.map(Arc::new);
    if let Some(told) = &told {
        let control = Arc::clone(told);
        tokio::spawn(serve_control(&state, control, stopped).unwrap());
    }
    let mut command = place.command();
    // As the archiver gives it: relative to where it starts the command.
    command.current_dir(directory);
    let path = format!("pg_wal/{SEGMENT}");
    command.args(["wal", "push", "orders/database", &path]);
    command.args(region);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap().into());
    let ran = ran.await.unwrap();
    let asked = told.map_or_else(Vec::new, |told| told.asked.lock().unwrap().clone());
    (ran, asked)
}

fn told(kind: Option<&'static str>) -> Option<Told> {
    let asked = Mutex::default();
    Some(Told { kind, asked })
}

#[tokio::test]
async fn a_daemon_is_asked_and_what_it_says_stands() {
    let place = Place::new();
    let (ran, asked) = push(&place, told(None)).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("the daemon has it"), "{ran:?}");
    let [request] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!(request.resource, "orders/database");
    let path = place.path().join("pg_wal").join(SEGMENT);
    assert_eq!(request.path, path);

    for (kind, code) in [
        ("corrupt", 1),
        ("invalid", 1),
        ("unavailable", 20),
        ("unknown", 20),
    ] {
        let (ran, asked) = push(&place, told(Some(kind))).await;
        assert_eq!((ran.code, asked.len()), (code, 1), "{ran:?}");
        assert!(ran.stderr.contains("the daemon says no"), "{ran:?}");
        assert!(ran.stderr.contains("look at it"), "{ran:?}");
    }
}

#[tokio::test]
async fn without_a_daemon_that_can_read_the_file_this_process_does_it() {
    let place = Place::new();
    for by in [None, told(Some("not-found"))] {
        let (ran, _) = push(&place, by).await;
        // There is no store: what is said is said by this process.
        assert!((1..126).contains(&ran.code), "{ran:?}");
        assert!(ran.stderr.contains("store"), "{ran:?}");
        assert!(!ran.stderr.contains("the daemon says no"), "{ran:?}");
    }
}

/// A standby has its primary's `archive_command`, so the command says by itself in which region it is.
#[tokio::test]
async fn the_region_is_that_of_the_data_directory() {
    let place = Place::new();
    let data = place.path().join("data/us-east-1");
    std::fs::create_dir_all(&data).unwrap();
    let (ran, asked) = push_from(&place, &data, &[], told(None)).await;
    assert_eq!((ran.code, asked.len()), (0, 1), "{ran:?}");

    let (ran, asked) = push_from(&place, place.path(), &[], told(None)).await;
    assert_eq!((ran.code, asked.len()), (64, 0), "{ran:?}");
    assert!(
        ran.stderr.contains("cannot tell in which region"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("--in REGION"), "{ran:?}");
}
