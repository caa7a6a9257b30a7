//! Names, help texts and labels of metrics.
//!
//! *Architecture invariant:* no hot path looks up a label, because the handle for each label value is created once, at the
//! start. There is no global recorder: each sidecar or broker has its own [`Names`], so that several can run in one process.

use std::fmt;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Counters with the same name and one label: a counter for each known value of the label, and one with the value `other`.
#[derive(Debug)]
pub struct Labelled {
    counters: Vec<(&'static str, Counter)>,
    other: Counter,
}

impl Labelled {
    /// Adds 1 to the counter of `value`, or to the counter of `other` if `value` is not known.
    pub fn increment(&self, value: &str) {
        self.add(value, 1);
    }

    /// Adds `count` to the counter of `value`, or to the counter of `other` if `value` is not known.
    pub fn add(&self, value: &str, count: u64) {
        let found = self.counters.iter().find(|(known, _)| *known == value);
        found.map_or(&self.other, |(_, counter)| counter).increment(count);
    }
}

/// Labels of a metric, each with its value.
type Labels<'l> = &'l [(&'static str, &'l str)];

/// Recorder of one sidecar or broker: creates the handles of its metrics and renders them.
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

    /// Creates a recorder in which each histogram whose name begins with `prefix` has the bucket bounds `bounds`.
    #[must_use]
    pub fn with_buckets(prefix: &str, bounds: &[f64]) -> Self {
        let metrics = Matcher::Prefix(prefix.to_owned());
        // Fails only if `bounds` is empty. Then these histograms become summaries.
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

    fn key(name: &'static str, labels: Labels<'_>) -> Key {
        let labels = labels.iter();
        let labels = labels.map(|(label, value)| Label::new(*label, (*value).to_owned()));
        Key::from_parts(name, labels.collect::<Vec<_>>())
    }

    /// Creates a counter.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        self.recorder.describe_counter(name.into(), None, help.into());
        self.recorder
            .register_counter(&Self::key(name, labels), &Self::METADATA)
    }

    /// Creates a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
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

    /// Creates a counter for each of `values`, and the counter `other` for all other values.
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

    /// Creates a gauge for each pair of a value of the first label and a value of the second label. The gauges are ordered by the
    /// first label, then by the second.
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
