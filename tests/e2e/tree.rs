//! Checks of the source tree for mistakes that no build finds: in `deploy/`, and test files that are not compiled.

use std::path::{Path, PathBuf};

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

/// systemd compares only the exit code of `ExecStart` with `RestartPreventExitStatus`. With `--check` in `ExecStartPre` it started
/// a program with bad settings five times.
#[test]
fn systemd_sees_the_exit_code_of_bad_settings() {
    for name in ["standin-proxy", "standin-broker"] {
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
            start[0].starts_with(&format!("ExecStart=/usr/local/bin/{name} ")),
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
        "the image may need what else is left out: {ignored:?}"
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
