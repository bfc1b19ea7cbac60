//! Reading the options from a document.

use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Span, Spanned, Value};

use super::super::{Algorithm, Rfc2136Options};

fn node(value: Value) -> Node {
    Node {
        span: Span::new("dr.yaml", 1, 1),
        value,
    }
}

fn text(text: &str) -> Node {
    node(Value::String(text.to_owned()))
}

fn map<const N: usize>(entries: [(&str, Node); N]) -> Node {
    let entry = |(key, value): (&str, Node)| {
        let key = Spanned::new(Span::new("dr.yaml", 1, 1), key.to_owned());
        (key, value)
    };
    node(Value::Map(entries.map(entry).into()))
}

fn read(node: &Node) -> (Option<Rfc2136Options>, Vec<String>) {
    let mut context = Context::without_references("/etc/dr");
    let options = Rfc2136Options::from_node(node, &mut context);
    let problems = context.into_problems();
    let lines = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.path, problem.what));
    (options, lines.collect())
}

#[test]
fn reads_what_the_documentation_shows() {
    let tsig = map([
        ("name", text("dr")),
        ("secret", text("${file:/etc/dr/tsig.key}")),
    ]);
    let (options, problems) = read(&map([
        ("kind", text("rfc2136")),
        ("name", text("orders.acme.example")),
        ("server", text("10.8.0.53")),
        ("tsig", tsig),
        ("ttl", text("30s")),
        (
            "answers",
            map([
                ("us-east-1", text("10.0.2.20")),
                ("us-west-2", text("10.8.2.20")),
            ]),
        ),
        ("resolvers", node(Value::List(vec![text("10.8.0.2:5353")]))),
    ]));
    assert_eq!(problems, [""; 0]);
    let options = options.unwrap();
    assert_eq!(options.server.to_string(), "10.8.0.53:53");
    assert_eq!(options.resolvers[0].to_string(), "10.8.0.2:5353");
    assert_eq!(options.ttl, Duration::from_secs(30));
    let tsig = options.tsig.unwrap();
    assert_eq!(tsig.algorithm, Algorithm::HmacSha256);
    assert_eq!(tsig.secret.expose(), "${file:/etc/dr/tsig.key}");
}

#[test]
fn finds_all_problems_at_once() {
    let (options, problems) = read(&map([
        ("kind", text("rfc2136")),
        ("name", text("")),
        ("server", text("ns1.acme.example")),
        ("ttl", text("1500ms")),
        ("answers", map([("us-east-1", text("10.0.2"))])),
        ("tsgi", map([])),
    ]));
    assert!(options.is_none());
    assert_eq!(problems.len(), 5, "{problems:#?}");
}
