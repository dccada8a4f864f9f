//! `arc-relay nodes`: the nodes of a cluster, as one of them sees them, with all that they can be named by.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    args::OpsArgs,
    failure::Failure,
    http::Call,
    output::Output,
    status::{node_row, state_hue},
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
    let rows = report.nodes.iter().map(|node| {
        let [name, rest @ ..] = node_row(node);
        let [region, state, version, agents, messages, ring, address] = rest;
        [name, escaped(&node.id), region, state, version, agents, messages, ring, address]
    });
    let text = table(&COLUMNS, rows, output.paint());
    output.result(text.trim_end()).await
}

const COLUMNS: [Column; 9] = [
    Column::left("NODE"),
    Column::left("ID"),
    Column::left("REGION"),
    Column::left("STATE").hued(state_hue),
    Column::left("VERSION"),
    Column::right("AGENTS"),
    Column::right("MSGS/MIN"),
    Column::right("RING"),
    Column::left("ADDRESS"),
];
