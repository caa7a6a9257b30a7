//! The limit on open files. Each connection needs at least one file.
//!
//! On most systems the default soft limit is lower than the default of `connections_max`, but most hosts never have that many
//! connections. So a program warns at its start only if the operator set `connections_max` and the limit is too low for it.
//! While the program runs, it warns when the number of connections comes near the limit ([`NearLimit`]).

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
    /// Key of the setting that contains `max`, for log messages.
    pub key: &'static str,
    /// Name of the peers for log messages: `components` or `clients`.
    pub name: &'static str,
    /// Open files per connection.
    pub files: u64,
}

impl ConnectionLimit {
    /// Raises the soft limit on open files to the hard limit. If the hard limit is too low for `max` connections, raises it
    /// first, which needs privileges. Logs a warning if the limit is still too low and `is_given` is true: the operator set the
    /// number of connections.
    pub fn raise_limit(self, is_given: bool) {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let needed = (self.max as u64)
            .saturating_mul(self.files)
            .saturating_add(OTHER_FILES);
        // Fails without CAP_SYS_RESOURCE, and above fs.nr_open.
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

    /// Returns the number of connections that the limit on open files allows: at least 1, at most `max`.
    #[must_use]
    pub fn that_fit(self) -> usize {
        self.that_fit_in(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Returns the number of connections that the hard limit on open files `hard` allows. `None` stands for the hard limit of this
    /// process. A program raises its soft limit to the hard limit at its start.
    #[must_use]
    pub fn that_would_fit(self, hard: Option<u64>) -> usize {
        let own = || getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        self.that_fit_in(hard.unwrap_or_else(own))
    }

    fn that_fit_in(self, open_files: u64) -> usize {
        usize::try_from(open_files.saturating_sub(OTHER_FILES) / self.files.max(1))
            .unwrap_or(usize::MAX)
            .clamp(1, self.max.max(1))
    }

    /// Returns the name of the limit in force, for the log. `fits` is the result of [`that_fit`](Self::that_fit).
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

/// Warns when 80 % of the connections that the limit on open files allows are open. Warns again only after the number of
/// connections was below 50 %.
#[derive(Debug, Default)]
pub struct NearLimit {
    is_near: AtomicBool,
}

impl NearLimit {
    /// Logs the warning if it is due. Called for each new connection: `count` connections are open, and the limit on open files
    /// allows `fits`. Never warns if the configured limit is reached first. Returns whether it warned.
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
                "number of {name} near the limit on open files: raise the limit (ulimit -n, LimitNOFILE), else \
                 {name} above it are refused"
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
        assert!(warns(81), "the number was below 50 % before");
    }

    #[test]
    fn a_limit_that_allows_the_configured_number_is_never_near() {
        let near = NearLimit::default();
        assert!((0..=1000).all(|count| !near.look(CLIENTS, 1000, count)));
        assert_eq!(CLIENTS.bound(1000), "limits.max_connections");
        assert!(CLIENTS.bound(999).starts_with("the limit on open files"));
    }
}
