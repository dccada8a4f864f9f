//! What lies between the nodes of the model network, and what came of it.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Frame {
    Direct { from: String, resent: bool, era: u32, targets: Vec<String>, body: Bytes },
    Bounced { from: String, resent: bool, era: u32, targets: Vec<String>, body: Bytes },
    Broadcast { except: Vec<String>, body: Bytes },
    Fence { agent: String, epoch: u64 },
    Fenced { agent: String, epoch: u64 },
    Barrier { agent: String, session: SessionId },
    Publish { agent: String, session: SessionId },
    Published { agent: String, session: SessionId, notified: Option<Vec<usize>> },
    Withdraw { agent: String, session: SessionId },
    Lookup { ask: u64, agent: String, home_only: bool },
    Located { ask: u64, agent: String, place: Located },
    Moved { agent: String, was: Option<SessionId>, is: Option<SessionId> },
}

/// A session of an agent, on its node.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) session: SessionId,
    pub(super) fenced: bool,
    pub(super) admitted: bool,
    /// Whose barriers are awaited, on which lanes; none before the owner has answered.
    pub(super) awaits: Option<BTreeSet<(usize, u8)>>,
    pub(super) barriers: BTreeSet<(usize, u8)>,
}

/// All but the routes, so that these can be called while it changes.
#[derive(Default)]
pub(super) struct Wires {
    pub(super) lanes: BTreeMap<(usize, usize, u8), VecDeque<Frame>>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) sessions: BTreeMap<(usize, String), Local>,
    pub(super) got: BTreeMap<(String, SessionId), Vec<Got>>,
    pub(super) lost: BTreeMap<String, u64>,
    /// Messages that were in a link when it was lost.
    pub(super) cut_off: u64,
}

pub(super) struct Out<'a> {
    pub(super) me: usize,
    pub(super) wires: &'a RefCell<Wires>,
}

impl RouteOut for Out<'_> {
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let names = |names: &Names<'_>| names.iter().map(str::to_owned).collect();
        let frame = match frame {
            Data::Direct(direct) => Frame::Direct {
                from: direct.from.to_owned(),
                resent: direct.resent,
                era: direct.era,
                targets: names(&direct.targets),
                body: direct.body.to_shared(),
            },
            Data::Fence { agent, epoch } => {
                Frame::Fence { agent: (*agent).to_owned(), epoch: *epoch }
            }
            other => panic!("routes push no {other:?}"),
        };
        self.wires.borrow_mut().push(self.me, node_of(to), lane, frame)
    }

    fn here(&self, agent: &AgentId, _from: &AgentId, _followed: bool, body: &Body<'_>) -> bool {
        self.wires.borrow_mut().give(self.me, agent.as_str(), body.as_slice(), How::Direct)
    }

    fn unfenced(&self, agent: &AgentId) {
        if let Some(local) = self.wires.borrow_mut().session(self.me, agent.as_str()) {
            local.fenced = false;
        }
    }

    fn lost(&self, why: Lost, messages: u64) {
        *self.wires.borrow_mut().lost.entry(format!("{why:?}")).or_default() += messages;
    }
}

impl Wires {
    pub(super) fn push(&mut self, from: usize, to: usize, lane: u8, frame: Frame) -> Pushed {
        if self.is_cut(from, to) {
            return Pushed::NoLink;
        }
        self.lanes.entry((from, to, lane)).or_default().push_back(frame);
        Pushed::Queued
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn session(&mut self, node: usize, agent: &str) -> Option<&mut Local> {
        self.sessions.get_mut(&(node, agent.to_owned()))
    }

    pub(super) fn give(&mut self, node: usize, agent: &str, body: &[u8], how: How) -> bool {
        let Some(session) = self.session(node, agent).map(|local| local.session) else {
            return false;
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        self.got.entry((agent.to_owned(), session)).or_default().push(Got { text, how });
        true
    }
}
