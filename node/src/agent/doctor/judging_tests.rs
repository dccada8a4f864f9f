//! What the doctor makes of what it sees.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{io::ErrorKind, path::Path, time::Duration};

use cluster::{NodeId, UnixMillis, link::quic::SOCKET_BUFFER_BYTES};

use super::{
    facts::{
        Authority, Certificate, Clocks, Disk, Memory, Mesh, Met, Name, Node, Port, Running,
        SecretSetting, Seed, Validity,
    },
    finding::{Finding, Level},
    judging,
};
use crate::{
    admin::{RegistryReport, Voter, Waiting},
    agent::tls::Finding as TlsFinding,
    report::{ClusterReport, LinkReport, NodeReport, testing},
    tls_report::{ClusterTls, NodeSays, NodeTls},
};

const NOW: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_hours(24);

/// The levels of some findings, worst last; each that is not ok says what to do.
fn levels(findings: &[Finding]) -> Vec<Level> {
    for finding in findings {
        assert_eq!(finding.remedy.is_none(), finding.level == Level::Ok, "{finding:?}");
        assert!(!finding.found.ends_with('.'), "{finding:?}");
    }
    let mut levels: Vec<_> = findings.iter().map(|finding| finding.level).collect();
    levels.sort_unstable();
    levels
}

fn level(finding: &Finding) -> Level {
    levels(std::slice::from_ref(finding))[0]
}

fn node(name: &str, state: &str) -> NodeReport {
    NodeReport { id: format!("id-{name}"), ..testing::node(name, state) }
}

/// The link to b, silent for so long.
fn link(silent_ms: u64) -> LinkReport {
    LinkReport {
        peer: "b".into(),
        id: "id-b".into(),
        rtt_ms: 1.0,
        queue_bytes: 0,
        sent_bytes: 0,
        received_bytes: 0,
        silent_ms,
    }
}

fn voter(name: &str) -> Voter {
    Voter { node: format!("id-{name}"), seed: format!("{name}:7946"), votes: true, lag: None }
}

/// Node a, which runs, and another.
fn running(other: &str) -> Running {
    let registry = RegistryReport {
        id: None,
        role: "leader".into(),
        available: true,
        waiting: None,
        leader: None,
        term: 1,
        applied: 1,
        voters: Vec::new(),
        failure: None,
    };
    let cluster = ClusterReport {
        node: "id-a".into(),
        nodes: vec![node("a", "alive"), node("b", other)],
        links: vec![link(40)],
        registry: Some(registry),
        tls: None,
    };
    Running {
        health: "ok".into(),
        waiting: None,
        ready: "ready".into(),
        cluster,
        tls: None,
        asked_at: NOW,
        certificates: None,
    }
}

#[test]
fn the_state_of_the_node_is_told() {
    let judge = |node| levels(&judging::node(&node, "a"));
    let with = |change: &dyn Fn(&mut Running)| {
        let mut running = running("alive");
        change(&mut running);
        judge(Node::Running(Box::new(running)))
    };
    assert_eq!(judge(Node::Unknown), [Level::Ok]);
    assert_eq!(judge(Node::Stopped), [Level::Ok], "that is what it is for, before the first start");
    assert_eq!(judge(Node::Stranger("HTML".into())), [Level::Error]);
    assert_eq!(with(&|_| {}), [Level::Ok]);
    assert_eq!(with(&|it| it.ready = "full".into()), [Level::Warning]);
    assert_eq!(with(&|it| it.ready = "draining".into()), [Level::Warning]);
    assert_eq!(with(&|it| it.health = "joining".into()), [Level::Error]);
    let older = with(&|it| it.cluster.nodes[0].version = "0.0.9".into());
    assert_eq!(older, [Level::Ok, Level::Warning]);
    let other = with(&|it| it.cluster.nodes[0].name = "z".into());
    assert_eq!(other, [Level::Ok, Level::Warning]);
    let mut waits = running("alive");
    (waits.health, waits.waiting) = ("joining".into(), Some("start b".into()));
    let told = judging::node(&Node::Running(Box::new(waits)), "a");
    assert!(told[0].found.contains("start b"), "{told:?}");
}

