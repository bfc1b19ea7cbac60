//! Ways to log in and to be encrypted, against a real server.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dr_pgwire::{Config, Connection, Error, TlsMode, sql_state};
use support::{Cluster, give_to_postgres, run};

const ROLES: &str = "
    create role open login;
    set password_encryption = 'md5'; create role old login password 'md5 pass';
    set password_encryption = 'scram-sha-256'; create role new login password 'scrám pass';
    create role plain login password 'clear pass';
    create role streaming login replication password 'stream pass'";

const HBA: &[&str] = &[
    "host all open 127.0.0.1/32 trust",
    "host all old 127.0.0.1/32 md5",
    "host all new 127.0.0.1/32 scram-sha-256",
    "host all plain 127.0.0.1/32 password",
    "host replication streaming 127.0.0.1/32 scram-sha-256",
];

async fn who(config: &Config) -> Result<String, Error> {
    let mut connection = Connection::connect(config).await?;
    let rows = connection
        .query(
            "select current_user || ' ' || coalesce(version, 'open')
             from pg_stat_ssl where pid = pg_backend_pid()",
        )
        .await?;
    rows.only()?.get(0)
}

#[tokio::test]
async fn passwords_without_tls() {
    let cluster = Cluster::start(&[], HBA).await;
    cluster.connect().await.query(ROLES).await.unwrap();
    let tcp = |user, password| cluster.tcp(user, password, TlsMode::Prefer);

    assert_eq!(who(&tcp("open", None)).await.unwrap(), "open open");
    assert_eq!(
        who(&tcp("old", Some("md5 pass"))).await.unwrap(),
        "old open"
    );
    assert_eq!(
        who(&tcp("new", Some("scrám pass"))).await.unwrap(),
        "new open"
    );

    for user in ["old", "new"] {
        let error = who(&tcp(user, Some("wrong"))).await.unwrap_err();
        assert_eq!(
            error.sql_state(),
            Some(sql_state::INVALID_PASSWORD),
            "{error:?}"
        );
        assert!(!format!("{error:?} {error}").contains("wrong"));
        let error = who(&tcp(user, None)).await.unwrap_err();
        assert!(matches!(error, Error::PasswordRequired { .. }), "{error:?}");
    }
    let error = who(&tcp("nobody", None)).await.unwrap_err();
    assert_eq!(
        error.sql_state(),
        Some(sql_state::INVALID_AUTHORIZATION),
        "{error:?}"
    );
    // A password in the clear is not sent over an open connection, whatever the server asks.
    let error = who(&tcp("plain", Some("clear pass"))).await.unwrap_err();
    assert!(
        matches!(error, Error::AuthenticationMethod { .. }),
        "{error:?}"
    );

    let mut config = tcp("streaming", Some("stream pass"));
    config.replication = true;
    let mut connection = Connection::connect(&config).await.unwrap();
    assert_eq!(connection.identify_system().await.unwrap().timeline.0, 1);

    let error = who(&cluster.tcp("open", None, TlsMode::Require))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TlsRefused { .. }), "{error:?}");
}

/// Makes a self-signed certificate for the address and returns its path and the key's.
fn certificate(directory: &Path, name: &str, signature: &[&str]) -> (PathBuf, PathBuf) {
    let (certificate, key) = (
        directory.join(format!("{name}.crt")),
        directory.join(format!("{name}.key")),
    );
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=db.example",
    ]);
    openssl
        .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .args(signature);
    run(openssl
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key));
    (certificate, key)
}

/// Puts a certificate in place of the server's.
async fn install(cluster: &Cluster, (certificate, key): &(PathBuf, PathBuf)) {
    for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
        let to = cluster.data().join(name);
        fs::copy(from, &to).unwrap();
        run(Command::new("chmod").arg("600").arg(&to));
        give_to_postgres(&to);
    }
    let mut connection = cluster.connect().await;
    connection.query("alter system set ssl = on").await.unwrap();
    connection.query("select pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn encryption_and_whom_it_trusts() {
    let cluster = Cluster::start(&[], HBA).await;
    cluster.connect().await.query(ROLES).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let rsa = ["-newkey", "rsa:2048", "-sha384"];
    let elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    let (server, other) = (
        certificate(directory.path(), "server", &elliptic),
        certificate(directory.path(), "other", &rsa),
    );
    install(&cluster, &server).await;
    let trusting = |path: &Path| TlsMode::VerifyFull {
        ca_file: path.to_owned(),
    };
    let new = |tls| cluster.tcp("new", Some("scrám pass"), tls);

    // The reload is not instant: wait until the server offers TLS.
    while who(&new(TlsMode::Require))
        .await
        .is_err_and(|e| matches!(e, Error::TlsRefused { .. }))
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(who(&new(TlsMode::Disable)).await.unwrap(), "new open");
    assert_eq!(who(&new(TlsMode::Prefer)).await.unwrap(), "new TLSv1.3");
    assert_eq!(who(&new(TlsMode::Require)).await.unwrap(), "new TLSv1.3");
    assert_eq!(who(&new(trusting(&server.0))).await.unwrap(), "new TLSv1.3");
    let clear = cluster.tcp("plain", Some("clear pass"), TlsMode::Require);
    assert_eq!(who(&clear).await.unwrap(), "plain TLSv1.3");
    // A unix socket is never encrypted, as in libpq.
    let local = Config {
        tls: trusting(&server.0),
        ..cluster.config()
    };
    assert_eq!(who(&local).await.unwrap(), "postgres open");

    let error = who(&new(trusting(&other.0))).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let mut named = new(trusting(&server.0));
    named.host = "localhost".into();
    assert_eq!(who(&named).await.unwrap(), "new TLSv1.3");
    named.host = "127.0.0.2".into();
    let error = who(&named).await.unwrap_err();
    assert!(
        matches!(error, Error::Tls { .. } | Error::Connect { .. }),
        "{error:?}"
    );
    for (name, content) in [("empty.pem", ""), ("key.pem", "nonsense")] {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        let error = who(&new(trusting(&path))).await.unwrap_err();
        assert!(matches!(error, Error::CaFile { .. }), "{error:?}");
    }
    let error = who(&new(trusting(Path::new("/nowhere/ca.pem"))))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::CaFile { .. }), "{error:?}");

    // A request to cancel is encrypted as the session was.
    let mut connection = Connection::connect(&new(trusting(&server.0)))
        .await
        .unwrap();
    let handle = connection.cancel_handle();
    let cancelled = async {
        loop {
            handle.cancel().await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        slept = connection.query("select pg_sleep(60)") => {
            assert_eq!(slept.unwrap_err().sql_state(), Some(sql_state::QUERY_CANCELED));
        }
        () = cancelled => {}
    }

    // Another key and signature algorithm, hence another binding hash.
    install(&cluster, &other).await;
    while who(&new(trusting(&other.0))).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(who(&new(TlsMode::Require)).await.unwrap(), "new TLSv1.3");
}
