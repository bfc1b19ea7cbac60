//! Durations and sizes: always with their unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::scalar::{parsed, report_unparsed, text};
use super::{Context, FromNode, Node, Problem, Value};

const A_DURATION: &str = "a duration with its unit, such as `30s`, `15m` or `4h`";

impl FromNode for Duration {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        let bare = match &node.value {
            Value::Integer(number) => Some(number.to_string()),
            Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(text.clone())
            }
            _ => None,
        };
        if let Some(number) = bare {
            let problem = Problem::error(&node.span, format!("`{number}` has no unit"))
                .expected(A_DURATION)
                .hint(format!("`{number}s` is seconds, `{number}m` minutes"));
            context.report(problem);
            return None;
        }
        let text = text(node, context, A_DURATION)?;
        match humantime::parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                let what = format!("`{text}` is not a duration: {error}");
                report_unparsed(node, context, A_DURATION, &what);
                None
            }
        }
    }
}

/// A number of bytes, written with its unit: `64MiB`, `4 GiB`, `10GB`, `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ByteSizeError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = match unit.trim() {
            "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1000_u64.pow(2),
            "GB" => 1000_u64.pow(3),
            "TB" => 1000_u64.pow(4),
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(error()),
        };
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            ("TiB", 1_u64 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        let fits = |(_, size): &&(&str, u64)| self.0 >= *size && self.0.is_multiple_of(*size);
        match units.iter().find(fits) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromNode for ByteSize {
    fn from_node(node: &Node, context: &mut Context) -> Option<Self> {
        const EXPECTED: &str = "a size with its unit, such as `64MiB`";
        if let Value::Integer(number) = &node.value {
            let problem = Problem::error(&node.span, format!("`{number}` has no unit"))
                .expected(EXPECTED)
                .hint(format!("`{number}B` is bytes"));
            context.report(problem);
            return None;
        }
        parsed(node, context, EXPECTED)
    }
}