#[test]
fn a_port_is_free_or_the_nodes_own() {
    let judge = |tried, running, port| {
        let address = ([0, 0, 0, 0], port).into();
        let (variable, host) = ("PORT", "HOST");
        judging::port(&Port { variable, host, address, udp: false, tried }, running)
    };
    for (tried, running, expected) in [
        (Ok(()), false, Level::Ok),
        (Ok(()), true, Level::Warning),
        (Err(ErrorKind::AddrInUse), true, Level::Ok),
        (Err(ErrorKind::AddrInUse), false, Level::Error),
        (Err(ErrorKind::PermissionDenied), true, Level::Ok),
        (Err(ErrorKind::PermissionDenied), false, Level::Warning),
        (Err(ErrorKind::AddrNotAvailable), false, Level::Error),
        (Err(ErrorKind::AddrNotAvailable), true, Level::Error),
        (Err(ErrorKind::Unsupported), false, Level::Error),
    ] {
        assert_eq!(level(&judge(tried, running, 8_080)), expected, "{tried:?} {running}");
        assert_eq!(level(&judge(tried, running, 0)), Level::Ok, "the system chooses another");
    }
    let taken = judge(Err(ErrorKind::AddrInUse), false, 8_080);
    let remedy = taken.remedy.unwrap();
    assert!(remedy.contains("ss -ltnp") && remedy.contains(":8080") && remedy.contains("PORT"));
}

#[test]
fn limits_and_memory_are_held_against_max_connections() {
    assert_eq!(level(&judging::file_limit(10_000, 65_536)), Level::Ok);
    let short = judging::file_limit(10_000, 1_024);
    assert_eq!(level(&short), Level::Warning);
    assert!(short.remedy.unwrap().contains("LimitNOFILE=11152"));

    let judge = |total, limit, agents, encrypted| {
        judging::memory(Memory { total, limit }, agents, encrypted)
    };
    let gib = Some(1 << 30);
    assert_eq!(level(&judge(None, None, 10_000, false)), Level::Ok);
    assert_eq!(level(&judge(gib, None, 10_000, false)), Level::Ok);
    assert_eq!(level(&judge(gib, None, 100_000, false)), Level::Warning);
    assert_eq!(level(&judge(gib, None, 40_000, true)), Level::Warning, "TLS takes more");
    let limited = judge(Some(8 << 30), Some(128 << 20), 10_000, false);
    assert_eq!(level(&limited), Level::Warning);
    assert!(limited.remedy.unwrap().contains("MAX_CONNECTIONS to 4096"));
    assert_eq!(level(&judge(gib, None, usize::MAX, true)), Level::Warning);
}

#[test]
fn udp_buffers_hold_what_the_mesh_wants() {
    let wanted = SOCKET_BUFFER_BYTES as u64;
    for (buffers, expected) in [
        (None, Level::Ok),
        (Some((wanted, wanted)), Level::Ok),
        (Some((wanted, 212_992)), Level::Warning),
        (Some((212_992, wanted)), Level::Warning),
    ] {
        assert_eq!(level(&judging::buffers(buffers)), expected, "{buffers:?}");
    }
}

