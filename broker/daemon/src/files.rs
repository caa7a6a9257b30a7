//! The limit on open files. Each connection needs at least one file.
//!
//! The default soft limit of most systems is far below the default of `connections_max`, but far above the need of
//! most hosts. So a start warns only if the operator asked for a number that the limit does not allow. Later, a
//! warning follows while there is still room when connections come near the limit ([`NearLimit`]).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Files that the process needs in addition to its connections: listeners, ZooKeeper, event queues, logs.
const OTHER_FILES: u64 = 128;

/// The connections that a program wants to hold at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Number of connections.
    pub max: usize,
    /// The setting with this number.
    pub key: &'static str,
    /// Name of the peers: `components`, `clients`.
    pub name: &'static str,
    /// Open files per connection.
    pub files: u64,
}

impl Connections {
    /// Raises the limit on open files to the number needed, the hard limit too if allowed. Warns if the limit stays
    /// too low and the operator set the number himself (`is_given`).
    pub fn raise_limit(self, is_given: bool) {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let needed = (self.max as u64)
            .saturating_mul(self.files)
            .saturating_add(OTHER_FILES);
        // Only a privileged process may raise the hard limit, and never above the kernel's own limit (fs.nr_open).
        let raised =
            maximum.is_some_and(|hard| hard < needed) && set_limit(Some(needed), Some(needed)).is_ok();
        if !raised
            && current != maximum
            && let Err(error) = set_limit(maximum, maximum)
        {
            warn!(
                ?current,
                ?maximum,
                "cannot raise the limit on open files: {error}"
            );
        }
        let Self { max, key, name, .. } = self;
        let fits = self.that_fit();
        if fits < max && is_given {
            warn!(
                limit = fits,
                "the limit on open files holds fewer {name} than {key} = {max}: raise the one (ulimit -n, LimitNOFILE) or \
                 lower the other"
            );
        } else {
            debug!(limit = fits, "{name} that the limit on open files holds");
        }
    }

    /// Returns how many connections the limit on open files allows, `max` at most.
    #[must_use]
    pub fn that_fit(self) -> usize {
        let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(soft.saturating_sub(OTHER_FILES) / self.files.max(1))
            .unwrap_or(usize::MAX)
            .clamp(1, self.max.max(1))
    }

    /// Returns the name of the limit that caps the connections at `fits`, for the log.
    #[must_use]
    pub const fn bound(self, fits: usize) -> &'static str {
        if fits < self.max {
            "the limit on open files (ulimit -n, LimitNOFILE)"
        } else {
            self.key
        }
    }
}

fn set_limit(current: Option<u64>, maximum: Option<u64>) -> rustix::io::Result<()> {
    setrlimit(Resource::Nofile, Rlimit { current, maximum })
}

/// Warns once when connections come near the limit on open files. Warns again only after they were far below it.
#[derive(Debug, Default)]
pub struct NearLimit {
    is_near: AtomicBool,
}

impl NearLimit {
    /// Checks the limit after a new connection: `count` are open, `fits` are possible. Returns whether it warned.
    pub fn look(&self, connections: Connections, fits: usize, count: usize) -> bool {
        let far = fits / 2;
        let near = fits - fits / 5;
        if count < far {
            self.is_near.store(false, Relaxed);
        }
        let warns = fits < connections.max && count >= near && !self.is_near.swap(true, Relaxed);
        if warns {
            let Connections { name, .. } = connections;
            warn!(
                count,
                limit = fits,
                "{name} come near the limit on open files: raise it (ulimit -n, LimitNOFILE); above it they are refused"
            );
        }
        warns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: Connections = Connections {
        max: 1000,
        key: "limits.max_connections",
        name: "clients",
        files: 1,
    };

    #[test]
    fn nearness_to_the_limit_is_told_once_while_there_is_room() {
        let near = NearLimit::default();
        let told = |count| near.look(CLIENTS, 100, count);
        assert!((0..80).all(|count| !told(count)));
        assert!(told(80));
        assert!((60..=100).all(|count| !told(count)), "it swings around the mark");
        assert!(!told(49));
        assert!(told(81), "it was far below");
    }

    #[test]
    fn a_limit_that_holds_all_that_the_setting_allows_is_never_near() {
        let near = NearLimit::default();
        assert!((0..=1000).all(|count| !near.look(CLIENTS, 1000, count)));
        assert_eq!(CLIENTS.bound(1000), "limits.max_connections");
        assert!(CLIENTS.bound(999).starts_with("the limit on open files"));
    }
}
