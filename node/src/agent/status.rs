//! `arc-relay status`: the cluster as one node sees it, from the ops port.

use std::{fmt::Write as _, time::Duration};

use serde_json::value::RawValue;

use super::{
    args::{OpsArgs, duration},
    failure::Failure,
    http::Call,
    output::Output,
    paint::{Hue, Paint},
    recovery::{Recovery, recovery},
    table::{Column, table},
    text::{counted, escaped, on_one_line, or_dash, size},
    whole::Keepers,
};
use crate::{
    admin::{RegistryReport, Voter},
    certificates::{AcmeReport, TlsReport},
    report::{ClusterReport, LinkReport, NodeReport, is_there},
};

/// Options of `arc-relay status`.
#[derive(clap::Args, Clone, Debug)]
pub struct StatusArgs {
    /// Show it anew again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,

    /// With --watch: how often
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration, allow_hyphen_values = true)]
    every: Duration,

    #[command(flatten)]
    ops: OpsArgs,
}

/// Shows the cluster, once or until `stop`.
pub(super) async fn run(
    args: &StatusArgs,
    output: &mut Output,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    if !args.watch {
        let (answer, paint) = (look(args).await?, output.paint());
        return args.ops.show(&answer, |report| told(&report, paint), output).await;
    }
    tokio::select! {
        outcome = watch(args, output) => outcome,
        () = stop => Ok(()),
    }
}

async fn look(args: &StatusArgs) -> Result<Box<RawValue>, Failure> {
    args.ops.ask(Call { path: "/cluster", ..Call::default() }).await
}

/// A node that does not answer now may do so later, as one that is started again does.
async fn watch(args: &StatusArgs, output: &mut Output) -> Result<(), Failure> {
    let mut last = String::new();
    loop {
        match look(args).await {
            Ok(answer) if args.ops.json => output.result(&on_one_line(answer.get())).await?,
            Ok(answer) => {
                let report = serde_json::from_str(answer.get());
                let report = report.map_err(|error| Failure::NotRelay(error.to_string()))?;
                last = told(&report, output.paint());
                output.show_anew(&last).await?;
            }
            Err(failure) if recovery(&failure) == Recovery::Stop => return Err(failure),
            Err(failure) if output.can_show_anew() && !args.ops.json => {
                let why = output.paint().on(Some(Hue::Bad), &format!("{failure}; trying again"));
                output.show_anew(&format!("{why}\n\n{last}")).await?;
            }
            Err(failure) => output.note(&format!("{failure}; trying again")).await,
        }
        tokio::time::sleep(args.every).await;
    }
}

/// In which colour a node's state is shown.
pub(super) fn state_hue(state: &str) -> Option<Hue> {
    match state {
        "alive" => Some(Hue::Good),
        "joining" | "suspect" | "leaving" => Some(Hue::Doubtful),
        "dead" => Some(Hue::Bad),
        "left" => Some(Hue::Past),
        _ => None,
    }
}

/// The cluster as text for people.
pub(crate) fn told(report: &ClusterReport, paint: Paint) -> String {
    let there: Vec<_> = report.nodes.iter().filter(|node| is_there(&node.state)).collect();
    let messages: u64 = there.iter().map(|node| node.messages_per_minute).sum();
    let asked = report.nodes.iter().find(|node| node.id == report.node);
    let asked = asked.map_or_else(String::new, |node| format!(", says {}", escaped(&node.name)));
    let mut text = format!(
        "{}, {}, {messages} messages/min{asked}\n\n",
        counted(there.len() as u64, "node"),
        counted(there.iter().map(|node| node.agents).sum(), "agent"),
    );
    text.push_str(&table(&NODE_COLUMNS, report.nodes.iter().map(node_row), paint));
    if !report.links.is_empty() {
        text.push('\n');
        text.push_str(&table(&LINK_COLUMNS, report.links.iter().map(link_row), paint));
    }
    if let Some(registry) = &report.registry {
        text.push('\n');
        text.push_str(&registry_told(registry, &report.nodes, paint));
    }
    if let Some(tls) = &report.tls {
        text.push('\n');
        text.push_str(&tls_lines(tls, paint));
    }
    text.truncate(text.trim_end().len());
    text
}

