//! Resources of a process, from `/proc`. A test compares them before and after to see that nothing leaks.

use std::path::Path;
use std::time::Duration;

/// Clock ticks per second in `/proc/PID/stat`, fixed by the kernel's interface.
const TICKS_PER_SEC: u64 = 100;

/// Resources of a process at one moment. All are zero if the process does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Number of threads.
    pub threads: usize,
    /// Number of open files, sockets included.
    pub open_files: usize,
    /// Resident memory, in KiB.
    pub resident_kib: u64,
    /// CPU time used so far, user and system.
    pub cpu_time: Duration,
}

impl Figures {
    /// Reads the resources of the process with this id.
    pub fn of(pid: u32) -> Self {
        let folder = format!("/proc/{pid}");
        let folder = Path::new(&folder);
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let count = |name: &str| std::fs::read_dir(folder.join(name)).map_or(0, Iterator::count);
        Self {
            threads: count("task"),
            open_files: count("fd"),
            resident_kib: resident_kib(&text("status")),
            cpu_time: cpu_time(&text("stat")),
        }
    }
}

fn resident_kib(status: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

fn cpu_time(stat: &str) -> Duration {
    // The second field is the name in parentheses, which may contain blanks. Fields 14 and 15 are utime and stime.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: u64 = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SEC)
}
