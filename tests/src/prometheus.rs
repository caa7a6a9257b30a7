//! A real Prometheus that scrapes the programs under test, and its tool `promtool`. Both are Debian's package `prometheus`.

use crate::condition::eventually;
use crate::http::Endpoint;
use crate::port::free_address;
use crate::process::{Process, Program};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    http: Endpoint,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with these jobs, each with its targets, and these texts of rule files. It scrapes and evaluates four times a
    /// second.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(jobs: &[(&str, &[SocketAddr])], rules: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder for Prometheus");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let mut settings =
            "global: { scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms }\n"
                .to_owned();
        settings += "rule_files: [\"rules-*.yml\"]\nscrape_configs:\n";
        for (job, targets) in jobs {
            let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                settings,
                "  - {{ job_name: {job}, static_configs: [{{ targets: {targets:?} }}] }}"
            );
        }
        std::fs::write(file("prometheus.yml"), settings).expect("the settings are written");
        for (number, rules) in rules.iter().enumerate() {
            std::fs::write(file(&format!("rules-{number}.yml")), rules).expect("the rules are written");
        }
        let address = free_address();
        let mut process = Program::new("prometheus")
            .arg(format!("--config.file={}", file("prometheus.yml")))
            .arg(format!("--storage.tsdb.path={}", file("data")))
            .arg(format!("--web.listen-address={address}"))
            .start("prometheus");
        let http = Endpoint { address, netns: None };
        eventually("Prometheus is ready", START_TIMEOUT, async || {
            assert!(process.is_running(), "Prometheus ended:\n{}", process.tail());
            http.get("/-/ready")
                .await
                .is_some_and(|(status, _)| status == 200)
        })
        .await;
        Self {
            http,
            _process: process,
            _folder: folder,
        }
    }

    /// Returns the series of the result of an expression.
    ///
    /// # Errors
    /// The answer of Prometheus to an invalid expression.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            let _ = write!(path, "%{byte:02X}");
        }
        let (status, body) = self.http.get(&path).await.ok_or("no answer")?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{status}: {error}"))?;
        let result = answer["data"]["result"].as_array().filter(|_| status == 200);
        result.cloned().ok_or(body)
    }

    /// Returns the values of a label in the result of an expression.
    ///
    /// # Panics
    /// If the expression is invalid.
    pub async fn labels(&self, expression: &str, label: &str) -> BTreeSet<String> {
        let series = self.query(expression).await;
        let series = series.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let values = series.iter().filter_map(|one| one["metric"][label].as_str());
        values.map(str::to_owned).collect()
    }
}

/// Runs `promtool` with these arguments and this input.
///
/// # Panics
/// If it reports an error.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.spawn();
    let mut child = started.unwrap_or_else(|error| panic!("promtool (Debian's package prometheus): {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended because of an error, which is reported below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .unwrap_or_else(|error| panic!("promtool: {error}"));
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(
        output.status.success(),
        "promtool {arguments:?}:\n{}",
        text.concat()
    );
}
