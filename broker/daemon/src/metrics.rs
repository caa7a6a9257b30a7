//! How metrics get their names, help texts and labels.
//!
//! *Architecture invariant:* no label is looked up on a hot path: handles are made once, one for each label value. There is no
//! global recorder: each running program has its own [`Names`], so several can live in one process.

use std::fmt;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Counters of one name, one for each value of one label.
#[derive(Debug)]
pub struct Labelled {
    counters: Vec<(&'static str, Counter)>,
    other: Counter,
}

impl Labelled {
    /// Counts one for `value`; a value that was not foreseen counts as `other`.
    pub fn increment(&self, value: &str) {
        self.add(value, 1);
    }

    /// Counts `count` for `value`; a value that was not foreseen counts as `other`.
    pub fn add(&self, value: &str, count: u64) {
        let found = self.counters.iter().find(|(known, _)| *known == value);
        found.map_or(&self.other, |(_, counter)| counter).increment(count);
    }
}

/// Makes handles with their names and help texts.
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

    /// Handles of which the histogram `name` has these bounds.
    #[must_use]
    pub fn with_buckets(prefix: &str, bounds: &[f64]) -> Self {
        let metrics = Matcher::Prefix(prefix.to_owned());
        // The only error is an empty list of bounds; a summary without bounds would be served then.
        let builder = PrometheusBuilder::new().set_buckets_for_metric(metrics, bounds);
        Self {
            recorder: builder.unwrap_or_default().build_recorder(),
        }
    }

    /// What renders all series made here.
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

    /// A counter.
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

    /// A gauge.
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

    /// A histogram of seconds.
    pub fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        self.recorder
            .describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        self.recorder
            .register_histogram(&Self::key(name, &[]), &Self::METADATA)
    }

    /// A counter for each of `values`, and one for all others.
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

    /// A gauge for each pair of values; the second label runs faster.
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
