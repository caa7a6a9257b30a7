//! Quantiles of many durations, and the result that is printed.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Outcome;

/// The first 1/10 of the messages is not counted, while caches and scheduler warm up.
pub(crate) const WARM_UP_PART: u64 = 10;
/// Longest duration of the histogram. A longer one counts as this.
const LONGEST: Duration = Duration::from_secs(60);

/// Histogram of durations.
#[derive(Debug)]
pub(crate) struct Quantiles {
    taken: Histogram<u64>,
}

impl Quantiles {
    /// Makes an empty histogram.
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self {
            taken: Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)?,
        })
    }

    /// Adds one duration.
    pub(crate) fn record(&mut self, time: Duration) {
        self.taken.saturating_record(time.as_nanos() as u64);
    }

    /// Returns the number of durations.
    pub(crate) fn count(&self) -> u64 {
        self.taken.len()
    }

    /// Returns the result of `measurement`.
    pub(crate) fn result(&self, measurement: &str) -> Value {
        let micros = |quantile| self.taken.value_at_quantile(quantile) as f64 / 1000.0;
        json!({
            "measurement": measurement,
            "messages": self.count(),
            "p50_us": micros(0.5),
            "p99_us": micros(0.99),
            "p999_us": micros(0.999),
            "max_us": self.taken.max() as f64 / 1000.0,
        })
    }
}
