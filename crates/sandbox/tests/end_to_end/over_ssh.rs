//! Whoever moves the workload is on neither machine: what has to be done on them is done over ssh, by the `dr` that is there.
//! Each region is on a machine of its own, and an SSH server on each of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use dr_model::loss::Bound;
use dr_provider::conformance::{Missing, find_program, skipped};
use dr_sandbox::process::Output;
use dr_sandbox::{HOME, RECOVERY, Sandbox};
use rustix::process::{Pid, Signal, kill_process};

use crate::executions::{epochs, executions, moved_once};
use crate::partitions::{MOVE, Parted, report};
use crate::support::{acknowledge, acknowledge_after, apart, ask, is_primary, now_us, says, until};

const PORT: u16 = 2222;

/// A machine's SSH server, which keeps its files on that machine. It writes its title over its environment, so that the sandbox
/// does not know it for its own: it ends with this.
struct Server {
    process: Pid,
    directory: PathBuf,
    /// Its host key, as a file of known hosts has it.
    known: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        kill_process(self.process, Signal::KILL).ok();
    }
}

/// Starts the SSH server of a region's machine, which lets the owner of `key` in.
async fn serve(sandbox: &Sandbox, region: &str, program: &Path, key: &Path) -> Server {
    let place = sandbox.region(region).unwrap().place().clone();
    let launcher = sandbox.launcher().on(place.machine);
    let directory = place.directory.join("ssh");
    launcher.make_directory(&directory).unwrap();
    let host_key = directory.join("host_key");
    make_key(sandbox, &host_key).await;
    let layout = sandbox.layout();
    let config = format!(
        "Port {PORT}\nListenAddress {address}\nHostKey {host_key}\nPidFile none\n\
         AuthorizedKeysFile {key}.pub\nStrictModes no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nUsePAM no\n\
         SetEnv DR_SANDBOX={sandbox} DR_POSTGRES_BIN={postgres}\n",
        address = place.address,
        host_key = host_key.display(),
        key = key.display(),
        sandbox = layout.directory.display(),
        postgres = layout.postgres_programs.display(),
    );
    let file = directory.join("config");
    launcher.write_file(&file, &config).unwrap();
    let mut command = launcher.command(program, &directory);
    command.args(["-D", "-e", "-f"]).arg(&file);
    let started = launcher.start(command, &place.log("sshd")).unwrap();
    let shown = std::fs::read_to_string(host_key.with_extension("pub")).unwrap();
    let server = Server {
        process: Pid::from_raw(started).unwrap(),
        directory,
        known: format!("[{}]:{PORT} {shown}", place.address),
    };
    until(&format!("the SSH server in {region}"), async || {
        let address = (place.address, PORT);
        let connected = tokio::net::TcpStream::connect(address).await;
        connected.map(drop).map_err(|error| error.to_string())
    })
    .await;
    server
}

async fn make_key(sandbox: &Sandbox, path: &Path) {
    let launcher = sandbox.launcher();
    let mut command = launcher.command(Path::new("ssh-keygen"), path.parent().unwrap());
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path);
    launcher.run(command).await.unwrap();
}

/// Whoever moves it: a configuration in which every host is reached over ssh, and no sight of the machines' files.
struct Elsewhere<'a> {
    sandbox: &'a Sandbox,
    directory: PathBuf,
    servers: [Server; 2],
}

impl<'a> Elsewhere<'a> {
    async fn new(sandbox: &'a Sandbox, program: &Path) -> Self {
        let (layout, launcher) = (sandbox.layout(), sandbox.launcher());
        let directory = layout.directory.join("elsewhere");
        launcher.make_directory(&directory).unwrap();
        let key = directory.join("key");
        make_key(sandbox, &key).await;
        let servers = [
            serve(sandbox, HOME, program, &key).await,
            serve(sandbox, RECOVERY, program, &key).await,
        ];
        let elsewhere = Self {
            sandbox,
            directory,
            servers,
        };
        let known: String = elsewhere.servers.iter().map(|s| s.known.as_str()).collect();
        elsewhere.know(&known);
        elsewhere.write_config(&key);
        elsewhere
    }

