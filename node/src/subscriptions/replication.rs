//! How the nodes of a cluster come to keep the same subscriptions.
//!
//! Whoever changes a record tells all others; once they have a list, only what changes of it, with the
//! hash of what comes of it: who had another list, or none, takes nothing. What a node missed, or had
//! otherwise, it learns when a link comes up, and once a minute: both ends say a digest of what they have, and each answers with its records of the
//! parts that differ: a few at a time, and the next when it is told to go on, so that however much it
//! is, a link has room for it. Opaque to the cluster: these are the bodies of its `Tell` frames. Pure.

use std::{collections::BTreeSet, ops::Bound, time::Duration};

use cluster::{AgentId, UnixMillis, subscription_store::Version};
use serde::{Deserialize, Serialize};

use super::{
    Record, Stay, Subscriptions, Wishes,
    record::{bucket_of, hash_of_list},
    records::BUCKETS,
    untold::{Changes, News},
};

/// The longest body that is told at once, so that nothing else on the lane waits for long.
pub const TOLD_BYTES_MAX: usize = 256 << 10;

/// What is told in one turn in answer to a digest, but for its last record: no peer has more of an
/// answer on its lane at a time, which holds sixteen times as much.
pub const TURN_BYTES_MAX: usize = 1 << 20;

/// What all peers are told in one turn of what is new, but for its last record: a list of a thousand
/// long names.
pub const NEWS_BYTES_MAX: usize = 64 << 10;

/// What a record takes in a body beside its names, at most, and each name beside its bytes.
const RECORD_BYTES: usize = 128;
const NAME_BYTES: usize = 2;
/// What a wish takes beside its name.
const WISH_BYTES: usize = 24;

/// What nodes tell each other of subscriptions. The names of the variants are the wire's, and frozen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubscriptionNews {
    /// What I have, to be answered with what you have instead: for each bucket the sum of its
    /// records' hashes.
    #[serde(rename = "subscriptions_digest")]
    Digest(Vec<u64>),
    /// These are my records.
    #[serde(rename = "subscriptions")]
    Records(Vec<Record>),
    /// These lists have changed so since I told them.
    #[serde(rename = "subscriptions_changed")]
    Changes(Vec<Change>),
    /// Your list lacks this that was asked of me.
    #[serde(rename = "subscriptions_asked")]
    Asked(Vec<Wishes>),
    /// These followers arrived, or left.
    #[serde(rename = "followers")]
    Stays(Vec<FollowerStay>),
    /// There is more of my answer to your digest: say [`GoOn`](Self::GoOn) with this to be told.
    #[serde(rename = "subscriptions_paused")]
    Paused(Rest),
    /// Tell me the rest of your answer.
    #[serde(rename = "subscriptions_go_on")]
    GoOn(Rest),
}

/// What is left of the answer to a digest. Whoever answers remembers nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// The buckets that differ.
    pub buckets: Vec<u8>,
    /// The follower whose record was told last; those behind it in the order of names are left.
    pub after: AgentId,
}

/// A record, without what its list has in common with the one that was told before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Who follows.
    pub follower: AgentId,
    /// Whom, too.
    pub added: BTreeSet<AgentId>,
    /// Whom no more.
    pub removed: BTreeSet<AgentId>,
    /// When the list was changed last.
    pub listed: Version,
    /// The hash of the list that comes of it: SipHash-1-3 without a key, over the names in their
    /// order, each with a line feed behind it.
    pub hash: u64,
    /// Where the follower is.
    pub stay: Stay,
    /// When that was changed.
    pub stayed: Version,
}

/// Where a follower is, without its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowerStay {
    /// Who follows.
    pub follower: AgentId,
    /// Where it is.
    pub stay: Stay,
    /// When that was changed.
    pub stayed: Version,
}

/// Bytes that are no news of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer told of subscriptions in a form that this release does not know")]
pub struct NotUnderstood;

impl Subscriptions {
    /// What to tell a peer when the link to it comes up, and any peer now and then: a digest of all
    /// records.
    pub fn digest(&self) -> Vec<u8> {
        encode(&SubscriptionNews::Digest(self.following.digest().to_vec()))
    }

    /// Whether there is anything to tell all peers.
    pub fn has_news(&self) -> bool {
        !self.untold.is_empty()
    }

