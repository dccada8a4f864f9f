//! The limit on open files: raised as far as the system lets us, and what fits under it.
//!
//! Each connection is one descriptor. A relay that runs out of them cannot accept, nor open its own
//! files, so `MAX_CONNECTIONS` is kept under the limit with room for the rest.

use std::fmt;

use crate::serve::{OPS_CONNECTIONS_MAX, PUBLIC_CONNECTIONS_MAX};

/// Descriptors for everything that is not a session: 64 for listeners, the registry's files and the
/// runtime, the rest for connections that speak HTTP. Never more than half of all.
pub const RESERVED_FILES: u64 = 64 + (PUBLIC_CONNECTIONS_MAX + OPS_CONNECTIONS_MAX) as u64;

/// What POSIX promises at the least on any machine where we would run; used if we may not ask.
const LIMIT_UNKNOWN: u64 = 1_024;

/// Connections that may speak HTTP on the public and on the ops listener under this limit: fewer than
/// usual where there are few files, so that sessions and operators keep theirs.
pub fn http_places(file_limit: u64) -> (usize, usize) {
    let limit = usize::try_from(file_limit).unwrap_or(usize::MAX);
    (PUBLIC_CONNECTIONS_MAX.min(limit / 4).max(1), OPS_CONNECTIONS_MAX.min(limit / 16).max(1))
}

/// Raises the soft limit on open files to the hard one and returns the limit that now holds.
pub fn raise_file_limit() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX)
        .or_else(|_| rlimit::Resource::NOFILE.get().map(|(soft, _)| soft))
        .unwrap_or(LIMIT_UNKNOWN)
}

/// `MAX_CONNECTIONS` asks for more descriptors than there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileShortage {
    /// Connections that were asked for.
    pub asked: usize,
    /// Connections that fit; at least one.
    pub fits: usize,
    /// The limit on open files.
    pub file_limit: u64,
}

/// Whether `max_connections` exceeds what fits under `file_limit`, and what does fit.
pub fn shortage(max_connections: usize, file_limit: u64) -> Option<FileShortage> {
    let room = (file_limit - RESERVED_FILES.min(file_limit / 2)).max(1);
    let fits = usize::try_from(room).unwrap_or(usize::MAX);
    (max_connections > fits).then_some(FileShortage { asked: max_connections, fits, file_limit })
}

impl FileShortage {
    /// What to do to have all connections.
    pub fn remedy(&self) -> String {
        let needed = u64::try_from(self.asked).unwrap_or(u64::MAX).saturating_add(RESERVED_FILES);
        format!(
            "to have all, allow {needed} files (systemd: LimitNOFILE={needed}, shell: ulimit -n {needed}, \
             docker: --ulimit nofile={needed})"
        )
    }
}

impl fmt::Display for FileShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, fits, file_limit } = self;
        write!(
            f,
            "MAX_CONNECTIONS is {asked}, but the limit on open files is {file_limit}: taking at \
             most {fits} connections; {}",
            self.remedy()
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        assert_eq!(shortage(10_000, 1_048_576), None);
        assert_eq!(shortage(10_000, 10_000 + RESERVED_FILES), None);
        assert_eq!(shortage(usize::MAX, u64::MAX).map(|short| short.asked), Some(usize::MAX));
    }

    #[test]
    fn one_too_many_is_cut_to_what_fits() {
        let short = shortage(10_001, 10_000 + RESERVED_FILES);
        let expected = FileShortage { asked: 10_001, fits: 10_000, file_limit: 11_152 };
        assert_eq!(short, Some(expected));
        let text = expected.to_string();
        for part in ["10001", "11152", "LimitNOFILE=11153", "ulimit -n 11153"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn a_small_limit_leaves_half_of_itself() {
        for (limit, fits) in [(0, 1), (1, 1), (256, 128), (RESERVED_FILES, 576)] {
            assert_eq!(shortage(5_000, limit).map(|short| short.fits), Some(fits), "{limit}");
        }
    }

    #[test]
    fn with_few_files_few_connections_speak_http() {
        assert_eq!(http_places(1_048_576), (1_024, 64));
        for limit in [64, 256, 1_024, 2_000] {
            let (public, ops) = http_places(limit);
            let sessions = shortage(usize::MAX, limit).unwrap().fits;
            assert!(public + ops + sessions < usize::try_from(limit).unwrap(), "{limit}");
        }
    }

    #[test]
    fn the_limit_raised_is_the_limit_that_holds() {
        let raised = raise_file_limit();
        assert_eq!(rlimit::Resource::NOFILE.get().ok().map(|(soft, _)| soft), Some(raised));
        assert_eq!(raise_file_limit(), raised);
    }
}
