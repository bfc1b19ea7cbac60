//! The connections to a server, made when they are first needed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use dr_model::Clock;
use dr_provider::{Error, ErrorKind, Result, SecretSource};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;

use crate::credentials::ConfiguredKeys;
use crate::{Keys, S3Options};

/// How long making a connection may take. A region that is lost does not refuse, it is silent, and a
/// failover must not wait for it.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection that is not used is kept: less than S3 does, so that no request is written
/// to one that is being closed.
const IDLE: Duration = Duration::from_secs(10);

/// A client that is made at its first use, when secrets are resolved and files read.
#[derive(Debug)]
pub(crate) struct LateClient {
    options: Arc<S3Options>,
    keys: Option<Keys>,
    secrets: Arc<dyn SecretSource>,
    clock: Arc<dyn Clock>,
    made: OnceCell<Client>,
}

impl LateClient {
    pub(crate) fn new(
        options: Arc<S3Options>,
        keys: Option<Keys>,
        secrets: Arc<dyn SecretSource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            options,
            keys,
            secrets,
            clock,
            made: OnceCell::new(),
        }
    }

    /// Returns the client.
    pub(crate) async fn get(&self, location: &str) -> Result<&Client> {
        self.made.get_or_try_init(|| self.make(location)).await
    }

    async fn make(&self, location: &str) -> Result<Client> {
        let options = &self.options;
        let http = http_client(options, location)?;
        let mut region = options.region.clone().map(Region::new);
        if region.is_none() && options.endpoint.is_some() {
            // A server of one's own has none, and takes any.
            let set = std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".to_owned());
            region = Some(Region::new(set));
        }
        let mut credentials = self.keys.as_ref().map(|keys| {
            SharedCredentialsProvider::new(ConfiguredKeys {
                keys: keys.clone(),
                secrets: Arc::clone(&self.secrets),
                clock: Arc::clone(&self.clock),
            })
        });
        if region.is_none() || credentials.is_none() {
            let found = environment(region.clone()).await;
            region = found.region().cloned();
            credentials = credentials.or_else(|| found.credentials_provider());
        }
        let region = region.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "open store", location)
                .because("its region is not known")
                .with_hint("name it as `region` of the store, or set AWS_REGION")
        })?;
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(region)
            .force_path_style(options.path_style)
            // Time limits and repetition are decorators around the store.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // CRC-32C is computed and compared here, for each body once.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_credentials_provider(credentials);
        config.set_endpoint_url(options.endpoint.clone());
        Ok(Client::from_conf(config.build()))
    }
}

/// Looks where a program on AWS finds its region and its role: the environment, the profile, a web
/// identity (EKS), the container (ECS, EKS), the instance (EC2).
async fn environment(region: Option<Region>) -> SdkConfig {
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    match region {
        Some(region) => loader.region(region).load().await,
        None => loader.load().await,
    }
}

fn http_client(options: &S3Options, location: &str) -> Result<SharedHttpClient> {
    let builder = Builder::new().pool_idle_timeout(IDLE);
    let endpoint = options.endpoint.as_deref().unwrap_or_default();
    if endpoint.starts_with("http://") {
        return Ok(builder.build_http());
    }
    let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(file) = &options.ca_file else {
        return Ok(builder.build_https());
    };
    let trusted = TrustStore::empty().with_pem_certificate(certificates(file, location)?);
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let context = context
        .map_err(|error| Error::new(ErrorKind::Invalid, "open store", location).because(error))?;
    Ok(builder.tls_context(context).build_https())
}

/// Reads certificates, all of which must be usable: the client takes them without looking.
fn certificates(file: &Path, location: &str) -> Result<Vec<u8>> {
    let error = |why: String| {
        Error::new(ErrorKind::Invalid, "open store", location)
            .because(format!("ca_file `{}`: {why}", file.display()))
            .with_hint("give it certificates in PEM format")
    };
    let text = std::fs::read(file).map_err(|cause| error(cause.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|cause| error(cause.to_string()))?;
        roots
            .add(certificate)
            .map_err(|cause| error(cause.to_string()))?;
    }
    if roots.is_empty() {
        return Err(error("it holds no certificate".to_owned()));
    }
    Ok(text)
}
