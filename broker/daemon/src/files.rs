//! The limit on open files. Each connection needs at least one, so the default soft limit of most systems is soon reached.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Files the process needs beside its connections: listeners, ZooKeeper, event queues, logs.
const OTHER_FILES: u64 = 128;

/// What a program would like to hold at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// How many.
    pub max: usize,
    /// The setting that says so.
    pub key: &'static str,
    /// What they are called: `components`, `clients`.
    pub name: &'static str,
    /// Open files for each.
    pub files: u64,
}

impl Connections {
    /// Raises the limit to what so many need, the hard one too where that is allowed, and warns when it cannot be had.
    pub fn raise_limit(self) {
        let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
            Ok(limits) => limits,
            Err(error) => return warn!("cannot read the limit on open files: {error}"),
        };
        let needed = (self.max as u64)
            .saturating_mul(self.files)
            .saturating_add(OTHER_FILES);
        // Only a privileged process may raise the hard limit, and no process above the kernel's own (fs.nr_open).
        let raised = hard < needed && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok();
        if !raised
            && soft < hard
            && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        {
            warn!("cannot raise the limit on open files from {soft} to {hard}: {error}");
        }
        let Self { max, key, name, .. } = self;
        let (limit, fits) = (if raised { needed } else { hard }, self.that_fit());
        if fits < max {
            warn!(
                "the limit on open files, {limit}, holds {fits} {name}, which is the limit now; {key} is {max}: raise the \
                 one (ulimit -n, LimitNOFILE) or lower the other"
            );
        } else {
            debug!("limit on open files: {limit}");
        }
    }

    /// How many the limit on open files holds, or else `max`.
    #[must_use]
    pub fn that_fit(self) -> usize {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        usize::try_from(soft.saturating_sub(OTHER_FILES) / self.files.max(1))
            .unwrap_or(usize::MAX)
            .clamp(1, self.max.max(1))
    }
}
