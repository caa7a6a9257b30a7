//! Names, help texts and labels of metrics.
//!
//! *Architecture invariant:* no hot path looks up a label, because the handle for each label value is created once, at the
//! start. There is no global recorder: each sidecar or broker has its own [`Names`], so that several can run in one process.

use std::collections::{BTreeMap, HashSet};
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

/// A rendered histogram.
#[derive(Debug, Default)]
struct Buckets {
    /// Upper bound of each bucket, with the number of samples up to it.
    cumulated: Vec<(f64, u64)>,
    sum: f64,
}

impl Buckets {
    /// Returns samples with the same buckets and, as far as the buckets allow, the same sum: a value and its number for each bucket.
    fn samples(&self) -> Vec<(f64, u64)> {
        let (mut low, mut below) = (0.0, 0);
        let mut buckets = Vec::new();
        for (bound, upto) in &self.cumulated {
            let high = if bound.is_finite() { *bound } else { 2.0 * low };
            buckets.push((low, high, upto.saturating_sub(below)));
            (low, below) = (high, *upto);
        }
        let total =
            |of: fn(&(f64, f64, u64)) -> f64| buckets.iter().map(|one| of(one) * one.2 as f64).sum::<f64>();
        let (least, most) = (total(|one| one.0), total(|one| one.1));
        // Not 0: a value on the lower bound would belong to the bucket below.
        let place = ((self.sum - least) / (most - least).max(f64::MIN_POSITIVE)).clamp(0.001, 1.0);
        let samples = buckets.into_iter().filter(|(.., count)| *count > 0);
        samples
            .map(|(low, high, count)| (low + place * (high - low), count))
            .collect()
    }
}

/// Returns the name and the labels on a rendered line; `None` if the line has no value.
fn series_of(line: &str) -> Option<&str> {
    let is_value = !line.starts_with('#') && !line.is_empty();
    line.rsplit_once(' ')
        .map(|(series, _)| series)
        .filter(|_| is_value)
}

/// Returns the labels in `name="value",…}`. No value of this program has a quote or a comma.
fn labels_of(text: &str) -> Vec<Label> {
    let pairs = text
        .trim_end_matches('}')
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| Label::new(name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
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

    /// Adds the counters and histograms of a process that this one replaced. `former` is what it last rendered. Series that do not exist here
    /// are left out.
    pub fn restore(&self, former: &str) {
        let own = self.handle().render();
        let own: HashSet<&str> = own.lines().filter_map(series_of).collect();
        let (mut kind, mut histograms) = ("", BTreeMap::<&str, Buckets>::new());
        for line in former.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                kind = declared.rsplit(' ').next().unwrap_or_default();
            }
            let Some((series, value)) = series_of(line).zip(line.rsplit(' ').next()) else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match kind {
                "counter" if own.contains(series) => {
                    let key = Key::from_parts(name.to_owned(), labels_of(labels));
                    let counter = self.recorder.register_counter(&key, &Self::METADATA);
                    counter.increment(value as u64);
                }
                "histogram" if own.contains(series) => {
                    if let Some(name) = name.strip_suffix("_bucket") {
                        let bound = labels_of(labels)
                            .first()
                            .and_then(|bound| bound.value().parse().ok());
                        let buckets = &mut histograms.entry(name).or_default().cumulated;
                        buckets.push((bound.unwrap_or(f64::INFINITY), value as u64));
                    } else if let Some(name) = name.strip_suffix("_sum") {
                        histograms.entry(name).or_default().sum = value;
                    }
                }
                _ => {}
            }
        }
        for (name, buckets) in histograms {
            let key = Key::from_name(name.to_owned());
            let histogram = self.recorder.register_histogram(&key, &Self::METADATA);
            for (value, count) in buckets.samples() {
                histogram.record_many(value, count as usize);
            }
            self.handle().run_upkeep();
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histograms_go_on_in_another_process() {
        let create = || {
            let names = Names::with_buckets("h", &[0.01, 0.1, 1.0]);
            let counter = names.counter("c_total", "A counter.", &[("a", "x y"), ("b", "z")]);
            let plain = names.counter("p_total", "A counter.", &[]);
            let gauge = names.gauge("g", "A gauge.", &[]);
            let histogram = names.histogram("h_seconds", "A histogram.");
            (names, counter, plain, gauge, histogram)
        };
        let (former, counter, plain, gauge, histogram) = create();
        counter.increment(7);
        plain.increment(1);
        gauge.set(3.0);
        for value in [0.02, 0.05, 0.5, 0.6, 5.0] {
            histogram.record(value);
        }
        let former = former.handle().render() + "unknown_total 4\n# TYPE odd counter\nodd 1\n";
        let (names, counter, ..) = create();
        names.restore(&former);
        counter.increment(1);
        let text = names.handle().render();
        for line in [
            "c_total{a=\"x y\",b=\"z\"} 8",
            "p_total 1",
            "g 0",
            "h_seconds_bucket{le=\"0.01\"} 0",
            "h_seconds_bucket{le=\"0.1\"} 2",
            "h_seconds_bucket{le=\"1\"} 4",
            "h_seconds_bucket{le=\"+Inf\"} 5",
            "h_seconds_count 5",
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(!text.contains("odd") && !text.contains("unknown"));
    }
}
