//! Names, help texts and labels of metrics, and their text for Prometheus.
//!
//! *Architecture invariant:* no hot path looks up a label, because the handle for each label value is created once, at the
//! start. There is no global recorder: each sidecar or broker has its own [`Names`], so that several can run in one process.
//!
//! This file renders the text itself. The crate `metrics-exporter-prometheus` calibrates a clock at its start, in a loop of 2 to 200 ms in
//! which sessions would stand still during an upgrade (`tests/bench moves --only upgrade`), and cannot go on with the histograms of another
//! program.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, HistogramFn};

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

/// Counters and histograms for the program that replaces this one: for each series the count, or the samples of each bucket and the bits of
/// the sum.
pub type SavedMetrics = BTreeMap<String, Vec<u64>>;

/// The metrics of one sidecar or broker: creates their handles and renders them.
#[derive(Debug, Default)]
pub struct Names {
    families: Mutex<BTreeMap<&'static str, Family>>,
}

/// All series with one name.
#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: Kind,
    /// By rendered labels: `{a="b"}`, or nothing.
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The values of one series: one number, the bits of a floating-point number for a gauge, or a histogram.
#[derive(Debug, Clone)]
enum Series {
    Number(Arc<AtomicU64>),
    Buckets(Arc<Buckets>),
}

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// Samples in each bucket. The last bucket has no bound.
    counts: Vec<AtomicU64>,
    /// Bits of the sum of all samples.
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0f64.to_bits()),
        }
    }

    fn add_to_sum(&self, value: f64) {
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // Cannot fail, because `add` always returns a value.
        let _ = self.sum.fetch_update(Relaxed, Relaxed, add);
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.add_to_sum(value);
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl Series {
    /// Returns the numbers for the next program.
    fn saved(&self) -> Vec<u64> {
        match self {
            Self::Number(number) => vec![number.load(Relaxed)],
            Self::Buckets(buckets) => {
                let all = buckets.counts.iter().chain([&buckets.sum]);
                all.map(|number| number.load(Relaxed)).collect()
            }
        }
    }

    /// Adds the numbers of the former program. A histogram with another number of buckets is left out.
    fn add(&self, saved: &[u64]) {
        match (self, saved) {
            (Self::Number(number), [more]) => {
                number.fetch_add(*more, Relaxed);
            }
            (Self::Buckets(buckets), [counts @ .., sum]) if counts.len() == buckets.counts.len() => {
                for (count, more) in buckets.counts.iter().zip(counts) {
                    count.fetch_add(*more, Relaxed);
                }
                buckets.add_to_sum(f64::from_bits(*sum));
            }
            _ => {}
        }
    }
}

impl Family {
    /// Appends the text of all series.
    fn render(&self, name: &str, text: &mut String) -> fmt::Result {
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", self.help, self.kind)?;
        for (labels, series) in &self.series {
            match series {
                Series::Number(number) if self.kind == Kind::Gauge => {
                    writeln!(text, "{name}{labels} {}", f64::from_bits(number.load(Relaxed)))?;
                }
                Series::Number(number) => writeln!(text, "{name}{labels} {}", number.load(Relaxed))?,
                Series::Buckets(buckets) => {
                    let mut total = 0;
                    let bounds = buckets.bounds.iter().copied().chain([f64::INFINITY]);
                    for (bound, count) in bounds.zip(&buckets.counts) {
                        total += count.load(Relaxed);
                        let bound = if bound.is_finite() {
                            bound.to_string()
                        } else {
                            "+Inf".to_owned()
                        };
                        writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}")?;
                    }
                    let sum = f64::from_bits(buckets.sum.load(Relaxed));
                    writeln!(text, "{name}_sum {sum}\n{name}_count {total}")?;
                }
            }
        }
        writeln!(text)
    }
}

