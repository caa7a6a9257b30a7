//! Times of many messages, and what is printed of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Outcome;

/// One message in so many at the start is not counted: caches and schedulers warm up.
pub(crate) const WARM_UP_PART: u64 = 10;
/// What takes longer is counted as this.
const LONGEST: Duration = Duration::from_secs(60);

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Quantiles {
    taken: Histogram<u64>,
}

impl Quantiles {
    /// Of no message yet.
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self {
            taken: Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)?,
        })
    }

    /// One message took so long.
    pub(crate) fn record(&mut self, time: Duration) {
        self.taken.saturating_record(time.as_nanos() as u64);
    }

    /// The result of `measurement`.
    pub(crate) fn result(&self, measurement: &str) -> Value {
        let micros = |quantile| self.taken.value_at_quantile(quantile) as f64 / 1000.0;
        json!({
            "measurement": measurement,
            "messages": self.taken.len(),
            "p50_us": micros(0.5),
            "p99_us": micros(0.99),
            "p999_us": micros(0.999),
            "max_us": self.taken.max() as f64 / 1000.0,
        })
    }
}
