//! The commands that a document tells its reader to run, for tests that run them as they stand.

use std::path::Path;

/// Returns the blocks of shell commands (```` ```sh ````) below a heading of a document, up to the next heading. `document` is the path below
/// the top of the source tree.
#[track_caller]
pub fn commands(document: &str, heading: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {document}: {error}"));
    let (mut blocks, mut is_below, mut block) = (Vec::new(), false, None::<String>);
    for line in text.lines() {
        match &mut block {
            Some(lines) if line.trim_start().starts_with("```") => {
                blocks.extend(Some(std::mem::take(lines)).filter(|_| is_below));
                block = None;
            }
            Some(lines) => lines.push_str(&format!("{line}\n")),
            None if line.trim() == "```sh" => block = Some(String::new()),
            None if line.starts_with('#') => is_below = line.trim_start_matches('#').trim() == heading,
            None => {}
        }
    }
    assert!(!blocks.is_empty(), "{document} has no commands below {heading:?}");
    blocks
}
