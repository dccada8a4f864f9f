//! How far a long work is: a bar on standard error, if that is a terminal, and nothing else.

use std::{io::Read, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often what has no end in sight shows that it goes on.
const TURN_EVERY: Duration = Duration::from_millis(120);

/// A work that is under way; its bar goes with it.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many, which are counted.
    pub(crate) fn count(what: &'static str, total: u64) -> Self {
        Self::new(what, Some(total), "{msg} [{bar:30}] {pos} of {len}, {elapsed}")
    }

    /// Of so many bytes.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        Self::new(what, Some(total), "{msg} [{bar:30}] {bytes} of {total_bytes}, {elapsed}")
    }

    /// Of bytes, nobody knows how many.
    pub(crate) fn open(what: &'static str) -> Self {
        let progress = Self::new(what, None, "{msg} {spinner} {bytes}, {elapsed}");
        progress.0.enable_steady_tick(TURN_EVERY);
        progress
    }

    /// Counts what is read.
    pub(crate) fn of<R: Read>(&self, source: R) -> impl Read + use<R> {
        self.0.wrap_read(source)
    }

    /// So much is done.
    pub(crate) fn reached(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So much more is done.
    pub(crate) fn add(&self, more: usize) {
        self.0.inc(more as u64);
    }

    fn new(what: &'static str, total: Option<u64>, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(template);
        // A bar that cannot be drawn as it should be is drawn as it can be.
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        Self(bar)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_styles_can_be_drawn() {
        for progress in [Progress::count("a", 2), Progress::bytes("b", 2), Progress::open("c")] {
            progress.add(1);
            progress.reached(2);
            assert!(progress.0.is_hidden() || progress.0.position() == 2);
        }
        for template in ["{msg} [{bar:30}] {pos} of {len}, {elapsed}", "{msg} {spinner} {bytes}"] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
