//! A metric: its type, help text and labels, from the table in `deploy/metrics.md` or from a page.

use std::collections::{BTreeMap, BTreeSet};

/// A metric without its values.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metric {
    kind: String,
    help: String,
    /// The values of each label; `None` for the labels in [`OPEN_LABELS`].
    labels: BTreeMap<String, Option<BTreeSet<String>>>,
}

/// Metrics by name.
pub(super) type Metrics = BTreeMap<String, Metric>;

/// Labels whose values are not listed, because they depend on the settings or on the version of the program.
const OPEN_LABELS: [&str; 3] = ["account", "door", "version"];

/// Returns a text of the folder `deploy`.
pub(super) fn deployed(file: &str) -> String {
    let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Returns the metrics of the table.
pub(super) fn documented() -> Metrics {
    let text = deployed("metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let metrics = rows.map(|row| {
        let row = format!("`{row}");
        let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help, advice] = cells[..] else {
            panic!("a row has five cells: {row}")
        };
        assert!(!advice.is_empty(), "{name} says what to do");
        let labels = labels.split("; ").filter(|label| !label.is_empty());
        let metric = Metric {
            kind: kind.to_owned(),
            help: help.to_owned(),
            labels: labels.map(documented_label).collect(),
        };
        (name.trim_matches('`').to_owned(), metric)
    });
    metrics.collect()
}

/// Parses `direction: in, out`, or `account` alone.
fn documented_label(text: &str) -> (String, Option<BTreeSet<String>>) {
    let (name, values) = text.split_once(": ").unwrap_or((text, ""));
    let values = values.split(", ").filter(|value| !value.is_empty());
    let values: BTreeSet<String> = values.map(str::to_owned).collect();
    (
        name.to_owned(),
        Some(values).filter(|_| !OPEN_LABELS.contains(&name)),
    )
}

/// Returns the metrics of a page.
pub(super) fn exported(page: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help.clone_into(&mut metrics.entry(name.to_owned()).or_default().help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            kind.clone_into(&mut metrics.entry(name.to_owned()).or_default().kind);
        } else if let Some((series, _)) = line.rsplit_once(' ') {
            add_series(&mut metrics, series);
        }
    }
    metrics
}

/// Adds the labels of a series such as `name{label="value"}`.
fn add_series(metrics: &mut Metrics, series: &str) {
    let (name, labels) = series
        .trim_end_matches('}')
        .split_once('{')
        .unwrap_or((series, ""));
    let metric = metrics.entry(family(name).to_owned()).or_default();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (label, value) = label.split_once('=').expect("a label and its value");
        if label == "le" {
            continue;
        }
        let is_open = OPEN_LABELS.contains(&label);
        let values = metric.labels.entry(label.to_owned());
        let values = values.or_insert_with(|| (!is_open).then(BTreeSet::new));
        if let Some(values) = values {
            values.insert(value.trim_matches('"').to_owned());
        }
    }
}

/// Returns the name of a metric, without the endings of the series of a histogram.
fn family(name: &str) -> &str {
    let endings = ["_bucket", "_sum", "_count"];
    let stripped = endings.iter().find_map(|ending| name.strip_suffix(ending));
    stripped.unwrap_or(name)
}

/// Returns the names of all metrics that occur in a text, such as an expression.
pub(super) fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let names = words.filter(|word| word.starts_with("standin_") || word.starts_with("process_"));
    names.map(|name| family(name).to_owned()).collect()
}
