//! The table of metrics in `deploy/metrics.md` is what the two programs export.

use e2e::promtool;

use super::metric::{documented, exported};
use super::site::{broker_of_users, sidecar_with_certificates};

/// Both programs have certificates and the broker has an account, so that all metrics are there.
#[tokio::test]
async fn the_table_of_metrics_is_what_both_programs_export() {
    let (broker, _broker_files) = broker_of_users().await;
    let (builder, _sidecar_files) = sidecar_with_certificates();
    let sidecar = builder.upstream([broker.url()]).start().await;
    let mut found = exported("");
    for http in [broker.http(), &sidecar.http()] {
        let (_, page) = http.get("/metrics").await.expect("the metrics");
        promtool(&["check", "metrics"], &page);
        found.extend(exported(&page));
    }
    let mut table = documented();
    let mut differing = Vec::new();
    for (name, metric) in &found {
        match table.remove(name) {
            Some(row) if row == *metric => {}
            row => differing.push(format!("{name}: the table has {row:#?}, a page has {metric:#?}")),
        }
    }
    let missing = table.keys().map(|name| format!("{name} is not exported"));
    differing.extend(missing);
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
