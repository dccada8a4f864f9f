//! What machines watch: `/metrics` as Prometheus reads it, the alerts, the dashboard for Grafana, log files, traces.
//!
//! Each file of `deploy/` is held against the tool that is made for it and against the metrics of a relay
//! that runs.

mod alerts;
mod dashboard;
mod logs;
mod metrics;
mod promtool;
mod traces;
