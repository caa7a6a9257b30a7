//! Paths of the programs under test, and of their peers: the NATS clients and servers that `tests/run` installs.

use std::path::PathBuf;

/// Returns the folder of the peers: `STANDIN_PEERS`, or `peers` in the target folder of this test.
pub fn folder() -> PathBuf {
    let folder =
        std::env::var_os("STANDIN_PEERS").map_or_else(|| target_folder().join("peers"), PathBuf::from);
    assert!(
        folder.is_dir(),
        "the peers are not installed in {}: run tests/run once",
        folder.display()
    );
    folder
}

/// Returns the sidecar's executable: `STANDIN_PROXY_BIN`, or the one built beside this test.
pub fn sidecar_binary() -> PathBuf {
    binary("STANDIN_PROXY_BIN", "standin-proxy")
}

/// Returns the broker's executable: `STANDIN_BROKER_BIN`, or the one built beside this test.
pub fn broker_binary() -> PathBuf {
    binary("STANDIN_BROKER_BIN", "standin-broker")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    let beside = || target_folder().join(profile_folder_name()).join(name);
    let binary = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    assert!(
        binary.is_file(),
        "no {name} at {}: cargo build -p {name}, or tests/run",
        binary.display()
    );
    binary
}

/// Returns the Python interpreter of the peers' virtual environment.
pub(crate) fn python() -> PathBuf {
    folder().join("python/bin/python")
}

/// Returns the path of Node.js: from the Python virtual environment if `tests/run` installed it there, else from `PATH`.
pub fn node() -> PathBuf {
    let ours = folder().join("python/bin/node");
    if ours.is_file() { ours } else { "node".into() }
}

/// Returns the path of a file of `tests/components`.
pub fn component_source(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("components")
        .join(name)
}

/// Returns the folder `levels_up` levels above this test's executable, `target/PROFILE/deps/e2e-HASH`.
fn own_folder(levels_up: usize) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors().nth(levels_up).unwrap_or(&own).to_path_buf()
}

fn target_folder() -> PathBuf {
    own_folder(3)
}

fn profile_folder_name() -> PathBuf {
    own_folder(2).file_name().unwrap_or_default().into()
}
