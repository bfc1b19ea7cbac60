use std::path::Path;
use std::time::Duration;

use dr_provider::notifier::Message;
use dr_provider::probe::Health;
use dr_provider::{ErrorKind, Notifier, Probe, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::{HttpProbe, Webhook};

/// The name that the server's certificate is for.
const NAME: &str = "orders.acme.example";

const LIMIT: Duration = Duration::from_secs(10);

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tls/data")
        .join(name)
}

fn authority() -> Authorities {
    Authorities::File(data("ca.pem"))
}

/// Takes one connection, with a certificate that a private authority has signed; yields the port and then the request, or that the
/// other side would not go on.
async fn serve() -> (u16, JoinHandle<io::Result<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = CertificateDer::pem_file_iter(data("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(data("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let request = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && !request.ends_with(b"}") {
            if stream.read_buf(&mut request).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let answer = b"HTTP/1.1 204 X\r\n\r\n";
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        Ok(String::from_utf8_lossy(&request).into_owned())
    });
    (port, request)
}

fn probe(port: u16) -> HttpProbe {
    HttpProbe::new(format!("https://127.0.0.1:{port}/health"), LIMIT).unwrap()
}

#[tokio::test]
async fn a_certificate_for_the_name_is_believed_whoever_is_asked() {
    let healthy = Health::Healthy("204 No Content".to_owned());
    let (port, request) = serve().await;
    let by_address = probe(port).trusting(authority()).certified_for(NAME);
    assert_eq!(by_address.probe().await, healthy);
    let request = request.await.unwrap().unwrap();
    let host = format!("host: 127.0.0.1:{port}\r\n");
    assert!(request.contains(&host), "{request}");

    let (port, request) = serve().await;
    let by_name = probe(port).trusting(authority()).named(NAME);
    assert_eq!(by_name.probe().await, healthy);
    let request = request.await.unwrap().unwrap();
    assert!(
        request.contains(&format!("host: {NAME}:{port}\r\n")),
        "{request}"
    );
}

#[tokio::test]
async fn a_certificate_of_anybody_else_or_for_another_name_is_not() {
    let here = |authorities: Authorities, name: &'static str| async move {
        let (port, request) = serve().await;
        let asked = probe(port).trusting(authorities).certified_for(name);
        let Health::Unknown(why) = asked.probe().await else {
            panic!("{name} was believed");
        };
        assert!(request.await.unwrap().is_err(), "nothing was asked");
        why
    };
    let stranger = here(Authorities::System, NAME).await;
    assert!(stranger.contains("UnknownIssuer"), "{stranger}");
    let other = here(authority(), "mail.acme.example").await;
    assert!(other.contains("not valid for name"), "{other}");
}

#[tokio::test]
async fn a_file_without_a_certificate_is_named() {
    let (port, _) = serve().await;
    for (file, why) in [
        (data("server.key"), "it holds no certificate"),
        (data("nobody.pem"), "No such file"),
    ] {
        let asked = probe(port)
            .trusting(Authorities::File(file))
            .certified_for(NAME);
        let Health::Unknown(said) = asked.probe().await else {
            panic!("it was believed");
        };
        assert!(said.contains("ca_file `") && said.contains(why), "{said}");
    }
}

#[tokio::test]
async fn a_message_is_told_to_whom_is_believed_only() {
    let message = Message {
        subject: "orders moved".to_owned(),
        idempotency_key: "20261122T2300Z/notify".to_owned(),
        body: serde_json::json!({ "to": "us-west-2" }),
    };
    let webhook = |port: u16| {
        let url = Secret::new(format!("https://localhost:{port}/hook"));
        Webhook::new(&url, LIMIT).unwrap().trusting(authority())
    };
    let (port, request) = serve().await;
    let error = webhook(port).notify(&message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hint().unwrap().contains("`ca_file`"));
    assert!(request.await.unwrap().is_err(), "nothing was told");

    let (port, request) = serve().await;
    let by_name = webhook(port).certified_for(NAME);
    by_name.notify(&message).await.unwrap();
    let request = request.await.unwrap().unwrap();
    assert!(request.contains("20261122T2300Z/notify"), "{request}");
}
