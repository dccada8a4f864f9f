//! The log as a file that is rotated: `relay.log`, and before it `relay.log.1`, `relay.log.2` and so on.
//!
//! Owns the file and its predecessors. A disk that is full or gone never stops whoever logs: the line is
//! dropped and counted, and the next one is tried. Who moves the file away (logrotate) is followed by
//! the next line; who truncates it is not in the way, for every line is appended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::clock::Clock;

/// How often it is looked whether somebody moved the file away.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Where the log is written, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileConfig {
    /// The file (`LOG_FILE`); none: lines go to stdout.
    pub path: Option<PathBuf>,
    /// No larger than this (`LOG_FILE_SIZE`), but for a single line that is.
    pub bytes_max: usize,
    /// Predecessors that are kept (`LOG_FILES_MAX`).
    pub kept: u32,
    /// Whether each day, of UTC, begins a new one (`LOG_FILE_DAILY`).
    pub daily: bool,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self { path: None, bytes_max: 64 << 20, kept: 7, daily: false }
    }
}

/// The file that is written now.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    bytes_max: u64,
    kept: u32,
    daily: bool,
    clock: Clock,
    /// None while it cannot be opened.
    open: Option<Open>,
    looked: Duration,
    failures: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// Days since 1970 at which it was begun, or last written.
    day: u64,
    /// Whether its last line was written in part only.
    torn: bool,
}

impl LogFile {
    /// Opens the file, to go on where it ends.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(super) fn open(path: &Path, config: &FileConfig, clock: Clock) -> io::Result<Self> {
        let open = Open::at(path, &clock)?;
        Ok(Self {
            path: path.to_owned(),
            bytes_max: config.bytes_max as u64,
            kept: config.kept,
            daily: config.daily,
            looked: clock.elapsed(),
            clock,
            open: Some(open),
            failures: Arc::default(),
        })
    }

    /// Counts lines that could not be written.
    pub(super) fn failures(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.failures)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.follow();
        let day = day(&self.clock);
        let is_over = |open: &Open| {
            let is_full = open.bytes > 0 && open.bytes + line.len() as u64 > self.bytes_max;
            is_full || (self.daily && open.bytes > 0 && open.day != day)
        };
        if self.open.as_ref().is_some_and(is_over) {
            self.rotate();
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path, &self.clock)?,
        };
        self.open.insert(open).write(line, day)
    }

    /// Lets go of a file that is not at its place any more.
    fn follow(&mut self) {
        let now = self.clock.elapsed();
        if now.saturating_sub(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        let Some(open) = &mut self.open else { return };
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let here = open.file.metadata();
        // A file that was truncated is as large as it is now.
        open.bytes = here.as_ref().map_or(open.bytes, fs::Metadata::len);
        if here.map(place).ok() != fs::metadata(&self.path).map(place).ok() {
            self.open = None;
        }
    }

    /// Each file takes the next number, the last goes; what cannot be moved is written on.
    fn rotate(&mut self) {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.kept).rev() {
            // Of those that there are not yet, nothing is moved.
            let _ = fs::rename(numbered(number), numbered(number + 1));
        }
        let moved = match self.kept {
            0 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, numbered(1)),
        };
        if moved.is_ok() {
            self.open = None;
            return;
        }
        self.failures.fetch_add(1, Relaxed);
        if let Some(open) = &mut self.open {
            // Tried again at the next look, not with each line.
            open.bytes = 0;
            open.day = day(&self.clock);
        }
    }
}

impl Open {
    fn at(path: &Path, clock: &Clock) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let metadata = file.metadata()?;
        let modified = u64::try_from(metadata.mtime()).unwrap_or(0).saturating_mul(1_000) / DAY_MS;
        let bytes = metadata.len();
        let day = if bytes > 0 { modified } else { day(clock) };
        Ok(Self { file, bytes, day, torn: false })
    }

    fn write(&mut self, line: &[u8], day: u64) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.bytes += written as u64;
                    rest = rest.get(written..).unwrap_or_default();
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.day = day;
        Ok(())
    }
}