    /// What to tell all peers at `now`, by a clock that never goes back: what has changed here since
    /// this was asked last, or the first of it if that is much. Each is the body of one frame.
    pub fn take_news(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let bytes_of = |follower: &AgentId, news: &News| {
            let list = match news {
                News::Stay => 0,
                News::Changes(changes) => names_bytes(changes.added.iter().chain(&changes.removed)),
                News::List => self.following.get(follower).map_or(0, |it| names_bytes(&it.agents)),
            };
            name_bytes(follower) + list
        };
        let due = self.untold.take(now, NEWS_BYTES_MAX, bytes_of);
        let (mut records, mut changed, mut stays) = (Vec::new(), Vec::new(), Vec::new());
        for (follower, news) in due {
            let Some(following) = self.following.get(&follower) else { continue };
            let (listed, stay, stayed) = (following.listed, following.stay, following.stayed);
            if news != News::Stay && stay == Stay::Home(self.me) {
                self.untold.told(&follower, now);
            }
            match news {
                News::List => records.push(following.to_record(&follower)),
                News::Changes(Changes { added, removed }) => {
                    let hash = hash_of_list(&following.agents);
                    changed.push(Change { follower, added, removed, listed, hash, stay, stayed });
                }
                News::Stay => stays.push(FollowerStay { follower, stay, stayed }),
            }
        }
        let mut bodies = batches(records, record_bytes, SubscriptionNews::Records);
        bodies.extend(batches(changed, change_bytes, SubscriptionNews::Changes));
        bodies.extend(batches(stays, |stay| name_bytes(&stay.follower), SubscriptionNews::Stays));
        bodies
    }

    /// A peer told this. Returns what to tell it in return, each the body of one frame.
    pub fn told(
        &mut self,
        body: &[u8],
        now: UnixMillis,
        ttl: Duration,
    ) -> Result<Vec<Vec<u8>>, NotUnderstood> {
        match rmp_serde::from_slice(body).map_err(|_| NotUnderstood)? {
            SubscriptionNews::Digest(buckets) => {
                let theirs: [u64; BUCKETS] = buckets.try_into().map_err(|_| NotUnderstood)?;
                return Ok(self.answer(&self.differing(&theirs), Bound::Unbounded));
            }
            SubscriptionNews::Paused(rest) => {
                return Ok(vec![encode(&SubscriptionNews::GoOn(rest))]);
            }
            SubscriptionNews::GoOn(Rest { buckets, after }) => {
                return Ok(self.answer(&buckets, Bound::Excluded(after)));
            }
            SubscriptionNews::Records(records) => {
                let take = |record: Record| {
                    let follower = record.follower.clone();
                    self.apply(record, now, ttl);
                    self.missed(&follower, now)
                };
                return Ok(asked(records.into_iter().filter_map(take)));
            }
            SubscriptionNews::Changes(changes) => {
                let take = |change| self.apply_change(change, now, ttl);
                return Ok(asked(changes.into_iter().filter_map(take)));
            }
            SubscriptionNews::Asked(lists) => {
                for wishes in lists {
                    self.hear(wishes, now);
                }
            }
            SubscriptionNews::Stays(stays) => {
                for FollowerStay { follower, stay, stayed } in stays {
                    self.apply_stay(&follower, stay, stayed, now);
                }
            }
        }
        Ok(Vec::new())
    }

    /// A list that another node has told has changed there. Returns what it may lack of what was asked
    /// here.
    fn apply_change(&mut self, change: Change, now: UnixMillis, ttl: Duration) -> Option<Wishes> {
        let Change { follower, added, removed, listed, hash, stay, stayed } = change;
        let known = self.following.get(&follower)?;
        let kept = known.agents.difference(&removed);
        let agents: BTreeSet<_> = kept.chain(&added).cloned().collect();
        if hash_of_list(&agents) == hash {
            self.apply(
                Record { follower: follower.clone(), agents, listed, stay, stayed },
                now,
                ttl,
            );
            return self.missed(&follower, now);
        }
        // It is not the list that was told before: the next digest says so.
        let is_older = known.listed < listed;
        self.apply_stay(&follower, stay, stayed, now);
        self.lately.of(&follower, now).filter(|_| is_older)
    }

    /// The buckets in which a peer has something else.
    fn differing(&self, theirs: &[u64; BUCKETS]) -> Vec<u8> {
        let mine = self.following.digest();
        let differs = |bucket: &u8| mine[usize::from(*bucket)] != theirs[usize::from(*bucket)];
        (0..=u8::MAX).filter(differs).collect()
    }

