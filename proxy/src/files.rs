//! The limit on open files. Each session needs two, so the default soft limit of most systems is soon reached.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Files the process needs beside its sessions: listeners, ZooKeeper, event queues, logs.
const OTHER_FILES: u64 = 128;

/// Raises the limit to what `connections_max` sessions need, the hard one too where that is allowed, and warns when it
/// cannot be had.
pub fn raise_limit(connections_max: usize) {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return warn!("cannot read the limit on open files: {error}"),
    };
    let needed = (connections_max as u64)
        .saturating_mul(2)
        .saturating_add(OTHER_FILES);
    // Only a privileged process may raise the hard limit, and no process above the kernel's own (fs.nr_open).
    let raised = hard < needed && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok();
    if !raised
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        warn!("cannot raise the limit on open files from {soft} to {hard}: {error}");
    }
    let (limit, fits) = (if raised { needed } else { hard }, components_max());
    if fits < connections_max {
        warn!(
            "the limit on open files, {limit}, holds {fits} components, which is the limit now; limits.connections_max \
             is {connections_max}: raise the one (ulimit -n, LimitNOFILE) or lower the other"
        );
    } else {
        debug!("limit on open files: {limit}");
    }
}

/// How many components the limit on open files holds.
pub(crate) fn components_max() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(soft.saturating_sub(OTHER_FILES) / 2)
        .unwrap_or(usize::MAX)
        .max(1)
}
