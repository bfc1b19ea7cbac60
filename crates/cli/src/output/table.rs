//! Tables of plain text.

use super::{Style, Tone};

/// A table whose columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<(Option<Tone>, String)>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self {
            header: header.iter().map(|&title| title.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of cells without a tone.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows
            .push(cells.into_iter().map(|cell| (None, cell.into())).collect());
    }

    /// Adds a row of cells with tones.
    pub(crate) fn toned(&mut self, cells: Vec<(Option<Tone>, String)>) {
        self.rows.push(cells);
    }

    /// Writes the table without trailing blanks and without a final newline.
    pub(crate) fn render(&self, style: Style) -> String {
        let columns = self.header.len();
        let width = |column: usize| {
            let cells = self
                .rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|(_, cell)| cell);
            cells
                .chain([&self.header[column]])
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |cells: Vec<(Option<Tone>, &str)>| {
            let mut text = String::new();
            for (column, (tone, cell)) in cells.iter().enumerate() {
                let painted =
                    tone.map_or_else(|| (*cell).to_owned(), |tone| style.paint(tone, cell));
                text.push_str(&painted);
                if column + 1 < cells.len() {
                    let blanks =
                        widths.get(column).copied().unwrap_or(0) - cell.chars().count() + 2;
                    text.push_str(&" ".repeat(blanks));
                }
            }
            text
        };
        let header = line(
            self.header
                .iter()
                .map(|title| (Some(Tone::Faint), title.as_str()))
                .collect(),
        );
        let rows = self.rows.iter().map(|row| {
            line(
                row.iter()
                    .map(|(tone, cell)| (*tone, cell.as_str()))
                    .collect(),
            )
        });
        std::iter::once(header)
            .chain(rows)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["REGION", "ROLE"]);
        table.row(["us-east-1", "primary"]);
        table.row(["r", "standby"]);
        assert_eq!(
            table.render(Style::new(false)),
            "REGION     ROLE\nus-east-1  primary\nr          standby"
        );
    }
}
