//! The rules of the pace one by one, and a slow link on which many followers change their lists all
//! the time.

use std::collections::{BTreeSet, VecDeque};

use cluster::{AgentId, Generation, Incarnation, UnixMillis};

use super::*;
use crate::subscriptions::{NEWS_BYTES_MAX, Subscriptions};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What was answered, by node and in milliseconds.
fn answered(all: &[(NodeId, u64)]) -> BTreeMap<NodeId, Duration> {
    all.iter().map(|(node, ms)| (*node, at(*ms))).collect()
}

#[test]
fn the_first_news_is_told_at_once_and_the_next_when_all_have_it() {
    let mut pace = Pace::default();
    assert_eq!(pace.turn(&answered(&[(A, 0), (B, 0)]), at(1_000)), Some(vec![A, B]));
    pace.told(&[A, B], 100, at(1_000));
    let all = answered(&[(A, 1_000), (B, 1_000)]);
    assert_eq!(pace.turn(&all, at(1_050)), None);
    assert_eq!(pace.turn(&all, at(1_100)), Some(vec![A, B]));
    pace.told(&[A, B], 100, at(2_000));
    assert_eq!(pace.turn(&answered(&[(A, 2_000), (B, 1_900)]), at(2_100)), None);
}

#[test]
fn a_turn_rests_for_as_long_as_it_took() {
    let mut pace = Pace::default();
    pace.told(&[A], 100, at(1_000));
    assert_eq!(pace.turn(&answered(&[(A, 900)]), at(1_250)), None);
    let all = answered(&[(A, 1_000)]);
    assert_eq!(pace.turn(&all, at(1_300)), None);
    assert_eq!(pace.turn(&all, at(1_599)), None);
    assert_eq!(pace.turn(&all, at(1_600)), Some(vec![A]));
}

#[test]
fn who_does_not_answer_is_waited_for_once_and_told_no_more_than_a_little() {
    let mut pace = Pace::default();
    pace.told(&[A, B], 10, at(1_000));
    let silent = |a| answered(&[(A, a), (B, 900)]);
    assert_eq!(pace.turn(&silent(1_000), at(1_499)), None);
    assert_eq!(pace.turn(&silent(1_000), at(1_500)), Some(vec![A, B]));
    pace.told(&[A, B], UNANSWERED_MAX, at(1_500));
    assert_eq!(pace.turn(&silent(1_500), at(1_550)), Some(vec![A]), "it is not waited for again");
    let again = answered(&[(A, 1_500), (B, 1_500)]);
    assert_eq!(pace.turn(&again, at(1_600)), Some(vec![A, B]));
    pace.told(&[B], 10, at(1_600));
    assert_eq!(pace.turn(&again, at(1_700)), None, "it is as any other");
}

#[test]
fn who_is_gone_is_not_waited_for() {
    let mut pace = Pace::default();
    pace.told(&[A, B], 10, at(1_000));
    assert_eq!(pace.turn(&answered(&[(A, 1_000)]), at(1_100)), Some(vec![A]));
    assert_eq!(pace.turn(&answered(&[]), at(1_100)), Some(vec![]));
}

#[test]
fn many_peers_share_what_is_spent() {
    let (mut pace, peers) = (Pace::default(), (0..128).map(NodeId).collect::<Vec<_>>());
    pace.told(&peers, NEWS_BYTES_MAX, at(1_000));
    let all = peers.iter().map(|node| (*node, at(1_000))).collect();
    assert_eq!(pace.turn(&all, at(1_999)), None);
    assert_eq!(pace.turn(&all, at(2_000)).as_ref(), Some(&peers), "8 MiB a second");
}

/// The way to a peer, on which the control lane goes first and messages take what is left.
struct SlowLink {
    control: VecDeque<Frame>,
    /// Bytes that it has carried of messages, which always wait.
    data: usize,
    /// What is left of a frame that is on its way.
    rest: usize,
    answered: Duration,
    longest_control: usize,
}

enum Frame {
    Tell(Vec<u8>),
    Ping(Duration),
}

