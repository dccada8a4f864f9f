//! What the kernel knows of this process and of the disk that it keeps its data on.
//!
//! Read from `/proc` and by `statvfs(3)`, whenever it is asked for: microseconds, unless the disk hangs.
//! Where the kernel does not tell, nothing is said, rather than something wrong.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::param::{clock_ticks_per_second, page_size};

/// Kernels before 6.2 do not say how many files are open: they are counted, up to so many, which takes
/// about as many microseconds.
const COUNTED_MAX: usize = 20_000;

/// This process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessReport {
    /// Seconds of processor time, in user and in kernel mode.
    pub cpu_seconds: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Bytes of address space.
    pub virtual_bytes: Option<u64>,
    /// Bytes of memory that are its own or shared, and not swapped out.
    pub resident_bytes: Option<u64>,
    /// Open files, connections among them.
    pub open_files: Option<u64>,
    /// The most that it may have open; none if it may have any number, too.
    pub open_files_max: Option<u64>,
}

/// The file system that a path is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskReport {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files that it may still make; none if only the bytes limit that.
    pub free_files: Option<u64>,
}

/// This process, as the kernel sees it now.
pub fn report() -> ProcessReport {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ProcessReport { cpu_seconds, threads, virtual_bytes, resident_bytes, .. } = parse(&stat);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    ProcessReport {
        cpu_seconds,
        threads,
        virtual_bytes,
        resident_bytes,
        open_files: open_files(),
        open_files_max: limit.current,
    }
}

/// The file system that `path` is on; none if it cannot be asked.
pub fn disk(path: &Path) -> Option<DiskReport> {
    let found = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(DiskReport {
        free_bytes: bytes(found.f_bavail),
        total_bytes: bytes(found.f_blocks),
        free_files: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// Reads a line of `/proc/PID/stat` (proc(5)). The program's name, in parentheses, may hold anything.
fn parse(stat: &str) -> ProcessReport {
    let behind_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
    // Field 3 of the manual is the first behind the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14).zip(field(15)).map(|(user, kernel)| user.saturating_add(kernel));
    let cpu_seconds = ticks.map(seconds);
    ProcessReport {
        cpu_seconds,
        threads: field(20),
        virtual_bytes: field(23),
        resident_bytes: field(24).map(|pages| pages.saturating_mul(page_size() as u64)),
        ..ProcessReport::default()
    }
}

#[allow(clippy::cast_precision_loss)] // exact for 2^53 ticks, millions of years
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

fn open_files() -> Option<u64> {
    let folder = Path::new("/proc/self/fd");
    match folder.metadata().ok()?.size() {
        0 => {
            let counted = fs::read_dir(folder).ok()?.take(COUNTED_MAX).count();
            // One of them is the folder itself.
            (counted < COUNTED_MAX).then(|| counted.saturating_sub(1) as u64)
        }
        told => Some(told),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_skipped() {
        let line = "42 (a b) c) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 777 8192 3 1 2";
        let read = parse(line);
        assert_eq!((read.threads, read.virtual_bytes), (Some(9), Some(8192)));
        assert_eq!(read.resident_bytes, Some(3 * page_size() as u64));
        assert_eq!(read.cpu_seconds, Some(seconds(200)));
    }

    #[test]
    fn what_is_no_such_line_says_nothing() {
        for text in
            ["", "no parenthesis", "1 (x", "1 (x) S", "1 (x) S a b c d e f g h i j k l m n o p q r"]
        {
            assert_eq!(parse(text), ProcessReport::default(), "{text:?}");
        }
    }

    #[test]
    fn this_process_is_seen_and_each_open_file_counts() {
        let before = report();
        let held: Vec<_> = (0..50).map(|_| tempfile::tempfile().unwrap()).collect();
        let after = report();
        assert!(after.open_files.unwrap() >= before.open_files.unwrap().saturating_add(20));
        assert!(after.open_files < after.open_files_max || after.open_files_max.is_none());
        assert!(before.resident_bytes.unwrap() > 1 << 20 && before.threads.unwrap() > 0);
        drop(held);
    }

    #[test]
    fn the_disk_of_a_folder_has_a_size_and_a_folder_that_is_not_there_has_none() {
        let found = disk(&std::env::temp_dir()).unwrap();
        assert!(found.total_bytes > found.free_bytes);
        assert_eq!(disk(Path::new("/no/such/folder")), None);
    }
}
