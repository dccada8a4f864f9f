//! `deploy/README.md`: it leaves out nothing that is in the folder.

use std::process::Command;

use crate::files::{path, said, text};

#[test]
fn every_file_is_named() {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(path(""));
    let (listed, readme) = (said(&mut git), text("README.md"));
    let mut files = listed.lines().filter(|file| *file != "README.md").peekable();
    assert!(files.peek().is_some(), "the folder has files");
    for file in files {
        // What belongs together is named by its folder.
        let folder = file.rsplit_once('/').map(|(folder, _)| folder);
        let by_folder = match folder {
            Some("debian") => "`debian/`".to_owned(),
            Some(folder) if folder.starts_with("kubernetes/") => format!("`{folder}`"),
            _ => format!("`{file}`"),
        };
        assert!(readme.contains(&by_folder), "{file} is not in deploy/README.md");
    }
}
