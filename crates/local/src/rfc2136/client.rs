//! Looking at a zone and updating it.

use std::net::SocketAddr;
use std::sync::Arc;

use dr_model::Clock;
use dr_provider::{Error, ErrorKind, Result, SecretSource};
use hickory_proto::op::Message;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{Name, RData, Record, RecordType, TSigner};

use super::connection::Connection;
use super::content::{Content, parse_name};
use super::options::{Algorithm, Tsig};
use super::update::{self, Names, Verdict};

/// How far the clocks may differ, in seconds (RFC 8945, section 10, recommends five minutes).
const FUDGE_SECONDS: u16 = 300;

/// How often a zone that changes while it is read is read again.
const READS: usize = 5;

/// Finds the zone that a name belongs to by asking for its SOA record, label by label upwards.
pub(super) async fn find_zone(connection: &mut Connection, name: &Name) -> Result<Name> {
    let mut ancestor = name.clone();
    while !ancestor.is_root() {
        let answer = connection.query(&ancestor, RecordType::SOA).await?;
        let mut records = answer.answers.iter().chain(&answer.authorities);
        let zone = records
            .find(|record| record.record_type() == RecordType::SOA && record.name.zone_of(name));
        if let Some(zone) = zone {
            return Ok(zone.name.clone());
        }
        ancestor = ancestor.base_name();
    }
    Err(
        Error::new(ErrorKind::Failed, "find the zone of", name.to_string())
            .because("the server knows no zone that the name belongs to")
            .with_hint("see `server`, or write `zone`"),
    )
}

/// Reads both names at an authority, as of one serial number of the zone.
pub(super) async fn read_zone(
    connection: &mut Connection,
    zone: &Name,
    names: &Names,
) -> Result<Content> {
    for _ in 0..READS {
        let before = serial(connection, zone).await?;
        let mut content = read_names(connection, names).await?;
        if serial(connection, zone).await? == before {
            content.serial = Some(before);
            return Ok(content);
        }
    }
    Err(
        Error::new(ErrorKind::Unavailable, "read", names.owner.to_string())
            .because("the zone changes faster than it can be read"),
    )
}

/// Reads both names at any server.
pub(super) async fn read_names(connection: &mut Connection, names: &Names) -> Result<Content> {
    let mut content = Content::default();
    let markers = connection.records(&names.marker, RecordType::TXT).await?;
    content.take_markers(&names.marker, markers);
    for record_type in [RecordType::A, RecordType::AAAA] {
        let answers = connection.records(&names.owner, record_type).await?;
        content.take_answers(&names.owner, answers);
    }
    Ok(content)
}

async fn serial(connection: &mut Connection, zone: &Name) -> Result<u32> {
    let answer = connection.query(zone, RecordType::SOA).await?;
    let soa = |record: &Record| match &record.data {
        RData::SOA(soa) if record.name == *zone => Some(soa.serial),
        _ => None,
    };
    let serial = answer.answers.iter().find_map(soa);
    match serial {
        Some(serial) if answer.metadata.authoritative => Ok(serial),
        _ => Err(
            Error::new(ErrorKind::Failed, "read the zone", zone.to_string())
                .because("the server is not an authority for it")
                .with_hint("`server` must be the zone's primary"),
        ),
    }
}

/// The key that signs updates, with where its secret comes from.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) tsig: Option<Tsig>,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Signer {
    /// Signs an update and sends it.
    pub(super) async fn send(
        &self,
        server: SocketAddr,
        mut message: Message,
        what: &str,
    ) -> Result<Verdict> {
        let error = |kind| Error::new(kind, "update", what);
        let mut verifier = None;
        if let Some(key) = self.key()? {
            let now = u64::try_from(self.clock.now().as_second()).unwrap_or_default();
            verifier = message
                .finalize(&key, now)
                .map_err(|source| error(ErrorKind::Failed).because(source))?;
        }
        let request = message
            .to_vec()
            .map_err(|source| error(ErrorKind::Invalid).because(source))?;
        let connection = Connection::open(server, false).await?;
        let (bytes, answer) = connection
            .send(message.metadata.id, &request)
            .await
            .map_err(|source| error(ErrorKind::Unknown).because(source))?;
        let signed = verifier.is_some();
        let trusted = verifier.is_none_or(|mut verifier| verifier.verify(&bytes).is_ok());
        Ok(update::judge(&answer, signed, trusted, what))
    }

    fn key(&self) -> Result<Option<TSigner>> {
        let Some(tsig) = &self.tsig else {
            return Ok(None);
        };
        let error = || Error::new(ErrorKind::Invalid, "use TSIG key", tsig.name.as_str());
        let secret = self.secrets.resolve(tsig.secret.expose())?;
        let secret = data_encoding::BASE64
            .decode(secret.expose().trim().as_bytes())
            .map_err(|_| {
                error()
                    .because("its secret is not base64")
                    .with_hint("take the text between the quotes that `tsig-keygen` prints")
            })?;
        let name = parse_name(&tsig.name).ok_or_else(error)?;
        let algorithm = match tsig.algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha384 => TsigAlgorithm::HmacSha384,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        TSigner::new(secret, algorithm, name, FUDGE_SECONDS)
            .map(Some)
            .map_err(|source| error().because(source))
    }
}
