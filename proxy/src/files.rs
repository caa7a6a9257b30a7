//! The limit on open files. Each session needs two, so the default soft limit of most systems is soon reached.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Files the process needs beside its sessions: listeners, ZooKeeper, event queues, logs.
const OTHER_FILES: u64 = 128;

/// Raises the soft limit to the hard one, and warns when even that does not hold `connections_max` sessions.
pub fn raise_limit(connections_max: usize) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!("cannot read the limit on open files: {error}"),
    };
    if soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!("cannot raise the limit on open files from {soft} to {hard}: {error}");
    }
    let needed = connections_max as u64 * 2 + OTHER_FILES;
    if hard < needed {
        let fits = hard.saturating_sub(OTHER_FILES) / 2;
        warn!(
            "the limit on open files, {hard}, holds {fits} components; limits.connections_max is {connections_max}"
        );
    } else {
        debug!("limit on open files: {hard}");
    }
}