#[test]
fn the_data_directory_is_writable_roomy_and_closed() {
    let good = || Disk {
        path: "/data".into(),
        exists: true,
        free: Some(10 << 30),
        free_files: Some(1_000_000),
        mode: 0o700,
        ..Disk::default()
    };
    let judge = |change: &dyn Fn(&mut Disk)| {
        let mut disk = good();
        change(&mut disk);
        levels(&judging::disk(&disk))
    };
    assert_eq!(judge(&|_| {}), [Level::Ok]);
    assert_eq!(judge(&|it| it.exists = false), [Level::Ok]);
    assert_eq!(judge(&|it| it.free = Some(50 << 20)), [Level::Error]);
    assert_eq!(judge(&|it| it.free = Some(500 << 20)), [Level::Warning]);
    assert_eq!(judge(&|it| it.free_files = Some(3)), [Level::Error]);
    assert_eq!(judge(&|it| it.refused = Some("read-only".into())), [Level::Error]);
    let anothers = judge(&|it| (it.refused, it.is_anothers) = (Some("denied".into()), true));
    assert_eq!(anothers, [Level::Warning], "the node's user may be allowed");
    assert_eq!(judge(&|it| it.foreign_files = vec!["admin.token".into()]), [Level::Error]);
    let open =
        |mode| judge(&move |it| (it.open_files, it.mode) = (vec!["admin.token".into()], mode));
    assert_eq!(open(0o755), [Level::Error]);
    assert_eq!(open(0o700), [Level::Ok], "nobody gets as far as the file");
}

#[test]
fn secrets_are_whole_and_hard_to_guess() {
    let judge = |mesh, key| levels(&judging::secrets(&mesh, key, NOW));
    assert_eq!(judge(Mesh::Secret { previous: false }, None), [Level::Ok]);
    assert_eq!(judge(Mesh::Secret { previous: true }, None), [Level::Warning]);
    assert_eq!(judge(Mesh::None, None), [Level::Warning], "no backup");
    let good_for = |days| Mesh::Files(Ok(Duration::from_millis(NOW) + DAY * days));
    assert_eq!(judge(good_for(30), None), [Level::Ok]);
    assert_eq!(judge(good_for(3), None), [Level::Warning]);
    assert_eq!(judge(Mesh::Files(Err("no PEM".into())), None), [Level::Error]);
    let key = |key| judge(Mesh::Secret { previous: false }, Some(key));
    assert_eq!(key((32, 20)), [Level::Ok, Level::Ok]);
    assert_eq!(key((8, 8)), [Level::Ok, Level::Warning]);
    assert_eq!(key((32, 2)), [Level::Ok, Level::Warning]);
}

#[test]
fn secrets_are_set_where_nobody_else_looks() {
    let judge = |origin: &str, is_open| {
        let (variable, origin) = ("CLUSTER_SECRET", origin.into());
        judging::shown(&[SecretSetting { variable, origin, is_open }])
    };
    assert_eq!(levels(&judge("environment", false)), []);
    assert_eq!(levels(&judge(".env:3", false)), []);
    assert_eq!(levels(&judge("flag --cluster-secret", false)), [Level::Warning]);
    let open = judge(".env:3", true);
    assert_eq!(levels(&open), [Level::Error]);
    assert_eq!(open[0].remedy.as_deref(), Some("chmod o= .env"));
}

#[test]
fn a_certificate_is_good_for_a_while() {
    // Good from so many days ago, for so many from then on.
    let judge = |ago: i64, days: u32| {
        let from = NOW.saturating_add_signed(-ago * 86_400_000);
        let not_before = Duration::from_millis(from);
        let not_after = not_before + DAY * days;
        let read = Ok(Validity { not_before, not_after, names: vec!["r.example".into()] });
        let (cert, key) = ("c.pem".into(), "k.pem".into());
        levels(&judging::certificate(&Certificate { cert, key, key_is_open: false, read }, NOW))
    };
    assert_eq!(judge(10, 90), [Level::Ok]);
    assert_eq!(judge(80, 90), [Level::Warning]);
    assert_eq!(judge(1, 7), [Level::Ok], "one for a week, and young");
    assert_eq!(judge(80, 79), [Level::Error]);
    assert_eq!(judge(-1, 79), [Level::Error]);
    let bad = Certificate {
        cert: "c.pem".into(),
        key: "k.pem".into(),
        key_is_open: true,
        read: Err("the key is another's".into()),
    };
    assert_eq!(levels(&judging::certificate(&bad, NOW)), [Level::Error, Level::Error]);
}

