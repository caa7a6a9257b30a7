//! The dashboards for Grafana: each expression works on a real Prometheus and has data.

use std::panic::Location;

use e2e::{Prometheus, TIMEOUT, settled};
use serde_json::Value;

use super::metric::{deployed, documented, named_in};

/// Checks all expressions of a dashboard. An expression with a condition (`> 0`, `== 0`) may have no data.
pub(super) async fn works_on(prometheus: &Prometheus, file: &str) {
    let text = deployed(file);
    let table = documented();
    let unknown: Vec<String> = named_in(&text)
        .into_iter()
        .filter(|name| !table.contains_key(name))
        .collect();
    assert!(unknown.is_empty(), "{file}: {unknown:?}");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 15, "{file}");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    for target in targets {
        let expression = target["expr"].as_str().expect("an expression");
        let expression = expression
            .replace("$instance", ".+")
            .replace("$__rate_interval", "5s");
        let may_be_empty = ["> 0", "== 0"].iter().any(|sign| expression.contains(sign));
        // A rate has data after the second scrape.
        let what = format!("{file}: {expression} has data");
        settled(Location::caller(), &what, TIMEOUT, async || {
            match prometheus.query(&expression).await {
                Ok(series) if series.is_empty() && !may_be_empty => Err("no data".to_owned()),
                answer => answer.map(drop),
            }
        })
        .await;
    }
}
