//! What the admin API is told and says, as JSON: one set of types for the ops listener, for its
//! `OpenAPI` document, and for the command line.
//!
//! What is told is taken by the letter: a field that is not known is refused with its name, so that no
//! misspelt wish is silently dropped. What is said may grow: fields that are not known are ignored.

use std::fmt;

use cluster::{AgentId, registry};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

/// An agent's id and a token that speaks for it. Has no `Debug`: it holds a token.
#[derive(Deserialize, Serialize, ToSchema)]
pub struct Credentials {
    /// The registered name.
    pub agent_id: String,
    /// The token that speaks for it.
    pub token: String,
}

/// What the relay knows of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Agent {
    /// Its id.
    pub agent_id: String,
    /// When the id was registered, Unix time in milliseconds.
    pub registered_at: u64,
    /// Serial of the token issued last; null for an imported name that has had none.
    pub serial: Option<u64>,
    /// Whether that token is revoked.
    pub revoked: bool,
    /// Whether the agent is banned.
    #[serde(default)]
    pub banned: bool,
    /// Whether the agent is connected; in a list, to the node that was asked.
    pub connected: bool,
    /// The node that it is connected to.
    #[serde(default)]
    pub node: Option<String>,
}

/// Some of the agents.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct AgentPage {
    /// In the order of their ids.
    pub agents: Vec<Agent>,
    /// What to give as `after` for those behind; null: there are none.
    pub next: Option<String>,
}

/// Which agents to list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AgentQuery {
    /// Those whose ids come behind this one.
    pub after: Option<String>,
    /// How many at most: 1 to 1,000, 100 if absent.
    pub limit: Option<usize>,
}

/// All tokens of an agent were revoked.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct AgentRevoked {
    /// The agent.
    pub agent_id: String,
    /// True.
    pub revoked: bool,
}

/// An agent was banned, or its ban lifted.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct AgentBanned {
    /// The agent.
    pub agent_id: String,
    /// Whether it is banned now.
    pub banned: bool,
}

/// A token was revoked.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct TokenRevoked {
    /// The token's serial.
    pub serial: u64,
    /// True.
    pub revoked: bool,
}

/// A name to import: an id, or an object that has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ImportedName {
    /// `"some-name"`.
    Id(String),
    /// `{"agent_id": "some-name"}`.
    Object {
        /// The id.
        agent_id: String,
    },
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Imported {
    /// How many names are new.
    pub added: u64,
    /// Those that were registered already; they are as they were.
    pub existing: Vec<String>,
}

/// How the registry is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct RegistryReport {
    /// Which registry this is, 32 hexadecimal digits; null before it is founded or found.
    pub id: Option<String>,
    /// `leader`, `follower`, `learner`, `candidate` or `observer`.
    pub role: String,
    /// Whether names can be registered now, as far as this node knows.
    pub available: bool,
    /// What this node waits for; null: nothing.
    pub waiting: Option<Waiting>,
    /// The node that leads, 16 hexadecimal digits; null if none is known.
    pub leader: Option<String>,
    /// The leader's term; 0 if unknown.
    pub term: u64,
    /// The last entry of the log that this node follows.
    pub applied: u64,
    /// Who keeps the names, learners last.
    pub voters: Vec<Voter>,
    /// Why this node's own disk is of no use to the registry; null: it is.
    pub failure: Option<String>,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Waiting {
    /// One sentence: for what, and what to do.
    pub reason: String,
    /// The seeds that have not been heard of.
    pub seeds: Vec<String>,
}

/// A node that keeps the names, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Voter {
    /// The node, 16 hexadecimal digits.
    pub node: String,
    /// Its seed, as its own list has it.
    pub seed: String,
    /// Whether it decides with the others; else it is being given the names.
    pub votes: bool,
    /// How many entries it is behind; null unless the leader was asked.
    pub lag: Option<u64>,
}

/// What is wanted of the voters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum VoterChange {
    /// These seeds and no others are to keep the names.
    Set {
        /// 1, 3 or 5 nodes, each by its seed as written in `SEEDS`, its id, its name, or the address
        /// that it advertises.
        seeds: Vec<String>,
    },
    /// Each node's own `SEEDS` are to be followed again.
    Follow {},
    /// One node takes another's place.
    Replace {
        /// The voter that goes, by seed, node id, name or advertised address.
        old: String,
        /// The node that comes, likewise.
        new: String,
    },
}

/// A key that signs tokens, or did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Key {
    /// Its number, which its tokens carry.
    pub id: u32,
    /// The public half, in hexadecimal digits.
    pub public: String,
    /// Since when there is this key, Unix time in milliseconds.
    pub created_at: u64,
    /// When its tokens end, Unix time in milliseconds; null: not decided.
    pub retires_at: Option<u64>,
}

/// All keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Keys {
    /// The one that signs first.
    pub keys: Vec<Key>,
}

/// A change of keys that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how many seconds more what the present key signed is good.
    pub retire_after_seconds: u64,
}

/// A change of keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Rotated {
    /// The key that signs now.
    pub signs: Key,
    /// The key that signed before.
    pub retires: Key,
}

/// Which node is to leave, whatever speaks against it.
#[derive(Clone, Copy, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DrainQuery {
    /// True: also if no other node takes agents, or the voters lose their majority.
    #[serde(default)]
    pub anyway: bool,
}