    /// One turn's records of these buckets, from a follower on, and whether there are more.
    fn answer(&self, buckets: &[u8], from: Bound<AgentId>) -> Vec<Vec<u8>> {
        if buckets.is_empty() {
            return Vec::new();
        }
        let mut asked = [false; BUCKETS];
        for bucket in buckets {
            asked[usize::from(*bucket)] = true;
        }
        let behind = self.following.range((from, Bound::Unbounded));
        let mut left = behind
            .filter(|(follower, _)| asked[usize::from(bucket_of(follower))])
            .map(|(follower, following)| following.to_record(follower))
            .peekable();
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(record) = left.next_if(|_| bytes < TURN_BYTES_MAX) {
            bytes += record_bytes(&record);
            records.push(record);
        }
        let after = records.last().filter(|_| left.peek().is_some());
        let after = after.map(|record: &Record| record.follower.clone());
        let mut bodies = batches(records, record_bytes, SubscriptionNews::Records);
        let paused = |after| SubscriptionNews::Paused(Rest { buckets: buckets.to_vec(), after });
        bodies.extend(after.map(|after| encode(&paused(after))));
        bodies
    }
}

fn name_bytes(name: &AgentId) -> usize {
    RECORD_BYTES + name.as_str().len()
}

fn names_bytes<'a>(names: impl IntoIterator<Item = &'a AgentId>) -> usize {
    names.into_iter().map(|name| NAME_BYTES + name.as_str().len()).sum()
}

fn record_bytes(record: &Record) -> usize {
    name_bytes(&record.follower) + names_bytes(&record.agents)
}

fn change_bytes(change: &Change) -> usize {
    name_bytes(&change.follower) + names_bytes(change.added.iter().chain(&change.removed))
}

fn asked(wishes: impl IntoIterator<Item = Wishes>) -> Vec<Vec<u8>> {
    let bytes_of = |wishes: &Wishes| {
        name_bytes(&wishes.follower) + wishes.of.len() * WISH_BYTES + names_bytes(wishes.of.keys())
    };
    batches(wishes, bytes_of, SubscriptionNews::Asked)
}

/// The items in as few bodies as [`TOLD_BYTES_MAX`] allows.
fn batches<T>(
    items: impl IntoIterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
    news: impl Fn(Vec<T>) -> SubscriptionNews,
) -> Vec<Vec<u8>> {
    let (mut bodies, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let more = bytes_of(&item);
        if bytes + more > TOLD_BYTES_MAX - RECORD_BYTES && !batch.is_empty() {
            bodies.push(encode(&news(std::mem::take(&mut batch))));
            bytes = 0;
        }
        bytes += more;
        batch.push(item);
    }
    if !batch.is_empty() {
        bodies.push(encode(&news(batch)));
    }
    bodies
}

