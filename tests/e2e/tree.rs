//! Checks of the source tree for mistakes that no build finds: wrong files in `deploy/`, test files that are not compiled,
//! promises of the sidecar that no source file or no test names, and documents that name or link what does not exist.

use std::path::{Path, PathBuf};

/// The promises of the sidecar have the numbers S1 to S13.
const PROMISES: std::ops::RangeInclusive<u32> = 1..=13;

fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the top of the source tree").to_owned()
}

fn text(path: &str) -> String {
    let path = top().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Returns the lines that are neither empty nor comments.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// systemd compares only the exit code of `ExecStart` with `RestartPreventExitStatus`. With `--check` in `ExecStartPre`, a
/// program with bad settings would be restarted.
#[test]
fn systemd_sees_the_exit_code_of_bad_settings() {
    for (name, program) in [
        ("standin-proxy", "standin-proxy"),
        ("standin-broker", "standin-broker"),
        ("standin-announce", "standin-broker"),
    ] {
        let unit = text(&format!("deploy/{name}.service"));
        let unit = lines(&unit);
        assert!(unit.contains(&"RestartPreventExitStatus=64"), "{name}");
        assert!(
            !unit.iter().any(|line| line.starts_with("ExecStartPre")),
            "{name}"
        );
        let start: Vec<_> = unit
            .iter()
            .filter(|line| line.starts_with("ExecStart="))
            .collect();
        assert_eq!(start.len(), 1, "{name}");
        assert!(
            start[0].starts_with(&format!("ExecStart=/usr/bin/{program} ")),
            "{name}"
        );
    }
}

#[test]
fn an_image_is_built_from_all_sources_without_build_results() {
    let ignored = text(".dockerignore");
    let ignored = lines(&ignored);
    for left_out in [".git", "**/target", "**/node_modules"] {
        assert!(ignored.contains(&left_out), "{left_out}");
    }
    assert_eq!(
        ignored.len(),
        3,
        "the image may need one of the files left out: {ignored:?}"
    );
}

/// The tests of a crate are one binary, so a file that `main.rs` does not name is not compiled.
#[test]
fn every_test_file_is_part_of_its_binary() {
    for folder in [
        "broker/tests",
        "broker/registry/tests",
        "broker/wire/tests",
        "tests/e2e",
    ] {
        let main = text(&format!("{folder}/main.rs"));
        for entry in std::fs::read_dir(top().join(folder)).expect("a folder of tests") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
            let is_module = path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
            if is_module && name != "main" {
                assert!(
                    main.contains(&format!("mod {name};")),
                    "{folder}/main.rs does not name {name}"
                );
            }
        }
    }
}

/// Returns the path below the top and the text of each Rust file below `folder`.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(top().join(folder)).expect("a folder of sources") {
        let entry = entry.expect("an entry");
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            if entry.file_name() != "target" {
                files.append(&mut rust_files(&name));
            }
        } else if name.ends_with(".rs") {
            files.push((name.clone(), text(&name)));
        }
    }
    files
}

/// `error_text.rs` encodes only faults of the component ([`ClientFault`](standin_wire::ClientFault)). The sidecar must not send any
/// other `-ERR` of its own.
#[test]
fn s9_only_one_file_of_the_sidecar_encodes_an_err() {
    let encodes = |text: &str| text.contains("encode::err") || text.contains("b\"-ERR");
    let files = rust_files("proxy/src").into_iter();
    let encoders: Vec<String> = files
        .filter(|(_, text)| encodes(text))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(encoders, ["proxy/src/error_text.rs"]);
}

/// Returns whether a file has only tests.
fn has_only_tests(path: &str) -> bool {
    path.split('/')
        .any(|part| part.starts_with("tests") || part.starts_with("schedules") || part.ends_with("_tests.rs"))
}

