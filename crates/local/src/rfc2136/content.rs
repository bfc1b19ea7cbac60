//! What a zone holds of a switched record, as values: no I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dr_model::RegionName;
use dr_provider::traffic::TrafficState;
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::marker::Marker;

/// The types that an answer can have; a switch may change between them.
pub(super) const ANSWER_TYPES: [RecordType; 3] =
    [RecordType::A, RecordType::AAAA, RecordType::CNAME];

/// The records of both names, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// The records that lead clients, of all [`ANSWER_TYPES`].
    pub(super) answers: Vec<RData>,
    /// The TXT records at `_dr.<name>`.
    pub(super) markers: Vec<RData>,
    pub(super) ttl_seconds: u32,
    pub(super) serial: Option<u32>,
}

impl Content {
    /// Takes the records at `owner` that lead clients out of an answer.
    pub(super) fn take_answers(&mut self, owner: &Name, records: Vec<Record>) {
        for record in records {
            let wanted = record.name == *owner && ANSWER_TYPES.contains(&record.record_type());
            if wanted && !self.answers.contains(&record.data) {
                self.ttl_seconds = record.ttl;
                self.answers.push(record.data);
            }
        }
    }

    /// Takes the TXT records at `owner` out of an answer.
    pub(super) fn take_markers(&mut self, owner: &Name, records: Vec<Record>) {
        let wanted =
            |record: &Record| record.name == *owner && record.record_type() == RecordType::TXT;
        let records = records.into_iter().filter(wanted);
        self.markers.extend(records.map(|record| record.data));
    }

    /// Returns the marker with the highest epoch; others at the name are no concern of ours.
    pub(super) fn marker(&self) -> Option<Marker> {
        let markers = self.markers.iter().filter_map(|data| match data {
            RData::TXT(txt) => String::from_utf8(txt.txt_data.concat()).ok()?.parse().ok(),
            _ => None,
        });
        markers.max_by_key(|marker: &Marker| marker.epoch)
    }

    /// Tells whether exactly this answer is served.
    pub(super) fn is_answer(&self, answer: &RData) -> bool {
        matches!(&*self.answers, [served] if served == answer)
    }

    pub(super) fn state(&self, answers: &BTreeMap<RegionName, RData>) -> TrafficState {
        let region = answers.iter().find(|(_, answer)| self.is_answer(answer));
        let mut served: Vec<String> = self.answers.iter().map(show_answer).collect();
        served.sort_unstable();
        TrafficState {
            region: region.map(|(region, _)| region.clone()),
            answer: served.join(", "),
            epoch: self.marker().map(|marker| marker.epoch),
            ttl_seconds: self.ttl_seconds,
            serial: self.serial,
        }
    }
}

/// Reads an address or a name as the record that it becomes.
pub(super) fn parse_answer(text: &str) -> Option<RData> {
    match text.parse() {
        Ok(IpAddr::V4(address)) => Some(RData::A(A(address))),
        Ok(IpAddr::V6(address)) => Some(RData::AAAA(AAAA(address))),
        Err(_) => {
            let name = parse_name(text)?;
            // Not a mistyped address, whose last label would be a number.
            let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
            let last = text.trim_end_matches('.').rsplit('.').next();
            (!last.is_none_or(is_number)).then_some(RData::CNAME(CNAME(name)))
        }
    }
}

/// Reads a domain name, with or without the final dot.
pub(super) fn parse_name(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    (!name.is_root()).then_some(name)
}

/// Writes an answer as it stands in the configuration: a name without the final dot.
fn show_answer(data: &RData) -> String {
    match data {
        RData::A(address) => address.to_string(),
        RData::AAAA(address) => address.to_string(),
        RData::CNAME(name) => name
            .to_lowercase()
            .to_string()
            .trim_end_matches('.')
            .to_owned(),
        other => other.to_string(),
    }
}
