//! The rules of RFC 2136, one test a rule.

use hickory_proto::rr::rdata::TXT;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn zone() -> Zone {
    let server = "127.0.0.1:53".parse().unwrap();
    let answer = "127.0.0.2".parse().unwrap();
    Zone::new(
        name("sandbox.example."),
        server,
        name("ledger.sandbox.example."),
        answer,
        1,
    )
}

fn a(last: u8) -> Record {
    let data = RData::A(A::new(127, 0, 0, last));
    Record::from_rdata(name("ledger.sandbox.example."), 1, data)
}

fn epoch(number: u8) -> Record {
    let data = RData::TXT(TXT::new(vec![format!("epoch={number}")]));
    Record::from_rdata(name("_dr.ledger.sandbox.example."), 1, data)
}

fn exactly(mut record: Record) -> Record {
    record.ttl = 0;
    record
}

fn without_data(owner: &str, kind: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(name(owner), 0, kind).into_record_of_rdata();
    record.dns_class = class;
    record
}

fn addresses(zone: &Zone) -> Vec<RData> {
    let name = LowerName::new(&name("Ledger.Sandbox.Example."));
    zone.answer(&name, RecordType::A)
        .answers
        .into_iter()
        .map(|r| r.data)
        .collect()
}

#[test]
fn a_switch_replaces_address_and_epoch_at_once_and_bumps_the_serial() {
    let mut zone = zone();
    let switch = [
        without_data("ledger.sandbox.example.", RecordType::A, DNSClass::ANY),
        a(3),
        without_data(
            "_dr.ledger.sandbox.example.",
            RecordType::TXT,
            DNSClass::ANY,
        ),
        epoch(2),
    ];
    let absent = without_data(
        "_dr.ledger.sandbox.example.",
        RecordType::TXT,
        DNSClass::NONE,
    );
    let previous = [absent, exactly(a(2))];
    assert_eq!(zone.update(&previous, &switch), ResponseCode::NoError);
    assert_eq!(addresses(&zone), [a(3).data]);
    assert_eq!(zone.serial(), 2);

    // The same switch again comes too late: it changes nothing.
    assert_eq!(zone.update(&previous, &switch), ResponseCode::YXRRSet);
    assert_eq!(
        zone.update(&[exactly(epoch(1))], &[a(9)]),
        ResponseCode::NXRRSet
    );
    assert_eq!(addresses(&zone), [a(3).data]);
    assert_eq!(zone.serial(), 2);
}

#[test]
fn a_prerequisite_names_the_whole_set() {
    let mut zone = zone();
    assert_eq!(zone.update(&[], &[a(3)]), ResponseCode::NoError);
    assert_eq!(addresses(&zone).len(), 2);
    assert_eq!(
        zone.update(&[exactly(a(2))], &[a(4)]),
        ResponseCode::NXRRSet
    );
    let both = [exactly(a(3)), exactly(a(2))];
    assert_eq!(zone.update(&both, &[a(4)]), ResponseCode::NoError);
}

#[test]
fn every_prerequisite_has_its_code() {
    let mut zone = zone();
    let mut code = |owner: &str, kind, class| {
        let wanted = without_data(owner, kind, class);
        zone.update(&[wanted], &[])
    };
    let (here, gone) = ("ledger.sandbox.example.", "gone.sandbox.example.");
    assert_eq!(
        code(here, RecordType::ANY, DNSClass::ANY),
        ResponseCode::NoError
    );
    assert_eq!(
        code(gone, RecordType::ANY, DNSClass::ANY),
        ResponseCode::NXDomain
    );
    assert_eq!(
        code(here, RecordType::TXT, DNSClass::ANY),
        ResponseCode::NXRRSet
    );
    assert_eq!(
        code(here, RecordType::ANY, DNSClass::NONE),
        ResponseCode::YXDomain
    );
    assert_eq!(
        code(here, RecordType::A, DNSClass::NONE),
        ResponseCode::YXRRSet
    );
    assert_eq!(
        code("other.example.", RecordType::A, DNSClass::ANY),
        ResponseCode::NotZone
    );
    assert_eq!(
        zone.update(&[a(2)], &[]),
        ResponseCode::FormErr,
        "a TTL must be zero there"
    );
}

#[test]
fn the_zone_keeps_its_authority() {
    let mut zone = zone();
    let all = without_data("sandbox.example.", RecordType::ANY, DNSClass::ANY);
    let soa = without_data("sandbox.example.", RecordType::SOA, DNSClass::ANY);
    assert_eq!(zone.update(&[], &[all, soa]), ResponseCode::NoError);
    assert_eq!(zone.serial(), 1, "nothing has changed");
    let origin = LowerName::new(&name("sandbox.example."));
    assert_eq!(zone.answer(&origin, RecordType::NS).answers.len(), 1);
}

#[test]
fn one_record_is_deleted_by_value() {
    let mut zone = zone();
    zone.update(&[], &[a(3)]);
    let mut old = exactly(a(2));
    old.dns_class = DNSClass::NONE;
    assert_eq!(zone.update(&[], &[old]), ResponseCode::NoError);
    assert_eq!(addresses(&zone), [a(3).data]);
}

#[test]
fn an_update_outside_the_zone_changes_nothing_at_all() {
    let mut zone = zone();
    let mut foreign = a(4);
    foreign.name = name("www.other.example.");
    assert_eq!(zone.update(&[], &[a(3), foreign]), ResponseCode::NotZone);
    assert_eq!(addresses(&zone), [a(2).data]);
    assert_eq!(zone.serial(), 1);
}

#[test]
fn absence_of_a_name_and_of_a_type_differ() {
    let zone = zone();
    let ask = |text: &str, kind| zone.answer(&LowerName::new(&name(text)), kind);
    let no_type = ask("ledger.sandbox.example.", RecordType::TXT);
    assert_eq!(
        (no_type.code, no_type.authority.len()),
        (ResponseCode::NoError, 1)
    );
    let no_name = ask("gone.sandbox.example.", RecordType::A);
    assert_eq!(
        (no_name.code, no_name.authority.len()),
        (ResponseCode::NXDomain, 1)
    );
}