/// Returns the text of the labels: `{a="b",c="d"}`, or nothing.
fn rendered(labels: Labels<'_>) -> String {
    let escaped = |value: &str| {
        value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
    let pairs = pairs.collect::<Vec<_>>().join(",");
    if pairs.is_empty() {
        pairs
    } else {
        format!("{{{pairs}}}")
    }
}

impl Names {
    /// Returns all metrics in the text format of Prometheus
    /// (<https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &*self.families() {
            // Writing to a string cannot fail.
            let _ = family.render(name, &mut text);
        }
        text
    }

    /// Returns the counters and histograms for the program that replaces this one.
    #[must_use]
    pub fn save(&self) -> SavedMetrics {
        let families = self.families();
        let counting = families.iter().filter(|(_, family)| family.kind != Kind::Gauge);
        let all = counting.flat_map(|(name, family)| {
            let series = family.series.iter();
            series.map(move |(labels, series)| (format!("{name}{labels}"), series.saved()))
        });
        all.collect()
    }

    /// Adds the counters and histograms of the program that this one replaced. Series that do not exist here are left out.
    pub fn restore(&self, saved: &SavedMetrics) {
        for (name, family) in &*self.families() {
            for (labels, series) in family.series.iter().filter(|_| family.kind != Kind::Gauge) {
                if let Some(saved) = saved.get(&format!("{name}{labels}")) {
                    series.add(saved);
                }
            }
        }
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<&'static str, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the series, which is created unless it exists.
    fn series(
        &self,
        (name, help, kind): (&'static str, &'static str, Kind),
        labels: Labels<'_>,
        create: impl FnOnce() -> Series,
    ) -> Series {
        let mut families = self.families();
        let family = families.entry(name).or_insert_with(|| Family {
            help,
            kind,
            series: BTreeMap::new(),
        });
        family
            .series
            .entry(rendered(labels))
            .or_insert_with(create)
            .clone()
    }

    fn number(&self, family: (&'static str, &'static str, Kind), labels: Labels<'_>) -> Arc<AtomicU64> {
        match self.series(family, labels, || Series::Number(Arc::default())) {
            Series::Number(number) => number,
            Series::Buckets(_) => Arc::default(),
        }
    }

    /// Creates a counter.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        Counter::from_arc(self.number((name, help, Kind::Counter), labels))
    }

    /// Creates a gauge.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        Gauge::from_arc(self.number((name, help, Kind::Gauge), labels))
    }

    /// Creates a histogram whose buckets have these upper bounds, in ascending order.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        let create = || Series::Buckets(Arc::new(Buckets::new(bounds)));
        match self.series((name, help, Kind::Histogram), &[], create) {
            Series::Buckets(buckets) => Histogram::from_arc(buckets),
            Series::Number(_) => Histogram::noop(),
        }
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

    const HELP: &str = "A metric.";

    #[test]
    fn counters_and_histograms_go_on_in_another_process() {
        let create = || {
            let names = Names::default();
            let counter = names.counter("c_total", HELP, &[("a", "x y"), ("b", "z\\ \"q\"\n")]);
            let plain = names.counter("p_total", HELP, &[]);
            let gauge = names.gauge("g", HELP, &[]);
            let histogram = names.histogram("h_seconds", HELP, &[0.01, 0.1, 1.0]);
            (names, counter, plain, gauge, histogram)
        };
        let (former, counter, plain, gauge, histogram) = create();
        counter.increment(7);
        plain.increment(1);
        gauge.set(3.5);
        for value in [0.02, 0.1, 0.5, 0.6, 5.0] {
            histogram.record(value);
        }
        let mut saved = former.save();
        saved.insert("unknown_total".to_owned(), vec![4]);
        let (names, counter, ..) = create();
        names.restore(&saved);
        counter.increment(1);
        let _same = names.counter("c_total", HELP, &[("a", "other")]);
        assert_eq!(
            names.render(),
            "# HELP c_total A metric.\n# TYPE c_total counter\n\
             c_total{a=\"other\"} 0\nc_total{a=\"x y\",b=\"z\\\\ \\\"q\\\"\\n\"} 8\n\n\
             # HELP g A metric.\n# TYPE g gauge\ng 0\n\n\
             # HELP h_seconds A metric.\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{le=\"0.01\"} 0\nh_seconds_bucket{le=\"0.1\"} 2\nh_seconds_bucket{le=\"1\"} 4\n\
             h_seconds_bucket{le=\"+Inf\"} 5\nh_seconds_sum 6.22\nh_seconds_count 5\n\n\
             # HELP p_total A metric.\n# TYPE p_total counter\np_total 1\n\n"
        );
        assert!(former.render().contains("\ng 3.5\n"));
        saved.insert("h_seconds".to_owned(), vec![1, 2]);
        names.restore(&saved);
        assert!(names.render().contains("h_seconds_count 5\n"), "other buckets");
    }
}