impl Write for LogFile {
    /// Takes a whole line, and loses it where it cannot be written: who logs is not to know.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.append(line).is_err() {
            self.failures.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Days since 1970.
fn day(clock: &Clock) -> u64 {
    clock.wall().0 / DAY_MS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::UnixMillis;
    use tempfile::TempDir;

    use super::*;

    struct Bed {
        folder: TempDir,
        clock: Clock,
        log: LogFile,
    }

    impl Bed {
        fn new(bytes_max: usize, kept: u32, daily: bool) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = Clock::manual(UnixMillis(4_000_000_000_000));
            let config = FileConfig { path: None, bytes_max, kept, daily };
            let log = LogFile::open(&folder.path().join("log"), &config, clock.clone()).unwrap();
            Self { folder, clock, log }
        }

        fn say(&mut self, line: &str) {
            self.log.write_all(line.as_bytes()).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn text(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn failures(&self) -> u64 {
            self.log.failures.load(Relaxed)
        }
    }

    #[test]
    fn a_full_file_makes_way_and_only_so_many_are_kept() {
        let mut bed = Bed::new(10, 2, false);
        for line in ["aaaa\n", "bbbb\n", "cccc\n", "dddd\n", "eeee\n", "ffff\n", "g\n"] {
            bed.say(line);
        }
        assert_eq!(bed.text("log").as_deref(), Some("g\n"));
        assert_eq!(bed.text("log.1").as_deref(), Some("eeee\nffff\n"));
        assert_eq!(bed.text("log.2").as_deref(), Some("cccc\ndddd\n"));
        assert_eq!((bed.text("log.3"), bed.failures()), (None, 0));
    }

    #[test]
    fn a_line_that_is_larger_than_a_file_is_written_whole() {
        let mut bed = Bed::new(4, 1, false);
        bed.say("much too long\n");
        bed.say("b\n");
        assert_eq!(bed.text("log.1").as_deref(), Some("much too long\n"));
        assert_eq!(bed.text("log").as_deref(), Some("b\n"));
    }

    #[test]
    fn each_day_begins_a_file_where_that_is_wanted() {
        for (daily, last) in [(true, "two\n"), (false, "one\ntwo\n")] {
            let mut bed = Bed::new(1_000, 3, daily);
            bed.say("one\n");
            bed.clock.advance(Duration::from_hours(24));
            bed.say("two\n");
            assert_eq!(bed.text("log").as_deref(), Some(last));
            assert_eq!(bed.text("log.1").is_some(), daily);
        }
    }

    #[test]
    fn a_start_goes_on_in_the_file_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let clock = Clock::system();
        let mut log = LogFile::open(&path, &FileConfig::default(), clock).unwrap();
        log.write_all(b"after\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nafter\n");
    }

    #[test]
    fn who_moves_the_file_away_is_followed_without_a_signal() {
        let mut bed = Bed::new(1_000, 3, false);
        bed.say("one\n");
        fs::rename(bed.path("log"), bed.path("moved")).unwrap();
        bed.clock.advance(LOOK_EVERY);
        bed.say("two\n");
        assert_eq!(bed.text("moved").as_deref(), Some("one\n"));
        assert_eq!(bed.text("log").as_deref(), Some("two\n"));
    }

    #[test]
    fn who_truncates_the_file_is_not_in_the_way() {
        let mut bed = Bed::new(10, 3, false);
        bed.say("12345678\n");
        File::options().write(true).open(bed.path("log")).unwrap().set_len(0).unwrap();
        bed.clock.advance(LOOK_EVERY);
        bed.say("two\n");
        assert_eq!(bed.text("log").as_deref(), Some("two\n"));
        assert_eq!(bed.text("log.1"), None);
    }

    #[test]
    fn a_disk_that_takes_nothing_loses_lines_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(UnixMillis(0));
        let config = FileConfig::default();
        // Whatever is written there finds the disk full.
        let mut log = LogFile::open(Path::new("/dev/full"), &config, clock.clone()).unwrap();
        log.write_all(b"lost\n").unwrap();
        log.write_all(b"lost\n").unwrap();
        assert_eq!(log.failures.load(Relaxed), 2);
        let path = folder.path().join("gone/log");
        fs::create_dir(path.parent().unwrap()).unwrap();
        let mut log = LogFile::open(&path, &config, clock.clone()).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        clock.advance(LOOK_EVERY);
        log.write_all(b"lost\n").unwrap();
        assert_eq!(log.failures.load(Relaxed), 1);
        fs::create_dir(path.parent().unwrap()).unwrap();
        log.write_all(b"there again\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "there again\n");
    }

    #[test]
    fn what_is_written_in_part_does_not_spoil_the_next_line() {
        let mut bed = Bed::new(1_000, 3, false);
        bed.say("hal");
        bed.log.open.as_mut().unwrap().torn = true;
        bed.say("whole\n");
        assert_eq!(bed.text("log").as_deref(), Some("hal\nwhole\n"));
    }

    #[test]
    fn a_file_that_cannot_be_moved_is_written_on() {
        let mut bed = Bed::new(10, 1, false);
        // A folder that holds something is not replaced by a file.
        fs::create_dir_all(bed.path("log.1/full")).unwrap();
        for line in ["aaaaaaaa\n", "bbbb\n", "cc\n"] {
            bed.say(line);
        }
        assert_eq!(bed.text("log").as_deref(), Some("aaaaaaaa\nbbbb\ncc\n"));
        assert_eq!(bed.failures(), 1);
    }
}
