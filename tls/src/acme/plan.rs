//! When to order, and how long to wait after a failure. Pure.

use std::time::Duration;

use super::record::{Certificate, State, ms};

/// The first wait when the authority is not reached, and the longest.
const UNREACHABLE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// The first wait when the authority says no, and the longest. Each is three times the one before: five
/// tries in the first hour, which is what authorities allow of failed validations for one name.
const REFUSED: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(12));

/// The shortest wait when the authority says that it was asked too often.
const RATE_LIMITED: Duration = Duration::from_hours(1);

/// The longest wait that an authority can ask for.
const WAIT_MAX: Duration = Duration::from_hours(7 * 24);

/// Why an order failed, as far as it matters for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The authority, or a part of the cluster, is out of reach.
    Unreachable,
    /// The authority does not give the certificate.
    Refused,
    /// The authority was asked too often.
    RateLimited,
}

/// When the next order is due, ms since 1970; what is not in the future is due now.
pub(super) fn due_ms(
    certificate: Option<&Certificate>,
    directory: &str,
    domains: &[String],
    state: &State,
) -> u64 {
    let serves = |certificate: &&Certificate| {
        certificate.directory == directory && is_same(&certificate.domains, domains)
    };
    let wanted = certificate.filter(serves).map_or(0, |certificate| certificate.renew_at_ms);
    wanted.max(state.next_at_ms)
}

/// What is remembered of a failure at `now_ms`.
pub(super) fn after_failure(
    before: &State,
    trouble: Trouble,
    error: String,
    retry_after: Option<Duration>,
    now_ms: u64,
) -> State {
    let failures = before.failures.saturating_add(1);
    let wait = match trouble {
        Trouble::Unreachable => growing(UNREACHABLE, 2, failures),
        Trouble::Refused => growing(REFUSED, 3, failures),
        Trouble::RateLimited => RATE_LIMITED,
    };
    let wait = wait.max(retry_after.unwrap_or_default()).min(WAIT_MAX);
    State { failures, last_error: Some(error), next_at_ms: now_ms.saturating_add(ms(wait)) }
}

/// When a certificate of that time is to be renewed, ms since 1970: at two thirds of its life, or up to
/// a thirtieth earlier, as `chance` from 0 to 1 says, so that not all of the world's are at once.
pub(super) fn renew_at_ms(not_before: Duration, not_after: Duration, chance: f64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    let jitter = life.mul_f64(chance.clamp(0.0, 1.0) / 30.0);
    ms(not_before.saturating_add(life * 2 / 3).saturating_sub(jitter))
}

fn growing((first, longest): (Duration, Duration), factor: u32, failures: u32) -> Duration {
    let times = factor.saturating_pow(failures.saturating_sub(1));
    first.saturating_mul(times).min(longest)
}

/// Whether the same names are meant, in any order.
fn is_same(some: &[String], others: &[String]) -> bool {
    some.len() == others.len() && some.iter().all(|name| others.contains(name))
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    const NOW: u64 = 1_795_341_600_000;

    fn certificate(domains: &[&str]) -> Certificate {
        Certificate {
            directory: "ca".into(),
            domains: domains.iter().map(|&name| name.into()).collect(),
            chain: String::new(),
            key: Zeroizing::default(),
            renew_at_ms: NOW + 5,
            not_after_ms: NOW + 10,
        }
    }

    fn due(certificate: Option<&Certificate>, domains: &[&str], state: &State) -> u64 {
        let domains: Vec<_> = domains.iter().map(|&name| name.to_owned()).collect();
        due_ms(certificate, "ca", &domains, state)
    }

    #[test]
    fn an_order_is_due_without_a_certificate_or_with_one_that_does_not_serve() {
        let calm = State::default();
        let both = certificate(&["a", "b"]);
        assert_eq!(due(None, &["a"], &calm), 0);
        assert_eq!(due(Some(&both), &["b", "a"], &calm), NOW + 5);
        assert_eq!(due(Some(&both), &["a"], &calm), 0);
        assert_eq!(due(Some(&both), &["a", "c"], &calm), 0);
        assert_eq!(
            due(Some(&Certificate { directory: "other".into(), ..both }), &["a", "b"], &calm),
            0
        );
    }

    #[test]
    fn after_a_failure_it_waits() {
        let waiting = State { next_at_ms: NOW + 7, ..State::default() };
        assert_eq!(due(None, &["a"], &waiting), NOW + 7);
        assert_eq!(due(Some(&certificate(&["a"])), &["a"], &waiting), NOW + 7);
    }

    fn waits(trouble: Trouble, count: usize, retry_after: Option<Duration>) -> Vec<u64> {
        let mut state = State::default();
        let mut wait = || {
            state = after_failure(&state, trouble, "no".into(), retry_after, NOW);
            (state.next_at_ms - NOW) / 1000
        };
        (0..count).map(|_| wait()).collect()
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_never_undercut_the_authority() {
        assert_eq!(waits(Trouble::Unreachable, 8, None), [5, 10, 20, 40, 80, 160, 300, 300]);
        let refused = waits(Trouble::Refused, 9, None);
        assert_eq!(refused[..5], [60, 180, 540, 1_620, 4_860]);
        assert_eq!(refused[8], 12 * 3_600);
        let first_hour = refused.iter().scan(0, |at, wait| {
            *at += wait;
            Some(*at)
        });
        assert_eq!(first_hour.take_while(|at| *at < 3_600).count() + 1, 5);
        assert_eq!(waits(Trouble::RateLimited, 2, None), [3_600, 3_600]);
        let asked = Some(Duration::from_hours(2));
        assert_eq!(waits(Trouble::RateLimited, 1, asked), [7_200]);
        assert_eq!(waits(Trouble::Unreachable, 1, asked), [7_200]);
        assert_eq!(waits(Trouble::Refused, 1, Some(Duration::MAX)), [7 * 24 * 3_600]);
        let many = State { failures: u32::MAX, ..State::default() };
        assert_eq!(
            after_failure(&many, Trouble::Refused, String::new(), None, 0).failures,
            u32::MAX
        );
    }

    #[test]
    fn renewal_is_at_two_thirds_or_a_little_before() {
        let day = Duration::from_hours(24);
        let at = |chance| renew_at_ms(day, day * 91, chance);
        assert_eq!(at(0.0), ms(day * 61));
        assert_eq!(at(1.0), ms(day * 58));
        assert_eq!(renew_at_ms(day, Duration::ZERO, 0.5), ms(day));
    }
}
