//! With the configuration gone, the store of the other region and the program are enough.

use std::path::{Path, PathBuf};

use dr_sandbox::layout::{STORE_BUCKET, STORE_KEY, StoreKind};
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use rustix::process::Signal;
use serde_json::Value;

use crate::approvals::ask_for;
use crate::daemon::ended;
use crate::executions::{Running, executions, moved_once};
use crate::second_loss::register_in;
use crate::support::{
    acknowledge, acknowledge_after, backup, end, judged, lost_before, says, start, task, until,
};

/// Runs `dr` without the sandbox's configuration.
pub(crate) async fn bare(sandbox: &Sandbox, words: &[&str]) -> Output {
    let command = bare_in(sandbox, "bare", words);
    sandbox.launcher().output(command, false).await.unwrap()
}

/// Prepares a `dr` command where nothing but this directory is anybody's own.
fn bare_in(sandbox: &Sandbox, place: &str, words: &[&str]) -> std::process::Command {
    let place = sandbox.layout().directory.join(place);
    let mut command = sandbox.launcher().command(&sandbox.layout().dr, &place);
    command.env("HOME", &place).args(words);
    command
}

/// Unpacks the recovery kit out of the store of a region, once it is there: [`bare`] finds it as `dr-kit`.
pub(crate) async fn unpack(sandbox: &Sandbox, region: &str) {
    let place = sandbox.layout().directory.join("bare");
    sandbox.launcher().make_directory(&place).unwrap();
    let store = location(sandbox, region);
    let words = ["failover", "--to", region, "--from-store", &store, "--plan"];
    until("an unpacked recovery kit", async || {
        let output = bare(sandbox, &words).await;
        // Whether the plan can be carried out is another's question.
        if place.join("dr-kit/kit.json").exists() {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    })
    .await;
}

/// Returns the location of a region's store as it is written on a command line.
fn location(sandbox: &Sandbox, region: &str) -> String {
    let place = sandbox.region(region).unwrap().place();
    let Some(listen) = place.store_listen() else {
        return place.store().display().to_string();
    };
    let secret = sandbox.layout().store_secret_file();
    let secret = secret.display();
    format!(
        "{{ url: \"s3://{STORE_BUCKET}\", endpoint: \"http://{listen}\", credentials: {{ access_key_id: {STORE_KEY}, \
         secret_access_key: \"${{file:{secret}}}\" }} }}"
    )
}

/// Takes the files of the configuration away.
fn lose_configuration(sandbox: &Sandbox) {
    let directory = &sandbox.layout().directory;
    let gone = directory.join("gone");
    std::fs::create_dir(&gone).unwrap();
    for name in ["dr.yaml", "schedules", "runbooks"] {
        std::fs::rename(directory.join(name), gone.join(name)).unwrap();
    }
}

fn kits(sandbox: &Sandbox, region: &str) -> Vec<PathBuf> {
    let kits = sandbox.region(region).unwrap().place().store().join("kit");
    let entries = std::fs::read_dir(kits).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_from_a_store_needs_nothing_but_the_program_and_the_secrets() {
    let sandbox = start(Sandbox::builder()).await;
    let load = sandbox.load(Default::default()).unwrap();
    acknowledge(&load, 100).await;
    backup(&sandbox, RECOVERY).await;
    for region in [HOME, RECOVERY] {
        until("a recovery kit", async || {
            task(&sandbox, region, "recovery kit").await?;
            match kits(&sandbox, region).len() {
                1 => Ok(()),
                count => Err(format!("{count}")),
            }
        })
        .await;
    }
    let secrets = sandbox.layout().secrets();
    for file in std::fs::read_dir(secrets).unwrap().flatten() {
        let secret = std::fs::read_to_string(file.path()).unwrap();
        for kit in kits(&sandbox, RECOVERY) {
            let text = std::fs::read_to_string(kit).unwrap();
            assert!(!text.contains(secret.trim()), "{file:?}");
        }
    }
    let place = sandbox.layout().directory.join("bare");
    sandbox.launcher().make_directory(&place).unwrap();
    let store = sandbox.region(RECOVERY).unwrap().place().store();
    let store = store.to_str().unwrap();
    let rehearse = ["kit", "rehearse", "--from-store", store];
    until("a rehearsal that passes", async || {
        let output = bare(&sandbox, &rehearse).await;
        let passed = output.status.success()
            && output
                .stdout
                .contains("a failover can be planned from this kit");
        if passed {
            Ok(())
        } else {
            Err(format!("{output:?}"))
        }
    })
    .await;

    let lost_at = sandbox
        .region(HOME)
        .unwrap()
        .lose(LostStore::Renamed)
        .unwrap();
    lose_configuration(&sandbox);
    let key = sandbox.layout().key_file();
    let moved = place.join("moved.key");
    std::fs::rename(&key, &moved).unwrap();

    // A key that is missing would stop the move half-way: nothing is begun.
    let failed = bare(&sandbox, &[&rehearse[..], &["--json"]].concat()).await;
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let said: Value = serde_json::from_str(&failed.stdout).unwrap();
    let mut findings = said["findings"].as_array().unwrap().iter();
    let missing = findings.any(|finding| {
        let subject = finding["subject"].as_str().unwrap();
        finding["level"] == "failed" && subject.contains(key.to_str().unwrap())
    });
    assert!(missing, "{said}");
    let words = [
        "failover",
        "--to",
        RECOVERY,
        "--from-store",
        store,
        "--yes",
        "--json",
    ];
    let refused = bare(&sandbox, &words).await;
    says(
        &refused,
        65,
        &[
            "secrets are missing",
            key.to_str().unwrap(),
            "dr-kit/secrets/",
        ],
    );
    assert_eq!(
        crate::executions::executions(&sandbox),
        Vec::<String>::new()
    );

    let unpacked = place.join("dr-kit");
    let page = std::fs::read_to_string(unpacked.join("README.txt")).unwrap();
    assert!(
        page.contains(store) && page.contains(key.to_str().unwrap()),
        "{page}"
    );
    let name = Path::new(&key).file_name().unwrap();
    std::fs::rename(moved, unpacked.join("secrets").join(name)).unwrap();
    let output = bare(&sandbox, &words).await;
    let report: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", output.stderr));
    assert_eq!(report["state"], "completed", "{}", output.stderr);
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    let verdict = judged(&sandbox, RECOVERY, &record).await;
    assert_eq!(lost_before(&verdict, lost_at.saturating_sub(1_000_000)), 0);

    // What is unpacked goes on as a configuration.
    let status = bare(&sandbox, &["--config", "dr-kit", "status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["workloads"][0]["primary"], RECOVERY, "{status}");
    end(sandbox);
}

/// The policy comes while the daemons run, and the region is lost with its bucket. What is left is a bucket with the key to it, a daemon that
/// has forgotten everything, and two people who have a kit each: one asks, the other approves.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_from_a_bucket_is_approved_from_another_kit() {
    let sandbox = start(Sandbox::builder().store(StoreKind::S3)).await;
    let load = sandbox.load(Default::default()).unwrap();
    backup(&sandbox, RECOVERY).await;
    until("a recovery kit", async || {
        match kits(&sandbox, RECOVERY).len() {
            1 => Ok(()),
            count => Err(format!("{count}")),
        }
    })
    .await;
    ask_for(&sandbox, 1, &["ada", "grace"]).await;
    until("a recovery kit with the policy", async || {
        let kits = kits(&sandbox, RECOVERY);
        let mut texts = kits.iter().map(std::fs::read_to_string);
        let names = |text: std::io::Result<String>| text.is_ok_and(|text| text.contains("grace"));
        match texts.any(names) {
            true => Ok(()),
            false => Err(format!("{kits:?}")),
        }
    })
    .await;
    forget(&sandbox).await;
    register_in(&sandbox, RECOVERY).await;
    acknowledge(&load, 100).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    lose_configuration(&sandbox);

    let store = location(&sandbox, RECOVERY);
    for place in ["laptop", "desk"] {
        let place = sandbox.layout().directory.join(place);
        sandbox.launcher().make_directory(&place).unwrap();
    }
    let key = |name: &str| {
        let file = sandbox.layout().directory.join(format!("{name}.key"));
        file.display().to_string()
    };
    let from_store = ["failover", "--to", RECOVERY, "--from-store", &store];
    let anonymous = [&from_store[..], &["--yes"]].concat();
    let refused = bare_in(&sandbox, "laptop", &anonymous);
    let refused = sandbox.launcher().output(refused, false).await.unwrap();
    says(&refused, 64, &["not known who asks", "--key"]);
    let ada = key("ada");
    let asks = [&anonymous[..], &["--json", "--key", &ada]].concat();
    let running = Running::command(&sandbox, bare_in(&sandbox, "laptop", &asks));
    let id = until("an execution", async || {
        assert!(!running.has_ended());
        executions(&sandbox).pop().ok_or("none so far".to_owned())
    })
    .await;

    let look = [&from_store[..], &["--plan"]].concat();
    let look = bare_in(&sandbox, "desk", &look);
    let looked = sandbox.launcher().output(look, false).await.unwrap();
    assert!(looked.stderr.contains("was unpacked"), "{looked:?}");
    let approve = |name: &str| {
        let key = key(name);
        let words = ["--config", "dr-kit", "execution", "approve", &id, "--yes"];
        bare_in(&sandbox, "desk", &[&words[..], &["--key", &key]].concat())
    };
    let own = sandbox.launcher().output(approve("ada"), false);
    says(&own.await.unwrap(), 12, &["`ada` asked for it"]);
    let other = sandbox.launcher().output(approve("grace"), false);
    says(&other.await.unwrap(), 0, &["1 of 1"]);

    let output = running.end().await;
    let report: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", output.stderr));
    assert_eq!(report["state"], "completed", "{}", output.stderr);
    assert_eq!(report["approval"]["requested_by"], "ada", "{report}");
    assert_eq!(
        report["approval"]["approved_by"],
        serde_json::json!(["grace"])
    );
    moved_once(&sandbox).await;
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

/// Takes from the daemon of the recovery region all that it remembers.
async fn forget(sandbox: &Sandbox) {
    let region = sandbox.region(RECOVERY).unwrap();
    region.signal_daemon(Signal::KILL);
    until("the end of the daemon", async || ended(sandbox, RECOVERY)).await;
    let state = region.place().daemon();
    std::fs::rename(&state, state.with_extension("gone")).unwrap();
    sandbox.launcher().make_directory(&state).unwrap();
    region.start_daemon().await.unwrap();
}
