//! Clients are led by BIND: a primary that takes updates, a secondary that gets them by transfer, and a resolver that keeps what it was
//! told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dr_provider::conformance::{Missing, find_program, skipped};
use dr_sandbox::layout::{KEY_NAME, NAME, TTL_SECONDS, ZONE};
use dr_sandbox::ledger::{Load, Options};
use dr_sandbox::process::{Table, is_alive, members};
use dr_sandbox::{HOME, LostStore, RECOVERY, Sandbox, dns, network};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    acknowledge, acknowledge_after, backup, dr, end, fail_over, is_primary, judged, says, start,
    until,
};

/// How long the resolver may keep the first answer in the test about it: longer than a move takes, and waited for once.
const OLD_TTL_SECONDS: u32 = 15;

/// The three servers.
struct Bind<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    primary: SocketAddr,
    secondary: SocketAddr,
    resolver: SocketAddr,
    /// The process of the secondary.
    copies: i32,
}

impl<'a> Bind<'a> {
    /// Starts them on the zone that the sandbox's own server has, and leads `dr` to them; `None` if there is no BIND here. The primary
    /// tells the secondary of changes if that is to follow at once. Otherwise nothing does for an hour.
    async fn start(sandbox: &'a Sandbox, follows: bool, ttl_seconds: u32) -> Option<Self> {
        let Some(program) = find_program("DR_NAMED", "named") else {
            skipped(
                Missing::Program,
                "no `named`: install BIND (Debian: bind9) or set DR_NAMED",
            );
            return None;
        };
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let mut listen: Vec<SocketAddr> = Vec::new();
        while listen.len() < 3 {
            let port = network::free_port(&[loopback]).unwrap();
            let free = SocketAddr::new(loopback, port);
            // A port is free again once it was found.
            if !listen.contains(&free) {
                listen.push(free);
            }
        }
        let mut bind = Self {
            sandbox,
            program,
            primary: listen[0],
            secondary: listen[1],
            resolver: listen[2],
            copies: 0,
        };
        bind.start_primary(follows, ttl_seconds).await;
        bind.start_secondary().await;
        let primary = bind.primary.port();
        let forward =
            format!("recursion yes; forward only; forwarders {{ 127.0.0.1 port {primary}; }};");
        bind.start_server("resolver", bind.resolver, &forward, "")
            .await;
        bind.lead();
        Some(bind)
    }