    /// Says whose host keys are known.
    fn know(&self, hosts: &str) {
        let file = self.directory.join("known_hosts");
        self.sandbox.launcher().write_file(&file, hosts).unwrap();
    }

    fn write_config(&self, key: &Path) {
        let (layout, launcher) = (self.sandbox.layout(), self.sandbox.launcher());
        let user = launcher.user().unwrap();
        let mut text = std::fs::read_to_string(layout.directory.join("dr.yaml")).unwrap();
        for (place, server) in layout.regions.values().zip(&self.servers) {
            let host = format!("ssh://{}@{}:{PORT}", user.name, place.address);
            let instance = format!("host: local\n            address: {}\n", place.address);
            assert!(text.contains(&instance), "{text}");
            let there = instance.replace("local", &format!("\"{host}\""));
            text = text.replace(&instance, &there);
            let region = layout
                .regions
                .iter()
                .find_map(|(name, of)| (of == place).then_some(name));
            let service = format!("          {}:\n            start:", region.unwrap());
            assert!(text.contains(&service), "{text}");
            let there = service.replace(
                "            start:",
                &format!("            host: \"{host}\"\n            start:"),
            );
            text = text.replace(&service, &there);
            let daemon = format!("    daemon: {{ listen: \"{}\"", place.daemon_listen());
            assert!(text.contains(&daemon), "{text}");
            let ssh = format!(
                "    ssh: {{ identity: \"{}\", known_hosts: \"{}\", program: \"{}\", state_directory: \"{}\", connect_timeout: 5s }}\n",
                key.display(),
                self.directory.join("known_hosts").display(),
                layout.dr.display(),
                server.directory.join("state").display(),
            );
            text = text.replace(&daemon, &format!("{ssh}{daemon}"));
        }
        for directory in ["schedules", "runbooks"] {
            launcher
                .make_directory(&self.directory.join(directory))
                .unwrap();
        }
        for file in ["schedules/ledger.yaml", "runbooks/failover-region.yaml"] {
            let content = std::fs::read_to_string(layout.directory.join(file)).unwrap();
            launcher
                .write_file(&self.directory.join(file), &content)
                .unwrap();
        }
        launcher
            .write_file(&self.directory.join("dr.yaml"), &text)
            .unwrap();
    }

    /// Runs `dr` in the middle, where the files of both machines are out of sight.
    async fn dr(&self, words: &[&str]) -> Output {
        let (layout, launcher) = (self.sandbox.layout(), self.sandbox.launcher());
        let user = launcher.user().unwrap();
        let mut command: Command = launcher.privileged("unshare".as_ref(), &layout.directory);
        let hide = "for d in \"$1\" \"$2\"; do mount -t tmpfs tmpfs \"$d\" || exit; done; shift 2; exec setpriv \"$@\"";
        command.args(["--mount", "sh", "-c", hide, "sh"]);
        command.args(layout.regions.values().map(|place| &place.directory));
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .args(["--clear-groups", "--"])
            .arg(&layout.dr)
            .arg("--config")
            .arg(&self.directory)
            .args(words)
            .env("HOME", &self.directory);
        launcher.output(command, false).await.unwrap()
    }
}

/// Returns the server's program if this machine has one and regions can have machines of their own.
fn possible(test: &str) -> Option<PathBuf> {
    let found = find_program("DR_SSHD", "sshd");
    if found.is_none() {
        let why = "no `sshd`: install OpenSSH's server or set DR_SSHD";
        skipped(Missing::Program, why);
    }
    found.filter(|_| apart(&format!("over_ssh::{test}"), "--net"))
}

