//! What the other nodes have not been told yet, and whose turn it is. Pure.
//!
//! The first change of a list is due at once. From then on, while its follower stays here, what
//! changes is told as such and not the whole list, and once a second at most: an agent that follows
//! and unfollows all day costs the mesh little more than its commands did.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    time::Duration,
};

use cluster::AgentId;

/// From one telling of a follower's list to the next, while the follower is here.
const REST: Duration = Duration::from_secs(1);

/// News of the followers, and to whom of them the others have been listening. Holds no more names
/// than the lists themselves: of changes that are more than what is left, only that they are.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// In the order of names, in which the followers have their turns.
    news: BTreeMap<AgentId, News>,
    /// Whose list all linked nodes were told by this one, and when; only those who have been here
    /// since, for a list may be changed where its follower is, and nowhere else.
    told: HashMap<AgentId, Duration>,
    /// Who had the last turn.
    last: Option<AgentId>,
}

/// What of a record is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Only where the follower is.
    Stay,
    /// What has changed in the list since it was told, too.
    Changes(Changes),
    /// All of the list.
    List,
}

/// What two lists of one follower differ in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: BTreeSet<AgentId>,
    pub(super) removed: BTreeSet<AgentId>,
}

impl Untold {
    pub(super) fn is_empty(&self) -> bool {
        self.news.is_empty()
    }

    /// The follower came, or left.
    pub(super) fn stay_changed(&mut self, follower: &AgentId) {
        self.news.entry(follower.clone()).or_insert(News::Stay);
    }

    /// The follower, who is here, has changed its list.
    pub(super) fn list_changed(
        &mut self,
        follower: &AgentId,
        before: &BTreeSet<AgentId>,
        after: &BTreeSet<AgentId>,
    ) {
        let is_told = self.told.contains_key(follower);
        let news = self.news.entry(follower.clone()).or_insert(News::Stay);
        let mut changes = match news {
            News::Stay => Changes::default(),
            News::Changes(changes) => std::mem::take(changes),
            News::List => return,
        };
        changes.note(before, after);
        let is_short = changes.added.len() + changes.removed.len() <= after.len();
        *news = if is_told && is_short { News::Changes(changes) } else { News::List };
    }

    /// The others may know nothing of the follower, or something else.
    pub(super) fn all_is_news(&mut self, follower: &AgentId) {
        self.news.insert(follower.clone(), News::List);
    }

    /// The follower is here no more: what it changed here is due at once, since it may change more
    /// elsewhere.
    pub(super) fn left(&mut self, follower: &AgentId) {
        self.told.remove(follower);
    }

    /// Another node has a newer list of the follower: what was changed here says nothing any more.
    pub(super) fn outdone(&mut self, follower: &AgentId) {
        self.told.remove(follower);
        if let Some(news @ News::Changes(_)) = self.news.get_mut(follower) {
            *news = News::List;
        }
    }

    /// There is nothing to tell of the follower.
    pub(super) fn forget(&mut self, follower: &AgentId) {
        self.told.remove(follower);
        self.news.remove(follower);
    }

    /// What is due at `now`, up to the first with which it is `room` bytes. Who comes late in the
    /// order of names has its turn too, however much there is of others.
    pub(super) fn take(
        &mut self,
        now: Duration,
        room: usize,
        bytes_of: impl Fn(&AgentId, &News) -> usize,
    ) -> Vec<(AgentId, News)> {
        let is_due = |follower: &AgentId, news: &News| {
            let rests = self.told.get(follower).is_some_and(|told| now < *told + REST);
            *news == News::Stay || !rests
        };
        let from = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.news.range::<AgentId, _>((from, Bound::Unbounded));
        let before = self.last.iter().flat_map(|last| self.news.range::<AgentId, _>(..=last));
        let mut bytes = 0;
        let due: Vec<AgentId> = behind
            .chain(before)
            .filter(|(follower, news)| is_due(follower, news))
            .take_while(|(follower, news)| {
                let has_room = bytes < room;
                bytes += bytes_of(follower, news);
                has_room
            })
            .map(|(follower, _)| follower.clone())
            .collect();
        self.last = due.last().or(self.last.as_ref()).cloned();
        due.iter().filter_map(|follower| self.news.remove_entry(follower)).collect()
    }

    /// All linked nodes know the list of the follower, who is here.
    pub(super) fn told(&mut self, follower: &AgentId, now: Duration) {
        self.told.insert(follower.clone(), now);
    }
}

