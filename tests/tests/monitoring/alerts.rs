//! `deploy/prometheus`: the alerts, their tests, and the example of a configuration.

use std::collections::BTreeSet;

use tests::{Relay, repository};

use crate::{
    metrics::{names, scraped},
    promtool::{deploy, labels_in, metrics_in, promtool, text},
};

/// The names of the alerts.
fn alerts(rules: &str) -> Vec<&str> {
    let names: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 20, "they were read wrongly: {names:?}");
    names
}

/// A file without its comments.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

#[test]
fn promtool_takes_the_alerts_and_the_configuration() {
    let folder = deploy("prometheus");
    promtool(&["check", "config", "prometheus.yml"], &folder, "");
}

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let folder = deploy("prometheus");
    promtool(&["test", "rules", "alerts_test.yml"], &folder, "");
    let (rules, tested) = (text(&folder.join("alerts.yml")), text(&folder.join("alerts_test.yml")));
    for alert in alerts(&rules) {
        assert!(tested.contains(&format!("alertname=\"{alert}\"")), "{alert} has no test");
    }
}

#[test]
fn each_alert_has_a_section_that_says_what_to_do() {
    let rules = text(&deploy("prometheus/alerts.yml"));
    let page = text(&repository().join("docs/alerts.md"));
    for alert in alerts(&rules) {
        let heading = format!("### {alert}\n");
        let section = page.split_once(&heading).map(|(_, rest)| rest);
        let section = section.unwrap_or_else(|| panic!("docs/alerts.md has no section {alert}"));
        let section = section.split("\n### ").next().unwrap_or_default();
        assert!(section.contains("Check:") && section.contains("Do:"), "{alert}: {section}");
        let runbook = format!("runbook: docs/alerts.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} does not lead to its section");
    }
    let sections = page.lines().filter_map(|line| line.strip_prefix("### "));
    let known: BTreeSet<&str> = alerts(&rules).into_iter().collect();
    let stray: Vec<_> = sections.filter(|section| !known.contains(section)).collect();
    assert!(stray.is_empty(), "sections of no alert: {stray:?}");
}

#[tokio::test]
async fn alerts_go_by_what_a_relay_says() {
    let rules = without_comments(&text(&deploy("prometheus/alerts.yml")));
    let relay = Relay::start();
    let scrape = scraped(&relay).await;
    let told = names(&scrape);
    for name in metrics_in(&rules) {
        assert!(told.contains(name), "no relay tells {name}");
    }
    for (name, label, value) in labels_in(&rules) {
        let label = format!("{label}=\"{value}\"");
        let there = scrape.lines().any(|line| line.starts_with(name) && line.contains(&label));
        assert!(there, "no relay tells {name} with {label}");
    }
}
