//! `deploy/grafana/arc-relay.json`: a dashboard that Grafana can read, of queries that Prometheus understands, over
//! metrics that there are.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;
use tests::Relay;

use crate::{
    metrics::{names, scraped},
    promtool::{deploy, labels_in, metrics_in, promtool, text},
};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

fn dashboard() -> Value {
    serde_json::from_str(&text(&deploy("grafana/arc-relay.json"))).expect("it is JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    let panels = dashboard["panels"].as_array().expect("it has panels");
    assert!(panels.len() > 20, "they were read wrongly");
    panels
}

/// All queries, as Prometheus gets them: variables have values.
fn queries(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).iter().filter_map(|panel| panel["targets"].as_array());
    let expr = |target: &Value| target["expr"].as_str().expect("a target has a query").to_owned();
    let annotations = dashboard["annotations"]["list"].as_array().expect("there are annotations");
    let all = targets.flatten().chain(annotations).map(expr);
    all.map(|expr| {
        let plain =
            expr.replace("$__rate_interval", "5m").replace("$job", "a").replace("$instance", "b");
        assert!(!plain.contains('$'), "an unknown variable: {expr}");
        plain
    })
    .collect()
}

#[test]
fn prometheus_understands_every_query() {
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (n, query) in queries(&dashboard()).iter().enumerate() {
        let query = Value::from(query.as_str());
        writeln!(rules, "      - record: query:{n}\n        expr: {query}")
            .expect("a String takes it");
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rules.yml"), rules).expect("it can be written");
    promtool(&["check", "rules", "rules.yml"], folder.path(), "");
}

#[tokio::test]
async fn a_relay_tells_what_the_dashboard_asks_for() {
    let relay = Relay::start();
    let scrape = scraped(&relay).await;
    let told = names(&scrape);
    for query in queries(&dashboard()) {
        for name in metrics_in(&query) {
            assert!(told.contains(name), "no relay tells {name}: {query}");
        }
        let labels = labels_in(&query).into_iter();
        for (name, label, value) in
            labels.filter(|(_, label, _)| !["job", "instance"].contains(label))
        {
            let label = format!("{label}=\"{value}\"");
            let there = scrape.lines().any(|line| line.starts_with(name) && line.contains(&label));
            assert!(there, "no relay tells {name} with {label}");
        }
    }
}

#[test]
fn panels_are_laid_out_and_say_what_they_show() {
    let dashboard = dashboard();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a panel has a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a panel has a place");
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title} does not fit");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(cell), "{title} lies on another");
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 5), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(panel["fieldConfig"]["defaults"].is_object(), "{title}");
        }
    }
    let rows: Vec<_> = panels(&dashboard).iter().filter(|panel| panel["type"] == "row").collect();
    assert_eq!(rows.len(), 8);
    let variables = dashboard["templating"]["list"].as_array().expect("there are variables");
    let variables: Vec<_> = variables.iter().map(|v| v["name"].as_str().expect("a name")).collect();
    assert_eq!(variables, ["datasource", "job", "instance"]);
}
