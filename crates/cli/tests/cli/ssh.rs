//! Hosts over ssh, against a real server on loopback with a host key of its own: what any host does, and what is said if the
//! server is not who it was, takes another key, or is not there.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dr_local::{SshAddress, SshHost, SshOptions};
use dr_model::{Clock, SystemClock};
use dr_provider::conformance::host::Subject;
use dr_provider::conformance::{Missing, find_program, skipped};
use dr_provider::host::PathKind;
use dr_provider::{Error, ErrorKind, Host};
use tempfile::TempDir;

use crate::support::{Place, dr};

/// A server that lets the account that it runs under in, ended when dropped.
struct Server {
    directory: TempDir,
    account: Account,
    port: u16,
    process: Child,
}

/// Whom the server runs as, and lets in. Root would need an account and a directory that only an installation makes.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    other: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Finds the account: our own, or as root one with a shell.
fn account() -> Option<Account> {
    let uid = rustix::process::geteuid();
    let other = uid.is_root();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    accounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number: u32 = fields.get(2)?.parse().ok()?;
        let wanted = if other {
            fields[0] == "postgres" && fields.get(6)?.ends_with("sh")
        } else {
            number == uid.as_raw()
        };
        wanted.then(|| Account {
            name: fields[0].to_owned(),
            uid: number,
            gid: fields[3].parse().unwrap(),
            other,
        })
    })
}

impl Server {
    /// Starts one; `None` if this machine has no ssh.
    async fn start() -> Option<Self> {
        let (Some(program), Some(account)) = (find_program("DR_SSHD", "sshd"), account()) else {
            let why = "no `sshd`, or no account for it: install OpenSSH's server or set DR_SSHD";
            skipped(Missing::Program, why);
            return None;
        };
        let directory = tempfile::Builder::new().prefix("dr-ssh").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for (name, bits) in [("work", 0o755), ("state", 0o755), ("server", 0o755)] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(bits)).unwrap();
        }
        for key in ["server/host_key", "server/other_key", "key", "stranger"] {
            make_key(&at(key));
        }
        std::fs::copy(at("key.pub"), at("server/authorized_keys")).unwrap();
        std::fs::hard_link(env!("CARGO_BIN_EXE_dr"), at("dr"))
            .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_dr"), at("dr")).map(drop))
            .unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host_key\nPidFile none\n\
             AuthorizedKeysFile {0}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nUsePAM no\n",
            at("server").display()
        );
        std::fs::write(at("server/config"), config).unwrap();
        let hosts = |key: &str| {
            let key = std::fs::read_to_string(at(key)).unwrap();
            format!("[127.0.0.1]:{port} {key}")
        };
        std::fs::write(at("known_hosts"), hosts("server/host_key.pub")).unwrap();
        std::fs::write(at("others"), hosts("server/other_key.pub")).unwrap();
        std::fs::write(at("none"), "").unwrap();
        if account.other {
            let files = ["work", "state", "server", "server/host_key"];
            for path in files.map(at) {
                std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid)).unwrap();
            }
        }
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(at("server/config"));
        if account.other {
            command.uid(account.uid).gid(account.gid);
        }
        let process = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self {
            directory,
            account,
            port,
            process,
        };
        server.wait_until_ready().await;
        Some(server)
    }

    async fn wait_until_ready(&mut self) {
        let clock = SystemClock::new();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            let log = std::fs::read_to_string(self.at("log")).unwrap();
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "sshd ended: {ended:?}\n{log}");
            assert!(clock.elapsed() < Duration::from_secs(20), "{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns how the server is reached rightly.
    fn options(&self) -> SshOptions {
        SshOptions {
            identity: self.at("key"),
            known_hosts: self.at("known_hosts"),
            program: self.at("dr").display().to_string(),
            state_directory: self.at("state").display().to_string(),
            connect_timeout: Duration::from_secs(10),
        }
    }

    fn address(&self) -> SshAddress {
        let (user, port) = (&self.account.name, self.port);
        format!("ssh://{user}@127.0.0.1:{port}").parse().unwrap()
    }

    fn host(&self, change: impl FnOnce(&mut SshOptions)) -> SshHost {
        let mut options = self.options();
        change(&mut options);
        SshHost::new(self.address(), options)
    }
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(made.success());
}

async fn subject() -> Option<Subject> {
    let server = Server::start().await?;
    let host = Arc::new(server.host(|_| ()));
    let work = server.at("work");
    Some(Subject::new(host, work).keeping(server))
}

dr_provider::host_conformance!(subject);