fn encode(news: &SubscriptionNews) -> Vec<u8> {
    // Fails only for types that MessagePack lacks, which these are not.
    rmp_serde::to_vec(news).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::collections::BTreeSet;

    use cluster::{Generation, Incarnation, NodeId, subscription_store::Version};
    use proptest::prelude::*;

    use super::{super::Wish, *};

    const TTL: Duration = Duration::from_hours(1);
    const NOW: UnixMillis = UnixMillis(1_000_000);
    const AT: Duration = Duration::from_secs(1);

    fn id(n: usize) -> AgentId {
        format!("agent-{n}").parse().unwrap()
    }

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
        range.map(id).collect()
    }

    fn node(n: u64) -> Incarnation {
        Incarnation { node: NodeId(n), generation: Generation(1) }
    }

    fn on(n: u64) -> Subscriptions {
        Subscriptions::restored(node(n), Vec::new(), NOW)
    }

    fn decoded(body: &[u8]) -> SubscriptionNews {
        rmp_serde::from_slice(body).unwrap()
    }

    fn in_all(bodies: &[Vec<u8>]) -> usize {
        bodies.iter().map(Vec::len).sum()
    }

    /// Tells one node what the other says, and the other what that one answers.
    fn tell(
        from: &mut Subscriptions,
        to: &mut Subscriptions,
        bodies: Vec<Vec<u8>>,
        now: UnixMillis,
    ) {
        for body in bodies {
            let answers = to.told(&body, now, TTL).unwrap();
            for answer in answers {
                assert!(from.told(&answer, now, TTL).unwrap().is_empty());
            }
        }
    }

    /// What happens when a link comes up.
    fn exchange(a: &mut Subscriptions, b: &mut Subscriptions, now: UnixMillis) {
        let (of_a, of_b) = (a.digest(), b.digest());
        tell(a, b, vec![of_a], now);
        tell(b, a, vec![of_b], now);
    }

    #[test]
    fn bytes_are_frozen() {
        let version = |time, node| Version { time: UnixMillis(time), node: NodeId(node) };
        let (follower, stay, stayed) = (id(1), Stay::Home(node(5)), version(300, 5));
        let (agents, listed) = (ids(2..4), version(7, 6));
        let record = Record { follower: follower.clone(), agents, listed, stay, stayed };
        let news = [
            (
                SubscriptionNews::Records(vec![record]),
                &b"\x81\xadsubscriptions\x91\x95\xa7agent-1\x92\xa7agent-2\xa7agent-3\x92\x07\x06\
                   \x81\xa4home\x92\x05\x01\x92\xcd\x01\x2c\x05"[..],
            ),
            (
                SubscriptionNews::Stays(vec![FollowerStay {
                    follower,
                    stay: Stay::Left(UnixMillis(9)),
                    stayed,
                }]),
                b"\x81\xa9followers\x91\x93\xa7agent-1\x81\xa4left\x09\x92\xcd\x01\x2c\x05",
            ),
            (
                SubscriptionNews::Changes(vec![Change {
                    follower: id(1),
                    added: ids(2..3),
                    removed: ids(3..4),
                    listed,
                    hash: 300,
                    stay,
                    stayed,
                }]),
                b"\x81\xb5subscriptions_changed\x91\x97\xa7agent-1\x91\xa7agent-2\x91\xa7agent-3\
                  \x92\x07\x06\xcd\x01\x2c\x81\xa4home\x92\x05\x01\x92\xcd\x01\x2c\x05",
            ),
            (
                SubscriptionNews::Asked(vec![Wishes {
                    follower: id(1),
                    of: [(id(2), Wish { follow: true, at: listed })].into(),
                }]),
                b"\x81\xb3subscriptions_asked\x91\x92\xa7agent-1\x81\xa7agent-2\x92\xc3\x92\x07\x06",
            ),
            (
                SubscriptionNews::Digest(vec![1, 300]),
                b"\x81\xb4subscriptions_digest\x92\x01\xcd\x01\x2c",
            ),
            (
                SubscriptionNews::Paused(Rest { buckets: vec![1, 255], after: id(1) }),
                b"\x81\xb4subscriptions_paused\x92\x92\x01\xcc\xff\xa7agent-1",
            ),
            (
                SubscriptionNews::GoOn(Rest { buckets: vec![1, 255], after: id(1) }),
                b"\x81\xb3subscriptions_go_on\x92\x92\x01\xcc\xff\xa7agent-1",
            ),
        ];
        for (news, bytes) in news {
            assert_eq!(encode(&news), bytes, "{news:?}");
            assert_eq!(decoded(bytes), news);
        }
    }

    #[test]
    fn hashes_are_frozen() {
        let mut subs = on(5);
        subs.subscribe(&id(1), &ids(2..4), NOW).unwrap();
        let fingerprint = |subs: &Subscriptions| subs.following[&id(1)].fingerprint(&id(1));
        assert_eq!(fingerprint(&subs), (197, 4_557_510_571_462_215_171));
        subs.left(&id(1), NOW);
        assert_eq!(fingerprint(&subs), (197, 8_526_799_165_260_717_506));
        assert_eq!(hash_of_list(&ids(2..4)), 14_460_377_367_382_034_738);
    }

    #[test]
    fn a_change_reaches_the_others_and_an_arrival_is_small() {
        let (mut a, mut b) = (on(1), on(2));
        a.subscribe(&id(0), &ids(1..900), NOW).unwrap();
        let news = a.take_news(AT);
        tell(&mut a, &mut b, news, NOW);
        assert!(a.take_news(AT).is_empty());
        assert_eq!(b.followers(&id(7)).collect::<Vec<_>>(), [&id(0)]);
        assert_eq!(b.take_changed(), [id(0)], "it is saved there too");
        b.arrived(&id(0), NOW);
        a.left(&id(0), NOW);
        let news = b.take_news(AT);
        assert!(news.iter().map(Vec::len).sum::<usize>() < 100);
        tell(&mut b, &mut a, news, NOW);
        a.left(&id(0), NOW);
        assert_eq!(a.following, b.following, "its late goodbye is none");
        a.sweep(NOW.plus(TTL), TTL, |_| false);
        assert_eq!(a.total(), 899);
    }

    #[test]
    fn of_a_list_that_was_told_only_what_changes_is_told() {
        let (mut a, mut b) = (on(1), on(2));
        a.subscribe(&id(0), &ids(1..900), NOW).unwrap();
        let news = a.take_news(AT);
        assert!(in_all(&news) > 7_000);
        tell(&mut a, &mut b, news, NOW);
        a.subscribe(&id(0), &ids(900..902), NOW).unwrap();
        a.unsubscribe(&id(0), &ids(1..2), NOW);
        assert!(a.has_news() && a.take_news(AT).is_empty(), "it rests");
        let news = a.take_news(AT * 2);
        assert!(in_all(&news) < 120, "{}", in_all(&news));
        tell(&mut a, &mut b, news, NOW);
        assert_eq!(a.following, b.following);
        assert_eq!((b.total(), b.followers(&id(1)).count()), (900, 0));
    }

    #[test]
    fn who_has_another_list_takes_no_change_of_it_and_learns_all_by_a_digest() {
        let (mut a, mut b, mut c) = (on(1), on(2), on(3));
        a.subscribe(&id(0), &ids(1..9), NOW).unwrap();
        let news = a.take_news(AT);
        tell(&mut a, &mut b, news, NOW);
        a.subscribe(&id(0), &ids(9..10), NOW).unwrap();
        let lost = a.take_news(AT * 2);
        assert_eq!(lost.len(), 1);
        a.subscribe(&id(0), &ids(10..11), NOW).unwrap();
        let news = a.take_news(AT * 3);
        for subs in [&mut b, &mut c] {
            let before = subs.list(&id(0));
            tell(&mut a, subs, news.clone(), NOW);
            assert_eq!(subs.list(&id(0)), before, "no list that was never anybody's");
            exchange(&mut a, subs, NOW);
            assert_eq!(a.following, subs.following);
        }
    }

    #[test]
    fn an_arrival_does_not_undo_a_subscription_that_it_has_not_heard_of() {
        let (mut a, mut b) = (on(1), on(2));
        a.subscribe(&id(0), &ids(1..2), NOW).unwrap();
        exchange(&mut a, &mut b, NOW);
        a.subscribe(&id(0), &ids(2..3), NOW).unwrap();
        let late = a.take_news(AT);
        b.arrived(&id(0), NOW.plus(TTL / 9));
        tell(&mut a, &mut b, late, NOW);
        assert_eq!(b.of(&id(0)).count(), 2);
        let news = b.take_news(AT);
        tell(&mut b, &mut a, news, NOW);
        assert_eq!(a.following, b.following);
    }

    #[test]
    fn an_old_copy_does_not_bring_back_what_was_ended() {
        let (mut a, mut b) = (on(1), on(2));
        a.subscribe(&id(0), &ids(1..3), NOW).unwrap();
        exchange(&mut a, &mut b, NOW);
        a.unsubscribe(&id(0), &ids(1..3), NOW);
        exchange(&mut b, &mut a, NOW);
        assert_eq!((a.total(), b.total()), (0, 0));
        for subs in [&mut a, &mut b] {
            subs.sweep(NOW.plus(TTL / 2), TTL, |_| true);
            assert!(subs.list(&id(0)).is_some());
            subs.sweep(NOW.plus(TTL * 2), TTL, |_| true);
            assert_eq!(subs.list(&id(0)), None);
        }
    }

    #[test]
    fn a_lost_home_is_a_departure_unless_it_lives() {
        let (mut a, mut b, mut c) = (on(1), on(2), on(3));
        a.subscribe(&id(0), &ids(1..3), NOW).unwrap();
        exchange(&mut a, &mut b, NOW);
        b.homes_lost(NOW, |home| home == node(1));
        b.sweep(NOW.plus(TTL), TTL, |_| false);
        assert_eq!(b.total(), 2);
        b.homes_lost(NOW, |_| false);
        exchange(&mut b, &mut c, NOW);
        for subs in [&mut b, &mut c] {
            subs.sweep(NOW.plus(TTL / 2), TTL, |_| false);
            assert_eq!(subs.total(), 2);
        }
        c.sweep(NOW.plus(TTL), TTL, |_| false);
        assert_eq!(c.total(), 0);
        // It was cut off only.
        exchange(&mut a, &mut b, NOW);
        let news = a.take_news(AT);
        for subs in [&mut b, &mut c] {
            tell(&mut a, subs, news.clone(), NOW.plus(TTL));
            subs.sweep(NOW.plus(TTL * 9), TTL, |_| false);
            assert_eq!(subs.following, a.following);
        }
    }

    #[test]
    fn what_is_over_is_not_learned_from_one_that_is_late() {
        let (mut a, mut b) = (on(1), on(2));
        a.subscribe(&id(0), &ids(1..3), NOW).unwrap();
        a.left(&id(0), NOW);
        exchange(&mut a, &mut b, NOW.plus(TTL));
        assert_eq!((a.total(), b.total()), (2, 0));
    }

    #[test]
    fn no_body_is_too_long() {
        let mut subs = on(1);
        let long = |n: usize| -> AgentId { format!("{n:a>64}").parse().unwrap() };
        for follower in 0..40 {
            let agents = (0..1_000).map(long).collect();
            subs.subscribe(&long(follower), &agents, NOW).unwrap();
        }
        let (mut all, mut turns) = (on(2), 0);
        loop {
            let bodies = subs.take_news(AT);
            if bodies.is_empty() {
                break;
            }
            turns += 1;
            assert!(bodies.iter().all(|body| body.len() <= TOLD_BYTES_MAX));
            assert!(in_all(&bodies) <= 3 * NEWS_BYTES_MAX);
            tell(&mut subs, &mut all, bodies, NOW);
        }
        assert!(turns > 2);
        assert_eq!(all.following, subs.following);
        let one_more = SubscriptionNews::Records(vec![Record {
            agents: (0..1_001).map(long).collect(),
            listed: Version { time: NOW.plus(TTL), node: NodeId(9) },
            ..subs.following[&long(0)].to_record(&long(0))
        }]);
        all.told(&encode(&one_more), NOW, TTL).unwrap();
        assert_eq!(all.following, subs.following);
    }

    #[test]
    fn however_much_differs_is_told_a_turn_at_a_time() {
        let (mut full, mut empty) = (on(1), on(2));
        let long = |n: usize| -> AgentId { format!("{n:a>64}").parse().unwrap() };
        let agents = (0..1_000).map(long).collect();
        for follower in 0..60 {
            full.subscribe(&long(follower), &agents, NOW).unwrap();
        }
        let (mut asked, mut turns) = (vec![empty.digest()], 0);
        while !asked.is_empty() {
            let answers: Vec<_> =
                asked.iter().flat_map(|body| full.told(body, NOW, TTL).unwrap()).collect();
            assert!(in_all(&answers) <= TURN_BYTES_MAX + TOLD_BYTES_MAX, "{turns}");
            asked = answers.iter().flat_map(|body| empty.told(body, NOW, TTL).unwrap()).collect();
            turns += 1;
        }
        assert_eq!(full.following, empty.following);
        assert!(turns > 3, "{turns}");
    }

    #[test]
    fn equal_books_have_nothing_to_say() {
        let (mut a, mut b) = (on(1), on(2));
        for n in 0..1_000 {
            a.subscribe(&id(n), &ids(n..n + 2), NOW).unwrap();
        }
        exchange(&mut a, &mut b, NOW);
        assert_eq!(a.following, b.following);
        assert!(b.told(&a.digest(), NOW, TTL).unwrap().is_empty());
        a.subscribe(&id(7), &ids(3..4), NOW).unwrap();
        let answers = a.told(&b.digest(), NOW, TTL).unwrap();
        let SubscriptionNews::Records(records) = decoded(&answers[0]) else { panic!() };
        assert!(answers.len() == 1 && records.len() < 30, "only what is in its bucket");
        let short = SubscriptionNews::Digest(vec![0; 255]);
        assert_eq!(a.told(&encode(&short), NOW, TTL), Err(NotUnderstood));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = on(1).told(&bytes, NOW, TTL);
        }
    }
}
