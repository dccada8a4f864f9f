//! Whether one order explains all answers: each thing that was asked happens at once, at some moment
//! between its question and its answer.
//!
//! The method of Wing and Gong, which looks from the beginning for what may have happened next, with
//! Lowe's memory: where it has been it does not go again. What was not answered may have happened at
//! any time since it was asked, or never. So one name's history is decided in some dozens of steps;
//! should one ever have too many, that is said, and it is no breach.

use std::{collections::HashSet, hash::Hash, time::Duration};

/// Positions that are looked at. Each takes some 100 bytes, so 50 MB at most.
const POSITIONS_MAX: usize = 500_000;

/// What things that happen one after the other do and answer.
pub(super) trait Model: Clone + Default + Eq + Hash {
    /// What can be asked.
    type Op: Copy;
    /// What can be answered.
    type Ret: Copy + PartialEq;

    /// Does it.
    fn invoke(&mut self, op: Self::Op) -> Self::Ret;
}

/// Something that was asked, and what was answered when, if it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<Op, Ret> {
    pub(super) at: Duration,
    pub(super) op: Op,
    pub(super) answer: Option<(Duration, Ret)>,
}

/// What came of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order.
    Ordered,
    /// There is none.
    Unordered,
    /// None was found, and too much is left to look at.
    Undecided,
}

/// Looks for an order of all that was answered, with any of what was not.
pub(super) fn judge<M: Model>(mut asked: Vec<Asked<M::Op, M::Ret>>) -> Verdict {
    if asked.len() > Done::BITS as usize {
        return Verdict::Undecided;
    }
    // What was answered first happened first, as a rule; what was not answered is tried last.
    asked.sort_by_key(|it| (it.answer.map_or(Duration::MAX, |(at, _)| at), it.at));
    let answered: Done =
        asked.iter().enumerate().filter_map(|(n, it)| it.answer.map(|_| bit(n))).sum();
    let mut seen = HashSet::new();
    let mut open = vec![(0, M::default())];
    while let Some((done, model)) = open.pop() {
        if done & answered == answered {
            return Verdict::Ordered;
        }
        if seen.len() >= POSITIONS_MAX {
            return Verdict::Undecided;
        }
        for next in next(&asked, done, &model).into_iter().rev() {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    Verdict::Unordered
}

/// Which of all that was asked has happened, a bit each.
type Done = u128;

fn bit(number: usize) -> Done {
    1 << number
}

/// Where one more thing leads to.
fn next<M: Model>(asked: &[Asked<M::Op, M::Ret>], done: Done, model: &M) -> Vec<(Done, M)> {
    let is_left = |(number, _): &(usize, &Asked<M::Op, M::Ret>)| done & bit(*number) == 0;
    let left = || asked.iter().enumerate().filter(is_left);
    // Nothing comes before what was answered before it was asked.
    let answers = left().filter_map(|(_, it)| it.answer.map(|(at, _)| at));
    let until = answers.min().unwrap_or(Duration::MAX);
    let happens = |(number, it): (usize, &Asked<M::Op, M::Ret>)| {
        let mut after = model.clone();
        let ret = after.invoke(it.op);
        let explains = match it.answer {
            Some((_, answer)) => answer == ret,
            // What nobody was told of and what changes nothing may as well never have happened.
            None => after != *model,
        };
        explains.then(|| (done | bit(number), after))
    };
    left().filter(|(_, it)| it.at <= until).filter_map(happens).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

    use super::*;

    /// A number that can be written, read, and swapped.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
    struct Cell(u8);

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Write(u8),
        Swap(u8),
        Read,
    }

    impl Model for Cell {
        type Op = Op;
        type Ret = Option<u8>;

        fn invoke(&mut self, op: Op) -> Option<u8> {
            match op {
                Op::Write(value) => {
                    self.0 = value;
                    None
                }
                Op::Swap(value) => Some(std::mem::replace(&mut self.0, value)),
                Op::Read => Some(self.0),
            }
        }
    }

    impl SequentialSpec for Cell {
        type Op = Op;
        type Ret = Option<u8>;

        fn invoke(&mut self, op: &Op) -> Option<u8> {
            Model::invoke(self, *op)
        }
    }

    /// What stateright's tester says, which remembers nothing and so is for short histories.
    fn has_order(asked: &[Asked<Op, Option<u8>>]) -> bool {
        let mut events = Vec::new();
        for (number, it) in asked.iter().enumerate() {
            events.push((it.at, 0, number));
            events.extend(it.answer.map(|(at, _)| (at, 1, number)));
        }
        events.sort_unstable();
        let mut tester = LinearizabilityTester::new(Cell::default());
        for (_, returns, number) in events {
            let told = match asked[number].answer {
                Some((_, ret)) if returns == 1 => tester.on_return(number, ret),
                _ => tester.on_invoke(number, asked[number].op),
            };
            told.unwrap();
        }
        tester.is_consistent()
    }

    fn any_asked() -> impl Strategy<Value = Asked<Op, Option<u8>>> {
        let op = prop_oneof![
            (0..3_u8).prop_map(Op::Write),
            (0..3_u8).prop_map(Op::Swap),
            Just(Op::Read)
        ];
        let answer = proptest::option::weighted(0.7, (0..6_u64, 0..3_u8));
        (op, 0..12_u64, answer).prop_map(|(op, at, answer)| {
            let at = Duration::from_secs(at);
            let answer = answer.map(|(after, value)| {
                let value = if matches!(op, Op::Write(_)) { None } else { Some(value) };
                (at + Duration::from_secs(after), value)
            });
            Asked { at, op, answer }
        })
    }

    proptest! {
        #[test]
        fn another_judge_says_the_same(asked in prop::collection::vec(any_asked(), 0..7)) {
            let verdict = if has_order(&asked) { Verdict::Ordered } else { Verdict::Unordered };
            prop_assert_eq!(judge::<Cell>(asked), verdict);
        }
    }

    #[test]
    fn what_is_too_much_is_undecided() {
        let write = |number: u64| Asked {
            at: Duration::ZERO,
            op: Op::Write(u8::try_from(number % 3).unwrap()),
            answer: (number == 0).then_some((Duration::MAX, Some(9))),
        };
        assert_eq!(judge::<Cell>((0..200).map(write).collect()), Verdict::Undecided);
        assert_eq!(judge::<Cell>((0..100).map(write).collect()), Verdict::Undecided);
        assert_eq!(judge::<Cell>((0..8).map(write).collect()), Verdict::Unordered);
    }
}