impl Changes {
    /// Of a list that was told, and has changed to `before`, something changes again.
    fn note(&mut self, before: &BTreeSet<AgentId>, after: &BTreeSet<AgentId>) {
        for agent in after.difference(before) {
            if !self.removed.remove(agent) {
                self.added.insert(agent.clone());
            }
        }
        for agent in before.difference(after) {
            if !self.added.remove(agent) {
                self.removed.insert(agent.clone());
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 100;

    fn id(n: usize) -> AgentId {
        format!("agent-{n}").parse().unwrap()
    }

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
        range.map(id).collect()
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn taken(untold: &mut Untold, now: Duration) -> Vec<(AgentId, News)> {
        untold.take(now, ROOM, |_, _| 1)
    }

    /// One whose agent has been told of, at the beginning.
    fn told() -> Untold {
        let mut untold = Untold::default();
        untold.told(&id(0), at(0));
        untold
    }

    #[test]
    fn the_first_change_is_told_whole_and_at_once() {
        let mut untold = Untold::default();
        untold.stay_changed(&id(0));
        untold.list_changed(&id(0), &ids(0..0), &ids(1..3));
        untold.list_changed(&id(0), &ids(1..3), &ids(1..4));
        assert_eq!(taken(&mut untold, at(0)), [(id(0), News::List)]);
        assert!(untold.is_empty());
    }

    #[test]
    fn what_changes_later_is_told_as_such_and_once_a_second() {
        let mut untold = told();
        untold.list_changed(&id(0), &ids(1..9), &ids(2..9));
        untold.list_changed(&id(0), &ids(2..9), &ids(2..10));
        assert_eq!(taken(&mut untold, at(999)), []);
        assert!(!untold.is_empty());
        let changes = Changes { added: ids(9..10), removed: ids(1..2) };
        assert_eq!(taken(&mut untold, at(1_000)), [(id(0), News::Changes(changes))]);
    }

    #[test]
    fn what_is_changed_back_is_no_change_but_news() {
        let mut untold = told();
        untold.list_changed(&id(0), &ids(1..9), &ids(2..9));
        untold.list_changed(&id(0), &ids(2..9), &ids(1..9));
        let nothing = News::Changes(Changes::default());
        assert_eq!(taken(&mut untold, at(1_000)), [(id(0), nothing)], "its version is another");
    }

    #[test]
    fn who_changes_more_than_is_left_is_told_whole() {
        let mut untold = told();
        untold.list_changed(&id(0), &ids(1..9), &ids(1..2));
        assert_eq!(taken(&mut untold, at(1_000)), [(id(0), News::List)]);
    }

    #[test]
    fn who_comes_and_goes_waits_for_nothing() {
        let mut untold = told();
        untold.stay_changed(&id(0));
        assert_eq!(taken(&mut untold, at(1)), [(id(0), News::Stay)]);
        untold.list_changed(&id(0), &ids(1..3), &ids(1..4));
        untold.left(&id(0));
        let changes = Changes { added: ids(3..4), removed: ids(0..0) };
        assert_eq!(taken(&mut untold, at(1)), [(id(0), News::Changes(changes))]);
        untold.list_changed(&id(0), &ids(1..4), &ids(1..5));
        assert_eq!(taken(&mut untold, at(1)), [(id(0), News::List)], "others may have changed it");
    }

    #[test]
    fn changes_of_a_list_that_another_node_has_replaced_are_none() {
        let mut untold = told();
        untold.list_changed(&id(0), &ids(1..3), &ids(1..4));
        untold.outdone(&id(0));
        untold.list_changed(&id(0), &ids(5..7), &ids(5..8));
        assert_eq!(taken(&mut untold, at(0)), [(id(0), News::List)]);
    }

    #[test]
    fn all_have_their_turn_though_the_first_never_rest() {
        let mut untold = Untold::default();
        let mut seen = BTreeSet::new();
        for _ in 0..5 {
            (0..10).for_each(|n| untold.stay_changed(&id(n)));
            let turn = untold.take(at(0), 4, |_, _| 2);
            assert_eq!(turn.len(), 2);
            seen.extend(turn.into_iter().map(|(follower, _)| follower));
        }
        assert_eq!(seen, ids(0..10));
    }

    proptest! {
        #[test]
        fn changes_lead_from_the_first_list_to_the_last(
            lists in prop::collection::vec(prop::collection::btree_set(0..6_usize, 0..6), 2..9)
        ) {
            let lists: Vec<BTreeSet<AgentId>> =
                lists.into_iter().map(|list| list.into_iter().map(id).collect()).collect();
            let mut changes = Changes::default();
            for pair in lists.windows(2) {
                changes.note(&pair[0], &pair[1]);
            }
            let (first, last) = (&lists[0], &lists[lists.len() - 1]);
            prop_assert_eq!(&changes.added, &last.difference(first).cloned().collect());
            prop_assert_eq!(&changes.removed, &first.difference(last).cloned().collect());
        }
    }
}
