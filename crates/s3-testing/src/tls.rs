//! TLS, for clients that speak nothing else and for the trust in certificates of one's own.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What a server proves itself by: two files in PEM format.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate, with those that lead to its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

pub(crate) fn acceptor(certificate: &Certificate) -> io::Result<TlsAcceptor> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let chain = CertificateDer::pem_file_iter(&certificate.chain)
        .and_then(Iterator::collect)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(invalid)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
