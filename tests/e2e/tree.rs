//! What can be wrong in the source tree without anybody noticing until it is used: `deploy/`, and tests that nobody runs.

use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the top of the source tree").to_owned()
}

fn text(path: &str) -> String {
    let path = top().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Lines that are no comments.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// systemd looks at the exit code of `ExecStart` alone: with a `--check` in `ExecStartPre`, bad settings were five starts.
#[test]
fn the_exit_code_of_bad_settings_is_that_of_the_command_that_systemd_looks_at() {
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
fn an_image_is_built_of_the_sources_and_not_of_what_was_built_here() {
    let ignored = text(".dockerignore");
    let ignored = lines(&ignored);
    for left_out in [".git", "**/target", "**/node_modules"] {
        assert!(ignored.contains(&left_out), "{left_out}");
    }
    assert_eq!(
        ignored.len(),
        3,
        "what else is left out may be needed: {ignored:?}"
    );
}

/// Each crate's tests are one binary, so a file that `main.rs` does not name would never be compiled.
#[test]
fn every_file_of_tests_is_part_of_their_binary() {
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
