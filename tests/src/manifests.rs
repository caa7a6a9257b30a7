//! The manifests of `deploy/` as JSON, after their validators have accepted them: the schemas of Kubernetes and of Compose, and Helm.
//!
//! `manifests.py` beside this file does the work, with packages of the peers' virtual environment.

use crate::peers;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// Returns the objects of a file for `kubectl apply`, or what is wrong in it.
///
/// # Errors
/// The text of the validator.
pub fn kubernetes(file: &Path) -> Result<Vec<Value>, String> {
    list(&["kubernetes".as_ref(), file.as_os_str()])
}

/// Returns the objects that the Helm chart in `folder` makes with these values.
///
/// # Errors
/// The text of Helm or of the validator.
pub fn chart(folder: &Path, values: &Value) -> Result<Vec<Value>, String> {
    list(&["chart".as_ref(), folder.as_os_str(), values.to_string().as_ref()])
}

/// Returns the content of a Compose file.
///
/// # Errors
/// The text of the validator.
pub fn compose(file: &Path) -> Result<Value, String> {
    let schema = peers::folder().join("node-compose/node_modules/dclint/schemas/compose.schema.json");
    validated(&["compose".as_ref(), file.as_os_str(), schema.as_os_str()])
}

/// Runs the linter of Containerfiles. Returns what it finds, which is empty for a good file.
pub fn lint(containerfile: &Path) -> String {
    let hadolint = peers::folder().join("python/bin/hadolint");
    let output = Command::new(&hadolint).arg(containerfile).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", hadolint.display()));
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn list(arguments: &[&OsStr]) -> Result<Vec<Value>, String> {
    match validated(arguments)? {
        Value::Array(objects) => Ok(objects),
        other => Err(format!("not a list: {other}")),
    }
}

fn validated(arguments: &[&OsStr]) -> Result<Value, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifests.py");
    let output = Command::new(peers::python()).arg(script).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