/// The primary is stopped on its own machine, which proves that it accepts nothing more, and the application is started on
/// the other one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_on_machines_is_done_over_ssh() {
    let Some(program) = possible("what_is_done_on_machines_is_done_over_ssh") else {
        return;
    };
    let parted = Parted::start(Sandbox::builder()).await;
    let elsewhere = Elsewhere::new(&parted.sandbox, &program).await;
    let sandbox = &parted.sandbox;
    let plan = elsewhere
        .dr(&["failover", "--to", RECOVERY, "--plan"])
        .await;
    assert_eq!(plan.status.code(), Some(0), "{plan:?}");

    let moved_at = now_us(sandbox);
    let output = elsewhere.dr(&MOVE).await;
    let failover = report(&output);
    assert_eq!(failover.state, "completed", "{output:?}");
    assert_eq!(failover.fence, "stopped", "{output:?}");
    assert!(
        matches!(failover.loss.bound, Bound::Seconds { .. }),
        "{output:?}"
    );
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, moved_at).await;
    assert!(is_primary(sandbox, RECOVERY).await);
    assert!(ask(sandbox, HOME, "select 1").await.is_err());
    // Each machine remembers the epoch that something was done in.
    for server in &elsewhere.servers {
        let remembered = server.directory.join("state");
        assert!(remembered.exists(), "{}", remembered.display());
    }
    drop(elsewhere);
    parted.end().await;
}

/// The application is stopped on its own machine before the database is taken from it, and runs on the other one only.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_stopped_over_ssh_on_the_machine_that_is_left() {
    let Some(program) = possible("a_service_is_stopped_over_ssh_on_the_machine_that_is_left")
    else {
        return;
    };
    let parted = Parted::start(Sandbox::builder()).await;
    let elsewhere = Elsewhere::new(&parted.sandbox, &program).await;
    let sandbox = &parted.sandbox;
    let runbook = include_str!("../../../../runbooks/failover-planned.yaml");
    let stop = "  - { id: stop, uses: stop-writes }\n";
    let first = format!("  - {{ id: quiet, uses: stop-service }}\n{stop}");
    let changed = runbook.replace(stop, &first);
    assert_ne!(changed, runbook);
    let file = elsewhere.directory.join("runbooks/failover-planned.yaml");
    sandbox.launcher().write_file(&file, &changed).unwrap();

    let place = sandbox.region(HOME).unwrap().place().clone();
    let serves = async || {
        let address = (place.address, place.app_port);
        let connected = tokio::net::TcpStream::connect(address).await;
        connected.is_ok()
    };
    assert!(serves().await);
    let moved_at = now_us(sandbox);
    let output = elsewhere.dr(&[&MOVE[..], &["--planned"]].concat()).await;
    let moved: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(moved["fence"], "stopped", "{output:?}");
    let steps = moved["steps"].as_array().unwrap();
    let quiet = steps.iter().find(|step| step["id"] == "quiet").unwrap();
    assert_eq!(quiet["state"], "done", "{quiet}");
    assert_eq!(quiet["summary"], "stopped `app`", "{quiet}");
    assert!(!serves().await, "it still listens");
    moved_once(sandbox).await;
    acknowledge_after(&parted.load, moved_at).await;
    drop(elsewhere);
    parted.end().await;
}

/// A machine that shows another key than before is not asked for anything, and what it would have proven is not proven.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_another_key_proves_nothing() {
    let Some(program) = possible("a_machine_with_another_key_proves_nothing") else {
        return;
    };
    let parted = Parted::start(Sandbox::builder()).await;
    let elsewhere = Elsewhere::new(&parted.sandbox, &program).await;
    let sandbox = &parted.sandbox;
    let [home, recovery] = &elsewhere.servers;
    let place = sandbox.region(HOME).unwrap().place().clone();
    let (_, key) = recovery.known.split_once(' ').unwrap();
    let changed = format!("[{}]:{PORT} {key}{}", place.address, recovery.known);
    elsewhere.know(&changed);
    let refused = elsewhere.dr(&MOVE).await;
    says(&refused, 12, &["another host key"]);
    assert_eq!((epochs(sandbox).len(), executions(sandbox).len()), (1, 0));
    assert!(is_primary(sandbox, HOME).await);
    acknowledge(&parted.load, 50).await;

    elsewhere.know(&format!("{}{}", home.known, recovery.known));
    let moved_at = now_us(sandbox);
    let failover = report(&elsewhere.dr(&MOVE).await);
    assert_eq!(
        (failover.state.as_str(), failover.fence.as_str()),
        ("completed", "stopped")
    );
    acknowledge_after(&parted.load, moved_at).await;
    drop(elsewhere);
    parted.end().await;
}