#[test]
fn what_the_tls_check_finds_keeps_its_weight() {
    let one =
        |code| TlsFinding { code, about: "a".into(), problem: "so".into(), remedy: "do".into() };
    assert!(judging::served(None).is_empty(), "agents connect without");
    assert_eq!(levels(&judging::served(Some(&[]))), [Level::Ok]);
    let both = [one("expired"), one("ends_soon")];
    assert_eq!(levels(&judging::served(Some(&both))), [Level::Warning, Level::Error]);
}

#[test]
fn names_are_found() {
    let judge = |found| {
        let (variable, text) = ("SEEDS", "node-1".into());
        level(&judging::name(&Name { variable, text, found }))
    };
    assert_eq!(judge(Ok(1)), Level::Ok);
    assert_eq!(judge(Err("no such name".into())), Level::Error);
}

#[test]
fn seeds_answer_and_share_the_secret() {
    let judge = |met, running: Option<&Running>| {
        let seeds = [Seed { text: "b:7946".into(), met, clock: None }];
        levels(&judging::seeds(&seeds, running))
    };
    let runs = running("alive");
    let answered = || Met::Answered { node: NodeId(1), rtt: Duration::from_millis(1) };
    assert_eq!(judge(answered(), None), [Level::Ok]);
    assert_eq!(judge(Met::Own, None), [Level::Ok]);
    assert_eq!(judge(Met::Distrusted, None), [Level::Error]);
    assert_eq!(judge(Met::Expired, None), [Level::Error]);
    assert_eq!(judge(Met::Silent("no".into()), None), [Level::Warning], "it may start later");
    assert_eq!(judge(Met::Silent("no".into()), Some(&runs)), [Level::Error]);
    assert_eq!(judge(Met::Untried, None), [Level::Warning]);
    assert_eq!(judge(Met::NotFound, None), [], "that is told of the name");
}

#[test]
fn peers_are_alive_and_the_names_have_a_majority() {
    let judge = |running: &Running| levels(&judging::peers(running));
    assert_eq!(judge(&running("alive")), [Level::Ok]);
    assert_eq!(judge(&running("left")), [Level::Ok], "it was told to");
    assert_eq!(judge(&running("suspect")), [Level::Warning]);
    assert_eq!(judge(&running("dead")), [Level::Warning]);
    assert_eq!(judge(&running("leaving")), [Level::Warning]);
    let mut silent = running("alive");
    silent.cluster.links = vec![link(4_000)];
    assert_eq!(judge(&silent), [Level::Warning]);
    silent.cluster.links.clear();
    assert_eq!(judge(&silent), [Level::Warning], "nor may there be none");
    let mut lost = running("dead");
    let registry = lost.cluster.registry.as_mut().unwrap();
    registry.available = false;
    registry.waiting = Some(Waiting { reason: "for b".into(), seeds: vec!["b".into()] });
    registry.failure = Some("disk".into());
    assert_eq!(judge(&lost), [Level::Warning, Level::Error, Level::Error]);
    lost.cluster.nodes[0].state = "joining".into();
    assert_eq!(judge(&lost).len(), 3, "of the node here it is told elsewhere");
}

#[test]
fn a_node_that_keeps_the_names_is_missed_though_it_said_goodbye() {
    let mut two_of_three = running("alive");
    let registry = two_of_three.cluster.registry.as_mut().unwrap();
    registry.voters = ["a", "b", "c"].map(voter).into();
    let findings = judging::peers(&two_of_three);
    assert_eq!(levels(&findings), [Level::Warning, Level::Warning]);
    assert_eq!(findings[0].found, "c:7946 keeps the names and is not there");
    let told = "1 of 3 nodes that keep the names is gone: no further loss can be borne";
    assert_eq!(findings[1].found, told);
    two_of_three.cluster.nodes.push(node("c", "left"));
    let findings = judging::peers(&two_of_three);
    assert_eq!(findings[0].found, "c keeps the names and is not there");
}

