//! YAML text as a tree of nodes that remember their places.
//!
//! The tree keeps what the text says: a key that stands twice is there twice, and whoever reads the map reports it.
//! Anchors and merge keys work; what comes from an anchor has the place where it was written. Text is text: only
//! `true` and `false` are booleans. Size, depth and expansion are limited, so that no file can exhaust memory.

use std::fmt;
use std::sync::Arc;

use dr_model::document::{Node, Problem, Span, Spanned, Value};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location};

/// Parses one document. `file` is its name in messages. An empty document is [`Value::Null`].
pub fn parse(file: &str, text: &str) -> Result<Node, Box<Problem>> {
    let file: Arc<str> = file.into();
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_nodes: 100_000,
            max_aliases: 1_000,
        },
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<serde_saphyr::Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(&file, raw)),
        Err(error) => {
            let span = error.location().map(|location| span(&file, location));
            Err(Box::new(Problem {
                span,
                ..problem(&error)
            }))
        }
    }
}

/// Says what is wrong with the text, without the place, which the problem has already.
fn problem(error: &serde_saphyr::Error) -> Problem {
    let message = error.to_string();
    if message.starts_with("budget breached") {
        return Problem::nowhere("the document is too large, or aliases make it so")
            .hint("split it, or write out what the aliases repeat");
    }
    if matches!(error, serde_saphyr::Error::MultipleDocuments { .. }) {
        return Problem::nowhere("there is a second document")
            .hint("take out the line `---` that begins it");
    }
    let what = message.split(" at line ").next().unwrap_or_default();
    Problem::nowhere(format!("this is not YAML: {what}"))
}

enum Raw {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    List(Vec<serde_saphyr::Spanned<Raw>>),
    Map(Vec<(serde_saphyr::Spanned<String>, serde_saphyr::Spanned<Raw>)>),
}

fn span(file: &Arc<str>, location: Location) -> Span {
    Span {
        file: Arc::clone(file),
        line: u32::try_from(location.line()).unwrap_or(u32::MAX),
        column: u32::try_from(location.column()).unwrap_or(u32::MAX),
    }
}

fn node(file: &Arc<str>, raw: serde_saphyr::Spanned<Raw>) -> Node {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Integer(value) => Value::Integer(value),
        Raw::Float(value) => Value::Float(value),
        Raw::String(value) => Value::String(value),
        Raw::List(items) => Value::List(items.into_iter().map(|i| node(file, i)).collect()),
        Raw::Map(entries) => {
            let entry = |(key, value): (serde_saphyr::Spanned<String>, _)| {
                (
                    Spanned::new(span(file, key.defined), key.value),
                    node(file, value),
                )
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node::new(span(file, raw.defined), value)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Raw, E> {
        i64::try_from(value)
            .map(Raw::Integer)
            .map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Lists each key and each scalar with its place.
    fn places(node: &Node) -> Vec<String> {
        let at = |span: &Span| format!("{}:{}", span.line, span.column);
        match &node.value {
            Value::Map(entries) => entries
                .iter()
                .flat_map(|(key, value)| {
                    let mut shown = vec![format!("{} {}", key.value, at(&key.span))];
                    shown.extend(places(value));
                    shown
                })
                .collect(),
            Value::List(nodes) => nodes.iter().flat_map(places).collect(),
            scalar => vec![format!("({}) {}", scalar.describe(), at(&node.span))],
        }
    }

    #[rstest]
    #[case("a: 1\nb: [x, {c: 2.5}]\n", &["a 1:1", "(the number `1`) 1:4", "b 2:1", "(text) 2:5", "c 2:9", "(the number `2.5`) 2:12"])]
    #[case("é: {ü: true}\n", &["é 1:1", "ü 1:5", "(`true`) 1:8"])]
    #[case("# first\n\na:\n  - x\n", &["a 3:1", "(text) 4:5"])]
    #[case("x: &x {p: 1}\ny:\n  <<: *x\nz: *x\n", &["x 1:1", "p 1:8", "(the number `1`) 1:11", "y 2:1", "p 1:8", "(the number `1`) 1:11", "z 4:1", "p 1:8", "(the number `1`) 1:11"])]
    fn keys_and_values_have_their_places(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(places(&parse("f", text).unwrap()), expected);
    }

    #[rstest]
    #[case("yes", "text")]
    #[case("12:30", "text")]
    #[case("2024-01-01", "text")]
    #[case("'5'", "text")]
    #[case("5m", "text")]
    #[case("~", "nothing")]
    #[case("0x10", "the number `16`")]
    #[case("false", "`false`")]
    fn scalars_are_what_they_look_like(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse("f", text).unwrap().value.describe(), expected);
    }

    #[test]
    fn a_merged_key_gives_way_to_a_written_one() {
        let node = parse("f", "x: &x {p: 1, q: 2}\ny:\n  <<: *x\n  q: 3\n").unwrap();
        let y = node.get("y").unwrap();
        assert_eq!(y.keys().unwrap().len(), 2, "so it is no duplicate");
        assert_eq!(y.get("q").unwrap().value, Value::Integer(3));
        assert_eq!(y.get("p").unwrap().value, Value::Integer(1));
    }

    #[test]
    fn a_key_that_stands_twice_is_kept_twice() {
        assert_eq!(
            parse("f", "a: 1\na: 2\n").unwrap().keys().unwrap(),
            ["a", "a"]
        );
    }

    #[rstest]
    #[case(
        "a: [1\nb: 2\n",
        "f:2:2: error: this is not YAML: illegal placement of ':' indicator"
    )]
    #[case(
        "a: b: c\n",
        "f:1:5: error: this is not YAML: mapping values are not allowed in this context"
    )]
    #[case(
        "a: *x\n",
        "f:1:4: error: this is not YAML: alias references unknown anchor"
    )]
    #[case(
        "a: 1\n---\nb: 2\n",
        "f:3:1: error: there is a second document\n  hint: take out the line `---` that begins it"
    )]
    fn what_is_no_document_is_a_problem_at_its_place(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse("f", text).unwrap_err().to_string(), expected);
    }

    #[test]
    fn no_document_exhausts_memory() {
        assert!(parse("f", &"[".repeat(100_000)).is_err());
        assert!(parse("f", &"- ".repeat(100_000)).is_err());
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
        }
        let problem = parse("f", &text).unwrap_err();
        assert!(problem.what.contains("too large"), "{problem}");
    }
}
