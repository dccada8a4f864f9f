//! What was seen of a run, from outside: who asked what when, and what was answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{AgentId, registry::AgentRecord, token::Grant};

/// A run, as those saw it who used the registry.
#[derive(Debug, Default)]
pub struct History {
    /// In the order in which they were made.
    pub calls: Vec<Call>,
    /// What nodes knew of revocations.
    pub probes: Vec<Probe>,
    /// What went wrong, and when.
    pub disturbances: Vec<Disturbance>,
    /// How many nodes keep the book: the first ones.
    pub voters: usize,
    /// Registrations on one node, of those that most voters are in reach of: the first just before others
    /// were linked again that had been cut off, the rest after.
    pub around_return: Vec<usize>,
    /// The registration on one of three voters of five, when the other two, one of which leads, had been out
    /// of reach of two of them for long enough.
    pub after_stranding: Option<usize>,
    /// When all was whole again; none: never.
    pub healed: Option<Duration>,
    /// Why it was not.
    pub unhealed: String,
    /// At the end: what became of each token on each node.
    pub tokens: Vec<TokenSeen>,
    /// At the end: the whole book of each voter, as a digest.
    pub books: Vec<(usize, String)>,
    /// At the end: all names.
    pub names: BTreeMap<AgentId, AgentRecord>,
    /// Names that were still to be given back by nodes that died.
    pub forgotten: BTreeSet<AgentId>,
    /// When the run ended.
    pub ended: Duration,
    /// What happened, for who reads it: with the agent that it concerns, if any.
    pub lines: Vec<(Duration, Option<AgentId>, String)>,
    /// Nodes that died.
    pub crashes: u64,
    /// Voters that were given a new disk.
    pub wipes: u64,
}

/// Something that was asked of a node.
#[derive(Clone, Debug)]
pub struct Call {
    /// The node that was asked.
    pub node: usize,
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
    /// When it was answered, or given up; none: not yet.
    pub done: Option<Duration>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A name, by a claim that a number stands for.
    Register {
        /// The name.
        agent: AgentId,
        /// Which attempt.
        claim: usize,
        /// Whether whoever asks comes again with the same claim.
        repeatable: bool,
    },
    /// Whether there is such an agent.
    Read(AgentId),
    /// A new token.
    Reissue(AgentId),
    /// All tokens of an agent are to be refused.
    RevokeAgent(AgentId),
    /// The token that came of a call is to be refused.
    RevokeToken(AgentId, usize),
    /// All tokens of an agent are to be refused until its ban is lifted.
    Ban(AgentId),
    /// A ban is to be lifted.
    Unban(AgentId),
}

/// What came of a call.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    /// A token, and what a node read in it if one could.
    Granted(String, Option<Grant>),
    /// The name is another's.
    Taken,
    /// The claim had taken the name, but its token was replaced by one that was issued anew.
    Replaced,
    /// It was done.
    Done,
    /// What is known of the agent.
    Read(Option<AgentRecord>),
    /// There is no such agent.
    UnknownAgent,
    /// The agent is banned.
    Banned,
    /// It is not known whether it was done: the answer was `Unavailable`, with this reason.
    Unavailable(String),
    /// Whoever asked did not wait for the answer.
    GaveUp,
    /// The node died before it answered.
    Died,
}

/// Whether a node refuses a token, some time after it was revoked.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The call that revoked it.
    pub revoked_by: usize,
    /// The node.
    pub node: usize,
    /// When it was looked at.
    pub at: Duration,
    /// Whether the node must know for certain, whatever else went wrong.
    pub scripted: bool,
    /// Whether it does.
    pub refused: bool,
}

/// A time in which something was wrong.
#[derive(Clone, Debug)]
pub struct Disturbance {
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// The nodes that it befell.
    pub nodes: Vec<usize>,
    /// Whether these did nothing meanwhile, or could not write.
    pub stopped: bool,
    /// The ways between nodes that it befell.
    pub ways: Vec<(usize, usize)>,
}

/// What became of a token at the end.
#[derive(Clone, Debug)]
pub struct TokenSeen {
    /// The call that it came of.
    pub call: usize,
    /// The node that looked at it.
    pub node: usize,
    /// Whether it is good; else why not.
    pub good: Result<(), String>,
}

impl What {
    /// The agent that it is about.
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Register { agent, .. }
            | Self::Read(agent)
            | Self::Reissue(agent)
            | Self::RevokeAgent(agent)
            | Self::RevokeToken(agent, _)
            | Self::Ban(agent)
            | Self::Unban(agent) => agent,
        }
    }
}

impl Call {
    /// The answer, if there was one that says what was done.
    pub fn is_certain(&self) -> bool {
        !matches!(
            self.outcome,
            Outcome::Waiting | Outcome::Unavailable(_) | Outcome::GaveUp | Outcome::Died
        )
    }

    /// Whether there was an answer, whatever it says.
    pub fn is_answered(&self) -> bool {
        !matches!(self.outcome, Outcome::Waiting | Outcome::GaveUp | Outcome::Died)
    }

    /// Whether a token came of it.
    pub fn is_granted(&self) -> bool {
        matches!(self.outcome, Outcome::Granted(..))
    }

    /// The token that came of it, as a node read it.
    pub fn grant(&self) -> Option<&Grant> {
        match &self.outcome {
            Outcome::Granted(_, grant) => grant.as_ref(),
            _ => None,
        }
    }
}

impl History {
    /// Whether nothing went wrong with a node, the voters, and the ways between them.
    pub fn is_calm(&self, node: usize, from: Duration, until: Duration) -> bool {
        let concerns = |it: usize| it == node || it < self.voters;
        !self.disturbances.iter().any(|disturbance| {
            disturbance.from <= until
                && disturbance.until >= from
                && (disturbance.nodes.iter().any(|it| concerns(*it))
                    || disturbance.ways.iter().any(|(a, b)| concerns(*a) && concerns(*b)))
        })
    }

    /// The calls about an agent, with their numbers.
    pub fn about<'h>(&'h self, agent: &'h AgentId) -> impl Iterator<Item = (usize, &'h Call)> {
        self.calls.iter().enumerate().filter(move |(_, call)| call.what.agent() == agent)
    }

    /// All agents that were asked about.
    pub fn agents(&self) -> Vec<AgentId> {
        let mut agents: Vec<_> = self.calls.iter().map(|call| call.what.agent().clone()).collect();
        agents.sort();
        agents.dedup();
        agents
    }
}