/// Returns whether a file has the line `//! Promise S<number>`, or names it among others, as `//! Promises S1 and S2:` does.
fn names_promise(text: &str, number: u32) -> bool {
    let name = format!("S{number}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("//! Promise"));
    lines
        .map(|line| line.split(':').next().unwrap_or(line))
        .any(|names| {
            names
                .split(|letter: char| !letter.is_ascii_alphanumeric())
                .any(|word| word == name)
        })
}

/// Returns all names before a `(` in a file, outside comments. They include the names of all tests, those in `cases!` too.
fn called_names(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('(')).filter_map(|part| {
        part.rsplit(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .next()
    })
}

/// Returns the number of each promise that has a section in `proxy/README.md`.
fn promises_of_the_readme(readme: &str) -> Vec<u32> {
    let sections = readme.split("\n#").filter_map(|section| {
        let (number, _) = section
            .trim_start_matches('#')
            .strip_prefix(" S")?
            .split_once(':')?;
        number.parse().ok()
    });
    sections.collect()
}

#[test]
fn every_promise_is_named_in_the_readme_in_a_source_file_and_in_a_test() {
    let readme = text("proxy/README.md");
    let numbers = promises_of_the_readme(&readme);
    assert_eq!(
        numbers,
        Vec::from_iter(PROMISES),
        "proxy/README.md has one section for each promise, in order"
    );
    let files: Vec<_> = [
        "proxy/src",
        "broker/src",
        "broker/wire",
        "broker/registry",
        "tests/e2e",
    ]
    .into_iter()
    .flat_map(rust_files)
    .collect();
    let (tests, sources): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| has_only_tests(path));
    let mut faults = Vec::new();
    for number in numbers {
        if !sources.iter().any(|(_, text)| names_promise(text, number)) {
            faults.push(format!(
                "S{number}: no source file has the line `//! Promise S{number}`"
            ));
        }
        let prefix = format!("s{number}_");
        let is_shown = files
            .iter()
            .any(|(_, text)| called_names(text).any(|name| name.starts_with(&prefix)))
            || tests.iter().any(|(_, text)| names_promise(text, number));
        if !is_shown {
            faults.push(format!("S{number}: no test begins with `{prefix}`"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Checks the names in backquotes: `a/b.rs` is a file below the crate's `src/` or below the top of the tree, `s4_…` is a test.
#[test]
fn every_file_and_test_that_a_crates_readme_names_exists() {
    let files: Vec<_> = ["proxy/src", "broker", "tests/e2e"]
        .into_iter()
        .flat_map(rust_files)
        .collect();
    let tests: Vec<&str> = files.iter().flat_map(|(_, text)| called_names(text)).collect();
    let mut missing = Vec::new();
    for crate_name in ["proxy", "broker"] {
        let readme = text(&format!("{crate_name}/README.md"));
        for name in readme.split('`').skip(1).step_by(2) {
            let is_file = name.ends_with(".rs") && !name.contains(char::is_whitespace);
            let places = [format!("{crate_name}/src/{name}"), name.to_owned()];
            let is_there = places.iter().any(|place| top().join(place).is_file());
            let is_test = name.starts_with('s')
                && name.contains('_')
                && name[1..].starts_with(|c: char| c.is_ascii_digit());
            if is_file && !is_there || is_test && !tests.contains(&name) {
                missing.push(format!(
                    "{crate_name}/README.md names {name}, which does not exist"
                ));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Returns whether a document has a heading that a link `#name` leads to. The name is made from the heading as on GitHub.
fn has_heading(document: &str, name: &str) -> bool {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .replace(' ', "-")
        })
        .any(|heading| {
            let kept = |letter: &char| letter.is_alphanumeric() || "-_".contains(*letter);
            heading.chars().filter(kept).eq(name.chars())
        })
}

#[test]
fn every_link_between_the_documents_leads_to_a_file_and_its_heading() {
    let deploy = std::fs::read_dir(top().join("deploy")).expect("a folder of documents");
    let documents = deploy
        .map(|entry| {
            format!(
                "deploy/{}",
                entry.expect("an entry").file_name().to_string_lossy()
            )
        })
        .filter(|name| name.ends_with(".md"))
        .chain(["README.md".to_owned()]);
    let mut missing = Vec::new();
    for document in documents {
        let path = top().join(&document);
        for link in text(&document).split("](").skip(1) {
            let link = link.split(')').next().expect("a link");
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() {
                path.clone()
            } else {
                path.with_file_name(target)
            };
            let has_heading = || {
                heading.is_empty()
                    || std::fs::read_to_string(&target).is_ok_and(|text| has_heading(&text, heading))
            };
            if !(link.starts_with("http") || target.exists() && has_heading()) {
                missing.push(format!("{document} has a link to {link}, which does not exist"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// `unsafe` is allowed in one file, which says why.
#[test]
fn only_one_file_has_unsafe_code() {
    let files = ["proxy", "broker", "tests", "examples", "deploy"]
        .into_iter()
        .flat_map(rust_files);
    let allows = |text: &str| {
        text.contains(concat!("allow(unsafe", "_code")) || text.contains(concat!("unsafe", " {"))
    };
    let with: Vec<String> = files
        .filter(|(_, text)| allows(text))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(with, ["broker/daemon/src/descriptors.rs"]);
}
