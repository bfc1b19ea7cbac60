//! Secrets from the environment and from files.

use std::io::ErrorKind as IoErrorKind;
use std::path::PathBuf;

use dr_provider::{Error, ErrorKind, Result, Secret, SecretSource};

use crate::errno::io_kind;

/// Resolves `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}`; `$${` stands for `${`
/// itself.
///
/// A default is taken if the variable is not set or empty. Of a file the line breaks at its end are
/// dropped; a relative path is relative to the configuration directory. What is inserted is not
/// searched for references again. A file that is missing is looked for by its name in the directory beside,
/// if there is one: where somebody puts what an unpacked recovery kit does not hold.
#[derive(Clone, Debug)]
pub struct LocalSecrets {
    directory: PathBuf,
    beside: Option<PathBuf>,
}

impl LocalSecrets {
    /// Makes the source for a configuration directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            beside: None,
        }
    }

    /// Adds a directory in which files are looked for by their names that are not at their paths.
    #[must_use]
    pub fn with_beside(mut self, directory: impl Into<PathBuf>) -> Self {
        self.beside = Some(directory.into());
        self
    }

    /// Returns where a file is: at its path, or beside if it is there and not at its path.
    fn find(&self, path: &str) -> PathBuf {
        let there = self.directory.join(path);
        let beside = self.beside.as_ref();
        let beside = beside.and_then(|beside| Some(beside.join(there.file_name()?)));
        match beside {
            Some(beside) if !there.exists() && beside.exists() => beside,
            _ => there,
        }
    }

    fn value(&self, reference: &str) -> Result<String> {
        let error = |kind| Error::new(kind, "resolve", format!("${{{reference}}}"));
        match reference.split_once(':') {
            Some(("env", name)) => {
                let (name, default) = match name.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (name, None),
                };
                let set = match std::env::var(name) {
                    Ok(value) => Some(value),
                    Err(std::env::VarError::NotPresent) => None,
                    Err(source) => return Err(error(ErrorKind::Invalid).because(source)),
                };
                let value = set.filter(|value| default.is_none() || !value.is_empty());
                value.or(default.map(str::to_owned)).ok_or_else(|| {
                    error(ErrorKind::NotFound)
                        .because(format!("the environment variable `{name}` is not set"))
                })
            }
            Some(("file", path)) => {
                let path = self.find(path);
                match std::fs::read_to_string(&path) {
                    Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
                    Err(source) if source.kind() == IoErrorKind::InvalidData => {
                        Err(error(ErrorKind::Invalid).because("the file is not UTF-8 text"))
                    }
                    Err(source) => Err(error(io_kind(&source))
                        .because(source)
                        .with_hint(format!("see `ls -l {}`", path.display()))),
                }
            }
            _ => Err(error(ErrorKind::Invalid)
                .with_hint("write `${env:NAME}`, `${env:NAME:-default}` or `${file:/path}`")),
        }
    }
}

impl SecretSource for LocalSecrets {
    fn resolve(&self, text: &str) -> Result<Secret> {
        let mut resolved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, reference) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = reference;
                continue;
            }
            resolved.push_str(before);
            let end = reference.find('}').ok_or_else(|| {
                // Not the whole text, which may hold a secret besides.
                Error::new(ErrorKind::Invalid, "resolve", "${").because("`}` is missing")
            })?;
            resolved.push_str(&self.value(&reference[..end])?);
            rest = &reference[end + 1..];
        }
        resolved.push_str(rest);
        Ok(Secret::new(resolved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn source() -> (tempfile::TempDir, LocalSecrets) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "ab${env:PATH}\r\n\n").unwrap();
        let secrets = LocalSecrets::new(directory.path());
        (directory, secrets)
    }

    #[rstest]
    #[case("plain $x {y}", "plain $x {y}")]
    #[case("<${file:key}>", "<ab${env:PATH}>")]
    #[case("${env:DR_NOT_SET:-a:-b}${env:DR_NOT_SET:-}", "a:-b")]
    #[case("$${env:PATH} ${file:key}", "${env:PATH} ab${env:PATH}")]
    fn resolves(#[case] text: &str, #[case] expected: &str) {
        let (_directory, secrets) = source();
        assert_eq!(secrets.resolve(text).unwrap().expose(), expected);
    }

    #[test]
    fn takes_variables() {
        let (_directory, secrets) = source();
        let path = std::env::var("PATH").unwrap();
        let resolved = secrets.resolve("${env:PATH}").unwrap();
        assert_eq!(resolved.expose(), path);
        assert_eq!(format!("{resolved:?} {resolved}"), "*** ***");
    }

    #[rstest]
    #[case("${env:DR_NOT_SET}", ErrorKind::NotFound, "${env:DR_NOT_SET}")]
    #[case("hush${file:missing}", ErrorKind::NotFound, "${file:missing}")]
    #[case("${vault:x}", ErrorKind::Invalid, "${vault:x}")]
    #[case("hush ${env:PATH", ErrorKind::Invalid, "`}` is missing")]
    fn names_the_reference_only(#[case] text: &str, #[case] kind: ErrorKind, #[case] shown: &str) {
        let (_directory, secrets) = source();
        let error = secrets.resolve(text).unwrap_err();
        assert_eq!(error.kind(), kind);
        let message = dr_provider::error::chain(&error);
        assert!(message.contains(shown), "{message}");
        assert!(!message.contains("hush"), "{message}");
    }

    #[test]
    fn a_file_that_is_missing_may_lie_beside() {
        let (directory, secrets) = source();
        let beside = tempfile::tempdir().unwrap();
        std::fs::write(beside.path().join("tsig.key"), "moved\n").unwrap();
        std::fs::write(beside.path().join("key"), "not this one").unwrap();
        let resolve = |secrets: &LocalSecrets, text: &str| {
            secrets
                .resolve(text)
                .map(|secret| secret.expose().to_owned())
        };
        let reference = "${file:/nowhere/dr/tsig.key}";
        assert!(resolve(&secrets, reference).is_err());
        let secrets = LocalSecrets::new(directory.path()).with_beside(beside.path());
        assert_eq!(resolve(&secrets, reference).unwrap(), "moved");
        assert_eq!(resolve(&secrets, "${file:key}").unwrap(), "ab${env:PATH}");
        assert!(resolve(&secrets, "${file:/nowhere/other}").is_err());
    }
}
