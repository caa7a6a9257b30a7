//! CPU usage of this process, in percent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use standin_daemon::process_usage::cpu_secs;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_usage_of_this_process_is_measured() {
        let start = Instant::now();
        let usage = Usage::new();
        while start.elapsed() < Duration::from_millis(150) {}
        let percent = usage.cpu_percent();
        assert!(percent > 10.0, "{percent} % in a busy loop");
    }
}
