//! The relay's limits: which of them a measurement would meet, or has met.
//!
//! Pure. What is measured at a limit is the limit; it must not pass for what the relay can do.

use hyper::StatusCode;

use super::{
    args::{Pace, Plan},
    flaw::Flaw,
    stamp::Letter,
};
use crate::agent::{failure::Failure, session::Welcome};

const RATE: &str = "it is set by RATE_LIMIT_PER_MIN and RATE_LIMIT_PER_HOUR, which 0 switches off on \
                    a relay under test; or give a lower --rate, or more --agents";
const CONNECTIONS: &str = "it is set by CONNECTIONS_PER_ADDRESS and HANDSHAKES_PER_ADDRESS, which 0 \
                           switches off on a relay under test";
const SESSIONS: &str = "it is set by MAX_CONNECTIONS, and by the relay's limit on open files";

/// Refuses what this relay will not take.
pub(super) fn foreseen(plan: &Plan, welcome: &Welcome) -> Result<(), Flaw> {
    if plan.senders == 0 {
        return Ok(());
    }
    let bytes = Letter::new(LONGEST_NAME, 0, 0, plan.size).bytes();
    if let Some(limit) = welcome.limits.max_message_size.filter(|limit| bytes > *limit) {
        let size = plan.size;
        return Err(Flaw::Senseless(format!(
            "--size {size} makes messages of {bytes} bytes, and this relay takes {limit} \
             (MAX_MESSAGE_SIZE)"
        )));
    }
    let told = welcome.limits.rate_limit.as_deref().unwrap_or_default();
    match allowance(told) {
        Some(limit) if !limit.has_room(plan) => {
            let told = format!("it takes {told} from each agent, and {} sends more", plan.scenario);
            Err(Flaw::Limited { told, setting: RATE })
        }
        _ => Ok(()),
    }
}

/// The failure, told as the limit it stands for if it does for one.
pub(super) fn named(failure: Failure) -> Failure {
    let setting = match &failure {
        Failure::Declined { code, .. } if code == "rate_limit" => RATE,
        Failure::Closed { code: 4029, .. } => RATE,
        Failure::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => CONNECTIONS,
        Failure::Refused { code, .. } if code == "too_many_connections" => SESSIONS,
        _ => return failure,
    };
    Flaw::Limited { told: failure.to_string(), setting }.into()
}

/// As long as the names that agents are registered with.
const LONGEST_NAME: &str = "bench-00000000-000000";

/// What one agent may send.
struct Allowance {
    messages: f64,
    per_s: f64,
}

fn allowance(told: &str) -> Option<Allowance> {
    let (messages, unit) = told.split_once('/')?;
    let messages: f64 = messages.parse().ok()?;
    let seconds = match unit {
        "min" => 60.0,
        "hour" => 3_600.0,
        _ => return None,
    };
    Some(Allowance { messages, per_s: messages / seconds })
}

impl Allowance {
    #[allow(clippy::cast_precision_loss)] // a guess, and below 2^53
    fn has_room(&self, plan: &Plan) -> bool {
        let Pace::Rate(rate) = plan.pace else { return false };
        let seconds = (plan.warm_up + plan.measured).as_secs_f64();
        let each = rate.per_1000_s() as f64 / 1_000.0 * seconds / plan.senders as f64;
        each <= self.messages + self.per_s * seconds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::{bench::args::Scenario, session::Limits};

    fn judged(pace: Pace, size: usize, rate_limit: &str) -> Result<(), Flaw> {
        let plan = Plan {
            scenario: Scenario::Direct,
            agents: 20,
            senders: 10,
            size,
            pace,
            warm_up: Duration::from_secs(2),
            measured: Duration::from_secs(10),
            concurrency: 32,
        };
        let rate_limit = Some(rate_limit.to_owned());
        let limits = Limits { max_message_size: Some(1_000), rate_limit };
        foreseen(&plan, &Welcome { limits, ..Welcome::default() })
    }

    #[test]
    fn as_fast_as_it_goes_needs_a_relay_without_a_rate_limit() {
        assert!(judged(Pace::Window(4), 128, "unlimited").is_ok());
        let text = judged(Pace::Window(4), 128, "100/min").expect_err("limited").to_string();
        assert!(text.contains("100/min") && text.contains("RATE_LIMIT_PER_MIN"), "{text}");
    }

    #[test]
    fn a_rate_below_the_limit_is_let_through() {
        let rate = |text: &str| Pace::Rate(text.parse().expect("a rate"));
        assert!(judged(rate("50"), 128, "100/min").is_ok());
        assert!(judged(rate("101"), 128, "100/min").is_err(), "121 in 12 s are over 100 + 20");
        assert!(judged(rate("1000"), 128, "1000/hour").is_err());
    }

    #[test]
    fn a_message_over_the_relays_size_is_refused() {
        let text = judged(Pace::Window(4), 1_000, "unlimited").expect_err("too large").to_string();
        assert!(text.contains("MAX_MESSAGE_SIZE"), "{text}");
    }

    #[test]
    fn each_refusal_names_the_setting_behind_it() {
        let refused = |status, body: &[u8]| Failure::refused(status, None, body);
        let full = br#"{"error":"too_many_connections"}"#;
        for (failure, setting) in [
            (refused(StatusCode::TOO_MANY_REQUESTS, b""), "CONNECTIONS_PER_ADDRESS"),
            (refused(StatusCode::SERVICE_UNAVAILABLE, full), "MAX_CONNECTIONS"),
            (Failure::Closed { code: 4029, reason: String::new() }, "RATE_LIMIT_PER_MIN"),
        ] {
            let named = named(failure);
            assert!(named.to_string().contains(setting), "{named}");
            assert_eq!(named.exit_code(), 3);
        }
        let other = named(refused(StatusCode::SERVICE_UNAVAILABLE, b""));
        assert!(matches!(other, Failure::Refused { .. }));
    }
}
