//! `arc-relay nodes`: the nodes of a cluster, as one of them sees them, with all that they can be named by.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    args::OpsArgs,
    failure::Failure,
    http::Call,
    output::Output,
    status::{NODE_COLUMNS, node_row},
    table::{Column, table},
    text::{escaped, on_one_line},
};
use crate::report::ClusterReport;

/// Options of `arc-relay nodes`.
#[derive(clap::Args, Clone, Debug)]
pub struct NodesArgs {
    #[command(flatten)]
    ops: OpsArgs,
}

/// As much of the answer as is passed on for programs.
#[derive(Deserialize)]
struct Raw {
    nodes: Vec<Box<RawValue>>,
}

/// One line a node, or one JSON object.
pub(super) async fn run(args: &NodesArgs, output: &mut Output) -> Result<(), Failure> {
    let call = Call { path: "/cluster", ..Call::default() };
    if args.ops.json {
        let Raw { nodes } = args.ops.ask(call).await?;
        for node in nodes {
            output.result(&on_one_line(node.get())).await?;
        }
        return Ok(());
    }
    let report: ClusterReport = args.ops.ask(call).await?;
    let rows = report.nodes.iter().map(|node| with_id(node_row(node), escaped(&node.id)));
    let text = table(&with_id(NODE_COLUMNS, Column::left("ID")), rows, output.paint());
    output.result(text.trim_end()).await
}

/// What `status` tells of a node, with its id behind the name.
fn with_id<T>([name, rest @ ..]: [T; 8], id: T) -> [T; 9] {
    let [region, state, version, agents, messages, ring, address] = rest;
    [name, id, region, state, version, agents, messages, ring, address]
}
