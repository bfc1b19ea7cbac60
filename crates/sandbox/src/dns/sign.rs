//! Who may change the zone: whoever signs with the key (RFC 8945).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{Name, TSigResponseContext, TSigner};
use hickory_server::server::Request;
use hickory_server::zone_handler::UpdateRequest;

use crate::{Error, Result};

/// How far the clocks of client and server may differ, in seconds; the value that RFC 8945 recommends.
const FUDGE: u16 = 300;

/// Makes the signer from the text of a key file: HMAC-SHA256 with a secret in base64.
pub(super) fn signer(name: &str, key: &str) -> Result<TSigner> {
    let failed = |detail: String| Error::Dns {
        operation: "read the key of",
        detail,
    };
    let secret = STANDARD
        .decode(key.trim())
        .map_err(|error| failed(error.to_string()))?;
    let name = Name::from_ascii(name).map_err(|error| failed(error.to_string()))?;
    TSigner::new(secret, TsigAlgorithm::HmacSha256, name, FUDGE)
        .map_err(|error| failed(error.to_string()))
}

/// Checks the signature of an update at `now` (seconds since 1970); returns the verdict, and what the answer is to be
/// signed with.
pub(super) fn authorize(
    signer: &TSigner,
    request: &Request,
    now: u64,
) -> (Result<(), ResponseCode>, Option<TSigResponseContext>) {
    let id = request.metadata.id;
    let Some(signature) = request.signature() else {
        return (Err(ResponseCode::Refused), None);
    };
    if signature.name != *signer.signer_name() {
        let context = TSigResponseContext::unknown_key(id, now, signature.name.clone());
        return (Err(ResponseCode::NotAuth), Some(context));
    }
    let Ok((_, _, valid)) = signer.verify_message_byte(request.as_slice(), None, true) else {
        let context = TSigResponseContext::bad_signature(id, now, signer.clone());
        return (Err(ResponseCode::NotAuth), Some(context));
    };
    let in_time = valid.contains(&now);
    let error = (!in_time).then_some(TsigError::BadTime);
    let mac = signature.data.mac.clone();
    let context = TSigResponseContext::new(id, now, signer.clone(), mac, error);
    let verdict = if in_time {
        Ok(())
    } else {
        Err(ResponseCode::NotAuth)
    };
    (verdict, Some(context))
}
