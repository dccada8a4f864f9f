//! What a process wrote, kept for the tests that read it and for those that fail.

use std::{
    io::{BufRead, BufReader, Read},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

/// How much of the log a failed test shows.
const TAIL_LINES: usize = 60;

/// The lines that a process has written to its standard output and error so far, over all its
/// restarts. Clones share the lines.
#[derive(Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    /// Keeps reading `source` on a thread of its own until the process closes it.
    pub(crate) fn drain(&self, source: impl Read + Send + 'static) {
        let shared = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                shared.lines.lock().push(String::from_utf8_lossy(&line).into_owned());
                shared.grown.notify_all();
            }
        });
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.0.lines.lock().join("\n")
    }

    /// The lines so far that are JSON and have that target.
    pub fn of_target(&self, target: &str) -> Vec<Value> {
        let lines = self.0.lines.lock();
        let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["target"] == target).collect()
    }

    /// How many lines there are so far.
    pub fn len(&self) -> usize {
        self.0.lines.lock().len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last JSON line whose `message` is `message`, if there is one.
    pub fn last(&self, message: &str) -> Option<Value> {
        let lines = self.0.lines.lock();
        let mut entries = lines.iter().rev().filter_map(|line| serde_json::from_str(line).ok());
        entries.find(|entry: &Value| entry["message"] == message)
    }

    /// The last lines, for a failure's message.
    pub(crate) fn tail(&self) -> String {
        let lines = self.0.lines.lock();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// The first JSON line from line `from` on whose `message` is `message`. None if it does not
    /// come before the `deadline`, or if `alive` says that it never will.
    pub(crate) fn wait_for(
        &self,
        message: &str,
        from: usize,
        deadline: Instant,
        mut alive: impl FnMut() -> bool,
    ) -> Option<Value> {
        let mut lines = self.0.lines.lock();
        let mut seen = from;
        loop {
            for line in &lines[seen..] {
                match serde_json::from_str::<Value>(line) {
                    Ok(entry) if entry["message"] == message => return Some(entry),
                    _ => seen += 1,
                }
            }
            if Instant::now() > deadline || !alive() {
                return None;
            }
            self.0.grown.wait_for(&mut lines, Duration::from_millis(50));
        }
    }
}
