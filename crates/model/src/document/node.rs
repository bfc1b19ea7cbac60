//! The tree that a document becomes.

use std::fmt;
use std::sync::Arc;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The file's name as shown to people, relative to the configuration directory.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Span {
    /// Makes a span.
    #[must_use]
    pub fn new(file: impl Into<Arc<str>>, line: u32, column: u32) -> Self {
        let file = file.into();
        Self { file, line, column }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A value and the place where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// Where it was written.
    pub span: Span,
    /// The value.
    pub value: T,
}

impl<T> Spanned<T> {
    /// Puts a value at a place.
    #[must_use]
    pub fn new(span: Span, value: T) -> Self {
        Self { span, value }
    }
}

/// A part of a document.
pub type Node = Spanned<Value>;

/// What a part of a document holds.
///
/// `Debug` shows the shape and never the text: a document may hold secrets in the clear.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing was written.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// Text, with its `${…}` references as written.
    String(String),
    /// A list.
    List(Vec<Node>),
    /// A map in the order written; a key may stand there twice.
    Map(Vec<(Spanned<String>, Node)>),
}

impl Value {
    /// Says what this is, for messages; shows numbers, never text.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("the number `{value}`"),
            Self::Float(value) => format!("the number `{value}`"),
            Self::String(_) => "text".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(nodes) => f
                .debug_list()
                .entries(nodes.iter().map(|n| &n.value))
                .finish(),
            Self::Map(entries) => f
                .debug_map()
                .entries(entries.iter().map(|(k, n)| (&k.value, &n.value)))
                .finish(),
            scalar => f.write_str(&scalar.describe()),
        }
    }
}

impl Node {
    /// Returns the value under `key` if this is a map that has it; the first one if it stands there twice.
    ///
    /// For a look ahead, such as at `kind`; reading proper goes through [`Reader`](super::Reader).
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.value == key).map(|(_, n)| n),
            _ => None,
        }
    }

    /// Returns the keys, if this is a map.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<&str>> {
        match &self.value {
            Value::Map(entries) => Some(entries.iter().map(|(k, _)| k.value.as_str()).collect()),
            _ => None,
        }
    }

    /// Returns the text as written, if this is text: with its references, so that it can be shown.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}
