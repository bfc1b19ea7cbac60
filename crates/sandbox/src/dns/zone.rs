//! A zone in memory and the rules of changing it (RFC 2136 section 3).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, NS, SOA};
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

/// The key of a set of records: its name and type.
type Key = (LowerName, RecordType);
type Sets = BTreeMap<Key, Vec<Record>>;

/// A zone. Invariant: there is exactly one SOA record, at the origin, and its serial grows with every change.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: LowerName,
    sets: Sets,
}

/// What a zone says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `NoError`, or `NXDomain` if there is no such name.
    pub(super) code: ResponseCode,
    /// The records asked for.
    pub(super) answers: Vec<Record>,
    /// The SOA record that says how long an absence may be remembered.
    pub(super) authority: Vec<Record>,
}

impl Zone {
    /// Makes a zone whose server is at `server`, with one name that has the address `answer`.
    #[must_use]
    pub fn new(origin: Name, server: SocketAddr, name: Name, answer: IpAddr, ttl: u32) -> Self {
        let mut zone = Self {
            origin: LowerName::new(&origin),
            sets: Sets::new(),
        };
        let label = |label: &str| {
            origin
                .prepend_label(label)
                .unwrap_or_else(|_| origin.clone())
        };
        let authority = label("ns");
        // Absences may be remembered for as long as answers: a client must see a new record at once.
        let soa = SOA::new(authority.clone(), label("hostmaster"), 1, 60, 30, 3600, ttl);
        zone.add(&Record::from_rdata(origin.clone(), ttl, RData::SOA(soa)));
        zone.add(&Record::from_rdata(
            origin.clone(),
            ttl,
            RData::NS(NS(authority.clone())),
        ));
        zone.add(&Record::from_rdata(authority, ttl, address(server.ip())));
        zone.add(&Record::from_rdata(name, ttl, address(answer)));
        zone
    }

    /// Returns the zone's name.
    #[must_use]
    pub fn origin(&self) -> &LowerName {
        &self.origin
    }

    /// Returns the serial number, which grows with every change.
    #[must_use]
    pub fn serial(&self) -> u32 {
        match self.soa().map(|record| &record.data) {
            Some(RData::SOA(soa)) => soa.serial,
            _ => 0,
        }
    }

