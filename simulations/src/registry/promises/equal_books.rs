//! When all is whole again, every voter has the same book, byte for byte.

use super::Breach;
use crate::registry::history::History;

pub(super) const NAME: &str = "all voters keep the same book";

pub(super) fn breaches(history: &History) -> Vec<Breach> {
    if history.healed.is_none() {
        return Vec::new(); // which is a breach of its own
    }
    let breach = |what| Breach { promise: NAME, what, agent: None };
    let mut breaches = Vec::new();
    if history.books.len() != history.voters {
        breaches.push(breach(format!(
            "{} of {} books were read",
            history.books.len(),
            history.voters
        )));
    }
    let Some((first, book)) = history.books.first() else { return breaches };
    for (node, other) in history.books.iter().filter(|(_, other)| other != book) {
        breaches.push(breach(format!("node-{first} has {book}, node-{node} {other}")));
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::promises::example;

    #[test]
    fn another_book_is_found() {
        let mut history = example::history(Vec::new());
        history.books = vec![(0, "a".into()), (1, "a".into()), (2, "a".into())];
        assert_eq!(breaches(&history), []);
        history.books[2].1 = "b".into();
        assert_eq!(breaches(&history).len(), 1);
    }
}