/// How the names are kept: what is wrong first, then by whom.
fn registry_told(registry: &RegistryReport, nodes: &[NodeReport], paint: Paint) -> String {
    let bad = |text: &str| paint.on(Some(Hue::Bad), text);
    let name = |id: &str| {
        let node = nodes.iter().find(|node| node.id == id);
        node.map_or_else(|| escaped(id), |node| escaped(&node.name))
    };
    let leader = match &registry.leader {
        Some(leader) => format!("led by {}", name(leader)),
        None => bad("no leader with a quorum"),
    };
    let registers = if registry.available {
        "can be registered".to_owned()
    } else {
        bad("CANNOT be registered")
    };
    // Who keeps no names does not know it.
    let term = if registry.term > 0 { format!(", term {}", registry.term) } else { String::new() };
    let mut text = format!(
        "names {registers}, {leader}{term}; this node: {}, at entry {}\n",
        escaped(&registry.role),
        registry.applied,
    );
    let keepers = Keepers::of(registry, nodes);
    if !keepers.is_complete() {
        let hue = if registry.available { Hue::Doubtful } else { Hue::Bad };
        let _ = writeln!(text, "{}", paint.on(Some(hue), &keepers.to_string()));
    }
    if let Some(failure) = &registry.failure {
        let failure = format!("this node's registry has failed: {}", escaped(failure));
        let _ = writeln!(text, "{}", bad(&failure));
    }
    if let Some(waiting) = &registry.waiting {
        let waiting = format!("waiting: {}", escaped(&waiting.reason));
        let _ = writeln!(text, "{}", paint.on(Some(Hue::Doubtful), &waiting));
    }
    if !registry.voters.is_empty() {
        text.push('\n');
        let row = |voter: &Voter| voter_row(voter, name(&voter.node));
        text.push_str(&table(&VOTER_COLUMNS, registry.voters.iter().map(row), paint));
    }
    text
}

const VOTER_COLUMNS: [Column; 4] = [
    Column::left("KEEPS THE NAMES"),
    Column::left("SEED"),
    Column::left("VOTES"),
    Column::right("BEHIND"),
];

fn voter_row(voter: &Voter, name: String) -> [String; 4] {
    [
        name,
        if voter.seed.is_empty() { "-".to_owned() } else { escaped(&voter.seed) },
        if voter.votes { "yes" } else { "not yet" }.to_owned(),
        or_dash(voter.lag),
    ]
}

fn tls_lines(tls: &TlsReport, paint: Paint) -> String {
    let bad = |text: &str| paint.on(Some(Hue::Bad), text);
    let state = match tls.expires_in {
        None => bad("no certificate yet"),
        Some(left) if left > 0 => format!("good for {}", time(left.unsigned_abs())),
        Some(over) => bad(&format!("EXPIRED {} ago", time(over.unsigned_abs()))),
    };
    let names: Vec<_> = tls.names.iter().map(|name| escaped(name)).collect();
    let names =
        if names.is_empty() { String::new() } else { format!("for {}, ", names.join(", ")) };
    let mut lines = format!("TLS: {}, {names}{state}\n", escaped(&tls.source));
    if let Some(problem) = &tls.problem {
        // Writing into a `String` cannot fail.
        let _ = writeln!(lines, "{}", bad(&format!("TLS problem: {}", escaped(problem))));
    }
    if let Some(acme) = &tls.acme {
        let _ = writeln!(lines, "{}", acme_line(acme));
    }
    lines
}