    /// Answers a question about a name in the zone.
    pub(super) fn answer(&self, name: &LowerName, kind: RecordType) -> Found {
        let of_name: Vec<_> = self
            .sets
            .iter()
            .filter(|((owner, _), _)| owner == name)
            .collect();
        let answers: Vec<Record> = of_name
            .iter()
            .filter(|((_, found), _)| {
                *found == kind || kind == RecordType::ANY || *found == RecordType::CNAME
            })
            .flat_map(|(_, records)| records.iter().cloned())
            .collect();
        let exists = !of_name.is_empty() || self.sets.keys().any(|(owner, _)| name.zone_of(owner));
        let authority = if answers.is_empty() {
            self.soa().cloned().into_iter().collect()
        } else {
            vec![]
        };
        let code = if exists {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        Found {
            code,
            answers,
            authority,
        }
    }

    /// Makes all the changes if all the prerequisites hold, else none.
    ///
    /// Answers what RFC 2136 says; `NoError` means that the changes were made.
    pub fn update(&mut self, prerequisites: &[Record], changes: &[Record]) -> ResponseCode {
        let checked = self
            .check(prerequisites)
            .and_then(|()| self.prescan(changes))
            .map(|()| self.sets.clone());
        let before = match checked {
            Ok(before) => before,
            Err(code) => return code,
        };
        let serial = self.serial();
        for change in changes {
            self.apply(change);
        }
        if self.sets != before && self.serial() == serial {
            self.advance_serial();
        }
        ResponseCode::NoError
    }

    /// RFC 2136 section 3.2.
    fn check(&self, prerequisites: &[Record]) -> Result<(), ResponseCode> {
        let mut exact: BTreeMap<Key, Vec<&RData>> = BTreeMap::new();
        for wanted in prerequisites {
            let key = key(wanted);
            if wanted.ttl != 0 {
                return Err(ResponseCode::FormErr);
            }
            if !self.origin.zone_of(&key.0) {
                return Err(ResponseCode::NotZone);
            }
            let name_in_use = self.sets.keys().any(|(owner, _)| *owner == key.0);
            let set_exists = self.sets.contains_key(&key);
            let any = key.1 == RecordType::ANY;
            let code = match wanted.dns_class {
                DNSClass::ANY | DNSClass::NONE if !is_empty(&wanted.data) => {
                    Some(ResponseCode::FormErr)
                }
                DNSClass::ANY if any => (!name_in_use).then_some(ResponseCode::NXDomain),
                DNSClass::ANY => (!set_exists).then_some(ResponseCode::NXRRSet),
                DNSClass::NONE if any => name_in_use.then_some(ResponseCode::YXDomain),
                DNSClass::NONE => set_exists.then_some(ResponseCode::YXRRSet),
                DNSClass::IN => {
                    exact.entry(key).or_default().push(&wanted.data);
                    None
                }
                _ => Some(ResponseCode::FormErr),
            };
            if let Some(code) = code {
                return Err(code);
            }
        }
        let holds = exact.iter().all(|(key, wanted)| {
            let found = self.sets.get(key).map_or(&[][..], Vec::as_slice);
            found.len() == wanted.len() && found.iter().all(|record| wanted.contains(&&record.data))
        });
        if holds {
            Ok(())
        } else {
            Err(ResponseCode::NXRRSet)
        }
    }

    /// RFC 2136 section 3.4.1.
    fn prescan(&self, changes: &[Record]) -> Result<(), ResponseCode> {
        for change in changes {
            let (name, kind) = key(change);
            if !self.origin.zone_of(&name) {
                return Err(ResponseCode::NotZone);
            }
            let transfer = matches!(kind, RecordType::AXFR | RecordType::IXFR);
            let valid = match change.dns_class {
                DNSClass::IN => kind != RecordType::ANY && !is_empty(&change.data),
                DNSClass::ANY => change.ttl == 0 && is_empty(&change.data),
                DNSClass::NONE => change.ttl == 0 && kind != RecordType::ANY,
                _ => false,
            };
            if !valid || transfer {
                return Err(ResponseCode::FormErr);
            }
        }
        Ok(())
    }

    /// RFC 2136 section 3.4.2.
    fn apply(&mut self, change: &Record) {
        let key = key(change);
        let at_origin = key.0 == self.origin;
        let kept = |kind: RecordType| at_origin && matches!(kind, RecordType::SOA | RecordType::NS);
        match change.dns_class {
            DNSClass::IN => self.add(change),
            DNSClass::ANY if key.1 == RecordType::ANY => {
                self.sets
                    .retain(|(name, kind), _| *name != key.0 || kept(*kind));
            }
            DNSClass::ANY if !kept(key.1) => {
                self.sets.remove(&key);
            }
            DNSClass::NONE if key.1 != RecordType::SOA => {
                let Some(set) = self.sets.get_mut(&key) else {
                    return;
                };
                if kept(key.1) && set.len() == 1 {
                    return;
                }
                set.retain(|record| record.data != change.data);
                if set.is_empty() {
                    self.sets.remove(&key);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, record: &Record) {
        let key = key(record);
        let alias = |kind: RecordType| kind == RecordType::CNAME;
        let conflict = self
            .sets
            .keys()
            .any(|(name, kind)| *name == key.0 && alias(*kind) != alias(key.1));
        if conflict {
            return;
        }
        if let RData::SOA(new) = &record.data {
            // Serial number arithmetic, RFC 1982.
            let ahead = new.serial.wrapping_sub(self.serial()).cast_signed() > 0;
            if key.0 != self.origin || (self.soa().is_some() && !ahead) {
                return;
            }
        }
        let set = self.sets.entry(key.clone()).or_default();
        if matches!(key.1, RecordType::SOA | RecordType::CNAME) {
            set.clear();
        }
        set.retain(|present| present.data != record.data);
        set.push(record.clone());
        // The records of a set share one TTL, RFC 2181 section 5.2.
        for present in set {
            present.ttl = record.ttl;
        }
    }

    fn soa(&self) -> Option<&Record> {
        self.sets
            .get(&(self.origin.clone(), RecordType::SOA))?
            .first()
    }

    fn advance_serial(&mut self) {
        let set = self.sets.get_mut(&(self.origin.clone(), RecordType::SOA));
        if let Some(RData::SOA(soa)) = set.and_then(|set| set.first_mut()).map(|r| &mut r.data) {
            soa.increment_serial();
        }
    }
}

fn key(record: &Record) -> Key {
    (LowerName::new(&record.name), record.record_type())
}

fn is_empty(data: &RData) -> bool {
    match data {
        RData::Update0(_) => true,
        RData::NULL(null) => null.anything.is_empty(),
        _ => false,
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

#[cfg(test)]
mod tests;
