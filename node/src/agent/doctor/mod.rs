//! `arc-relay doctor`: whether this machine is fit to run the node that is configured here, and how the node
//! is that runs: ports, limits, clocks, names, disk, secrets, certificates, peers; and what to do.
//!
//! What is there is looked at ([machine], [network]), then [judged](judging), which is pure, then told.
//! Changes nothing: what it binds it lets go at once, and it dials peers as nobody that they would link.

mod facts;
mod finding;
mod judging;
mod machine;
mod network;

#[cfg(test)]
mod judging_tests;

use std::{process::ExitCode, time::Duration};

use serde::Serialize;

use self::{
    facts::Facts,
    finding::{Finding, Level, told},
};
use super::{args::duration, failure::Failure, output::Output};
use crate::{
    clock::Clock,
    config::{self, Loaded, Sources},
};

/// The exit codes of `arc-relay doctor`, and how a service is examined, as `--help` shows them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  nothing keeps the node from doing its work; there may be warnings
  1  something does: each error says what to do
  2  bad options

It examines the node that the settings here make. The one that systemd runs, as it runs it:
  sudo systemd-run --quiet --pipe --wait --uid=arc-relay \\
    --working-directory=/etc/arc-relay \\
    --setenv=DATA_DIR=/var/lib/arc-relay \\
    --setenv=NODE_ENV=production --setenv=HOST=127.0.0.1 \\
    --property=EnvironmentFile=/etc/arc-relay/environment \\
    --property=AmbientCapabilities=CAP_NET_BIND_SERVICE \\
    --property=LimitNOFILE=65536 arc-relay doctor";

/// Options of `arc-relay doctor`.
#[derive(clap::Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Print JSON: one object with all findings
    #[arg(long)]
    json: bool,

    /// How long a node, a name server or an authority may take to answer: 10s, 500ms, or seconds
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration, allow_hyphen_values = true)]
    timeout: Duration,
}

/// The whole answer, for programs.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether there is no error.
    ok: bool,
    findings: &'a [Finding],
}

/// Looks at what `sources` configure, and tells what it found.
pub(super) async fn run(
    args: &DoctorArgs,
    sources: &Sources,
    clock: &Clock,
    output: &mut Output,
) -> ExitCode {
    let findings = match config::load(sources) {
        Ok(loaded) => {
            let facts = look(&loaded, args.timeout, clock).await;
            let unread = machine::unread(&loaded.chosen).map(judging::unread);
            let unread: Vec<_> = unread.into_iter().collect();
            [judging::notices(&loaded.notices), unread, judging::all(&facts)].concat()
        }
        // What is not understood cannot be looked at.
        Err(problems) => judging::problems(&problems),
    };
    let ok = findings.iter().all(|finding| finding.level < Level::Error);
    let text = if args.json {
        serde_json::to_string(&Report { ok, findings: &findings }).unwrap_or_default()
    } else {
        told(&findings, output.paint())
    };
    match output.result(&text).await {
        Err(Failure::Output(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            output.fail(&Failure::Output(error).report()).await
        }
        _ if ok => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

async fn look(Loaded { config, chosen, .. }: &Loaded, patience: Duration, clock: &Clock) -> Facts {
    let node = network::node(config, patience, clock).await;
    Facts {
        at: clock.wall(),
        ports: machine::ports(config),
        max_connections: config.limits.max_connections,
        encrypted: config.tls.source().is_some(),
        file_limit: machine::file_limit(),
        buffers: machine::buffers(),
        memory: machine::memory(),
        disk: machine::disk(&config.data_dir),
        certificate: machine::certificate(config),
        mesh: machine::mesh(config, clock),
        registration_key: config.registration_key.as_deref().map(machine::strength),
        secrets: machine::secrets(chosen),
        names: network::names(config, patience).await,
        seeds: network::seeds(config, patience, clock).await,
        authority: network::authority(config, patience).await,
        node_name: config.node_name.clone(),
        node,
    }
}
