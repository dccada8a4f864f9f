//! What shells and `man` know of the command line: generated from it, so that neither is ever out of date.

use std::{fs, io, path::Path};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// The program, as it is typed.
const PROGRAM: &str = "arc-relay";

/// What completes commands in this shell: a script for it.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    script
}

/// The page of the program itself, as roff.
pub fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

/// Writes a page for the program and for each of its commands into a folder, which is made if it is not
/// there; what is there of the same name is replaced. How many there are.
pub fn pages(folder: &Path) -> io::Result<usize> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    let pages = fs::read_dir(folder)?.flatten().filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with(PROGRAM) && name.ends_with(".1")
    });
    Ok(pages.count())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn every_command_is_completed_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for command in Cli::command().get_subcommands().filter(|it| !it.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell} {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = pages(&folder.path().join("man1")).unwrap();
        let at = |name: &str| fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
        assert!(pages > 20, "{pages}");
        assert!(at("arc-relay.1").contains("DATA_DIR"));
        assert!(at("arc-relay-agents-ban.1").contains("ban is lifted"));
        assert!(String::from_utf8(page().unwrap()).unwrap().starts_with(".ie"), "it is roff");
    }
}