    async fn start_primary(&self, follows: bool, ttl_seconds: u32) {
        let layout = self.sandbox.layout();
        let secret = std::fs::read_to_string(layout.key_file()).unwrap();
        let home = self.sandbox.region(HOME).unwrap().place().address;
        let zone = format!(
            "$TTL {TTL_SECONDS}\n@ SOA ns hostmaster 7 3600 600 86400 {TTL_SECONDS}\n@ NS ns\nns A 127.0.0.1\nledger {ttl_seconds} A {home}\n"
        );
        let directory = layout.directory.join("bind-primary");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("zone"), zone).unwrap();
        let tell = match follows {
            true => format!(
                "notify explicit; notify-delay 0; also-notify {{ 127.0.0.1 port {}; }};",
                self.secondary.port()
            ),
            false => "notify no;".to_owned(),
        };
        let zone = format!(
            "key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"{}/zone\"; allow-update {{ key \"{KEY_NAME}\"; }}; {tell} }};",
            secret.trim(),
            directory.display()
        );
        let options = "recursion no; allow-transfer { any; };";
        self.start_server("primary", self.primary, options, &zone)
            .await;
    }

    /// Starts the secondary, which asks for the whole zone: it keeps no file.
    async fn start_secondary(&mut self) {
        let zone = format!(
            "zone \"{ZONE}\" {{ type secondary; primaries {{ 127.0.0.1 port {}; }}; }};",
            self.primary.port()
        );
        let listen = self.secondary;
        self.copies = self
            .start_server("secondary", listen, "recursion no;", &zone)
            .await;
    }

    /// Starts one that answers for the name, and returns its process.
    async fn start_server(&self, name: &str, listen: SocketAddr, options: &str, zone: &str) -> i32 {
        let layout = self.sandbox.layout();
        let directory = layout.directory.join(format!("bind-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let (path, port) = (directory.display(), listen.port());
        let configuration = format!(
            "options {{ directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile none; dnssec-validation no;\n\
             listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; {options} }};\ncontrols {{ }};\n{zone}\n"
        );
        let file = directory.join("named.conf");
        std::fs::write(&file, configuration).unwrap();
        let launcher = self.sandbox.launcher();
        let mut command = launcher.privileged(&self.program, &directory);
        command.args(["-g", "-4", "-n", "1", "-c"]).arg(&file);
        let log = layout.directory.join(format!("log/bind-{name}.log"));
        let process = launcher.start(command, &log).unwrap();
        until(&format!("an answer of the {name}"), async || {
            let answer = dns::lookup(listen, NAME).await;
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            answer
                .map(drop)
                .map_err(|error| format!("{error}: {}", said()))
        })
        .await;
        process
    }

    /// Has `dr` update the primary, and look at the others.
    fn lead(&self) {
        let layout = self.sandbox.layout();
        let file = layout.directory.join("dr.yaml");
        let text = std::fs::read_to_string(&file).unwrap();
        let own = format!("        server: {}\n", layout.dns);
        let led = format!(
            "        server: {}\n        servers: [\"{}\"]\n        resolvers: [\"{}\"]\n",
            self.primary, self.secondary, self.resolver
        );
        let changed = text.replace(&own, &led);
        assert_ne!(changed, text);
        self.sandbox.launcher().write_file(&file, &changed).unwrap();
    }

    /// Starts clients that ask the resolver.
    fn load(&self) -> Load {
        let mut layout = self.sandbox.layout().clone();
        layout.dns = self.resolver;
        let file = layout.directory.join("commits.jsonl");
        Load::start(&layout, self.sandbox.clock(), Options::default(), file).unwrap()
    }

    /// Ends the secondary, and starts it again.
    async fn restart_secondary(&mut self) {
        let mut found = members(&Table::read(), &self.sandbox.layout().directory);
        found.retain(|process| process.pid == self.copies);
        assert_eq!(found.len(), 1);
        dr_sandbox::region::signal(&found, Signal::KILL);
        until("the end of the secondary", async || {
            match is_alive(self.copies) {
                true => Err("it runs".to_owned()),
                false => Ok(()),
            }
        })
        .await;
        self.start_secondary().await;
    }
}

/// What `verify-traffic` says of a move, by its report.
fn proven(report: &Value) -> &str {
    let mut steps = report["steps"].as_array().unwrap().iter();
    let prove = steps.find(|step| step["uses"] == "verify-traffic").unwrap();
    prove["summary"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_led_by_a_primary_and_a_secondary_that_follows() {
    let sandbox = start(Sandbox::builder()).await;
    let Some(bind) = Bind::start(&sandbox, true, TTL_SECONDS).await else {
        return end(sandbox);
    };
    let load = bind.load();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();
    let report = fail_over(&sandbox, &[]).await;
    let mut steps = report.steps.iter();
    let prove = steps.find(|step| step.uses == "verify-traffic").unwrap();
    let said = prove.summary.as_deref().unwrap();
    for words in [
        "2 of 2 lead to us-west-2, serial 8",
        "resolvers: 1 of 1 lead to us-west-2",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let place = sandbox.region(RECOVERY).unwrap().place();
    for server in [bind.primary, bind.secondary, bind.resolver] {
        let answer = dns::lookup(server, NAME).await.unwrap();
        assert_eq!(answer.address, place.address, "{server}");
    }
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}

/// The secondary has not heard of the update, and the resolver has the old answer still: each is named as what it is, the move stands where
/// it is, and goes on when they have followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_that_lags_and_a_resolver_that_remembers_are_told_apart() {
    let sandbox = start(Sandbox::builder()).await;
    let Some(mut bind) = Bind::start(&sandbox, false, OLD_TTL_SECONDS).await else {
        return end(sandbox);
    };
    let runbook = include_str!("../../../../runbooks/failover-region.yaml");
    let hasty = "uses: verify-traffic, with: { within: 1s } }";
    let hasty = runbook.replace("uses: verify-traffic }", hasty);
    assert_ne!(hasty, runbook);
    let file = sandbox
        .layout()
        .directory
        .join("runbooks/failover-region.yaml");
    sandbox.launcher().write_file(&file, &hasty).unwrap();
    let load = bind.load();
    backup(&sandbox, RECOVERY).await;
    acknowledge(&load, 200).await;
    let [old, new] = [HOME, RECOVERY].map(|region| sandbox.region(region).unwrap().place().address);
    until("an old answer that is kept for long", async || {
        let answer = dns::lookup(bind.resolver, NAME)
            .await
            .map_err(|error| error.to_string())?;
        let enough = Duration::from_secs(u64::from(OLD_TTL_SECONDS) - 3);
        match answer.address == old && answer.ttl >= enough {
            true => Ok(()),
            false => Err(format!("{answer:?}")),
        }
    })
    .await;
    let home = sandbox.region(HOME).unwrap();
    let lost_at = home.lose(LostStore::Renamed).unwrap();

    let output = dr(&sandbox, &["failover", "--to", RECOVERY, "--yes", "--json"]).await;
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let lags = format!(
        "server {} lags: it answers {old} with serial 7, and the update was taken with 8",
        bind.secondary
    );
    let kept = format!(
        "clients of resolver {} still get {old}, for at most ",
        bind.resolver
    );
    says(&output, 14, &[&lags, &kept]);
    assert_eq!(report["stuck"]["step"], "prove", "{output:?}");
    // Nobody else is blamed.
    let why = report["stuck"]["why"].as_str().unwrap();
    assert!(!why.contains(&bind.primary.to_string()), "{why}");
    assert!(is_primary(&sandbox, RECOVERY).await);
    let status = dr(&sandbox, &["status"]).await;
    let left = format!("server {} still answers", bind.secondary);
    assert!(status.stdout.contains(&left), "{status:?}");

    bind.restart_secondary().await;
    let id = report["execution"].as_str().unwrap();
    let resumed = until("the end of the move", async || {
        let output = dr(&sandbox, &["execution", "resume", id, "--json"]).await;
        assert!(!output.stderr.contains("lags"), "{output:?}");
        match output.status.code() {
            Some(0) => Ok(output.stdout),
            _ => Err(output.stderr),
        }
    })
    .await;
    let report: Value = serde_json::from_str(&resumed).unwrap();
    let said = proven(&report);
    for words in [
        "2 of 2 lead to us-west-2, serial 8",
        "resolvers: 1 of 1 lead to us-west-2",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let answer = dns::lookup(bind.resolver, NAME).await.unwrap();
    assert_eq!(answer.address, new);
    acknowledge_after(&load, lost_at).await;
    let record = load.stop().await.unwrap();
    judged(&sandbox, RECOVERY, &record).await;
    end(sandbox);
}
