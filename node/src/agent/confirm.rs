//! Whether what cannot be undone is meant: asked at a terminal, or said by `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::failure::Failure;

/// Says beforehand that it is meant.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Consent {
    /// Do it without asking
    #[arg(short, long)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Goes on if it is meant. `consequence` is one sentence, lower case, without a full stop.
    pub(super) fn ask(self, consequence: &str) -> Result<(), Failure> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        self.decide(consequence, is_terminal, read_answer)
    }

    fn decide(
        self,
        consequence: &str,
        is_terminal: bool,
        answer: impl FnOnce(&str) -> io::Result<String>,
    ) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !is_terminal {
            return Err(Failure::Unconfirmed(consequence.to_owned()));
        }
        let answer = answer(&format!("{consequence}. Go on? [y/N] ")).map_err(Failure::Stdin)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::NotMeant),
        }
    }
}

fn read_answer(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(yes: bool, is_terminal: bool, answer: &str) -> Result<(), Failure> {
        Consent { yes }.decide("all is lost", is_terminal, |_| Ok(answer.to_owned()))
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for answer in ["y\n", "YES\n", " yes "] {
            assert!(asked(false, true, answer).is_ok(), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "yeah\n"] {
            assert!(matches!(asked(false, true, answer), Err(Failure::NotMeant)), "{answer:?}");
        }
    }

    #[test]
    fn without_a_terminal_it_must_have_been_said() {
        assert!(asked(true, false, "").is_ok());
        let refused = asked(false, false, "y\n").expect_err("nobody could have answered");
        assert_eq!(refused.exit_code(), 2);
        let told = refused.to_string();
        assert!(told.contains("all is lost") && told.contains("--yes"), "{told}");
    }
}
