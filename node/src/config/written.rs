//! Configuration as written: raw text, and where each piece of it comes from.
//!
//! Five layers, the first that has a setting wins: flags, environment, `.env`, the settings file, and
//! the defaults (which [`Config`](super::Config) knows). [`Sources::gather`] is the only part that
//! reads the machine; laying the layers over each other is pure.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Format, Toml},
    value::{Dict, Map, Num, Value},
};

use super::{
    problem::{Notice, Problem},
    settings::{RETIRED, settings},
};

/// Name of the settings file that is read if it is there.
pub const FILE_NAME: &str = "arc-relay.toml";

const DOTENV_NAME: &str = ".env";

/// Names in the environment that are shorter may be like one of ours by chance.
const ALIKE_CHARS_MIN: usize = 6;

/// Everything that [`load`](super::load()) looks at; without `Debug`, for it holds secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// Variable and text of each setting that was given as a flag.
    pub flags: Vec<(String, String)>,
    /// Environment variables; foreign ones are ignored.
    pub environment: Vec<(String, String)>,
    /// Names of the environment variables that are not ours, one of which may have been meant to be.
    pub foreign: Vec<String>,
    /// Text of `.env`, if there is one.
    pub dotenv: Option<String>,
    /// The settings file, if there is one.
    pub file: Option<SettingsFile>,
    /// Name of this machine, the default of `NODE_NAME`.
    pub host_name: String,
    /// What should have been read and could not be.
    pub unreadable: Vec<Problem>,
}

/// A settings file, read but not yet understood; without `Debug`, as [`Sources`].
#[derive(Clone)]
pub struct SettingsFile {
    /// The file as the operator calls it.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Sources {
    /// Reads the environment, `.env` in `directory`, and the settings file: `file`, which must exist,
    /// or [`FILE_NAME`] in `directory`, which may. Whatever cannot be read is kept as a problem.
    pub fn gather(flags: Vec<(String, String)>, file: Option<&Path>, directory: &Path) -> Self {
        let mut sources = Self {
            flags,
            host_name: gethostname::gethostname().to_string_lossy().into_owned(),
            ..Self::default()
        };
        for variable in variables() {
            match env::var_os(variable).map(std::ffi::OsString::into_string) {
                Some(Ok(text)) => sources.environment.push((variable.into(), text)),
                Some(Err(_)) => sources
                    .unreadable
                    .push(Problem::new(variable, "must be valid UTF-8").set_in(ENVIRONMENT)),
                None => {}
            }
        }
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        sources.foreign = names.filter(|name| variables().all(|known| known != name)).collect();
        sources.foreign.sort_unstable();
        sources.dotenv = sources.read(&directory.join(DOTENV_NAME), DOTENV_NAME, false);
        let name = file.map_or_else(|| FILE_NAME.into(), |file| file.display().to_string());
        let path = file.map_or_else(|| directory.join(FILE_NAME), PathBuf::from);
        sources.file =
            sources.read(&path, &name, file.is_some()).map(|text| SettingsFile { name, text });
        sources
    }

    fn read(&mut self, path: &Path, name: &str, must_exist: bool) -> Option<String> {
        match fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => None,
            Err(error) => {
                self.unreadable.push(Problem::new(name, format!("cannot be read: {error}")));
                None
            }
        }
    }
}

pub(super) const ENVIRONMENT: &str = "environment";

/// One setting as written; without `Debug`, for it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: String,
}

/// All settings as written, and what was wrong or strange about the writing.
#[derive(Default)]
pub(super) struct Written {
    /// By key.
    pub(super) given: BTreeMap<String, Given>,
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<Notice>,
}

/// Lays the layers of `sources` over each other.
pub(super) fn written(sources: &Sources) -> Written {
    let mut written = Written { problems: sources.unreadable.clone(), ..Written::default() };
    let mut layers = Vec::new();
    if let Some(file) = &sources.file {
        layers.extend(written.read_file(file));
    }
    if let Some(text) = &sources.dotenv {
        layers.extend(written.read_dotenv(text));
    }
    layers.extend(entries(&sources.environment, |_| ENVIRONMENT.into()));
    layers.extend(entries(&sources.flags, |key| format!("flag --{}", key.replace('_', "-"))));
    written.given = merge(layers);
    written.notices.extend(retired(&written.given));
    written.notices.extend(sources.foreign.iter().filter_map(|name| misspelt_in_environment(name)));
    written
}

/// The environment is everybody's: what is short and merely similar is another program's.
fn misspelt_in_environment(name: &str) -> Option<Notice> {
    let suggestion = closest(name)?;
    let one_in_the_other = suggestion.contains(name) || name.contains(suggestion);
    let is_meant = name.len() >= ALIKE_CHARS_MIN || one_in_the_other;
    is_meant.then(|| Notice::Misspelt {
        origin: ENVIRONMENT.into(),
        name: name.to_owned(),
        suggestion: suggestion.into(),
    })
}

/// One setting in one place: the smallest layer there is, so that each keeps its own origin.
struct Entry {
    key: String,
    given: Given,
}

impl Provider for Entry {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.given.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let value = Value::from(self.given.text.clone());
        Ok(Profile::Default.collect(Dict::from([(self.key.clone(), value)])))
    }
}

/// The settings among `pairs`; an empty value counts as not set.
fn entries(pairs: &[(String, String)], origin: impl Fn(&str) -> String) -> Vec<Entry> {
    let ours = pairs
        .iter()
        .filter(|(variable, text)| !text.is_empty() && variables().any(|known| known == variable));
    ours.map(|(variable, text)| {
        let key = variable.to_ascii_lowercase();
        let given = Given { text: text.clone(), origin: origin(&key) };
        Entry { key, given }
    })
    .collect()
}

