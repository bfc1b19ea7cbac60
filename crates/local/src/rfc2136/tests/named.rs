//! A real name server for a test: BIND on a free port of the loopback interface, with a zone and a
//! key of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use dr_model::{Clock, SystemClock};
use dr_provider::Secret;
use dr_provider::conformance::{Missing, find_program, skipped};
use tempfile::TempDir;

use super::super::{Algorithm, Rfc2136, Rfc2136Options, Tsig};
use crate::secrets::LocalSecrets;

const KEY: &str = "dr-test";

/// A running server, ended when dropped.
pub(super) struct Named {
    pub(super) address: SocketAddr,
    directory: TempDir,
    process: Child,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl Named {
    /// Starts a server for `acme.example` with more records; `None` if there is no BIND on this
    /// machine.
    pub(super) async fn start(records: &str) -> Option<Self> {
        let Some(program) = find_program("DR_NAMED", "named") else {
            let why = "no `named`: install BIND (Debian: bind9) or set DR_NAMED";
            skipped(Missing::Program, why);
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        configure(directory.path(), port, &secret(), records);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["-g", "-4", "-n", "1", "-c"])
            .arg(directory.path().join("named.conf"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut named = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            directory,
            process,
        };
        named.wait_until_ready().await;
        Some(named)
    }

    async fn wait_until_ready(&mut self) {
        let clock = SystemClock::new();
        let log = self.directory.path().join("log");
        loop {
            let log = std::fs::read_to_string(&log).unwrap();
            if log.contains(" running")
                && tokio::net::TcpStream::connect(self.address).await.is_ok()
            {
                return;
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "named ended: {ended:?}\n{log}");
            assert!(clock.elapsed() < Duration::from_secs(20), "{log}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the options of `orders.acme.example`.
    pub(super) fn options(&self) -> Rfc2136Options {
        let answers = [
            ("us-east-1", "10.0.2.20"),
            ("us-west-2", "10.8.2.20"),
            ("eu-west-1", "2001:db8::20"),
            ("eu-north-1", "Front.Acme.example"),
        ];
        Rfc2136Options {
            name: "orders.acme.example".into(),
            server: self.address,
            tsig: Some(Tsig {
                name: KEY.into(),
                algorithm: Algorithm::HmacSha256,
                secret: Secret::new("${file:key}"),
            }),
            ttl: Duration::from_secs(30),
            answers: answers
                .map(|(region, answer)| (region.parse().unwrap(), answer.into()))
                .into(),
            zone: None,
            servers: vec![],
            resolvers: vec![],
        }
    }

    /// Makes the record from options.
    pub(super) fn record(&self, options: Rfc2136Options) -> Rfc2136 {
        let secrets = Arc::new(LocalSecrets::new(self.directory.path()));
        Rfc2136::new(options, secrets, Arc::new(SystemClock::new())).unwrap()
    }
}

/// Makes a key as `tsig-keygen` does.
fn secret() -> String {
    data_encoding::BASE64.encode(&rand::random::<[u8; 32]>())
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn configure(directory: &Path, port: u16, secret: &str, records: &str) {
    let path = directory.display();
    let configuration = format!(
        r#"
key "{KEY}" {{ algorithm hmac-sha256; secret "{secret}"; }};
key "other" {{ algorithm hmac-sha256; secret "{secret}"; }};
options {{
    directory "{path}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    pid-file "{path}/pid";
    session-keyfile none;
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
zone "acme.example" {{
    type primary;
    file "{path}/zone";
    allow-update {{ key "{KEY}"; }};
}};
"#
    );
    let zone = format!(
        "$TTL 60\n\
         @ SOA ns1 hostmaster 7 3600 600 86400 60\n\
         @ NS ns1\n\
         @ NS ns2.elsewhere.invalid.\n\
         ns1 A 127.0.0.1\n\
         {records}\n"
    );
    std::fs::write(directory.join("named.conf"), configuration).unwrap();
    std::fs::write(directory.join("zone"), zone).unwrap();
    std::fs::write(directory.join("key"), format!("{secret}\n")).unwrap();
}
