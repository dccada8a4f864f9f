//! Tables as a terminal shows them: pure text.

use std::fmt::Write as _;

/// A column's heading, and to which side it is aligned.
#[derive(Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    right: bool,
}

impl Column {
    /// Of words.
    pub(super) const fn left(heading: &'static str) -> Self {
        Self { heading, right: false }
    }

    /// Of numbers.
    pub(super) const fn right(heading: &'static str) -> Self {
        Self { heading, right: true }
    }
}

/// Lines of cells below their headings, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(
    columns: &[Column; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let headings = columns.map(|column| column.heading.to_owned());
    let rows: Vec<_> = std::iter::once(headings).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (n, (cell, column)) in row.iter().zip(columns).enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(n));
            let width = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
            // Writing into a `String` cannot fail.
            let _ = if column.right {
                write!(line, "{cell:>width$}  ")
            } else {
                write!(line, "{cell:<width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
