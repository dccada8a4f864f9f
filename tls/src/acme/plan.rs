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

/// The shortest wait after a success, for certificates of a very short life, and the usual one.
const SUCCEEDED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_hours(1));

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

/// What the leader does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It orders.
    Order,
    /// It forgets the failure that is remembered, for there is a good certificate all the same.
    Forget,
    /// It waits until this, ms since 1970.
    Wait {
        until_ms: u64,
        /// Whether an order is due, and not tried before then.
        is_due: bool,
    },
}

/// What the leader does at `now_ms` to have a certificate for `domains` from `directory`.
pub(super) fn next(
    certificate: Option<&Certificate>,
    directory: &str,
    domains: &[String],
    state: &State,
    now_ms: u64,
) -> Step {
    let until_ms = due_ms(certificate, directory, domains, state);
    let is_due = wanted_ms(certificate, directory, domains) <= now_ms;
    match () {
        () if until_ms <= now_ms => Step::Order,
        () if !is_due && state.failures > 0 => Step::Forget,
        () => Step::Wait { until_ms, is_due },
    }
}

/// When the next order is tried, ms since 1970; what is not in the future is tried now.
pub(super) fn due_ms(
    certificate: Option<&Certificate>,
    directory: &str,
    domains: &[String],
    state: &State,
) -> u64 {
    let waits = if is_about(state, directory, domains) { state.next_at_ms } else { 0 };
    wanted_ms(certificate, directory, domains).max(waits)
}

/// When another certificate is wanted, ms since 1970.
fn wanted_ms(certificate: Option<&Certificate>, directory: &str, domains: &[String]) -> u64 {
    let serves = |certificate: &&Certificate| {
        certificate.directory == directory && is_same(&certificate.domains, domains)
    };
    certificate.filter(serves).map_or(0, |certificate| certificate.renew_at_ms)
}

/// Whether it was this authority that was asked for these names.
pub(super) fn is_about(state: &State, directory: &str, domains: &[String]) -> bool {
    state.directory == directory && is_same(&state.domains, domains)
}

/// How long to wait after a failure, the `failures`th in a row; `asked` is what the authority asks for.
pub(super) fn pause_after_failure(
    trouble: Trouble,
    failures: u32,
    asked: Option<Duration>,
) -> Duration {
    let wait = match trouble {
        Trouble::Unreachable => growing(UNREACHABLE, 2, failures),
        Trouble::Refused => growing(REFUSED, 3, failures),
        Trouble::RateLimited => RATE_LIMITED,
    };
    wait.max(asked.unwrap_or_default()).min(WAIT_MAX)
}

/// How long to wait after a success, whatever the certificate says, which is good for so long still: one
/// that is to be renewed at once would be ordered without end.
pub(super) fn pause_after_success(left: Duration) -> Duration {
    (left / 3).clamp(SUCCEEDED.0, SUCCEEDED.1)
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
pub(super) fn is_same(some: &[String], others: &[String]) -> bool {
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

    /// What is remembered of a failure with the names `domains`.
    fn failed(domains: &[&str], next_at_ms: u64) -> State {
        State {
            failures: 1,
            last_error: Some("no".into()),
            next_at_ms,
            directory: "ca".into(),
            domains: domains.iter().map(|&name| name.into()).collect(),
        }
    }

    #[test]
    fn after_a_failure_it_waits() {
        let waiting = failed(&["a"], NOW + 7);
        assert_eq!(due(None, &["a"], &waiting), NOW + 7);
        assert_eq!(due(Some(&certificate(&["a"])), &["a"], &waiting), NOW + 7);
    }

    #[test]
    fn a_failure_with_another_setting_is_not_waited_for() {
        let wrong = failed(&["a", "wrong"], NOW + 7);
        assert_eq!(due(None, &["a"], &wrong), 0);
        assert_eq!(due(None, &["wrong", "a"], &wrong), NOW + 7, "the order does not matter");
        let elsewhere = State { directory: "other".into(), ..wrong };
        assert_eq!(due(None, &["a", "wrong"], &elsewhere), 0);
    }

    #[test]
    fn it_orders_waits_or_forgets_what_is_over() {
        let domains = ["a".to_owned()];
        let step = |certificate: Option<&Certificate>, state: &State, now| {
            next(certificate, "ca", &domains, state, now)
        };
        let (calm, good) = (State::default(), certificate(&["a"]));
        assert_eq!(step(None, &calm, NOW), Step::Order);
        let waits = |until_ms, is_due| Step::Wait { until_ms, is_due };
        assert_eq!(step(Some(&good), &calm, NOW), waits(NOW + 5, false));
        assert_eq!(step(Some(&good), &calm, NOW + 5), Step::Order);
        let failed = failed(&["a"], NOW + 7);
        assert_eq!(step(None, &failed, NOW), waits(NOW + 7, true));
        assert_eq!(step(Some(&good), &failed, NOW), Step::Forget);
        assert_eq!(step(Some(&good), &failed, NOW + 5), waits(NOW + 7, true), "a renewal failed");
        assert_eq!(step(Some(&good), &failed, NOW + 7), Step::Order);
    }

    #[test]
    fn after_a_success_there_is_a_pause_that_fits_the_certificate() {
        let seconds = |left| pause_after_success(Duration::from_secs(left)).as_secs();
        assert_eq!([0, 12, 60, 7_776_000].map(seconds), [5, 5, 20, 3_600]);
    }

    fn waits(trouble: Trouble, count: u32, asked: Option<Duration>) -> Vec<u64> {
        (1..=count)
            .map(|failures| pause_after_failure(trouble, failures, asked).as_secs())
            .collect()
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
        let many = pause_after_failure(Trouble::Refused, u32::MAX, None);
        assert_eq!(many.as_secs(), 12 * 3_600);
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
