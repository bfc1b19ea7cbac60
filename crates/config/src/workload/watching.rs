//! How often it is looked whether a workload could be moved, and whether it has to be.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use dr_model::document::{Context, FromNode, Node, Problem, Reader, Span, list, socket_address};

/// How often the failover plan of a workload is made and tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The longest time between two looks.
    pub every: Duration,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5 * 60),
        }
    }
}

impl FromNode for Readiness {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let every = reader.or("every", Self::default().every);
        let span = span(&mut reader, "every");
        at_least(every, Duration::from_secs(1), span, reader.context());
        reader.finish();
        Some(Self { every })
    }
}

/// How another region finds out that the primary is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The time between two rounds of looks.
    pub every: Duration,
    /// How many rounds in a row have to find the same.
    pub down_after: NonZeroU32,
    /// What takes a connection whether or not the primary's region is there: while nothing of it does, nothing can be told.
    pub landmarks: Vec<SocketAddr>,
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            down_after: NonZeroU32::new(3).expect("3 is not zero"),
            landmarks: Vec::new(),
        }
    }
}

impl FromNode for Detection {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let mut reader = Reader::open(node, context)?;
        let default = Self::default();
        let every = reader.or("every", default.every);
        let every_span = span(&mut reader, "every");
        at_least(
            every,
            Duration::from_millis(100),
            every_span,
            reader.context(),
        );
        let down_after = reader.optional_with("down_after", |node, context| {
            let count = NonZeroU32::new(u32::from_node(node, context)?);
            if count.is_none() {
                let problem = Problem::error(&node.span, "found 0").expected("a number from 1");
                context.report(problem);
            }
            count
        });
        let landmarks = reader.optional_with("landmarks", list(socket_address(None)));
        reader.finish();
        Some(Self {
            every,
            down_after: down_after.unwrap_or(default.down_after),
            landmarks: landmarks.unwrap_or_default(),
        })
    }
}

fn span<'n>(reader: &mut Reader<'n, '_>, key: &'static str) -> &'n Span {
    reader
        .node(key)
        .map_or_else(|| reader.span(), |node| &node.span)
}

/// Reports an interval that is too short: each look costs requests to stores and servers.
fn at_least(written: Duration, least: Duration, span: &Span, context: &mut Context) {
    if written < least {
        let problem = Problem::error(span, format!("found {written:?}"))
            .expected(format!("a duration of at least {least:?}"));
        context.report(problem);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read<T: FromNode>(text: &str) -> Result<T, Vec<String>> {
        let node = crate::parse("dr.yaml", text).unwrap();
        let mut context = Context::without_references("");
        let value = T::from_node(&node, &mut context);
        match value {
            Some(value) if context.errors() == 0 => Ok(value),
            _ => Err(context
                .into_problems()
                .iter()
                .map(ToString::to_string)
                .collect()),
        }
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(read("{}"), Ok(Readiness::default()));
        assert_eq!(read("{}"), Ok(Detection::default()));
        let written = Detection {
            every: Duration::from_millis(500),
            down_after: NonZeroU32::new(5).unwrap(),
            landmarks: vec!["192.0.2.1:443".parse().unwrap()],
        };
        let text = "{ every: 500ms, down_after: 5, landmarks: [\"192.0.2.1:443\"] }";
        assert_eq!(read(text), Ok(written));
    }

    #[rstest]
    #[case("{ every: 10ms }", "at least 100ms")]
    #[case("{ down_after: 0 }", "a number from 1")]
    #[case("{ landmarks: [gateway] }", "an IP address and a port")]
    #[case("{ often: 2s }", "unknown key `often`")]
    fn what_cannot_be_used_is_said(#[case] text: &str, #[case] said: &str) {
        let problems = read::<Detection>(text).unwrap_err();
        assert!(problems[0].contains(said), "{problems:?}");
    }

    #[test]
    fn an_assessment_every_moment_is_refused() {
        let problems = read::<Readiness>("{ every: 5ms }").unwrap_err();
        assert!(problems[0].contains("at least 1s"), "{problems:?}");
    }
}
