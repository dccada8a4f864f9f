//! What one agent's messages lead to.
//!
//! Rate, grammar and permission are judged here, in this order, and what passes is handed to the
//! router. Never awaits and never blocks.

use std::{collections::BTreeSet, sync::Arc};

use cluster::{AgentId, UnixMillis};

use super::{Session, permission::Permission};
use crate::{
    commands::Command,
    limits::{AgentLimiter, Verdict},
    message::{
        Author, RelayMessage, ScanError, Scanned, Stamper, Targets, compose, compose_relay, quote,
        scan,
    },
    relay::Relay,
    router::{Finished, Outgoing},
    ws::{CloseCode, Event, frame},
};

/// Room for what the relay adds to a message.
const ENVELOPE: usize = 256;

/// What an agent's session keeps about its sending.
#[derive(Debug)]
pub(super) struct Inbound {
    relay: Arc<Relay>,
    session: Arc<Session>,
    author: Author,
    stamper: Stamper,
    limiter: Option<Arc<AgentLimiter>>,
    permission: Permission,
}

/// One read of one session: its time, and what it caused.
#[derive(Debug)]
pub(super) struct Turn<'t> {
    pub(super) wall: UnixMillis,
    /// The same as messages show it.
    pub(super) ts: UnixMillis,
    pub(super) outgoing: Outgoing<'t>,
    /// Where small frames are written before they are copied.
    pub(super) frame: &'t mut Vec<u8>,
}

/// Why a session cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The agent said goodbye, with this code if it gave one.
    Goodbye(Option<u16>),
    /// The relay closes.
    Close(CloseCode, &'static str),
}

/// An error as an agent sees it (PROTOCOL section 7).
struct Refusal<'a> {
    code: &'a str,
    message: String,
    retry_ms: Option<u128>,
}

impl Inbound {
    pub(super) fn new(relay: Arc<Relay>, session: Arc<Session>) -> Self {
        let stamper = relay.stamper();
        let author = Author::new(session.agent());
        let limiter = relay.limiter(session.agent());
        Self { relay, session, author, stamper, limiter, permission: Permission::default() }
    }

    /// The time of the last message, the agent's or the relay's to it.
    pub(super) fn last_stamped(&self) -> UnixMillis {
        self.stamper.last()
    }

    /// Gives the agent's rate limit back, once the session takes no more messages.
    pub(super) fn give_back_limiter(&mut self) -> Option<Arc<AgentLimiter>> {
        self.limiter.take()
    }

    /// The first message of a session (PROTOCOL section 3).
    pub(super) fn welcome(&mut self, ts: UnixMillis) -> Vec<u8> {
        let payload = self.relay.welcome.clone();
        let mut frame = Vec::new();
        self.compose_answer("welcome", None, Some(&payload), ts, &mut frame);
        frame
    }

    /// Acts on what came in.
    pub(super) fn event(&mut self, event: Event<'_>, turn: &mut Turn<'_>) -> Result<(), Stop> {
        match event {
            Event::Text(bytes) => self.message(&bytes, true, turn),
            Event::Binary(bytes) => self.message(&bytes, false, turn),
            Event::Ping(payload) => {
                let write = |out: &mut Vec<u8>| frame::pong_frame(payload, out);
                turn.outgoing.control(&self.session, &Finished::write(turn.frame, 0, write));
                Ok(())
            }
            Event::Pong => Ok(()),
            Event::Close { code, .. } => Err(Stop::Goodbye(code)),
        }
    }

    /// Tells the agent that its message was over the size limit.
    pub(super) fn too_large(&mut self, turn: &mut Turn<'_>) {
        let max = self.relay.config.limits.max_message_size;
        self.relay.metrics.dropped.invalid.increment(1);
        let message = format!("a message may have {max} bytes at most: send less");
        self.refuse(&Refusal { code: "message_too_large", message, retry_ms: None }, None, turn);
    }

    fn message(&mut self, bytes: &[u8], text: bool, turn: &mut Turn<'_>) -> Result<(), Stop> {
        if !self.has_room(turn)? {
            return Ok(());
        }
        let message = match scan(bytes) {
            Ok(message) => message,
            Err(ScanError::NotUtf8) if text => {
                self.relay.metrics.dropped.invalid.increment(1);
                return Err(Stop::Close(CloseCode::InvalidUtf8, "text messages must be UTF-8"));
            }
            Err(error) => {
                self.relay.metrics.dropped.invalid.increment(1);
                let message = error.to_string();
                self.refuse(&Refusal { code: error.code(), message, retry_ms: None }, None, turn);
                return Ok(());
            }
        };
        if !self.permission.allows(self.session.grant(), &message.targets, turn.wall) {
            self.relay.metrics.dropped.not_permitted.increment(1);
            self.forbid("your token does not allow this message", &message, turn);
        } else if message.targets == Targets::Relay {
            turn.outgoing.count_command();
            self.command(&message, turn);
        } else {
            let stamp = self.stamper.next(turn.ts);
            let about = bytes.len() + ENVELOPE;
            let write = |out: &mut Vec<u8>| compose(&self.author, &stamp, &message, out);
            let finished = Finished::write(turn.frame, about, write);
            turn.outgoing.route(&self.session, &message.targets, &finished);
        }
        Ok(())
    }

