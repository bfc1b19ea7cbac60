//! Quoting of values for SQL and replication commands.
//!
//! The simple query protocol has no parameters, so every value that comes from outside goes through
//! here.

use postgres_protocol::escape;

/// Returns `text` as an SQL string literal, right whatever `standard_conforming_strings` is.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    // The escape form comes with a leading blank, which is right but odd to read.
    escape::escape_literal(text).trim_start().to_owned()
}

/// Returns `name` as a quoted SQL identifier.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    escape::escape_identifier(name)
}

/// Returns `text` as a string literal of the replication grammar, which knows only doubled quotes.
pub(crate) fn quote_replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_backslashes_escaped() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"a\b'c"), r"E'a\\b''c'");
        assert_eq!(quote_identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(quote_replication_literal(r"a\b'c"), r"'a\b''c'");
    }
}
