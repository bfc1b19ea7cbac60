//! Answers one request: a question or an update.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use dr_model::{Clock, SystemClock};
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType, TSigResponseContext, TSigner};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, UpdateRequest};

use super::sign::authorize;
use super::zone::{Found, Zone};

/// The largest answer by UDP, as agreed on DNS flag day 2020.
const PAYLOAD_BYTES: u16 = 1232;

/// The zone with the key that may change it.
#[derive(Debug)]
pub(super) struct Handler {
    zone: Mutex<Zone>,
    signer: Signer,
    clock: SystemClock,
}

/// A key that does not show itself.
struct Signer(TSigner);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.0.signer_name())
    }
}

impl Handler {
    pub(super) fn new(zone: Zone, signer: TSigner) -> Self {
        Self {
            zone: Mutex::new(zone),
            signer: Signer(signer),
            clock: SystemClock::new(),
        }
    }

    fn query(&self, request: &Request) -> Found {
        let refused = |code| Found {
            code,
            answers: vec![],
            authority: vec![],
        };
        let [question] = request.queries.queries() else {
            return refused(ResponseCode::FormErr);
        };
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if question.query_class() != DNSClass::IN || !zone.origin().zone_of(question.name()) {
            return refused(ResponseCode::Refused);
        }
        match question.query_type() {
            RecordType::AXFR | RecordType::IXFR => refused(ResponseCode::Refused),
            kind => zone.answer(question.name(), kind),
        }
    }

    fn update(&self, request: &Request) -> (ResponseCode, Option<TSigResponseContext>) {
        let now = u64::try_from(self.clock.now().as_second()).unwrap_or_default();
        let (verdict, context) = authorize(&self.signer.0, request, now);
        if let Err(code) = verdict {
            return (code, context);
        }
        let [section] = request.queries.queries() else {
            return (ResponseCode::FormErr, context);
        };
        if section.query_type() != RecordType::SOA {
            return (ResponseCode::FormErr, context);
        }
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if section.name() != zone.origin() {
            return (ResponseCode::NotAuth, context);
        }
        (
            zone.update(request.prerequisites(), request.updates()),
            context,
        )
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let edns = request.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD_BYTES);
            edns
        });
        let (found, context) = match request.metadata.op_code {
            OpCode::Query => (self.query(request), None),
            OpCode::Update => {
                let (code, context) = self.update(request);
                (
                    Found {
                        code,
                        answers: vec![],
                        authority: vec![],
                    },
                    context,
                )
            }
            _ => {
                let code = ResponseCode::NotImp;
                (
                    Found {
                        code,
                        answers: vec![],
                        authority: vec![],
                    },
                    None,
                )
            }
        };
        metadata.response_code = found.code;
        metadata.authoritative =
            matches!(found.code, ResponseCode::NoError | ResponseCode::NXDomain);

        let build = || {
            MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
                metadata,
                &found.answers,
                &found.authority,
                [],
                [],
            )
        };
        let mut message = build();
        if let Some(context) = context {
            // The signature is made over the message as it will be sent, without it.
            let mut unsigned = Vec::with_capacity(512);
            let written = build().destructive_emit(&mut BinEncoder::new(&mut unsigned));
            match written.and_then(|_| context.sign(&unsigned)) {
                Ok(signature) => message.set_signature(signature),
                Err(_) => message.metadata_mut().response_code = ResponseCode::ServFail,
            }
        }
        match response.send_response(message).await {
            Ok(info) => info,
            // The client is gone; it will ask again.
            Err(_) => ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            }),
        }
    }
}
