//! Encryption with rustls, and what a certificate is worth in each mode.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::config::{Config, Host, TlsMode};
use crate::error::Error;
use crate::transport::Transport;

mod binding;

/// Encrypts a connection whose server has agreed to it.
pub(crate) async fn encrypt(config: &Config, tcp: TcpStream) -> Result<Transport, Error> {
    let failed = |source| Error::Tls {
        target: config.target(),
        source,
    };
    let invalid = |error: rustls::Error| failed(io::Error::other(error));
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &config.tls {
        TlsMode::VerifyFull { ca_file } => {
            let trusted = read_certificates(ca_file).await?;
            let verifier = TrustedServer::new(trusted, &provider);
            Arc::new(verifier.map_err(|error| failed(io::Error::other(error)))?)
        }
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Arc::new(AnyServer {
            provider: Arc::clone(&provider),
        }),
    };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // As libpq 17 does; older servers ignore it.
    tls.alpn_protocols = vec![b"postgresql".to_vec()];
    let name = match &config.host {
        Host::Tcp(name) => ServerName::try_from(name.clone()),
        Host::Unix(_) => ServerName::try_from("localhost".to_owned()),
    };
    let name = name.map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, tcp)
        .await
        .map_err(failed)?;
    let certificates = stream.get_ref().1.peer_certificates();
    let channel_binding = certificates
        .and_then(|certificates| certificates.first())
        .and_then(|certificate| binding::tls_server_end_point(certificate));
    Ok(Transport {
        stream: Box::new(stream),
        confidential: true,
        channel_binding,
    })
}

async fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |source| Error::CaFile {
        path: path.to_owned(),
        source,
    };
    let pem = tokio::fs::read(path).await.map_err(failed)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| failed(io::Error::other(error)))?;
    if certificates.is_empty() {
        return Err(failed(io::Error::other("the file holds no certificate")));
    }
    Ok(certificates)
}

/// Accepts any certificate, provided that the server holds its key.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Accepts certificates that a trusted authority signed, or that are themselves listed as trusted.
///
/// The second case is how most self-managed servers are set up: the self-signed `server.crt` is
/// handed out as `root.crt`. OpenSSL accepts it, webpki does not, so an exact match is looked for
/// first and then only the name is checked; such a certificate ends by being taken out of the file,
/// not by its date.
#[derive(Debug)]
struct TrustedServer {
    listed: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl TrustedServer {
    fn new(
        listed: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut roots = RootCertStore::empty();
        for certificate in &listed {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::clone(provider);
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self {
            listed,
            authorities: builder.build()?,
        })
    }
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.listed.iter().any(|listed| listed == end_entity) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
