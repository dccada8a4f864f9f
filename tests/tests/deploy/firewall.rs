//! The firewall rules.

use std::process::Command;

use tests::skip;

use crate::files::{default, has, output, path, text, text_of};

#[test]
fn nft_takes_them() {
    if !has("nft") || !has("unshare") {
        return skip("no nft (package nftables)");
    }
    // Even to check them it asks the kernel, for which it must be root, if only of a network of its own.
    let mut nft = Command::new("unshare");
    nft.args(["--net", "--map-root-user", "nft", "--check", "--file"]).arg(path("firewall.nft"));
    let output = output(&mut nft);
    let said = text_of(&output.stderr);
    if said.starts_with("unshare:") {
        return skip(&format!("no network of a test's own: {said}"));
    }
    assert!(output.status.success(), "{said}");
}

#[test]
fn they_open_what_the_relay_opens_to_others() {
    let rules = text("firewall.nft");
    let web = format!("tcp dport {{ {}, {} }} accept", default("TLS_PORT"), default("HTTP_PORT"));
    assert!(rules.contains(&web), "agents come in: {web}");
    let mesh = default("MESH_PORT");
    for nodes in ["ip saddr $nodes4", "ip6 saddr $nodes6"] {
        assert!(rules.contains(&format!("{nodes} udp dport {mesh} accept")), "other nodes come in");
    }
    for own in ["PORT", "STATS_PORT"] {
        let accepts = |line: &str| line.contains(default(own)) && line.contains("accept");
        assert!(!rules.lines().any(accepts), "{own} is this machine's own");
    }
    for file in ["README.md", "firewall.nft"] {
        assert!(text(file).contains(mesh), "{file} knows the mesh's port");
    }
}