fn acme_line(acme: &AcmeReport) -> String {
    let next = match u64::try_from(acme.next_in) {
        _ if acme.ordering => "this node orders a certificate now".into(),
        Err(_) | Ok(0) => "a certificate is due to be ordered".into(),
        Ok(next) => format!("the next certificate is ordered in {}", time(next)),
    };
    match acme.failures {
        0 => format!("ACME: {next}"),
        failures => format!("ACME: {} failed, {next}", counted(failures.into(), "order")),
    }
}

/// A time as people say it.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0..7_200 => counted(seconds.div_ceil(60), "minute"),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => counted(seconds / 86_400, "day"),
    }
}

pub(super) const NODE_COLUMNS: [Column; 8] = [
    Column::left("NODE"),
    Column::left("REGION"),
    Column::left("STATE").hued(state_hue),
    Column::left("VERSION"),
    Column::right("AGENTS"),
    Column::right("MSGS/MIN"),
    Column::right("RING"),
    Column::left("ADDRESS"),
];

pub(super) fn node_row(node: &NodeReport) -> [String; 8] {
    [
        escaped(&node.name),
        escaped(&node.region),
        escaped(&node.state),
        escaped(&node.version),
        node.agents.to_string(),
        node.messages_per_minute.to_string(),
        format!("{:.0}%", node.ring_share * 100.0),
        or_dash(node.address),
    ]
}

const LINK_COLUMNS: [Column; 4] = [
    Column::left("LINK TO"),
    Column::right("ROUND TRIP"),
    Column::right("WAITING"),
    Column::right("SILENT"),
];

