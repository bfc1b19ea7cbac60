//! Reading is tested on trees made by hand; line numbers are the order of making.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;

use super::{ByteSize, Context, FromNode, Node, Reader, Span, Spanned, Template, Value};
use super::{choice, endpoint, socket_address};
use crate::{Lsn, RegionName, ResourceId};

fn at(line: u32) -> Span {
    Span::new("dr.yaml", line, 1)
}

fn text(value: &str) -> Node {
    Node::new(at(9), Value::String(value.to_owned()))
}

fn number(value: i64) -> Node {
    Node::new(at(9), Value::Integer(value))
}

fn map(entries: Vec<(&str, Node)>) -> Node {
    let keyed = |(line, (key, node)): (usize, (&str, Node))| {
        let line = u32::try_from(line).unwrap() + 1;
        (Spanned::new(at(line), key.to_owned()), node)
    };
    Node::new(
        at(1),
        Value::Map(entries.into_iter().enumerate().map(keyed).collect()),
    )
}

fn context() -> Context {
    let resolver = |text: &str| match text {
        "${env:PORT}" => Ok("5433".to_owned()),
        "${env:SECRET}" => Ok("hunter2".to_owned()),
        other => Err(format!("`{other}` is not set")),
    };
    Context::new("/etc/dr", Arc::new(resolver))
}

fn read<T: FromNode>(node: &Node) -> Result<T, String> {
    let mut context = context();
    let value = T::from_node(node, &mut context);
    let shown: Vec<_> = context
        .into_problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    match value {
        Some(value) if shown.is_empty() => Ok(value),
        _ => Err(shown.join("\n")),
    }
}

#[derive(Debug, PartialEq)]
struct Instance {
    port: u16,
    warm: bool,
    home: RegionName,
}

impl FromNode for Instance {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let port = reader.or("port", 5432);
        let warm = reader.optional_with("standby", choice(&[("warm", true), ("none", false)]));
        let home = reader.required("home");
        reader.finish();
        let warm = warm.unwrap_or(false);
        Some(Self {
            port,
            warm,
            home: home?,
        })
    }
}

#[test]
fn reads_a_map() {
    let node = map(vec![
        ("port", text("${env:PORT}")),
        ("standby", text("warm")),
        ("home", text("us-east-1")),
    ]);
    let home = "us-east-1".parse().unwrap();
    assert_eq!(
        read(&node),
        Ok(Instance {
            port: 5433,
            warm: true,
            home
        })
    );
}

#[test]
fn reports_all_problems_at_once() {
    let node = map(vec![
        ("port", number(70_000)),
        ("standby", text("wram")),
        ("hom", text("us-east-1")),
        ("port", number(1)),
    ]);
    let shown = read::<Instance>(&node).unwrap_err();
    let expected = "\
dr.yaml:1:1: error: `home` is missing
dr.yaml:3:1: error: unknown key `hom`
  expected: `home`, `port` or `standby`
  hint: did you mean `home`?
dr.yaml:4:1: error: duplicate key `port`
  hint: it already stands in line 1
dr.yaml:9:1: error: port: found the number `70000`
  expected: a whole number from 0 to 65535
dr.yaml:9:1: error: standby: `wram` is not known here
  expected: `warm` or `none`
  hint: did you mean `warm`?";
    assert_eq!(shown, expected);
}

#[test]
fn paths_lead_to_the_problem() {
    let list = Node::new(at(2), Value::List(vec![text("us-east-1"), text("US")]));
    let node = map(vec![("orders", list)]);
    let shown = read::<BTreeMap<String, Vec<RegionName>>>(&node).unwrap_err();
    assert!(
        shown.starts_with("dr.yaml:9:1: error: orders[1]: `US` is not a name"),
        "{shown}"
    );
}

