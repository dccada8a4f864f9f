//! Every relative link in the documents leads to a file, and to a heading in it.

use std::{collections::BTreeSet, path::Path};

use tests::repository;

use crate::pages::{Page, pages};

/// Documents that others link to, beside those whose commands are run.
const MORE: [&str; 5] =
    ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/SUMMARY.md"];

/// A page's text without its blocks of code and what is in backticks, line by line.
fn prose(text: &str) -> Vec<String> {
    let mut in_code = false;
    let lines = text.lines().map(|line| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return String::new();
        }
        // Odd pieces are code; a link's text may be code, and its target is kept.
        let pieces = line.split('`').enumerate();
        if in_code {
            String::new()
        } else {
            pieces.map(|(n, text)| if n % 2 == 0 { text } else { "x" }).collect()
        }
    });
    lines.collect()
}

/// The targets of the links in a line.
fn targets(line: &str) -> Vec<&str> {
    let after = line.split("](").skip(1);
    after.filter_map(|rest| rest.split(')').next()).collect()
}

/// The names by which a page's headings are linked to, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !in_code) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let mut names = std::iter::once(anchor.clone()).chain(again);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

/// What is wrong with a link of that page, if anything is.
fn broken(page: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = Path::new(page).parent().expect("a page lies in a folder");
    let path = match file {
        "" => repository().join(page),
        _ => repository().join(folder).join(file),
    };
    if !path.exists() {
        return Some(format!("{page}: {target}: there is no such file"));
    }
    if anchor.is_empty() {
        return None;
    }
    let path = if path.is_dir() { path.join("README.md") } else { path };
    let text = std::fs::read_to_string(&path).ok()?;
    let known = anchors(&text);
    (!known.contains(anchor)).then(|| format!("{page}: {target}: there is no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut all = pages();
    for name in MORE {
        let text = std::fs::read_to_string(repository().join(name))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        all.push(Page { name: name.to_owned(), text });
    }
    let mut found = Vec::new();
    let mut links = 0;
    for page in &all {
        for line in prose(&page.text) {
            for target in targets(&line) {
                links += 1;
                found.extend(broken(&page.name, target));
            }
        }
    }
    assert!(links > 100, "links are found: {links}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let summary =
        std::fs::read_to_string(repository().join("docs/SUMMARY.md")).expect("there is one");
    let listed: BTreeSet<&str> = summary.lines().flat_map(targets).collect();
    for page in pages() {
        let Some(name) = page.name.strip_prefix("docs/").filter(|name| *name != "SUMMARY.md")
        else {
            continue;
        };
        assert!(listed.contains(name), "{name} is not in docs/SUMMARY.md");
    }
}

#[test]
fn links_and_headings_are_read_as_they_are_shown() {
    assert_eq!(targets("a [b](c.md) and [d](e.md#f)."), ["c.md", "e.md#f"]);
    let text = "# One relay: `x`, and *more*\n```sh\n# no heading\n```\n## Two\n## Two\n";
    let expected = ["one-relay-x-and-more", "two", "two-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
    assert_eq!(prose("see `[a](b)` and [`c`](d)")[0], "see x and [x](d)");
    assert!(broken("README.md", "docs/nowhere.md").is_some());
    assert!(broken("README.md", "docs/cluster.md#nothing-of-that-name").is_some());
    assert!(broken("docs/cluster.md", "../README.md#tls").is_none());
}
