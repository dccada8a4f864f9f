//! `arc-relay drain`: sends a node's agents elsewhere and stops it; any node can be asked to.

use std::time::Duration;

use hyper::Method;
use serde_json::{json, value::RawValue};

use super::{
    admin::AdminArgs,
    confirm::Consent,
    failure::Failure,
    http::Call,
    output::Output,
    progress::Progress,
    recovery::{Recovery, recovery},
    text::{counted, escaped},
    url::path_segment,
};
use crate::{
    admin::Draining,
    report::{ClusterReport, is_there},
};

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A node that was asked to leave begins so soon; one that does not was started again meanwhile.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);

/// What keeps a node from leaving, unless it is meant.
const NEEDED: [&str; 2] = ["last_ready_node", "majority_lost"];

/// Options of `arc-relay drain`.
#[derive(clap::Args, Clone, Debug)]
pub struct DrainArgs {
    /// The node, by name, id or mesh address (`arc-relay nodes` lists them); without it, the one at the
    /// ops port
    #[arg(value_name = "NODE")]
    node: Option<String>,

    /// Return when it has begun, rather than when it has left
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    consent: Consent,

    #[command(flatten)]
    admin: AdminArgs,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not begun, as far as can be seen.
    Asked,
    /// So many agents are connected still.
    Draining(u64),
    /// It has left.
    Left,
    /// It has left, and is back.
    Back,
    /// It ended without a word.
    Lost,
}

pub(super) async fn run(args: &DrainArgs, output: &mut Output) -> Result<(), Failure> {
    // Who is asked, as long as it answers.
    let asked = look(&args.admin).await?.node;
    let answer = ask(args).await?;
    let draining: Draining =
        serde_json::from_str(answer.get()).map_err(|error| Failure::NotRelay(error.to_string()))?;
    let (name, agents) = (escaped(&draining.name), counted(draining.agents, "agent"));
    if args.no_wait {
        let told = |_: Draining| format!("{name} drains, with {agents}");
        return args.admin.ops.show(&answer, told, output).await;
    }
    let end = wait(&args.admin, &draining, draining.node == asked).await?;
    let state = match end {
        Stage::Lost => return Err(Failure::Died(name)),
        Stage::Back => "back",
        _ => "left",
    };
    if args.admin.ops.json {
        let Draining { node, name, agents } = &draining;
        let json = json!({"node": node, "name": name, "agents": agents, "state": state});
        return output.result(&json.to_string()).await;
    }
    let back = if end == Stage::Back { ", and was started again" } else { "" };
    output.result(&format!("{name} has left{back}")).await
}

/// Asks for it, and once more if it was refused and is meant all the same.
async fn ask(args: &DrainArgs) -> Result<Box<RawValue>, Failure> {
    let path = args
        .node
        .as_ref()
        .map_or_else(|| "/drain".to_owned(), |node| format!("/nodes/{}/drain", path_segment(node)));
    let anyway = format!("{path}?anyway=true");
    let first = if args.consent.yes { &anyway } else { &path };
    match args.admin.ask(Method::POST, first).await {
        Err(Failure::Refused { code, message, .. }) if NEEDED.contains(&code.as_str()) => {
            args.consent.ask(&message)?;
            args.admin.ask(Method::POST, &anyway).await
        }
        answer => answer,
    }
}

/// Returns when the node has left, one way or the other.
async fn wait(admin: &AdminArgs, node: &Draining, is_asked: bool) -> Result<Stage, Failure> {
    let progress = Progress::count("agents sent away", node.agents);
    let mut stage = Stage::Asked;
    let mut looks = 0;
    loop {
        stage = match look(admin).await {
            Ok(report) => next(stage, &report, &node.node),
            Err(Failure::Dial { .. }) if is_asked => Stage::Left,
            Err(failure) if is_asked && recovery(&failure) != Recovery::Stop => stage,
            Err(failure) => return Err(failure),
        };
        match stage {
            Stage::Asked if LOOK_EVERY * looks > BEGIN_PATIENCE => {
                return Err(Failure::Unwell(format!(
                    "{} takes agents still, or again: see `arc-relay events`",
                    escaped(&node.name)
                )));
            }
            Stage::Asked => looks += 1,
            Stage::Draining(agents) => progress.reached(node.agents.saturating_sub(agents)),
            Stage::Left | Stage::Back | Stage::Lost => return Ok(stage),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(admin: &AdminArgs) -> Result<ClusterReport, Failure> {
    admin.ops.ask(Call { path: "/cluster", ..Call::default() }).await
}

/// How far the node is, by what is said of it now.
fn next(before: Stage, report: &ClusterReport, node: &str) -> Stage {
    let Some(node) = report.nodes.iter().find(|known| known.id == node) else {
        return Stage::Left;
    };
    match (node.state.as_str(), before) {
        ("leaving", _) => Stage::Draining(node.agents),
        ("dead", _) => Stage::Lost,
        // Who hears nothing of it for a moment may hear of it again.
        ("suspect", _) => before,
        (state, _) if !is_there(state) => Stage::Left,
        (_, Stage::Draining(_)) => Stage::Back,
        _ => before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{NodeReport, testing};

    fn seen(state: &str, agents: u64) -> ClusterReport {
        let node = NodeReport { id: "1".into(), agents, ..testing::node("a", state) };
        let (node, nodes, links) = ("2".into(), vec![node], Vec::new());
        ClusterReport { node, nodes, links, registry: None, tls: None }
    }

    #[test]
    fn a_node_leaves_step_by_step() {
        let draining = Stage::Draining(3);
        for (before, state, after) in [
            (Stage::Asked, "alive", Stage::Asked),
            (Stage::Asked, "leaving", draining),
            (draining, "leaving", draining),
            (draining, "suspect", draining),
            (draining, "left", Stage::Left),
            (Stage::Asked, "left", Stage::Left),
            (draining, "dead", Stage::Lost),
            (draining, "alive", Stage::Back),
            (draining, "joining", Stage::Back),
        ] {
            assert_eq!(next(before, &seen(state, 3), "1"), after, "{before:?} {state}");
        }
        assert_eq!(next(draining, &seen("alive", 0), "9"), Stage::Left, "forgotten");
    }
}
