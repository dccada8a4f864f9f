//! `promtool`, which comes with Debian's package `prometheus`; and what is read from queries without it.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tests::{repository, skip};

/// A file below `deploy/`.
pub(crate) fn deploy(name: &str) -> PathBuf {
    repository().join("deploy").join(name)
}

/// Its text.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What promtool prints for these arguments and this input, which must please it; none, and said so, where
/// there is none.
pub(crate) fn promtool(arguments: &[&str], folder: &Path, input: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skip("there is no promtool here: apt-get install prometheus");
        return None;
    };
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

/// The names of the relay's metrics in a text.
pub(crate) fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    words.filter(|word| word.starts_with("arc_") || word.starts_with("process_")).collect()
}

/// The values that a text wants labels to have: metric, label, value; of `name{label=~"a|b"}` both.
pub(crate) fn labels_in(text: &str) -> Vec<(&str, &str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('{') {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name = text[..at].rsplit(|c: char| !is_name(c)).next().unwrap_or_default();
        let inside = text[at + 1..].split('}').next().unwrap_or_default();
        if !name.starts_with("arc_") {
            continue;
        }
        for matcher in inside.split(',') {
            let Some((label, values)) = matcher.split_once('=') else { continue };
            let values = values.trim_start_matches('~').trim_matches('"');
            if !values.contains(['$', '.', '*']) {
                found.extend(values.split('|').map(|value| (name, label, value)));
            }
        }
    }
    found
}

#[test]
fn names_and_labels_are_found_in_promql() {
    let expr =
        r#"sum by (reason) (rate(arc_a_total{reason=~"x|y",job=~"$job"}[5m])) > process_max_fds"#;
    assert_eq!(metrics_in(expr), BTreeSet::from(["arc_a_total", "process_max_fds"]));
    assert_eq!(labels_in(expr), [("arc_a_total", "reason", "x"), ("arc_a_total", "reason", "y")]);
}
