//! Memory and CPU of this process, from `/proc` (proc_pid_stat(5)).

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ticks per second in `/proc`: the same on every Linux that Rust supports.
const TICKS_PER_SEC: f64 = 100.0;

/// CPU usage between successive measurements.
#[derive(Debug)]
pub(super) struct Usage {
    /// Time of the last measurement, CPU seconds used until then, and result.
    last: Mutex<(Instant, f64, f64)>,
}

impl Usage {
    pub(super) fn new() -> Self {
        Self {
            last: Mutex::new((Instant::now(), cpu_secs().unwrap_or(0.0), 0.0)),
        }
    }

    /// Returns the CPU usage since the last measurement, in percent of one core. Measures at most every 100 ms.
    pub(super) fn cpu_percent(&self) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, (at, used, percent)) = (Instant::now(), *last);
        let passed = now.duration_since(at);
        if passed < Duration::from_millis(100) {
            return percent;
        }
        let used_now = cpu_secs().unwrap_or(used);
        let percent = ((used_now - used) / passed.as_secs_f64() * 1000.0).round() / 10.0;
        *last = (now, used_now, percent);
        percent
    }
}

/// Returns the resident memory in bytes; 0 if `/proc` cannot be read.
pub(super) fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Returns the CPU time of this process in seconds.
pub(super) fn cpu_secs() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in brackets and may contain spaces, so the fields are counted from the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_of_this_process_are_measured() {
        assert!(resident_bytes() > 100_000);
        let start = Instant::now();
        let usage = Usage::new();
        while start.elapsed() < Duration::from_millis(150) {}
        let percent = usage.cpu_percent();
        assert!(percent > 10.0, "{percent} % in a busy loop");
    }
}
