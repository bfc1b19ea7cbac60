//! The update that switches, the one that only tries whether it would, and what the answer means: no I/O.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use dr_model::Epoch;
use dr_provider::{Error, ErrorKind};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::content::{ANSWER_TYPES, Content};
use super::marker::Marker;

/// The names that an update is about.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// What clients ask for.
    pub(super) owner: Name,
    /// Where the epoch stands.
    pub(super) marker: Name,
}

/// Makes the update from `seen` to one answer of one epoch, on condition that everything still is
/// as seen.
pub(super) fn switch(
    zone: &Name,
    names: &Names,
    seen: &Content,
    answer: &RData,
    marker: &Marker,
    ttl_seconds: u32,
) -> Message {
    let mut message = unchanged(zone, names, seen);
    for (owner, record_type) in sets(names) {
        // RFC 2136, 2.5.2: delete the set.
        if records(seen, record_type).next().is_some() {
            message.add_update(empty(owner, record_type, DNSClass::ANY));
        }
    }
    let text = RData::TXT(TXT::new(vec![marker.to_string()]));
    message.add_update(Record::from_rdata(
        names.owner.clone(),
        ttl_seconds,
        answer.clone(),
    ));
    message.add_update(Record::from_rdata(names.marker.clone(), ttl_seconds, text));
    message
}

/// Makes an update that changes nothing, of the records that a switch between `answers` would change: it deletes records
/// that are not there, which a server passes over after it has judged the key (RFC 2136, 3.4.2.4).
pub(super) fn rehearsal<'a>(
    zone: &Name,
    names: &Names,
    seen: &'a Content,
    answers: impl Iterator<Item = &'a RData>,
) -> Message {
    let mut message = unchanged(zone, names, seen);
    let types: BTreeSet<RecordType> = answers
        .chain(&seen.answers)
        .map(RData::record_type)
        .collect();
    // Nobody can be led by any of these.
    let nothing = types
        .into_iter()
        .filter_map(|record_type| match record_type {
            RecordType::A => Some(RData::A(A(Ipv4Addr::UNSPECIFIED))),
            RecordType::AAAA => Some(RData::AAAA(AAAA(Ipv6Addr::UNSPECIFIED))),
            RecordType::CNAME => Some(RData::CNAME(CNAME(Name::root()))),
            _ => None,
        });
    let text = RData::TXT(TXT::new(vec!["rehearsal".to_owned()]));
    let all = nothing
        .map(|data| (&names.owner, data))
        .chain([(&names.marker, text)]);
    for (owner, data) in all {
        let mut record = Record::from_rdata(owner.clone(), 0, data);
        record.dns_class = DNSClass::NONE;
        message.add_update(record);
    }
    message
}

/// Begins an update, on condition that everything still is as seen.
fn unchanged(zone: &Name, names: &Names, seen: &Content) -> Message {
    let mut message = Message::query();
    message.metadata.op_code = OpCode::Update;
    message.metadata.recursion_desired = false;
    message.add_zone(Query::query(zone.clone(), RecordType::SOA));
    for (owner, record_type) in sets(names) {
        let mut there = records(seen, record_type).peekable();
        if there.peek().is_none() {
            // RFC 2136, 2.4.3: the set does not exist.
            message.add_pre_requisite(empty(owner, record_type, DNSClass::NONE));
            continue;
        }
        // RFC 2136, 2.4.2: the set exists with exactly these records.
        message.add_pre_requisites(
            there.map(|data| Record::from_rdata(owner.clone(), 0, data.clone())),
        );
    }
    message
}

/// The sets that a switch replaces.
fn sets(names: &Names) -> impl Iterator<Item = (&Name, RecordType)> {
    let answers = ANSWER_TYPES
        .into_iter()
        .map(|record_type| (&names.owner, record_type));
    answers.chain([(&names.marker, RecordType::TXT)])
}

