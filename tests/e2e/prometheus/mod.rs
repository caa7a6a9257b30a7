//! Monitoring with Prometheus: the table of metrics, the alert rules and the dashboards in `deploy/`, against the running programs and a
//! real Prometheus.

mod alerts;
mod dashboard;
mod metric;
mod site;
mod table;
