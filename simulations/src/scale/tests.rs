//! The small plan, run whole.

use super::*;
use crate::entropy;

fn findings(seed: u64) -> Findings {
    entropy::seeded(seed, || run(&Plan::small(seed), || 0, &mut |_| ())).expect("it comes out")
}

#[test]
fn a_run_repeats_itself_and_every_seed_is_another() {
    let _alone = entropy::ALONE.lock();
    let first = findings(7);
    assert_eq!(first, findings(7));
    assert_ne!(first, findings(8));
    assert_eq!(first.plots.len(), 4);
    let text = first.text();
    for section in ["Presence records", "Arrival", "Look-ups", "Gossip", "Broadcasts", "Memory"] {
        assert!(text.contains(&format!("## {section}")), "{section} is missing");
    }
}
