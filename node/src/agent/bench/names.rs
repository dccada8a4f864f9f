//! The agents that measure, and the file that their tokens are kept in.
//!
//! A name is registered for ever, so that each run takes those of the runs before it. The file is
//! readable by its owner alone, replaced as a whole, and used by one run at a time: an agent has one
//! session, and a second run would take the first one's.

use std::{
    collections::BTreeMap,
    env,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::flaw::Flaw;

/// Version of the file's format.
const VERSION: u32 = 1;

/// Names and their tokens, of the relays that were measured before.
pub(super) struct Names {
    path: PathBuf,
    kept: Kept,
    /// Held as long as the names are used.
    _lock: File,
}

#[derive(Deserialize, Serialize)]
struct Kept {
    version: u32,
    relays: BTreeMap<String, BTreeMap<String, Token>>,
}

/// A token as text.
pub(super) type Token = Zeroizing<String>;

impl Names {
    /// Opens the file, or the default one, and keeps other runs from it.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Flaw> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => default_path(|variable| env::var_os(variable).map(PathBuf::from))?,
        };
        let failed = |source| Flaw::AgentsFile { path: path.clone(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let lock = private(&beside(&path, ".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Flaw::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let kept = read(&path).map_err(failed)?;
        Ok(Self { path, kept, _lock: lock })
    }

    /// Where they are kept.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The agents known at this relay, in an order that stays.
    pub(super) fn at(&self, relay: &str) -> impl Iterator<Item = (&str, &Token)> {
        let names = self.kept.relays.get(relay).into_iter().flatten();
        names.map(|(name, token)| (name.as_str(), token))
    }

    /// How many are known at this relay.
    pub(super) fn count(&self, relay: &str) -> usize {
        self.kept.relays.get(relay).map_or(0, BTreeMap::len)
    }

    /// Keeps one more; on disk it is after [`save`](Self::save).
    pub(super) fn add(&mut self, relay: &str, name: String, token: String) {
        self.kept.relays.entry(relay.to_owned()).or_default().insert(name, Zeroizing::new(token));
    }

    /// Does not take the first `count` of this relay any more, which refuses them. Their tokens stay in the
    /// file, under a name that no relay has: it may have been another relay that refused them.
    pub(super) fn set_aside(&mut self, relay: &str, count: usize) {
        let Some(names) = self.kept.relays.get_mut(relay) else { return };
        let refused: Vec<_> = std::iter::from_fn(|| names.pop_first()).take(count).collect();
        self.kept.relays.entry(aside(relay)).or_default().extend(refused);
    }

    /// The same of one.
    pub(super) fn set_one_aside(&mut self, relay: &str, name: &str) {
        let names = self.kept.relays.get_mut(relay);
        if let Some((name, token)) = names.and_then(|names| names.remove_entry(name)) {
            self.kept.relays.entry(aside(relay)).or_default().insert(name, token);
        }
    }

    /// Puts the file's new state in the old one's place.
    pub(super) fn save(&self) -> Result<(), Flaw> {
        let replace = || {
            let unfinished = beside(&self.path, ".new");
            let text = Zeroizing::new(serde_json::to_vec_pretty(&self.kept)?);
            let mut file = private(&unfinished)?;
            file.set_len(0)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&unfinished, &self.path)
        };
        replace().map_err(|source| Flaw::AgentsFile { path: self.path.clone(), source })
    }
}

/// What the refused names of a relay are kept under.
fn aside(relay: &str) -> String {
    format!("refused by {relay}")
}

fn read(path: &Path) -> io::Result<Kept> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Kept { version: VERSION, relays: BTreeMap::new() });
        }
        Err(error) => return Err(error),
    };
    // The error would quote the text, which has tokens.
    let unreadable =
        || io::Error::other("it is no list of agents as bench writes it: move it away");
    let kept: Kept = serde_json::from_str(&text).map_err(|_| unreadable())?;
    if kept.version == VERSION { Ok(kept) } else { Err(unreadable()) }
}

/// A file that its owner alone may read, made if it is not there.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    beside.into()
}

fn default_path(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Flaw> {
    // The XDG base directory specification: what is not absolute is as good as unset.
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| home().map(|home| home.join(".local/state")));
    Ok(state.ok_or(Flaw::NoHome)?.join("arc-relay/bench-agents.json"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_are_kept_for_the_next_run_and_from_everybody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/agents.json");
        let mut names = Names::open(Some(&path)).unwrap();
        assert_eq!(names.count("ws://a/arc"), 0);
        names.add("ws://a/arc", "bench-1".into(), "tok_1".into());
        names.add("ws://b/arc", "bench-2".into(), "tok_2".into());
        names.set_aside("ws://b/arc", 1);
        names.save().unwrap();
        drop(names);

        let names = Names::open(Some(&path)).unwrap();
        let found: Vec<_> = names.at("ws://a/arc").map(|(n, t)| (n, t.as_str())).collect();
        assert_eq!(found, [("bench-1", "tok_1")]);
        assert_eq!(names.count("ws://b/arc"), 0);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_set_aside_is_not_taken_but_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agents.json");
        let mut names = Names::open(Some(&path)).unwrap();
        for number in 1..=4 {
            names.add("ws://a/arc", format!("bench-{number}"), format!("tok_{number}"));
        }
        let left = |names: &Names| -> Vec<_> {
            names.at("ws://a/arc").map(|(name, _)| name.to_owned()).collect()
        };
        names.set_aside("ws://a/arc", 1);
        assert_eq!(left(&names), ["bench-2", "bench-3", "bench-4"]);
        names.set_one_aside("ws://a/arc", "bench-3");
        assert_eq!(left(&names), ["bench-2", "bench-4"]);
        names.set_aside("ws://a/arc", usize::MAX);
        names.set_aside("ws://b/arc", 1);
        assert!(left(&names).is_empty());
        names.save().unwrap();
        drop(names);

        let names = Names::open(Some(&path)).unwrap();
        let kept: Vec<_> =
            names.at(&aside("ws://a/arc")).map(|(_, token)| token.as_str()).collect();
        assert_eq!(kept, ["tok_1", "tok_2", "tok_3", "tok_4"]);
    }

    #[test]
    fn two_runs_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agents.json");
        let first = Names::open(Some(&path)).unwrap();
        assert!(matches!(Names::open(Some(&path)), Err(Flaw::InUse(_))));
        drop(first);
        assert!(Names::open(Some(&path)).is_ok());
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agents.json");
        for text in ["tok_secret", r#"{"version":2,"relays":{}}"#] {
            std::fs::write(&path, text).unwrap();
            let refusal = Names::open(Some(&path)).err().unwrap().to_string();
            assert!(
                !refusal.contains("tok_secret") && refusal.contains("agents.json"),
                "{refusal}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn the_default_is_where_the_user_keeps_state() {
        let path = |variables: &[(&str, &str)]| {
            default_path(|wanted| {
                let found = variables.iter().find(|(variable, _)| *variable == wanted);
                found.map(|(_, value)| value.into())
            })
        };
        let all = [("XDG_STATE_HOME", "/state"), ("HOME", "/home/ann")];
        assert_eq!(path(&all).unwrap(), Path::new("/state/arc-relay/bench-agents.json"));
        let home = Path::new("/home/ann/.local/state/arc-relay/bench-agents.json");
        assert_eq!(path(&[("XDG_STATE_HOME", "rel"), ("HOME", "/home/ann")]).unwrap(), home);
        assert!(matches!(path(&[]), Err(Flaw::NoHome)));
    }
}