/// The records of one of those sets.
fn records(seen: &Content, record_type: RecordType) -> impl Iterator<Item = &RData> {
    let all = seen.answers.iter().chain(&seen.markers);
    all.filter(move |data| data.record_type() == record_type)
}

fn empty(owner: &Name, record_type: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(owner.clone(), 0, record_type);
    record.dns_class = class;
    record
}

/// What an answer says.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The update was made.
    Made,
    /// A prerequisite did not hold: nothing was changed.
    Changed,
    /// It was not made, or that cannot be told.
    Refused(Error),
}

/// Judges an answer. `signed` says whether the update was, `trusted` whether the answer can be
/// believed.
pub(super) fn judge(answer: &Message, signed: bool, trusted: bool, what: &str) -> Verdict {
    let code = answer.metadata.response_code;
    let refused = |kind| {
        Verdict::Refused(
            Error::new(kind, "update", what).because(format!("the server answered {code}")),
        )
    };
    let hinted = |kind, hint: &str| match refused(kind) {
        Verdict::Refused(error) => Verdict::Refused(error.with_hint(hint)),
        other => other,
    };
    match code {
        // A server that does not know the key cannot sign its answer.
        ResponseCode::NotAuth | ResponseCode::Refused => {
            let tsig = answer.signature().and_then(|record| record.data.error);
            hinted(ErrorKind::Denied, denied(code, signed, tsig.as_ref()))
        }
        _ if !trusted => Verdict::Refused(Error::new(ErrorKind::Unknown, "update", what).because(
            format!("the answer {code} is not signed with the shared key"),
        )),
        ResponseCode::NoError => Verdict::Made,
        ResponseCode::NXRRSet
        | ResponseCode::YXRRSet
        | ResponseCode::NXDomain
        | ResponseCode::YXDomain => Verdict::Changed,
        ResponseCode::NotZone => hinted(
            ErrorKind::Invalid,
            "the name does not belong to the zone: see `zone`",
        ),
        ResponseCode::NotImp => hinted(
            ErrorKind::Unsupported,
            "the server does not take dynamic updates",
        ),
        // It may have failed after the journal was written.
        ResponseCode::ServFail => hinted(ErrorKind::Unknown, "see the server's log"),
        _ => refused(ErrorKind::Failed),
    }
}

fn denied(code: ResponseCode, signed: bool, error: Option<&TsigError>) -> &'static str {
    match error {
        Some(TsigError::BadKey) => {
            "the server does not know this key: see `name` and `algorithm` under `tsig`"
        }
        Some(TsigError::BadSig) => {
            "the server has another secret for this key: see `secret` under `tsig`"
        }
        Some(TsigError::BadTime) => {
            "the clocks of this machine and of the server differ by more than five minutes"
        }
        _ if !signed => "the server takes signed updates only: write `tsig`",
        _ if code == ResponseCode::NotAuth => {
            "the server is not the zone's primary, or does not accept the key"
        }
        _ => {
            "the key must be allowed to change this name and `_dr.` before it: see `update-policy` \
             or `allow-update`"
        }
    }
}

/// What is to be done, given what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is as wanted.
    Done,
    /// It is as it was when the switch was decided: go on.
    Go,
    /// A higher epoch has been here.
    Superseded(Epoch),
    /// Somebody else has changed it.
    Conflict,
}

/// Decides from the zone as seen, what is wanted, and what was there when it was decided.
pub(super) fn decide(
    seen: &Content,
    wanted: (&RData, &Marker),
    unchanged: impl FnOnce(&Content) -> bool,
) -> Decision {
    let (answer, marker) = wanted;
    let there = seen.marker();
    match &there {
        Some(there) if there.epoch > marker.epoch => Decision::Superseded(there.epoch),
        Some(there) if there == marker && seen.is_answer(answer) => Decision::Done,
        _ if unchanged(seen) => Decision::Go,
        _ => Decision::Conflict,
    }
}