fn link_row(link: &LinkReport) -> [String; 4] {
    [
        escaped(&link.peer),
        format!("{:.1} ms", link.rtt_ms),
        size(link.queue_bytes),
        format!("{} ms", link.silent_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    fn node(name: &str, agents: u64) -> NodeReport {
        NodeReport {
            id: format!("id-{name}"),
            version: "0.1.0".into(),
            agents,
            messages_per_minute: 12 * agents,
            ring_share: 0.504,
            ..testing::node(name, "alive")
        }
    }

    fn nothing() -> ClusterReport {
        let (node, nodes, links) = (String::new(), Vec::new(), Vec::new());
        ClusterReport { node, nodes, links, registry: None, tls: None }
    }

    #[test]
    fn tls_is_a_line_and_what_is_wrong_another() {
        let day = 86_400;
        let tls = |expires_in, problem: Option<&str>| TlsReport {
            source: "files".into(),
            names: vec!["relay.example".into(), "*.relay.example".into()],
            expires_at: None,
            expires_in,
            problem: problem.map(str::to_owned),
            acme: None,
        };
        let line = |tls| told(&ClusterReport { tls: Some(tls), ..nothing() }, Paint::Plain);
        let good = line(tls(Some(61 * day + 5), None));
        assert!(
            good.ends_with("TLS: files, for relay.example, *.relay.example, good for 61 days"),
            "{good}"
        );
        let bad = line(tls(Some(-3_600), Some("the key\n is bad")));
        assert!(bad.contains("EXPIRED 60 minutes ago\nTLS problem: the key\\n is bad"), "{bad}");
        assert!(line(tls(None, None)).ends_with("no certificate yet"));
    }

    #[test]
    fn how_it_is_with_orders_is_a_line() {
        let line =
            |failures, next_in, ordering| acme_line(&AcmeReport { failures, next_in, ordering });
        assert_eq!(line(0, 30 * 86_400, false), "ACME: the next certificate is ordered in 30 days");
        assert_eq!(
            line(2, 60, false),
            "ACME: 2 orders failed, the next certificate is ordered in 1 minute"
        );
        assert_eq!(line(0, -5, false), "ACME: a certificate is due to be ordered");
        assert_eq!(line(1, -5, true), "ACME: 1 order failed, this node orders a certificate now");
    }

    #[test]
    fn a_cluster_is_a_table() {
        let address = Some(([10, 0, 0, 2], 7_946).into());
        let link = LinkReport {
            peer: "b".into(),
            id: "id-b".into(),
            rtt_ms: 0.349,
            queue_bytes: 70_000,
            sent_bytes: 0,
            received_bytes: 0,
            silent_ms: 12,
        };
        let gone = NodeReport { state: "dead".into(), ..node("c", 5) };
        let nodes =
            vec![node("alpha\u{1b}[2J", 0), NodeReport { address, ..node("b", 1_000) }, gone];
        let report = ClusterReport {
            node: "id-b".into(),
            nodes,
            links: vec![link],
            registry: None,
            tls: None,
        };
        let expected = "\
2 nodes, 1000 agents, 12000 messages/min, says b

NODE             REGION  STATE  VERSION  AGENTS  MSGS/MIN  RING  ADDRESS
alpha\\u{1b}[2J  eu      alive  0.1.0         0         0   50%  -
b                eu      alive  0.1.0      1000     12000   50%  10.0.0.2:7946
c                eu      dead   0.1.0         5        60   50%  -

LINK TO  ROUND TRIP  WAITING  SILENT
b            0.3 ms   68 KiB   12 ms";
        let told = told(&report, Paint::Plain);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&told), squeezed(expected), "{told}");
        let at = |line: usize| told.lines().nth(line).unwrap().find("eu").unwrap();
        assert_eq!(at(3), at(4), "columns stand below each other:\n{told}");
    }

    #[test]
    fn a_node_that_is_alone_has_no_links_to_show() {
        let report = ClusterReport { nodes: vec![node("a", 1)], ..nothing() };
        let told = told(&report, Paint::Plain);
        assert!(told.starts_with("1 node, 1 agent, 12 messages/min\n\nNODE"), "{told}");
        assert!(!told.contains("LINK") && !told.contains("TLS"), "{told}");
    }

    #[test]
    fn who_keeps_the_names_is_told_and_what_is_wrong() {
        let voter = |id: &str, seed: &str, votes, lag| Voter {
            node: id.into(),
            seed: seed.into(),
            votes,
            lag,
        };
        let mut registry = RegistryReport {
            id: Some("7".into()),
            role: "leader".into(),
            available: true,
            waiting: None,
            leader: Some("id-a".into()),
            term: 3,
            applied: 42,
            voters: vec![voter("id-a", "a:7946", true, Some(0)), voter("gone", "", false, None)],
            failure: None,
        };
        let nodes = [node("a", 1)];
        let told = registry_told(&registry, &nodes, Paint::Plain);
        let expected = "\
names can be registered, led by a, term 3; this node: leader, at entry 42

KEEPS THE NAMES  SEED    VOTES    BEHIND
a                a:7946  yes           0
gone             -       not yet       -
";
        assert_eq!(told, expected);
        let observer = RegistryReport { role: "observer".into(), term: 0, ..registry.clone() };
        let told = registry_told(&observer, &nodes, Paint::Plain);
        let first = "names can be registered, led by a; this node: observer, at entry 42\n";
        assert!(told.starts_with(first), "{told}");
        registry.voters = ["id-a", "id-b", "id-c"].map(|id| voter(id, "", true, None)).into();
        let told = registry_told(&registry, &[node("a", 1), node("b", 1)], Paint::Plain);
        let one_gone =
            "1 of 3 nodes that keep the names is gone: no further loss can be borne\n\nKEEPS";
        assert!(told.contains(one_gone), "{told}");
        registry.available = false;
        registry.leader = None;
        registry.failure = Some("disk".into());
        registry.waiting =
            Some(crate::admin::Waiting { reason: "start b".into(), seeds: vec!["b".into()] });
        let told = registry_told(&registry, &nodes, Paint::Plain);
        for part in ["CANNOT", "no leader with a quorum", "has failed: disk", "waiting: start b"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
