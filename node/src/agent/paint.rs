//! Colours on a terminal: pure text. A colour never says what the text does not.

/// What a text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hue {
    /// As it should be.
    Good,
    /// To be looked at in good time.
    Doubtful,
    /// To be looked at now.
    Bad,
    /// Of little interest.
    Past,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    /// None: no terminal, or one whose user wants none.
    #[default]
    Plain,
    /// The eight that every terminal has (ECMA-48, section 8.3.117).
    Colours,
}

/// Ends a colour.
pub(super) const RESET: &str = "\u{1b}[0m";

impl Paint {
    /// For a terminal, unless its user wants no colours (<https://no-color.org>) or it has none.
    pub(super) fn of(
        is_terminal: bool,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Self {
        let refused = variable("NO_COLOR").is_some_and(|text| !text.is_empty());
        let is_dumb = variable("TERM").is_none_or(|text| text.is_empty() || text == "dumb");
        if is_terminal && !refused && !is_dumb { Self::Colours } else { Self::Plain }
    }

    /// The text in its colour.
    pub(super) fn on(self, hue: Option<Hue>, text: &str) -> String {
        let (Self::Colours, Some(hue)) = (self, hue) else { return text.to_owned() };
        let code = match hue {
            Hue::Good => 32,
            Hue::Doubtful => 33,
            Hue::Bad => 31,
            Hue::Past => 2,
        };
        format!("\u{1b}[{code}m{text}{RESET}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_users_want_them() {
        let paint = |is_terminal, pairs: &[(&str, &str)]| {
            Paint::of(is_terminal, |name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).into())
            })
        };
        let term = ("TERM", "xterm");
        assert_eq!(paint(true, &[term]), Paint::Colours);
        assert_eq!(paint(true, &[term, ("NO_COLOR", "")]), Paint::Colours, "empty is not set");
        for (is_terminal, pairs) in [
            (false, &[term][..]),
            (true, &[]),
            (true, &[("TERM", "dumb")]),
            (true, &[term, ("NO_COLOR", "1")]),
        ] {
            assert_eq!(paint(is_terminal, pairs), Paint::Plain, "{pairs:?}");
        }
    }

    #[test]
    fn plain_is_the_text_itself() {
        assert_eq!(Paint::Plain.on(Some(Hue::Bad), "dead"), "dead");
        assert_eq!(Paint::Colours.on(None, "dead"), "dead");
        assert_eq!(Paint::Colours.on(Some(Hue::Bad), "dead"), "\u{1b}[31mdead\u{1b}[0m");
    }
}
