//! Tables as a terminal shows them: pure text.

use std::fmt::Write as _;

use super::paint::{Hue, Paint};

/// A column's heading, to which side it is aligned, and what its cells are about.
#[derive(Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    right: bool,
    hue: fn(&str) -> Option<Hue>,
}

impl Column {
    /// Of words.
    pub(super) const fn left(heading: &'static str) -> Self {
        Self { heading, right: false, hue: |_| None }
    }

    /// Of numbers.
    pub(super) const fn right(heading: &'static str) -> Self {
        Self { right: true, ..Self::left(heading) }
    }

    /// With cells in colours.
    pub(super) const fn hued(self, hue: fn(&str) -> Option<Hue>) -> Self {
        Self { hue, ..self }
    }
}

/// Lines of cells below their headings, each column as wide as its widest cell.
pub(super) fn table<const N: usize>(
    columns: &[Column; N],
    rows: impl Iterator<Item = [String; N]>,
    paint: Paint,
) -> String {
    let headings = columns.map(|column| column.heading.to_owned());
    let rows: Vec<_> = std::iter::once(headings).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (n, (cell, column)) in row.iter().zip(columns).enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(n));
            let width = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
            let room = " ".repeat(width - cell.chars().count());
            let cell = paint.on((column.hue)(cell), cell);
            // Writing into a `String` cannot fail.
            let _ = if column.right {
                write!(line, "{room}{cell}  ")
            } else {
                write!(line, "{cell}{room}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