impl SlowLink {
    const PING_BYTES: usize = 100;

    fn push(&mut self, frame: Frame) {
        self.control.push_back(frame);
        let bytes = |frame: &Frame| match frame {
            Frame::Tell(body) => body.len(),
            Frame::Ping(_) => Self::PING_BYTES,
        };
        self.longest_control = self.longest_control.max(self.control.iter().map(bytes).sum());
    }

    fn carry(&mut self, mut bytes: usize, peer: &mut Subscriptions, now: UnixMillis) {
        while let Some(frame) = self.control.front() {
            let length = match frame {
                Frame::Tell(body) => body.len(),
                Frame::Ping(_) => Self::PING_BYTES,
            };
            if self.rest + bytes < length {
                self.rest += bytes;
                return;
            }
            bytes -= length - self.rest;
            self.rest = 0;
            match self.control.pop_front() {
                Some(Frame::Tell(body)) => {
                    assert_eq!(peer.told(&body, now, Duration::from_hours(1)), Ok(Vec::new()));
                }
                Some(Frame::Ping(sent)) => self.answered = self.answered.max(sent),
                None => {}
            }
        }
        self.data += bytes;
    }
}

fn long(n: usize) -> AgentId {
    format!("{n:a>64}").parse().expect("a name")
}

fn on(node: u64) -> Subscriptions {
    let me = Incarnation { node: NodeId(node), generation: Generation(1) };
    Subscriptions::restored(me, Vec::new(), UnixMillis(0))
}

/// Two hundred followers of three hundred each, who drop half of these and follow them again, once a
/// second: twice as much as the link carries.
#[test]
fn a_slow_link_lives_and_carries_messages_whatever_followers_do() {
    const STEP: Duration = Duration::from_millis(50);
    const BYTES_PER_STEP: usize = (1 << 20) / 20;
    let (mut here, mut there, mut pace) = (on(1), on(2), Pace::default());
    let [all, half]: [BTreeSet<_>; 2] = [300, 150].map(|names| (0..names).map(long).collect());
    let mut link = SlowLink {
        control: VecDeque::new(),
        data: 0,
        rest: 0,
        answered: Duration::ZERO,
        longest_control: 0,
    };
    let (mut longest_silence, mut toggling) = (Duration::ZERO, 20 * 20);
    for step in 1..=60 * 20 {
        let now = STEP * step;
        let wall = UnixMillis(0).plus(now);
        if toggling > 0 {
            toggling -= 1;
            for follower in (0..200).filter(|n| n % 20 == toggling % 20) {
                if toggling / 20 % 2 == 1 {
                    here.subscribe(&long(1_000 + follower), &all, wall)
                        .expect("it is not too much");
                } else {
                    here.unsubscribe(&long(1_000 + follower), &half, wall);
                }
            }
        }
        if step % 10 == 0 {
            link.push(Frame::Ping(now));
        }
        let known = [(B, link.answered)].into();
        if let Some(peers) =
            Some(()).filter(|()| here.has_news()).and_then(|()| pace.turn(&known, now))
        {
            assert_eq!(peers, [B]);
            let news = here.take_news(now);
            pace.told(&peers, news.iter().map(Vec::len).sum(), now);
            news.into_iter().for_each(|body| link.push(Frame::Tell(body)));
            link.push(Frame::Ping(now));
        }
        link.carry(BYTES_PER_STEP, &mut there, wall);
        longest_silence = longest_silence.max(now - link.answered);
        if toggling == 0 && step == 20 * 20 {
            let part = link.data * 100 / (BYTES_PER_STEP * 20 * 20);
            assert!((40..90).contains(&part), "messages had {part} %");
        }
    }
    assert!(link.longest_control < 3 * NEWS_BYTES_MAX, "{}", link.longest_control);
    assert!(longest_silence < at(1_000), "{longest_silence:?}");
    assert_eq!(there.digest(), here.digest());
    for follower in (0..200).map(|n| long(1_000 + n)) {
        assert_eq!(there.list(&follower), here.list(&follower));
    }
}