#[test]
fn what_a_reference_stands_for_is_never_shown() {
    for shown in [
        read::<u16>(&text("${env:SECRET}")).unwrap_err(),
        read::<Duration>(&text("${env:SECRET}")).unwrap_err(),
        read::<ByteSize>(&text("${env:SECRET}")).unwrap_err(),
        read::<Lsn>(&text("${env:SECRET}")).unwrap_err(),
        format!("{:?}", read::<Template>(&text("hunter2")).unwrap()),
        format!("{:?}", text("hunter2")),
        format!("{:?}", map(vec![("password", text("hunter2"))])),
        read::<bool>(&text("hunter2")).unwrap_err(),
        read::<Vec<String>>(&text("hunter2")).unwrap_err(),
        read::<Instance>(&map(vec![("pasword", text("hunter2"))])).unwrap_err(),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    let choose = |node: &Node, context: &mut Context| choice(&[("a", ())])(node, context);
    let mut context = context();
    assert!(choose(&text("${env:SECRET}"), &mut context).is_none());
    assert!(endpoint(Some(1))(&text("${env:SECRET} "), &mut context).is_none());
    assert!(!format!("{:?}", context.into_problems()).contains("hunter2"));
}

#[test]
fn a_reference_that_fails_is_a_problem_but_not_for_a_template() {
    let shown = read::<String>(&text("${env:NONE}")).unwrap_err();
    assert_eq!(shown, "dr.yaml:9:1: error: `${env:NONE}` is not set");
    assert_eq!(
        read::<Template>(&text("${env:NONE}")).unwrap().text(),
        "${env:NONE}"
    );
}

#[rstest]
#[case(text("15m"), Some(900))]
#[case(text("4h"), Some(14_400))]
#[case(text("1h 30m"), Some(5_400))]
#[case(number(900), None)]
#[case(text("900"), None)]
#[case(text("soon"), None)]
#[case(text("-5m"), None)]
#[case(text(""), None)]
fn durations(#[case] node: Node, #[case] seconds: Option<u64>) {
    assert_eq!(read(&node).ok(), seconds.map(Duration::from_secs));
}

#[test]
fn a_duration_without_unit_gets_a_hint() {
    let shown = read::<Duration>(&number(900)).unwrap_err();
    assert!(
        shown.contains("hint: `900s` is seconds, `900m` minutes"),
        "{shown}"
    );
}

#[rstest]
#[case("64MiB", Some(64 << 20))]
#[case("4 GiB", Some(4 << 30))]
#[case("10GB", Some(10_000_000_000))]
#[case("512B", Some(512))]
#[case("512", None)]
#[case("MiB", None)]
#[case("99999999999TiB", None)]
fn sizes(#[case] written: &str, #[case] bytes: Option<u64>) {
    assert_eq!(read(&text(written)).ok(), bytes.map(ByteSize));
}

#[test]
fn sizes_print_in_the_largest_whole_unit() {
    assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
    assert_eq!(ByteSize(1000).to_string(), "1000B");
}

#[rstest]
#[case("10.8.0.53", Some("10.8.0.53:53"))]
#[case("10.8.0.53:5353", Some("10.8.0.53:5353"))]
#[case("ns.example", Some("ns.example:53"))]
#[case("::1", Some("[::1]:53"))]
#[case("[::1]:5353", Some("[::1]:5353"))]
#[case("ns.example:", None)]
#[case("a b", None)]
#[case("", None)]
#[case("[ns]:53", None)]
fn endpoints(#[case] written: &str, #[case] expected: Option<&str>) {
    let mut context = context();
    let found = endpoint(Some(53))(&text(written), &mut context);
    assert_eq!(found.map(|e| e.to_string()).as_deref(), expected);
    assert_eq!(context.errors() == 0, expected.is_some());
}

#[test]
fn listening_needs_an_ip_address() {
    let mut context = context();
    let read = socket_address(None);
    let good: Option<SocketAddr> = read(&text("127.0.0.1:8421"), &mut context);
    assert_eq!(good, "127.0.0.1:8421".parse().ok());
    assert_eq!(read(&text("127.0.0.1"), &mut context), None);
    assert_eq!(read(&text("localhost:8421"), &mut context), None);
    assert_eq!(context.errors(), 2);
}

#[test]
fn relative_paths_start_at_the_configuration() {
    assert_eq!(
        read(&text("stores/a")),
        Ok(PathBuf::from("/etc/dr/stores/a"))
    );
    assert_eq!(read(&text("/srv/a")), Ok(PathBuf::from("/srv/a")));
}

#[test]
fn resource_ids_and_positions() {
    assert!(read::<ResourceId>(&text("orders/database")).is_ok());
    assert!(read::<ResourceId>(&text("orders")).is_err());
    assert_eq!(read::<Lsn>(&text("0/10")), Ok(Lsn(16)));
}

#[test]
fn nothing_written_is_nothing_set() {
    let nothing = || Node::new(at(3), Value::Null);
    let mut context = context();
    let node = map(vec![("a", nothing()), ("b", nothing())]);
    let mut reader = Reader::open(&node, &mut context).unwrap();
    assert_eq!(reader.optional::<String>("a"), None);
    assert_eq!(reader.required::<String>("b"), None);
    reader.finish();
    let problems = context.into_problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "dr.yaml:3:1: error: b: found nothing\n  expected: text"
    );
}

#[rstest]
#[case("plain $x", None)]
#[case("https://x/${env:TOKEN}/${file:/etc/y}", None)]
#[case("$${fiel:/x}", None)]
#[case("hush ${env:A} ${fiel:/x}", Some("`${fiel:/x}`"))]
#[case("${HOME}", Some("`${HOME}`"))]
#[case("${file:}", Some("`${file:}`"))]
#[case("hush ${env:PATH", Some("`${`"))]
fn a_reference_that_can_stand_for_nothing_is_reported(
    #[case] written: &str,
    #[case] shown: Option<&str>,
) {
    match (read::<Template>(&text(written)), shown) {
        (Ok(_), None) => {}
        (Err(problems), Some(shown)) => {
            let said = format!("{problems:?}");
            assert!(said.contains(shown), "{said}");
            assert!(!said.contains("hush"), "{said}");
        }
        (found, _) => panic!("{found:?}"),
    }
}
