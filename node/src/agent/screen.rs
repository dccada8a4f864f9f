//! A text that is shown anew in the place of the one before. Pure: what is to be written for it.

use super::paint::RESET;

/// Moves to the beginning of the line, this many lines up.
const UP: &str = "F";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\u{1b}[K";
/// Clears all that is below.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What stands on the terminal.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// Lines above the cursor that are ours.
    lines: usize,
}

impl Screen {
    /// What puts `text` in the place of the one before: cut to the terminal's size, for a line that
    /// wraps, or one that has scrolled away, could not be found again.
    pub(super) fn redraw(&mut self, text: &str, size: Size) -> String {
        let room = size.rows.saturating_sub(1).max(1);
        let all = text.lines().count();
        let shown = if all > room { room - 1 } else { all };
        let mut drawn = match self.lines {
            0 => String::new(),
            lines => format!("\u{1b}[{lines}{UP}"),
        };
        for line in text.lines().take(shown) {
            drawn.push_str(&cut(line, size.columns));
            drawn.push_str(CLEAR_LINE);
            drawn.push('\n');
        }
        if shown < all {
            drawn.push_str(&cut(&format!("({} lines more)", all - shown), size.columns));
            drawn.push_str(CLEAR_LINE);
            drawn.push('\n');
        }
        drawn.push_str(CLEAR_BELOW);
        self.lines = shown + usize::from(shown < all);
        drawn
    }
}

/// As much of a line as fits, with its colours, which take no room.
fn cut(line: &str, columns: usize) -> String {
    let mut kept = String::new();
    let (mut width, mut in_colour) = (0, false);
    for c in line.chars() {
        match c {
            '\u{1b}' => in_colour = true,
            'm' if in_colour => in_colour = false,
            _ if in_colour => {}
            _ if width == columns => {
                if kept.contains('\u{1b}') {
                    kept.push_str(RESET);
                }
                return kept;
            }
            _ => width += 1,
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 5, rows: 4 };

    #[test]
    fn a_text_takes_the_place_of_the_one_before() {
        let mut screen = Screen::default();
        assert_eq!(screen.redraw("a\nb", SIZE), "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(screen.redraw("c", SIZE), "\u{1b}[2Fc\u{1b}[K\n\u{1b}[J");
        assert!(screen.redraw("", SIZE).starts_with("\u{1b}[1F"));
    }

    #[test]
    fn what_does_not_fit_is_cut_and_counted() {
        let wide = Size { columns: 80, rows: 4 };
        let mut screen = Screen::default();
        let drawn = screen.redraw("1\n2\n3\n4\n5", wide);
        assert!(drawn.contains("2\u{1b}[K\n(3 lines more)"), "{drawn:?}");
        assert_eq!(screen.lines, 3, "and the line of the cursor");
        assert_eq!(cut("abcdefg", 5), "abcde");
        assert_eq!(cut("ab\u{1b}[31mcdefg", 5), "ab\u{1b}[31mcde\u{1b}[0m");
        assert_eq!(cut("\u{1b}[31mab\u{1b}[0m", 2), "\u{1b}[31mab\u{1b}[0m");
    }
}