    /// Whether the agent's rate has room for one more message; if not, the agent is told.
    fn has_room(&mut self, turn: &mut Turn<'_>) -> Result<bool, Stop> {
        let Some(limiter) = &self.limiter else { return Ok(true) };
        let retry = match limiter.judge() {
            Verdict::Pass => return Ok(true),
            Verdict::Refused { retry } => Some(retry),
            Verdict::CutOff => None,
        };
        self.relay.metrics.dropped.rate_limit.increment(1);
        self.relay.metrics.limited.messages.increment(1);
        let Some(retry) = retry else {
            let reason = "far over the rate limit; come back in a minute";
            return Err(Stop::Close(CloseCode::RateLimited, reason));
        };
        let retry_ms = retry.as_millis().max(1);
        let message = format!("over the rate limit: wait {retry_ms} ms");
        let refusal = Refusal { code: "rate_limit", message, retry_ms: Some(retry_ms) };
        self.refuse(&refusal, None, turn);
        Ok(false)
    }

    fn command(&mut self, message: &Scanned<'_>, turn: &mut Turn<'_>) {
        let command = match Command::read(message) {
            Ok(command) => command,
            Err(error) => {
                let text = error.to_string();
                let refusal = Refusal { code: error.code(), message: text, retry_ms: None };
                return self.refuse(&refusal, message.reference, turn);
            }
        };
        if command != Command::Ping && !self.session.may_receive() {
            return self.forbid("your token does not allow receiving", message, turn);
        }
        match command {
            Command::Ping => self.answer("pong", message.reference, message.payload, turn),
            Command::Subscribe(agents) => self.subscribe(&agents, message, turn),
            Command::Unsubscribe(agents) => {
                let now = self.relay.time();
                let mut subscriptions = self.relay.subscriptions.write();
                let count = subscriptions.unsubscribe(self.session.agent(), &agents, now);
                drop(subscriptions);
                self.answer_following("unsubscribed", &agents, count, message, turn);
            }
            Command::ListSubscriptions => {
                let agents: Vec<_> =
                    self.relay.subscriptions.read().of(self.session.agent()).cloned().collect();
                let payload = format!("{{\"agents\":{}}}", json_list(&agents));
                self.answer("subscriptions", message.reference, Some(&payload), turn);
            }
        }
    }

    fn subscribe(
        &mut self,
        agents: &BTreeSet<AgentId>,
        message: &Scanned<'_>,
        turn: &mut Turn<'_>,
    ) {
        let now = self.relay.time();
        let mut subscriptions = self.relay.subscriptions.write();
        let subscribed = subscriptions.subscribe(self.session.agent(), agents, now);
        drop(subscriptions);
        match subscribed {
            Ok(count) => self.answer_following("subscribed", agents, count, message, turn),
            Err(error) => {
                let text = error.to_string();
                let refusal =
                    Refusal { code: "too_many_subscriptions", message: text, retry_ms: None };
                self.refuse(&refusal, message.reference, turn);
            }
        }
    }

    fn answer_following(
        &mut self,
        kind: &str,
        agents: &BTreeSet<AgentId>,
        count: usize,
        message: &Scanned<'_>,
        turn: &mut Turn<'_>,
    ) {
        let payload = format!("{{\"agents\":{},\"count\":{count}}}", json_list(agents));
        self.answer(kind, message.reference, Some(&payload), turn);
    }

    fn forbid(&mut self, why: &str, message: &Scanned<'_>, turn: &mut Turn<'_>) {
        let text = format!("{why}: use one that was not narrowed so far");
        let refusal = Refusal { code: "not_permitted", message: text, retry_ms: None };
        self.refuse(&refusal, message.reference, turn);
    }

    fn refuse(&mut self, refusal: &Refusal<'_>, reference: Option<&str>, turn: &mut Turn<'_>) {
        let retry = refusal.retry_ms.map_or_else(String::new, |ms| format!(",\"retry_ms\":{ms}"));
        let (code, message) = (quote(refusal.code), quote(&refusal.message));
        let payload = format!("{{\"code\":{code},\"message\":{message}{retry}}}");
        self.answer("error", reference, Some(&payload), turn);
    }

    fn answer(
        &mut self,
        kind: &str,
        reference: Option<&str>,
        payload: Option<&str>,
        turn: &mut Turn<'_>,
    ) {
        let about = payload.map_or(0, str::len) + reference.map_or(0, str::len) + ENVELOPE;
        let ts = turn.ts;
        let write = |out: &mut Vec<u8>| self.compose_answer(kind, reference, payload, ts, out);
        let finished = Finished::write(turn.frame, about, write);
        turn.outgoing.answer(&self.session, &finished);
    }

    fn compose_answer(
        &mut self,
        kind: &str,
        reference: Option<&str>,
        payload: Option<&str>,
        ts: UnixMillis,
        out: &mut Vec<u8>,
    ) {
        let stamp = self.stamper.next(ts);
        let message = RelayMessage { to: self.session.agent(), kind, reference, payload };
        compose_relay(&self.relay.author, &stamp, &message, out);
    }
}

/// Agent ids as a JSON array; none of their characters needs an escape.
fn json_list<'a>(agents: impl IntoIterator<Item = &'a AgentId>) -> String {
    let ids: Vec<_> = agents.into_iter().map(|agent| quote(agent.as_str())).collect();
    format!("[{}]", ids.join(","))
}
