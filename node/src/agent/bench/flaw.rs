//! Why a measurement has no result, or one that shows a relay that does not keep its promise.

use std::{collections::BTreeSet, io, path::PathBuf};

use super::checker::Faults;
use crate::agent::failure::Failure;

/// What went wrong, beside what any client can meet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    /// The options contradict each other or the relay.
    #[error("{0}")]
    Senseless(String),
    /// More connections than this process may have.
    #[error(
        "{agents} agents need {needed} open files, and the limit is {limit}: ulimit -n {needed}, or \
         fewer --agents"
    )]
    Files { agents: usize, needed: u64, limit: u64 },
    /// Nothing says where the user's state is kept.
    #[error("neither XDG_STATE_HOME nor HOME is set: say where to keep tokens by --agents-file")]
    NoHome,
    /// Somebody else measures as the same agents.
    #[error("another bench is using {}: wait for it, or give this one its own --agents-file", .0.display())]
    InUse(PathBuf),
    /// The agents' tokens cannot be read or kept.
    #[error("cannot use {}: {source}", path.display())]
    AgentsFile { path: PathBuf, source: io::Error },
    /// The relay refuses the tokens of these agents, by their places in the run.
    #[error("{why}")]
    Refused { agents: BTreeSet<usize>, why: Box<Failure> },
    /// The relay did what it was told: it held agents back. What was measured is the limit.
    #[error("the relay's limit was reached, not its capacity: {told}; {setting}")]
    Limited { told: String, setting: &'static str },
    /// The relay says nothing of its own cost.
    #[error(
        "{0} shows no process_cpu_seconds_total at /metrics: is it the ops port of an arc-relay?"
    )]
    NoCost(String),
    /// The promise on delivery was not kept.
    #[error(
        "delivery was not exact: {} lost, {} twice, {} out of order, {} spoilt",
        .0.lost, .0.twice, .0.out_of_order, .0.spoilt
    )]
    Faulty(Faults),
    /// The user asked for the end.
    #[error("interrupted before there was a result")]
    Interrupted,
    /// A part of this program has died.
    #[error("a part of this measurement has died: {0}")]
    Died(#[from] tokio::task::JoinError),
}

impl Flaw {
    /// The exit code.
    pub(in crate::agent) fn exit_code(&self) -> u8 {
        match self {
            Self::Senseless(_)
            | Self::Files { .. }
            | Self::NoHome
            | Self::InUse(_)
            | Self::AgentsFile { .. } => 2,
            Self::Limited { .. } => 3,
            Self::Faulty(_) => 6,
            Self::Refused { why, .. } => why.exit_code(),
            Self::NoCost(_) | Self::Interrupted | Self::Died(_) => 1,
        }
    }
}
