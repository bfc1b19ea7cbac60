//! With the configuration gone, the store of the other region and the program are enough.

use std::path::{Path, PathBuf};

use dr_sandbox::layout::{STORE_BUCKET, STORE_KEY};
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox};
use serde_json::Value;

use crate::support::{
    acknowledge, acknowledge_after, backup, end, judged, lost_before, says, start, task, until,
};

/// Runs `dr` without the sandbox's configuration.
pub(crate) async fn bare(sandbox: &Sandbox, words: &[&str]) -> Output {
    let mut command = sandbox.launcher().command(
        &sandbox.layout().dr,
        &sandbox.layout().directory.join("bare"),
    );
    command.args(words);
    sandbox.launcher().output(command, false).await.unwrap()
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
