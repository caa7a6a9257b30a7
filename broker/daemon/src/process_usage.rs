//! Memory, CPU time, open files and start time of this process, from `/proc` (proc_pid_stat(5)), also as metrics.
//!
//! The metrics have the names that the client libraries of Prometheus use, so dashboards for any program show them. They are written as
//! text, because the recorder of the other metrics has no counters with fractions.

use std::fmt::Write as _;
use std::fs;

use rustix::process::{Resource, getrlimit};

/// Ticks per second in `/proc`: the same on every Linux that Rust supports.
const TICKS_PER_SEC: f64 = 100.0;

/// Returns the resident memory in bytes; 0 if `/proc` cannot be read.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Returns the CPU time of this process in seconds.
#[must_use]
pub fn cpu_secs() -> Option<f64> {
    Some((stat_field(14)? + stat_field(15)?) / TICKS_PER_SEC)
}

/// Returns the time at which this process started, in seconds since 1970.
fn started_at_secs() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted_at: f64 = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .parse()
        .ok()?;
    Some(booted_at + stat_field(22)? / TICKS_PER_SEC)
}

/// Returns the number of open files. Since Linux 6.2, stat(2) gives it as the size of `/proc/self/fd`. Older versions give 0, so there
/// the folder is listed, which takes long with thousands of files.
fn open_files() -> Option<u64> {
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 { Some(size) } else { listed_files() }
}

/// Counts the open files by listing `/proc/self/fd`. The listing itself opens one file, which is not counted.
fn listed_files() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as u64)
}

/// Returns a field of `/proc/self/stat`, by its number in proc_pid_stat(5).
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Field 2, the name of the program, is in brackets and may contain spaces, so the fields are counted from the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    fields.nth(number.checked_sub(3)?)?.parse().ok()
}

/// Returns the metrics of this process in the text format of Prometheus.
#[must_use]
pub fn render() -> String {
    let resident = Some(resident_bytes() as f64);
    let open = open_files().map(|count| count as f64);
    let files_max = getrlimit(Resource::Nofile).current.map(|max| max as f64);
    let metrics = [
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the process since its start, in seconds.",
            cpu_secs(),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory of the process.",
            resident,
        ),
        (
            "process_open_fds",
            "gauge",
            "Open files of the process, sockets included.",
            open,
        ),
        (
            "process_max_fds",
            "gauge",
            "Limit on open files of the process.",
            files_max,
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Time at which the process started, in seconds since 1970.",
            started_at_secs(),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in metrics {
        // A limit that is not set is written as infinite, and so is any `None`: a value that cannot be read.
        let value = value.map_or("+Inf".to_owned(), |value| value.to_string());
        // Writing to a `String` never fails.
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_figures_of_this_process_are_read() {
        assert!(resident_bytes() > 100_000);
        assert!(cpu_secs().is_some());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let started = started_at_secs().unwrap();
        assert!(
            (now - 86_400.0..now + 2.0).contains(&started),
            "{started}, now {now}"
        );
        for count in [open_files, listed_files] {
            let before = count().unwrap();
            let _more: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
            assert!(count().unwrap() >= before + 40);
        }
        assert_eq!(
            render()
                .lines()
                .filter(|line| line.starts_with("process_"))
                .count(),
            5
        );
    }
}