/// A node drains, and stops then.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
pub struct Draining {
    /// Its id.
    pub node: String,
    /// What its operator calls it.
    pub name: String,
    /// Agents that are connected to it still.
    pub agents: u64,
}

/// The body of every error (PROTOCOL section 1).
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The code, for programs.
    pub error: String,
    /// A text, for people.
    #[serde(default)]
    pub message: String,
}

impl Agent {
    /// What the registry knows, and to which node the agent is connected, if to any.
    pub fn new(agent: &AgentId, record: &registry::AgentRecord, node: Option<String>) -> Self {
        Self {
            agent_id: agent.to_string(),
            registered_at: record.registered_at.0,
            serial: Some(record.serial.0).filter(|serial| *serial > 0),
            revoked: record.revoked,
            banned: record.banned,
            connected: node.is_some(),
            node,
        }
    }
}

impl ImportedName {
    /// The id, whatever its form.
    pub fn into_id(self) -> String {
        match self {
            Self::Id(id) | Self::Object { agent_id: id } => id,
        }
    }
}

impl<'de> Deserialize<'de> for ImportedName {
    /// Not derived: serde's untagged enums do not say which field they do not know.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Object {
            agent_id: String,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = ImportedName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an agent id or {\"agent_id\": …}")
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<ImportedName, E> {
                Ok(ImportedName::Id(id.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ImportedName, A::Error> {
                let Object { agent_id } = Object::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ImportedName::Object { agent_id })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl From<registry::Imported> for Imported {
    fn from(imported: registry::Imported) -> Self {
        let existing = imported.existing.iter().map(ToString::to_string).collect();
        Self { added: imported.added, existing }
    }
}

impl From<registry::VoterStatus> for Voter {
    fn from(voter: registry::VoterStatus) -> Self {
        let registry::VoterStatus { node, seed, votes, lag } = voter;
        Self { node: node.to_string(), seed, votes, lag }
    }
}

impl From<registry::RegistryStatus> for RegistryReport {
    fn from(status: registry::RegistryStatus) -> Self {
        Self {
            id: status.id.map(|id| id.to_string()),
            role: role(status.role).to_owned(),
            available: status.available,
            waiting: status.waiting.map(|w| Waiting { reason: w.reason, seeds: w.seeds }),
            leader: status.leader.map(|node| node.to_string()),
            term: status.term,
            applied: status.applied,
            voters: status.voters.into_iter().map(Into::into).collect(),
            failure: status.failure,
        }
    }
}

/// What a node does for the registry, in one word.
fn role(role: registry::Role) -> &'static str {
    match role {
        registry::Role::Leader => "leader",
        registry::Role::Follower => "follower",
        registry::Role::Learner => "learner",
        registry::Role::Candidate => "candidate",
        registry::Role::Observer => "observer",
    }
}

impl From<VoterChange> for registry::VoterChange {
    fn from(change: VoterChange) -> Self {
        match change {
            VoterChange::Set { seeds } => Self::Set(seeds),
            VoterChange::Follow {} => Self::FollowSeeds,
            VoterChange::Replace { old, new } => Self::Replace { old, new },
        }
    }
}

impl From<registry::KeyInfo> for Key {
    fn from(key: registry::KeyInfo) -> Self {
        Self {
            id: key.id.0,
            public: hexadecimal(&key.public),
            created_at: key.created_at.0,
            retires_at: key.retires_at.map(|at| at.0),
        }
    }
}

impl From<registry::KeyRotation> for Rotated {
    fn from(rotation: registry::KeyRotation) -> Self {
        Self { signs: rotation.signs.into(), retires: rotation.retires.into() }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn names_to_import_come_in_two_forms() {
        let names: Vec<ImportedName> =
            serde_json::from_str(r#"["ann-1", {"agent_id": "bob-1"}]"#).unwrap();
        let ids: Vec<_> = names.into_iter().map(ImportedName::into_id).collect();
        assert_eq!(ids, ["ann-1", "bob-1"]);
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_name() {
        let told = [
            serde_json::from_str::<ImportedName>(r#"{"agent_id":"a","toke":1}"#).err(),
            serde_json::from_str::<VoterChange>(r#"{"change":"follow","toke":1}"#).err(),
            serde_json::from_str::<VoterChange>(r#"{"change":"set","seeds":[],"toke":1}"#).err(),
            serde_json::from_str::<Rotation>(r#"{"retire_after_seconds":1,"toke":1}"#).err(),
        ];
        for error in told {
            let error = error.expect("it is refused").to_string();
            assert!(error.contains("`toke`"), "{error}");
        }
    }

    #[test]
    fn keys_are_shown_in_hexadecimal_digits() {
        assert_eq!(hexadecimal(&[0, 9, 0xaf, 0xff]), "0009afff");
    }

    #[test]
    fn changes_of_voters_are_read_as_documented() {
        let read = |text| serde_json::from_str::<VoterChange>(text).unwrap();
        assert_eq!(read(r#"{"change":"follow"}"#), VoterChange::Follow {});
        let set = VoterChange::Set { seeds: vec!["a:1".into()] };
        assert_eq!(read(r#"{"change":"set","seeds":["a:1"]}"#), set);
        let replace = VoterChange::Replace { old: "a".into(), new: "b".into() };
        assert_eq!(read(r#"{"change":"replace","old":"a","new":"b"}"#), replace);
    }
}
