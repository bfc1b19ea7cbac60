//! The keys that people approve with.

use std::os::unix::fs::PermissionsExt;

use crate::support::run;

#[test]
fn a_key_is_its_owners_and_is_never_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ada.key");
    let keygen = ["approval", "keygen", file.to_str().unwrap()];
    let made = run(keygen);
    assert_eq!(made.code, 0, "{made:?}");
    let public = made.stdout.trim();
    assert!(
        public.starts_with("ed25519:") && public.len() == 72,
        "{made:?}"
    );
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let private = std::fs::read_to_string(&file).unwrap();
    assert!(
        !made
            .stdout
            .contains(private.split_whitespace().last().unwrap())
    );
    let again = run(keygen);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.stderr.contains("never replaced"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), private);
}
