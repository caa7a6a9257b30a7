//! The log lines that `deploy/trouble.md` names, and the metrics that any document in `deploy/` names, are in the source.

use e2e::machine::top;
use std::collections::BTreeSet;
use std::path::Path;

const SOURCES: [&str; 5] = [
    "proxy/src",
    "broker/src",
    "broker/daemon/src",
    "broker/registry/src",
    "broker/tls/src",
];

/// Appends the texts of all Rust files below a folder.
fn read_sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            texts.push(one_line_literals(&text));
        }
    }
}

/// Joins the lines of each string literal that is continued on the next line by a backslash.
fn one_line_literals(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

fn sources() -> Vec<String> {
    let mut texts = Vec::new();
    for folder in SOURCES {
        read_sources(&top().join(folder), &mut texts);
    }
    texts
}

/// Returns whether a text has all parts of a log line in this order, within one call of the macro of its level. `…` in the line stands for
/// what varies.
fn has_log_line(text: &str, level: &str, line: &str) -> bool {
    let call = format!("{}!(", level.to_lowercase());
    text.split(&call).skip(1).any(|after| {
        let statement = after.split(");\n").next().unwrap_or_default();
        let mut rest = statement;
        line.split('…').map(str::trim).all(|part| {
            let found = rest.find(part);
            rest = found.map_or("", |at| &rest[at + part.len()..]);
            found.is_some()
        })
    })
}

/// Returns the texts between backquotes.
fn code_spans(document: &str) -> impl Iterator<Item = &str> {
    document.split('`').skip(1).step_by(2)
}

#[test]
fn every_log_line_in_the_guide_is_in_the_source_at_its_level() {
    let guide = std::fs::read_to_string(top().join("deploy/trouble.md")).expect("the guide");
    let guide = guide.replace('\n', " ");
    let sources = sources();
    let lines = code_spans(&guide).filter_map(|span| {
        let (level, line) = span.split_once(' ')?;
        matches!(level, "ERROR" | "WARN" | "INFO").then_some((level, line))
    });
    let lines: BTreeSet<_> = lines.collect();
    assert!(lines.len() >= 30, "the guide names {} lines", lines.len());
    let is_there = |(level, line): &&(&str, &str)| sources.iter().any(|text| has_log_line(text, level, line));
    let missing: Vec<_> = lines.iter().filter(|line| !is_there(line)).collect();
    assert!(missing.is_empty(), "not in the source: {missing:#?}");
}

#[test]
fn every_metric_in_the_documents_is_in_the_source() {
    let sources = sources();
    let mut missing = BTreeSet::new();
    let mut count = 0;
    for entry in std::fs::read_dir(top().join("deploy")).expect("the documents") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let document = std::fs::read_to_string(&path).expect("a document");
        for span in code_spans(&document) {
            let name: String = span
                .chars()
                .take_while(|letter| letter.is_ascii_lowercase() || *letter == '_')
                .collect();
            // A name that ends with an underscore stands for several.
            if !name.starts_with("standin_") || name.ends_with('_') {
                continue;
            }
            count += 1;
            let literal = format!("\"{name}\"");
            if !sources.iter().any(|text| text.contains(&literal)) {
                missing.insert((path.file_name().map(ToOwned::to_owned), name));
            }
        }
    }
    assert!(
        count >= 20 && missing.is_empty(),
        "{count} names; not in the source: {missing:#?}"
    );
}
