//! Results of statements: text values by column.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dr_model::{Lsn, SystemIdentifier, TimelineId};
use fallible_iterator::FallibleIterator;
use jiff::Timestamp;
use postgres_protocol::message::backend::{DataRowBody, RowDescriptionBody};

use crate::error::Error;

/// The result of one statement.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    columns: Arc<[String]>,
    rows: Vec<Row>,
    tag: String,
}

impl Rows {
    /// Returns the names of the columns; none for a statement that returns no rows.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the rows in the server's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Row> {
        self.rows.iter()
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Tells whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the first row, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// Returns the only row.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is none, or more than one.
    pub fn only(&self) -> Result<&Row, Error> {
        match self.rows.as_slice() {
            [row] => Ok(row),
            rows => Err(Error::Missing(format!("single row: it has {}", rows.len()))),
        }
    }

    /// Returns what the server says it did, such as `INSERT 0 3`.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns how many rows the statement returned or changed, by its tag.
    #[must_use]
    pub fn affected(&self) -> u64 {
        self.tag
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or(0)
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = std::slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = std::vec::IntoIter<Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

/// One row of a result.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    storage: Bytes,
    ranges: Vec<Option<Range<usize>>>,
}

impl Row {
    /// Returns a value as the type that is asked for; `Option<T>` if it may be NULL.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without such a column, [`Error::Value`] if the value is NULL or does not
    /// fit the type.
    pub fn get<T: FromText>(&self, column: impl Column) -> Result<T, Error> {
        let position = self.position(&column)?;
        let value = |value: String| Error::Value {
            column: self.columns[position].clone(),
            value,
            expected: T::EXPECTED,
        };
        let text = match self.at(position) {
            None => None,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Some(text),
                Err(_) => return Err(value("bytes that are not UTF-8".to_owned())),
            },
        };
        T::from_text(text).ok_or_else(|| {
            value(text.map_or_else(|| "NULL".to_owned(), |text| format!("`{text}`")))
        })
    }

    /// Returns a value as the bytes that the server sent, or `None` if it is NULL.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without such a column.
    pub fn bytes(&self, column: impl Column) -> Result<Option<Bytes>, Error> {
        let position = self.position(&column)?;
        Ok(self.ranges[position]
            .clone()
            .map(|range| self.storage.slice(range)))
    }

    /// Returns a value as text, or `None` if it is NULL.
    ///
    /// # Errors
    ///
    /// As [`Row::get`].
    pub fn text(&self, column: impl Column) -> Result<Option<String>, Error> {
        self.get(column)
    }

    fn position(&self, column: &impl Column) -> Result<usize, Error> {
        column
            .position(&self.columns)
            .filter(|position| *position < self.ranges.len())
            .ok_or_else(|| Error::Missing(format!("column {}", column.describe())))
    }

    fn at(&self, position: usize) -> Option<&[u8]> {
        self.ranges[position]
            .clone()
            .map(|range| &self.storage[range])
    }
}

/// A way to name a column: its number from 0, or its name.
pub trait Column {
    /// Returns the column's number among `columns`.
    fn position(&self, columns: &[String]) -> Option<usize>;

    /// Returns the column's number or name for a message.
    fn describe(&self) -> String;
}

impl Column for usize {
    fn position(&self, columns: &[String]) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }

    fn describe(&self) -> String {
        self.to_string()
    }
}

impl Column for &str {
    fn position(&self, columns: &[String]) -> Option<usize> {
        columns.iter().position(|column| column == self)
    }

    fn describe(&self) -> String {
        format!("`{self}`")
    }
}

/// A type that can be read from PostgreSQL's text form.
pub trait FromText: Sized {
    /// What is expected, for a message.
    const EXPECTED: &'static str;

    /// Reads a value, `None` being NULL; returns `None` if it does not fit.
    fn from_text(text: Option<&str>) -> Option<Self>;
}

impl<T: FromText> FromText for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_text(text: Option<&str>) -> Option<Self> {
        match text {
            None => Some(None),
            Some(_) => T::from_text(text).map(Some),
        }
    }
}

impl FromText for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_text(text: Option<&str>) -> Option<Self> {
        match text? {
            // A column prints a letter; `show` and a cast to text print words.
            "t" | "true" | "on" => Some(true),
            "f" | "false" | "off" => Some(false),
            _ => None,
        }
    }
}

macro_rules! from_text {
    ($($type:ty: $expected:literal),* $(,)?) => {$(
        impl FromText for $type {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: Option<&str>) -> Option<Self> {
                text?.parse().ok()
            }
        }
    )*};
}

from_text! {
    String: "a text",
    i32: "a 32-bit integer",
    i64: "a 64-bit integer",
    u32: "an unsigned 32-bit integer",
    u64: "an unsigned 64-bit integer",
    f64: "a number",
    Lsn: "a WAL position",
    SystemIdentifier: "a system identifier",
    Timestamp: "a time with a time zone",
}

impl FromText for TimelineId {
    const EXPECTED: &'static str = "a timeline";

    fn from_text(text: Option<&str>) -> Option<Self> {
        text?.parse().ok().filter(|number| *number != 0).map(Self)
    }
}

/// Collects the messages of one result.
#[derive(Debug, Default)]
pub(crate) struct RowsBuilder {
    columns: Arc<[String]>,
    rows: Vec<Row>,
}

impl RowsBuilder {
    pub(crate) fn describe(&mut self, body: &RowDescriptionBody) -> io::Result<()> {
        let names: Vec<String> = body
            .fields()
            .map(|field| Ok(field.name().to_owned()))
            .collect()?;
        self.columns = names.into();
        Ok(())
    }

    pub(crate) fn push(&mut self, body: &DataRowBody) -> io::Result<()> {
        let ranges: Vec<_> = body.ranges().collect()?;
        if ranges.len() != self.columns.len() {
            let what = "a row with another number of values than columns";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let storage = body.buffer_bytes().clone();
        self.rows.push(Row {
            columns: Arc::clone(&self.columns),
            storage,
            ranges,
        });
        Ok(())
    }

    pub(crate) fn finish(self, tag: &str) -> Rows {
        Rows {
            columns: self.columns,
            rows: self.rows,
            tag: tag.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_values() {
        assert_eq!(bool::from_text(Some("t")), Some(true));
        assert_eq!(bool::from_text(Some("off")), Some(false));
        assert_eq!(bool::from_text(Some("1")), None);
        assert_eq!(u32::from_text(None), None);
        assert_eq!(<Option<u32>>::from_text(None), Some(None));
        assert_eq!(<Option<u32>>::from_text(Some("x")), None);
        assert_eq!(Lsn::from_text(Some("1/A0")), Some(Lsn(0x1_0000_00A0)));
        assert_eq!(TimelineId::from_text(Some("0")), None);
        let time = Timestamp::from_text(Some("2026-11-21 03:06:18.25+00")).unwrap();
        assert_eq!(time.to_string(), "2026-11-21T03:06:18.25Z");
    }
}
