use std::io::{BufReader, pipe};
use std::sync::mpsc::channel;

use super::*;

/// How long something may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data directory that is renamed under its server is not one without a server.
#[test]
fn a_server_whose_directory_was_renamed_is_stopped() {
    let all = tempfile::tempdir().unwrap();
    let data = all.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (input, mut guard) = pipe().unwrap();
    let (answers, mut output) = pipe().unwrap();
    let (ended, end) = channel();
    let place = data.clone();
    std::thread::spawn(move || {
        let script = format!("cd '{}' && exec sleep 600", place.display());
        let server = ["/bin/sh", "-c", &script].map(str::to_owned);
        let outcome = watch(&place, &server, BufReader::new(input), &mut output);
        ended.send(outcome.unwrap()).unwrap();
    });
    let until = boot_time()() + PATIENCE;
    writeln!(guard, "{}", lease(until)).unwrap();
    let mut lines = BufReader::new(answers).lines().map(Result::unwrap);
    let server = lines.next().unwrap();
    assert_eq!(lines.next().unwrap(), lease(until));
    let server = Path::new("/proc").join(server.strip_prefix("server ").unwrap());
    while std::fs::read_link(server.join("cwd")).unwrap() != data {
        std::thread::yield_now();
    }
    std::fs::rename(&data, all.path().join("moved")).unwrap();
    drop(guard);
    assert_eq!(end.recv_timeout(PATIENCE), Ok(WatchOutcome::Orphaned));
    assert_eq!(lines.next().unwrap(), "ended \"orphaned\"");
    assert!(!server.exists());
}
