//! Whether to come back after a failure, and when. Pure: chance is an argument.

use std::time::Duration;

use super::failure::Failure;

/// The first delay's upper bound; it doubles with each failure in a row.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// No delay of our own choosing is longer.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// No delay that a relay asks for is believed beyond this.
const LONGEST_HINT: Duration = Duration::from_mins(10);
/// What close code 4029 asks for (PROTOCOL section 7).
const AFTER_RATE_LIMIT: Duration = Duration::from_mins(1);

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Trying again would give the same answer, or do harm.
    Stop,
    /// Try again, at a moment of our choosing.
    Retry,
    /// Try again, and not before this time has passed.
    RetryAfter(Duration),
}

/// Judges a failure (PROTOCOL sections 3 and 7).
pub(super) fn recovery(failure: &Failure) -> Recovery {
    match failure {
        Failure::Refused { status, retry_after, .. } => match status.as_u16() {
            408 | 425 | 429 | 500..=599 => hinted(*retry_after),
            _ => Recovery::Stop,
        },
        Failure::Closed { code, reason } => match code {
            4001 | 4009 => Recovery::Stop,
            4029 => Recovery::RetryAfter(AFTER_RATE_LIMIT),
            _ => hinted(retry_ms(reason)),
        },
        Failure::Dial { .. }
        | Failure::Tls { .. }
        | Failure::Timeout { .. }
        | Failure::Http(_)
        | Failure::Lost(_)
        | Failure::Silent(_)
        | Failure::NotRelay(_) => Recovery::Retry,
        _ => Recovery::Stop,
    }
}

/// How long to wait after `failures` in a row (0: the first); `chance` is from 0 to 1 and keeps
/// agents that failed together from returning together.
pub(super) fn delay(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failures));
    doubled.min(LONGEST_DELAY).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

/// How long to wait if the relay asked for `hint`: at least that, and at most a tenth more, because
/// `Retry-After` is the same for everybody. Hints that did not help before give way to our own
/// delays, so that a hint of nothing cannot make us hammer the relay.
pub(super) fn hinted_delay(hint: Duration, failures: u32, chance: f64) -> Duration {
    let hinted = hint.min(LONGEST_HINT).mul_f64(1.0 + chance.clamp(0.0, 1.0) / 10.0);
    match failures.checked_sub(1) {
        None => hinted,
        Some(unhelped) => hinted.max(delay(unhelped, chance)),
    }
}

fn hinted(hint: Option<Duration>) -> Recovery {
    hint.map_or(Recovery::Retry, Recovery::RetryAfter)
}

/// The number that follows `retry_ms` in a close reason, whatever stands between the two.
fn retry_ms(reason: &str) -> Option<Duration> {
    let (_, tail) = reason.split_once("retry_ms")?;
    let tail = tail.trim_start_matches(['=', ':', '"', ' ']);
    let digits = tail.find(|c: char| !c.is_ascii_digit()).map_or(tail, |end| &tail[..end]);
    digits.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;
    use proptest::prelude::*;

    fn closed(code: u16, reason: &str) -> Recovery {
        recovery(&Failure::Closed { code, reason: reason.to_owned() })
    }

    fn refused(status: u16, retry_after: Option<u64>) -> Recovery {
        let status = StatusCode::from_u16(status).expect("a status");
        recovery(&Failure::refused(status, retry_after.map(Duration::from_secs), b""))
    }

    #[test]
    fn close_codes_are_obeyed() {
        let ms = |ms| Recovery::RetryAfter(Duration::from_millis(ms));
        assert_eq!(closed(1001, "draining, retry_ms=1234"), ms(1234));
        assert_eq!(closed(1001, r#"{"retry_ms": 7}"#), ms(7));
        assert_eq!(closed(1001, "draining"), Recovery::Retry);
        assert_eq!(closed(1001, "retry_ms=soon"), Recovery::Retry);
        assert_eq!(closed(1011, ""), Recovery::Retry);
        assert_eq!(closed(4001, "retry_ms=1"), Recovery::Stop);
        assert_eq!(closed(4008, ""), Recovery::Retry);
        assert_eq!(closed(4009, ""), Recovery::Stop);
        assert_eq!(closed(4029, ""), ms(60_000));
    }

    #[test]
    fn statuses_are_obeyed() {
        assert_eq!(refused(401, None), Recovery::Stop);
        assert_eq!(refused(403, None), Recovery::Stop);
        assert_eq!(refused(404, None), Recovery::Stop);
        assert_eq!(refused(429, Some(3)), Recovery::RetryAfter(Duration::from_secs(3)));
        assert_eq!(refused(503, Some(9)), Recovery::RetryAfter(Duration::from_secs(9)));
        assert_eq!(refused(502, None), Recovery::Retry);
    }

    #[test]
    fn what_the_user_must_mend_is_not_tried_again() {
        assert_eq!(recovery(&Failure::NoToken), Recovery::Stop);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(recovery(&Failure::Output(full)), Recovery::Stop);
    }

    #[test]
    fn delays_double_up_to_a_limit() {
        let longest = [0, 1, 2, 5, 6, 7, u32::MAX].map(|n| delay(n, 1.0).as_millis());
        assert_eq!(longest, [500, 1_000, 2_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(delay(1, 0.0), Duration::from_millis(500));
    }

    #[test]
    fn a_hint_of_nothing_is_obeyed_once() {
        let waits = [0, 1, 2, 8].map(|n| hinted_delay(Duration::ZERO, n, 1.0).as_millis());
        assert_eq!(waits, [0, 500, 1_000, 30_000]);
    }

    proptest! {
        #[test]
        fn a_delay_is_spread_over_the_upper_half(failures: u32, chance in 0.0..1.0_f64) {
            let (low, high) = (delay(failures, 0.0), delay(failures, 1.0));
            let delay = delay(failures, chance);
            prop_assert!(low <= delay && delay <= high && high <= LONGEST_DELAY);
        }

        #[test]
        fn a_hint_is_a_lower_bound_within_reason(ms: u64, failures: u32, chance in 0.0..1.0_f64) {
            let hint = Duration::from_millis(ms);
            let delay = hinted_delay(hint, failures, chance);
            prop_assert!(delay >= hint.min(LONGEST_HINT) && delay <= LONGEST_HINT.mul_f64(1.1));
        }

        #[test]
        fn any_reason_is_read(reason: String, ms: u64) {
            let _ = retry_ms(&reason);
            let hint = retry_ms(&format!("draining; retry_ms={ms}; bye"));
            prop_assert_eq!(hint, Some(Duration::from_millis(ms)));
        }
    }
}
