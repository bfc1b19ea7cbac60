//! Looking for a server's processes on its host: those whose working directory is its data directory, as every one's is.

use std::path::Path;
use std::time::Duration;

use dr_provider::host::{Command, PathKind};
use dr_provider::{Error, ErrorKind, Host, Result};

/// The user as whom no server runs.
const ROOT: &str = "0";

/// How long one command may take.
const LIMIT: Duration = Duration::from_millis(1500);

/// Returns the ids of all processes on the host whose working directory is `directory`.
///
/// Fails rather than overlook one: a process of the directory's owner whose working directory may not be read counts as
/// not looked at, unless it is a zombie, which can do nothing any more.
pub(crate) async fn processes(host: &dyn Host, directory: &Path) -> Result<Vec<String>> {
    look(host, directory, directory).await
}

/// The same for a directory that may be gone, and with it what said whose it was: then that of the one that it stood in.
pub(super) async fn processes_left(host: &dyn Host, directory: &Path) -> Result<Vec<String>> {
    let owned = match (host.kind(directory).await?, directory.parent()) {
        (PathKind::Missing, Some(parent)) => parent,
        _ => directory,
    };
    look(host, directory, owned).await
}

/// Looks for processes in `directory` that its owner, who is that of `owned`, may have.
async fn look(host: &dyn Host, directory: &Path, owned: &Path) -> Result<Vec<String>> {
    let failed = |why: String| {
        let subject = format!("{} on {}", directory.display(), host.name());
        Error::new(ErrorKind::Failed, "look for processes in", subject).because(why)
    };
    let shown = directory.display().to_string();
    let resolved = line(host, &["readlink", "-f", "--", &shown]).await?;
    let owned = owned.display().to_string();
    let mut owner = line(host, &["stat", "-L", "-c", "%u", "--", &owned]).await?;
    if owner.as_deref() == Some(ROOT) {
        // It is that of whoever acts for it here; if root does, it may be anybody's.
        owner = line(host, &["id", "-u"]).await?;
    }
    let (Some(resolved), Some(owner)) = (resolved, owner) else {
        return Err(failed("its real path or owner cannot be found".to_owned()));
    };
    let may_be_its = |user: &str| user != ROOT && (user == owner || owner == ROOT);
    // One line a process: path of the link, owner, target. The target is empty where it may not be read.
    let links = [
        "find",
        "/proc",
        "-mindepth",
        "2",
        "-maxdepth",
        "2",
        "-name",
        "cwd",
        "-printf",
        "%h %U %l\\n",
    ];
    let found = host.run(&Command::new(links), LIMIT).await?;
    let text = String::from_utf8_lossy(&found.stdout);
    if text.is_empty() {
        return Err(failed(
            String::from_utf8_lossy(&found.stderr).trim().to_owned(),
        ));
    }
    let mut left = Vec::new();
    for entry in text.lines() {
        let mut words = entry.splitn(3, ' ');
        let (Some(path), Some(user), Some(target)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let id = path.trim_start_matches("/proc/");
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if target == resolved || target.strip_suffix(" (deleted)") == Some(&resolved) {
            left.push(id.to_owned());
        } else if target.is_empty() && may_be_its(user) && !has_ended(host, path).await? {
            return Err(failed(format!(
                "process {id} of user {user}, who may own it, may not be looked at"
            )));
        }
    }
    Ok(left)
}

/// Runs a command and returns its one line of output, or `None` if it failed.
async fn line(host: &dyn Host, argv: &[&str]) -> Result<Option<String>> {
    let output = host.run(&Command::new(argv.iter().copied()), LIMIT).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((output.status == Some(0) && !text.is_empty()).then_some(text))
}

/// Tells whether a process is gone or a zombie: the state stands behind the name in parentheses, proc(5).
async fn has_ended(host: &dyn Host, process: &str) -> Result<bool> {
    match host.read(&Path::new(process).join("stat"), 0, 4096).await {
        Ok(stat) => {
            let text = String::from_utf8_lossy(&stat);
            let state = text
                .rsplit(')')
                .next()
                .and_then(|rest| rest.trim_start().chars().next());
            Ok(matches!(state, Some('Z' | 'X')))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use dr_local::LocalHost;

    use super::*;

    struct Working(Child);

    impl Drop for Working {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    /// A server that goes on in a directory that was removed is found, by whatever path that is configured.
    #[tokio::test]
    async fn what_runs_in_a_directory_that_is_gone_is_found() {
        let all = tempfile::tempdir().unwrap();
        let host = LocalHost::new(all.path().join("state"));
        let (real, link) = (all.path().join("real"), all.path().join("link"));
        std::fs::create_dir_all(real.join("data")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let data = link.join("data");
        assert_eq!(processes_left(&host, &data).await.unwrap(), [""; 0]);
        let mut sleep = Command::new("sleep");
        let working = Working(sleep.arg("600").current_dir(&data).spawn().unwrap());
        let id = working.0.id().to_string();
        let found = processes_left(&host, &data).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&id));
        std::fs::remove_dir(&data).unwrap();
        assert_eq!(processes_left(&host, &data).await.unwrap(), [id]);
        processes(&host, &data).await.unwrap_err();
        drop(working);
        assert_eq!(processes_left(&host, &data).await.unwrap(), [""; 0]);
        // Where nothing is left of the way to it, nothing can be told.
        std::fs::remove_dir(&real).unwrap();
        processes_left(&host, &data).await.unwrap_err();
    }
}
