//! Reading the files of `deploy/`, and what the relay itself says of its settings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;
use tests::{arc_relay, repository, scripts};

/// A file below `deploy/`.
pub(crate) fn path(name: &str) -> PathBuf {
    repository().join("deploy").join(name)
}

/// Its text.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("deploy/{name}: {error}"))
}

/// The documents of YAML files, each held against that schema; none, and said so, where there is no Python.
pub(crate) fn yaml(schema: &str, files: &[PathBuf]) -> Option<Vec<Value>> {
    let mut python = scripts::python()?;
    python.arg(scripts::script("tests/clients/yaml_to_json.py"));
    python.arg("--schema").arg(repository().join("tests/schemas").join(schema)).args(files);
    Some(serde_json::from_str(&said(&mut python)).expect("the script prints JSON"))
}

/// What a program prints that must end well.
pub(crate) fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    assert!(status.success(), "{command:?}: {}{}", text_of(&stdout), text_of(&stderr));
    text_of(&stdout)
}

/// Writes the relay under test there, as small as a release: without what debuggers read, where that can be taken away.
pub(crate) fn strip(to: &Path) {
    let stripped = output(Command::new("strip").arg("-o").arg(to).arg(arc_relay()));
    if !stripped.status.success() {
        std::fs::copy(arc_relay(), to).expect("a test writes into its folder");
    }
}

/// How a program ends, and what it prints.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub(crate) fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a program is there.
pub(crate) fn has(program: &str) -> bool {
    let mut which = Command::new("sh");
    which.args(["-c", "command -v \"$1\"", "sh", program]);
    output(&mut which).status.success()
}

/// The relay's settings, each with its default.
pub(crate) fn settings() -> &'static BTreeMap<String, String> {
    static SETTINGS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let table = said(Command::new(arc_relay()).arg("--config-table"));
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let read = |row: &str| {
            let (name, rest) = row.split_once("` | ")?;
            Some((name.to_owned(), rest.split(" | ").next()?.to_owned()))
        };
        rows.filter_map(read).collect()
    })
}

/// A setting's default.
pub(crate) fn default(variable: &str) -> &'static str {
    settings().get(variable).unwrap_or_else(|| panic!("{variable} is no setting"))
}

/// Fails if one of these is no setting of the relay.
pub(crate) fn assert_settings<'a>(whose: &str, names: impl IntoIterator<Item = &'a str>) {
    let mut some = false;
    for name in names {
        some = true;
        assert!(settings().contains_key(name), "{whose} sets {name}, which is no setting");
    }
    assert!(some, "{whose} sets nothing: it was read wrongly");
}

/// The `NAME=value` lines of a text.
pub(crate) fn assignments(text: &str) -> Vec<(String, String)> {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let ours = lines.filter(|(name, _)| is_name(name));
    ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What `arc-relay --check-config` says of an environment: nothing if it takes it.
pub(crate) fn refusal(environment: &[(String, String)], folder: &Path) -> Option<String> {
    let mut command = Command::new(arc_relay());
    command.current_dir(folder).env_clear().envs(environment.iter().cloned());
    let Output { status, stderr, .. } = output(command.arg("--check-config"));
    (!status.success()).then(|| text_of(&stderr))
}