/// Later layers win.
fn merge(layers: Vec<Entry>) -> BTreeMap<String, Given> {
    let keys: Vec<_> = layers.iter().map(|entry| entry.key.clone()).collect();
    let merged = layers.into_iter().fold(Figment::new(), Figment::merge);
    let given = |key: String| {
        let value = merged.find_value(&key).ok()?;
        let origin = merged.get_metadata(value.tag())?.name.to_string();
        Some((key, Given { text: value.into_string()?, origin }))
    };
    keys.into_iter().filter_map(given).collect()
}

fn retired(given: &BTreeMap<String, Given>) -> Vec<Notice> {
    let found = RETIRED.iter().filter(|(name, _)| given.contains_key(&name.to_ascii_lowercase()));
    found.map(|(variable, reason)| Notice::Retired { variable, reason }).collect()
}

impl Written {
    fn read_file(&mut self, file: &SettingsFile) -> Vec<Entry> {
        let table = match Toml::string(&file.text).data() {
            Ok(profiles) => profiles.into_values().next().unwrap_or_default(),
            Err(error) => {
                self.problems.push(Problem::new(&file.name, without_excerpt(&error.to_string())));
                return Vec::new();
            }
        };
        let mut entries = Vec::new();
        for (key, value) in table {
            let origin = file.name.clone();
            let known = variables().map(str::to_ascii_lowercase).any(|known| known == key);
            match (known, text_of(&value)) {
                (true, Some(text)) => entries.push(Entry { key, given: Given { text, origin } }),
                (true, None) => {
                    let remedy = "must be a text, a number, true, false, or a list of these";
                    self.problems.push(Problem::new(key, remedy).set_in(origin));
                }
                (false, _) => {
                    let suggestion = closest(&key).map(str::to_ascii_lowercase);
                    self.notices.push(Notice::UnknownKey { file: origin, key, suggestion });
                }
            }
        }
        entries
    }

    fn read_dotenv(&mut self, text: &str) -> Vec<Entry> {
        let mut lines = Lines { text, passed: 0 };
        let mut found = Vec::new();
        for item in dotenvy::Iter::new(text.trim_start_matches('\u{feff}').as_bytes()) {
            let Ok((name, value)) = item else {
                // dotenvy's own message repeats the line, which may hold a secret.
                let remedy = "must be NAME=value, with quotes around spaces and each quote closed";
                let line = lines.next_written();
                self.problems.push(Problem::new(format!("{DOTENV_NAME}:{line}"), remedy));
                continue;
            };
            let origin = format!("{DOTENV_NAME}:{}", lines.next_of(&name));
            let pair = [(name, value)];
            let [(name, _)] = &pair;
            if !variables().any(|known| known == name) {
                self.notices.extend(closest(name).map(|suggestion| Notice::Misspelt {
                    origin: origin.clone(),
                    name: name.clone(),
                    suggestion: suggestion.into(),
                }));
            }
            found.extend(entries(&pair, |_| origin.clone()));
        }
        found
    }
}

/// Finds the line numbers that dotenvy does not tell.
struct Lines<'a> {
    text: &'a str,
    passed: usize,
}

impl Lines<'_> {
    /// Number of the next line that assigns `name`.
    fn next_of(&mut self, name: &str) -> usize {
        self.next(|line| {
            let line = line.strip_prefix("export").map_or(line, str::trim_start);
            line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
        })
    }

    /// Number of the next line that is neither empty nor a comment.
    fn next_written(&mut self) -> usize {
        self.next(|line| !line.is_empty() && !line.starts_with('#'))
    }

    fn next(&mut self, wanted: impl Fn(&str) -> bool) -> usize {
        let mut rest = self.text.lines().skip(self.passed);
        if let Some(skipped) = rest.position(|line| wanted(line.trim())) {
            self.passed += skipped + 1;
        }
        self.passed
    }
}

fn variables() -> impl Iterator<Item = &'static str> {
    settings().iter().map(|setting| setting.variable).chain(RETIRED.iter().map(|(name, _)| *name))
}

/// The variable that `name` is probably a misspelling of: at most a quarter of its letters differ.
fn closest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let distance = |variable: &str| strsim::damerau_levenshtein(&name, variable);
    settings()
        .iter()
        .map(|setting| (distance(setting.variable), setting.variable))
        .filter(|(distance, variable)| *distance <= (variable.len() / 4).max(1))
        .min()
        .map(|(_, variable)| variable)
}

/// A value of the settings file as the text that the other layers would hold.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, number) => Some(text_of_number(*number)),
        Value::Array(_, parts) => {
            parts.iter().map(text_of).collect::<Option<Vec<_>>>().map(|parts| parts.join(","))
        }
        Value::Empty(..) | Value::Dict(..) => None,
    }
}

fn text_of_number(number: Num) -> String {
    let whole = number.to_i128().map(|n| n.to_string());
    let natural = || number.to_u128().map(|n| n.to_string());
    let broken = || number.to_f64().map(|n| n.to_string());
    whole.or_else(natural).or_else(broken).unwrap_or_default()
}

/// What a TOML error says, without the excerpt of the file that it shows: that may hold a secret.
fn without_excerpt(message: &str) -> String {
    let is_excerpt = |line: &&str| {
        let line = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        !line.trim_start().starts_with('|')
    };
    message.lines().filter(is_excerpt).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
#[path = "written_tests.rs"]
mod tests;