#[test]
fn nobody_is_told_to_give_up_the_only_data_directory() {
    let failed = |available, voters: &[&str]| {
        let mut failed = running("alive");
        let registry = failed.cluster.registry.as_mut().unwrap();
        registry.failure = Some("no space left on device".into());
        registry.available = available;
        registry.voters = voters.iter().map(|name| voter(name)).collect();
        let findings = judging::peers(&failed);
        assert_eq!(findings[0].level, Level::Error, "{findings:?}");
        (findings.len(), findings[0].found.clone(), findings[0].remedy.clone().unwrap())
    };
    for (available, voters) in
        [(false, &["a"][..]), (false, &["a", "b"]), (true, &["a"]), (true, &[])]
    {
        let (findings, found, remedy) = failed(available, voters);
        assert!(findings == 1 && found.ends_with(": no space left on device"), "{found}");
        assert_eq!(found.contains("names cannot be registered"), !available, "{found}");
        assert!(remedy.contains("keep what is in there") && !remedy.contains("empty"), "{remedy}");
    }
    let (_, _, remedy) = failed(true, &["a", "b"]);
    assert!(remedy.contains("an empty DATA_DIR: the others have all names"), "{remedy}");
}

#[test]
fn clocks_agree() {
    let judge = |offset_ms: i64| {
        let says = NodeSays {
            clock: UnixMillis(NOW.saturating_add_signed(offset_ms)),
            behind_proxy: false,
            tls: None,
        };
        let told = |name: &str, says| NodeTls {
            id: format!("id-{name}"),
            name: name.into(),
            state: "alive".into(),
            address: None,
            says,
        };
        let nodes = vec![told("a", None), told("b", Some(says)), told("c", None)];
        let tls = Some(ClusterTls { node: "id-a".into(), nodes });
        levels(&judging::clocks(Some(&Running { tls, ..running("alive") }), &[], None, NOW))
    };
    assert_eq!(judge(1_000), [Level::Ok]);
    assert_eq!(judge(-10_000), [Level::Warning]);
    assert_eq!(judge(31_000), [Level::Error]);
    assert_eq!(judge(-31_000), [Level::Error]);

    let seed = |offset_ms: i64| {
        let clock = Clocks { here: NOW, there: NOW.saturating_add_signed(offset_ms) };
        let answered = Met::Answered { node: NodeId(1), rtt: Duration::from_millis(1) };
        let told = Seed { text: "b:7946".into(), met: answered, clock: Some(clock) };
        let silent = Seed { text: "c:7946".into(), met: Met::NotFound, clock: None };
        judging::clocks(None, &[silent, told], None, NOW)
    };
    assert_eq!(levels(&seed(-1_900)), [Level::Ok], "a date has no parts of seconds");
    assert_eq!(levels(&seed(10_000)), [Level::Warning]);
    let late = seed(31_000);
    assert_eq!(levels(&late), [Level::Error]);
    assert_eq!(late[0].found, "this machine's clock is 31.0 s behind that of b:7946");

    let authority = |clock| {
        let authority = Authority { directory: "https://ca.example/".into(), clock };
        levels(&judging::clocks(None, &[], Some(&authority), NOW))
    };
    assert_eq!(authority(Ok(Some(NOW - 500))), [Level::Ok]);
    assert_eq!(authority(Ok(Some(NOW + 60_000))), [Level::Error]);
    assert_eq!(authority(Ok(None)), []);
    assert_eq!(authority(Err("no route".into())), [Level::Error]);
}

#[test]
fn another_node_than_the_service_is_no_error_and_not_passed_over() {
    let finding = judging::unread(Path::new("/etc/settings"));
    assert_eq!(level(&finding), Level::Warning);
    assert!(finding.found.contains("/etc/settings"), "{finding:?}");
}
