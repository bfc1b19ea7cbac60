//! Help, completions, and the documents that are made from them.

use std::path::PathBuf;

use crate::support::run;

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name)
}

#[test]
fn help_names_every_command() {
    let ran = run(["--help"]);
    for command in [
        "init",
        "check",
        "daemon",
        "status",
        "failover",
        "execution",
        "runbook",
        "recovery-point",
        "restore",
        "wal",
        "completions",
    ] {
        assert!(
            ran.stdout.contains(&format!("\n  {command}")),
            "{}",
            ran.stdout
        );
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("recovery-point"), "{shell}");
    }
}

/// `docs/cli.md` is what `dr reference` prints: `dr reference > docs/cli.md` brings it up to date.
#[test]
fn the_reference_is_up_to_date() {
    let ran = run(["reference"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let written = std::fs::read_to_string(document("cli.md")).unwrap();
    assert_eq!(written, ran.stdout, "run `dr reference > docs/cli.md`");
}

#[test]
fn every_exit_code_is_documented() {
    let documented = std::fs::read_to_string(document("exit-codes.md")).unwrap();
    for code in [0, 1, 10, 11, 12, 13, 14, 20, 64, 65, 101, 130, 255] {
        assert!(documented.contains(&format!("| {code} |")), "{code}");
    }
}