fn says(error: &Error, kind: ErrorKind, words: &[&str]) {
    let text = format!(
        "{} ({})",
        dr_provider::error::chain(error),
        error.hint().unwrap_or_default()
    );
    assert_eq!(error.kind(), kind, "{text}");
    for word in words {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_who_they_were_is_refused_and_nothing_is_done() {
    let Some(server) = Server::start().await else {
        return;
    };
    let file = server.at("work/file");
    let changed = server.host(|options| options.known_hosts = server.at("others"));
    let error = changed.write(&file, b"x").await.unwrap_err();
    let others = server.at("others").display().to_string();
    says(&error, ErrorKind::Denied, &["another host key", &others]);
    assert!(error.is_definite());
    let unknown = server.host(|options| options.known_hosts = server.at("none"));
    let error = unknown.write(&file, b"x").await.unwrap_err();
    says(&error, ErrorKind::Denied, &["its host key is not known"]);
    let stranger = server.host(|options| options.identity = server.at("stranger"));
    let error = stranger.write(&file, b"x").await.unwrap_err();
    says(&error, ErrorKind::Denied, &["has to accept the key"]);
    assert!(!file.exists());

    let nowhere = server.host(|options| options.program = "/nowhere/dr".to_owned());
    let error = nowhere.write(&file, b"x").await.unwrap_err();
    says(&error, ErrorKind::NotFound, &["install `dr` there"]);
    let other = server.host(|options| options.program = "/bin/echo".to_owned());
    let error = other.write(&file, b"x").await.unwrap_err();
    says(&error, ErrorKind::Unknown, &[]);
    assert_eq!(
        other.kind(&file).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );

    let right = server.host(|_| ());
    right.write(&file, b"x").await.unwrap();
    assert_eq!(right.kind(&file).await.unwrap(), PathKind::File);
    let name = right.name().to_owned();
    // A connection that was made lives on by itself for a while.
    let later = server.host(|_| ());
    drop(server);
    let error = later.write(&file, b"y").await.unwrap_err();
    says(&error, ErrorKind::Unavailable, &[&name]);
    assert!(error.is_definite());
}

/// A configuration whose server in the recovery region is on a host over ssh.
fn place(host: &str, region: &str) -> Place {
    let place = Place::new();
    let text = place.root();
    let recovery = "us-west-2: { host: local";
    assert!(text.contains(recovery), "{text}");
    let text = text
        .replace(recovery, &format!("us-west-2: {{ host: \"{host}\""))
        .replace(
            "    store: stores/us-west-2\n",
            &format!("    store: stores/us-west-2\n{region}"),
        );
    place.write("dr.yaml", &text);
    place
}

#[test]
fn a_host_that_cannot_be_reached_rightly_is_refused_by_the_check() {
    for (host, region, said) in [
        ("ssh://postgres@db", "", "add `ssh: {"),
        (
            "ssh://db",
            "    ssh: { identity: key, known_hosts: hosts }\n",
            "expected `ssh://user@name`",
        ),
        (
            "ssh://postgres@db",
            "    ssh: { identity: key, known_hosts: hosts, connect_timeout: 500ms }\n",
            "whole seconds",
        ),
        (
            "ssh://postgres@db",
            "    ssh: { identity: key }\n",
            "`known_hosts` is missing",
        ),
    ] {
        let ran = place(host, region).run(&["check"]);
        assert_eq!(ran.code, 65, "{ran:?}");
        assert!(ran.stderr.contains(said), "{said}: {ran:?}");
    }
    let whole = "    ssh: { identity: key, known_hosts: hosts }\n";
    let ran = place("ssh://postgres@db", whole).run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_online_check_asks_the_host() {
    let Some(server) = Server::start().await else {
        return;
    };
    let options = server.options();
    for (hosts, found) in [
        ("known_hosts", "ok      host ssh://"),
        ("others", "it shows another host key"),
    ] {
        let region = format!(
            "    ssh: {{ identity: \"{}\", known_hosts: \"{}\", program: \"{}\", state_directory: \"{}\" }}\n",
            options.identity.display(),
            server.at(hosts).display(),
            options.program,
            options.state_directory,
        );
        let place = place(&server.address().to_string(), &region);
        let ran = place.run(&["check", "--online"]);
        assert!(ran.stdout.contains(found), "{found}: {ran:?}");
    }
}

/// What follows a request that is too long is not another one.
#[test]
fn a_request_that_is_too_long_is_the_last_that_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = dr()
        .args(["host", "serve", "--state-directory"])
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let long = vec![b' '; 65 << 20];
        // The far side may close its end before it has read everything.
        let _closed = input
            .write_all(&long)
            .and_then(|()| input.write_all(b"\n{}\n"));
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), 1, "{answers}");
}
