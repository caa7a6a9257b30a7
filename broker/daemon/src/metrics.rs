//! Names, help texts and labels of metrics.
//!
//! *Architecture invariant:* no hot path looks up a label. The handles are created once, one per label value. There is no
//! global recorder: each running program has its own [`Names`], so that several can run in one process.

use std::fmt;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Counters with one name, one per value of one label.
#[derive(Debug)]
pub struct Labelled {
    counters: Vec<(&'static str, Counter)>,
    other: Counter,
}

impl Labelled {
    /// Adds 1 to the counter of `value`, or to that of `other` if there is none for `value`.
    pub fn increment(&self, value: &str) {
        self.add(value, 1);
    }

    /// Adds `count` to the counter of `value`, or to that of `other` if there is none for `value`.
    pub fn add(&self, value: &str, count: u64) {
        let found = self.counters.iter().find(|(known, _)| *known == value);
        found.map_or(&self.other, |(_, counter)| counter).increment(count);
    }
}

/// Creates the handles of metrics.
pub struct Names {
    recorder: PrometheusRecorder,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            recorder: PrometheusBuilder::new().build_recorder(),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

    /// Creates a value whose histograms with names beginning with `prefix` have the bucket bounds `bounds`.
    #[must_use]
    pub fn with_buckets(prefix: &str, bounds: &[f64]) -> Self {
        let metrics = Matcher::Prefix(prefix.to_owned());
        // The only possible error is an empty list of bounds. The histogram is a summary then.
        let builder = PrometheusBuilder::new().set_buckets_for_metric(metrics, bounds);
        Self {
            recorder: builder.unwrap_or_default().build_recorder(),
        }
    }

    /// Returns the handle that renders all metrics created here.
    #[must_use]
    pub fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }

    fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
        let labels: Vec<Label> = labels
            .iter()
            .map(|(label, value)| Label::from_static_parts(label, value))
            .collect();
        Key::from_parts(name, labels)
    }

    /// Creates a counter.
    pub fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Counter {
        self.recorder.describe_counter(name.into(), None, help.into());
        self.recorder
            .register_counter(&Self::key(name, labels), &Self::METADATA)
    }

    /// Creates a gauge.
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Gauge {
        self.recorder.describe_gauge(name.into(), None, help.into());
        self.recorder
            .register_gauge(&Self::key(name, labels), &Self::METADATA)
    }

    /// Creates a histogram of seconds.
    pub fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        self.recorder
            .describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        self.recorder
            .register_histogram(&Self::key(name, &[]), &Self::METADATA)
    }

    /// Creates a counter for each of `values`, and one for all other values.
    pub fn labelled(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: &'static [&'static str],
    ) -> Labelled {
        let counter = |value| self.counter(name, help, &[(label, value)]);
        Labelled {
            counters: values.iter().map(|value| (*value, counter(value))).collect(),
            other: counter("other"),
        }
    }

    /// Creates a gauge for each pair of label values. They are ordered by the first label, then by the second.
    #[must_use]
    pub fn grid(
        &self,
        name: &'static str,
        help: &'static str,
        (row, rows): (&'static str, &[&'static str]),
        (column, columns): (&'static str, &[&'static str]),
    ) -> Vec<Gauge> {
        let pairs = rows
            .iter()
            .flat_map(|first| columns.iter().map(move |second| (*first, *second)));
        pairs
            .map(|(first, second)| self.gauge(name, help, &[(row, first), (column, second)]))
            .collect()
    }
}
