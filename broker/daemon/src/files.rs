//! The limit on open files. Each connection needs at least one file.
//!
//! On most systems the default soft limit is far below the default of `connections_max`, but far above the number of
//! connections on most hosts. So the start of a program warns only if the operator set a number that the limit does not
//! allow. Later, a warning is logged when the number of connections comes near the limit ([`NearLimit`]).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Number of files that the process needs in addition to its connections: listeners, ZooKeeper, event queues, logs.
const OTHER_FILES: u64 = 128;

/// Number of connections that a program is configured to hold at the same time.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimit {
    /// Number of connections.
    pub max: usize,
    /// The setting with this number.
    pub key: &'static str,
    /// Name of the peers: `components`, `clients`.
    pub name: &'static str,
    /// Open files per connection.
    pub files: u64,
}

impl ConnectionLimit {
    /// Raises the limit on open files to the number needed, including the hard limit if the process may. Warns if the limit
    /// remains too low and the operator set the number of connections (`is_given`).
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
                "the limit on open files allows fewer {name} than {key} = {max}: raise the limit (ulimit -n, LimitNOFILE) or \
                 lower {key}"
            );
        } else {
            debug!(
                limit = fits,
                "number of {name} that the limit on open files allows"
            );
        }
    }

    /// Returns the number of connections that the limit on open files allows, `max` at most.
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
    pub fn look(&self, limit: ConnectionLimit, fits: usize, count: usize) -> bool {
        let far = fits / 2;
        let near = fits - fits / 5;
        if count < far {
            self.is_near.store(false, Relaxed);
        }
        let warns = fits < limit.max && count >= near && !self.is_near.swap(true, Relaxed);
        if warns {
            let ConnectionLimit { name, .. } = limit;
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

    const CLIENTS: ConnectionLimit = ConnectionLimit {
        max: 1000,
        key: "limits.max_connections",
        name: "clients",
        files: 1,
    };

    #[test]
    fn coming_near_the_limit_is_logged_once() {
        let near = NearLimit::default();
        let warns = |count| near.look(CLIENTS, 100, count);
        assert!((0..80).all(|count| !warns(count)));
        assert!(warns(80));
        assert!(
            (60..=100).all(|count| !warns(count)),
            "no second warning near the limit"
        );
        assert!(!warns(49));
        assert!(warns(81), "the number was far below the limit");
    }

    #[test]
    fn a_limit_that_allows_the_configured_number_is_never_near() {
        let near = NearLimit::default();
        assert!((0..=1000).all(|count| !near.look(CLIENTS, 1000, count)));
        assert_eq!(CLIENTS.bound(1000), "limits.max_connections");
        assert!(CLIENTS.bound(999).starts_with("the limit on open files"));
    }
}
