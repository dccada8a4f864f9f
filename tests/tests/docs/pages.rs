//! The documents, read: their blocks of commands, with the marks that stand before them, and their links.
//!
//! A mark is a comment, which readers do not see. What they mean is in CONTRIBUTING.md.

use std::path::PathBuf;

use tests::repository;

/// A document below the repository.
pub(crate) struct Page {
    /// Its path, as one writes it there.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Commands of a page, in the order in which they stand there.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    /// Where it begins.
    pub(crate) line: usize,
    pub(crate) commands: String,
    pub(crate) manner: Manner,
}

/// What is done with a block.
#[derive(Debug, PartialEq)]
pub(crate) enum Manner {
    /// It is run, to its end.
    Run,
    /// It goes on while the page does, from when this command succeeds.
    Beside(String),
    /// It cannot be run, for this reason.
    Not(String),
}

/// All documents that are held to their words.
pub(crate) fn pages() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned(), "deploy/README.md".to_owned()];
    let found = std::fs::read_dir(repository().join("docs")).expect("there are documents");
    let found = found.map(|entry| entry.expect("a folder can be read").path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let name =
        |path: PathBuf| format!("docs/{}", path.file_name().expect("a file has a name").display());
    names.extend(found.filter(is_page).map(name));
    names.sort();
    names.into_iter().map(page).collect()
}

fn page(name: String) -> Page {
    let path: PathBuf = repository().join(&name);
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    Page { name, text }
}

impl Page {
    /// Its blocks of commands, and those that only the test sees.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut manner) = (Vec::new(), Manner::Run);
        let mut lines = self.text.lines().zip(1..);
        while let Some((text, line)) = lines.next() {
            let text = text.trim();
            if let Some(language) = text.strip_prefix("```") {
                let inside = lines.by_ref().map(|(text, _)| text);
                let inside: Vec<&str> = inside.take_while(|text| text.trim() != "```").collect();
                let commands = match language {
                    "sh" => inside.join("\n"),
                    "console" => typed(&inside),
                    "bash" | "shell" => panic!("{}:{line}: say sh or console", self.name),
                    _ => continue,
                };
                let manner = std::mem::replace(&mut manner, Manner::Run);
                blocks.push(Block { line, commands, manner });
            } else if text == "<!-- sh" {
                let inside = lines.by_ref().map(|(text, _)| text);
                let inside: Vec<&str> = inside.take_while(|text| text.trim() != "-->").collect();
                blocks.push(Block { line, commands: inside.join("\n"), manner: Manner::Run });
            } else if let Some(reason) = mark(text, "<!-- not run:") {
                manner = Manner::Not(reason);
            } else if let Some(command) = mark(text, "<!-- in another terminal until:") {
                manner = Manner::Beside(command);
            } else if !text.is_empty() {
                assert_eq!(
                    manner,
                    Manner::Run,
                    "{}:{line}: a mark, and no commands after it",
                    self.name
                );
            }
        }
        blocks
    }
}

/// What a mark of that kind says, if the line is one.
fn mark(line: &str, kind: &str) -> Option<String> {
    let said = line.strip_prefix(kind)?.strip_suffix("-->").expect("a mark is one line").trim();
    assert!(!said.is_empty(), "a mark says something: {line}");
    Some(said.to_owned())
}

/// What is typed in a console: the lines after the prompt, and those that go on with them.
fn typed(lines: &[&str]) -> String {
    let (mut typed, mut goes_on) = (Vec::new(), false);
    for line in lines {
        let command = line.trim_start().strip_prefix("$ ");
        if let Some(command) = command.or(goes_on.then_some(*line)) {
            goes_on = command.ends_with('\\');
            typed.push(command);
        }
    }
    typed.join("\n")
}

#[test]
fn blocks_are_found_with_their_marks() {
    let text = "# Page\n```sh\nls\n```\n\n<!-- not run: no Docker -->\n```sh\ndocker\n```\n\
                <!-- sh\nrelay\n-->\n<!-- in another terminal until: true -->\n```console\n$ a \\\n  b\nsaid\n$ c\n```\n\
                ```json\n{}\n```\n";
    let page = Page { name: "page.md".into(), text: text.into() };
    let block = |line, commands: &str, manner| Block { line, commands: commands.into(), manner };
    let expected = [
        block(2, "ls", Manner::Run),
        block(7, "docker", Manner::Not("no Docker".into())),
        block(10, "relay", Manner::Run),
        block(14, "a \\\n  b\nc", Manner::Beside("true".into())),
    ];
    assert_eq!(page.blocks(), expected);
}
