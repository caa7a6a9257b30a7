//! A short soak (`tests/soak`): the whole system with real components, every fault once, and every promise checked. Before it,
//! the checkers are tested: errors are planted in a relay, and each must be found.

use e2e::{Program, peers};
use std::path::Path;
use std::time::Duration;

/// Every fault happens once, however short the run is.
const MINUTES: &str = "0.1";
const TIMEOUT: Duration = Duration::from_secs(170);

#[tokio::test]
async fn every_promise_is_kept_while_every_fault_happens_once() {
    let folder = tempfile::TempDir::new().expect("a folder for the report");
    let report = folder.path().join("report.html");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("soak");
    let mut soak = Program::new(script)
        .args([MINUTES, "--report"])
        .arg(&report)
        .env("STANDIN_PROXY_BIN", peers::sidecar_binary())
        .env("STANDIN_BROKER_BIN", peers::broker_binary())
        .env("STANDIN_PEERS", peers::folder())
        .start("soak");
    let status = soak.wait_for_end(TIMEOUT).await;
    let output: Vec<String> = soak.lines().iter().map(|line| line.text.clone()).collect();
    assert!(status.success(), "{status}:\n{}", output.join("\n"));
    let text = std::fs::read_to_string(&report).expect("the report");
    assert!(text.contains("every promise was kept") && text.contains("<svg"));
}
