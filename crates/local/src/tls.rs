//! TLS towards a server that somebody signs for: the authorities that this machine believes, or those of one file.
//!
//! Only a certificate that is signed by one of them, and for the name that is asked for, is believed: there is no way around it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Whose signatures are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorities {
    /// Those that this machine believes.
    #[default]
    System,
    /// Those in a file of certificates in PEM, and nobody else.
    File(PathBuf),
}

impl Authorities {
    /// Returns those of a file, or the machine's if there is none.
    #[must_use]
    pub fn of(file: Option<PathBuf>) -> Self {
        file.map_or(Self::System, Self::File)
    }

    /// Encrypts a connection to a server that has to show a certificate for `name`.
    ///
    /// Reads the certificates each time, as whoever exchanges them expects.
    pub(crate) async fn encrypt(
        &self,
        stream: TcpStream,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let authorities = self.clone();
        let roots = tokio::task::spawn_blocking(move || authorities.read());
        let roots = roots.await.map_err(io::Error::other)??;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await
    }

    fn read(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                // One that nobody can read does not take the others away.
                roots.add_parsable_certificates(found.certs);
            }
            Self::File(path) => {
                let wrong =
                    |why: String| io::Error::other(format!("ca_file `{}`: {why}", path.display()));
                let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
                for certificate in CertificateDer::pem_slice_iter(&pem) {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    let added = roots.add(certificate);
                    added.map_err(|error| wrong(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(wrong("it holds no certificate".to_owned()));
                }
            }
        }
        Ok(roots)
    }
}

/// Tells whether a connection was ended because a certificate is not believed: trying again changes nothing.
pub(crate) fn is_distrust(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests;
