//! What the service manager that started the process is told of it (`sd_notify(3)`): when it takes agents,
//! that it still lives, that it leaves.
//!
//! Owns the socket that `NOTIFY_SOCKET` names, and when what is said. Whoever does not listen is not waited
//! for: what cannot be said now is said at the next look. Never reads anything from there.

use std::{
    convert::Infallible,
    env,
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    drain::sessions_left,
    relay::{Phase, Relay},
    report,
};

/// How often it is looked whether there is something to say.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often something is said where nothing changes, at the least.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// What is said holds this many times longer than until it is said again.
const SPARE: u32 = 3;

/// Characters of a status: it is shown on one line.
const STATUS_CHARS_MAX: usize = 200;

/// The service manager that started this process and wants to hear of it.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

/// What is said when: pure.
#[derive(Debug)]
struct Speaker {
    say_every: Duration,
    watchdog: bool,
    /// The phase that was told last, and when.
    told: Option<(Phase, Duration)>,
    was_ready: bool,
}

impl Supervisor {
    /// The one that this process's environment names; none if nobody wants to hear.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let (socket, address) = (UnixDatagram::unbound()?, address_of(&name)?);
        socket.set_nonblocking(true)?;
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        Ok(Some(Self { socket, address, watchdog: watchdog.map(Duration::from_micros) }))
    }

    /// Tells how the relay is, for ever. To be run where sessions are: if nothing goes on there, nothing is
    /// said, and the watchdog bites.
    pub async fn keep_informed(self, relay: Arc<Relay>) -> Infallible {
        let mut speaker = Speaker::new(self.watchdog);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = false;
        loop {
            looks.tick().await;
            let (phase, now) = (relay.phase(), relay.clock.elapsed());
            let Some(text) = speaker.say(phase, now, || status(&relay, phase)) else { continue };
            match self.socket.send_to_addr(text.as_bytes(), &self.address) {
                Ok(_) => speaker.was_heard(phase, now),
                Err(error) if !warned => {
                    warned = true;
                    tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) does not listen");
                }
                Err(_) => {}
            }
        }
    }
}

impl Speaker {
    fn new(watchdog: Option<Duration>) -> Self {
        let say_every = watchdog.map_or(SAY_EVERY, |time| (time / SPARE).min(SAY_EVERY));
        Self { say_every, watchdog: watchdog.is_some(), told: None, was_ready: false }
    }

    /// What is to be said now, if anything. A start or a stop that goes on lasts as long as it must: the
    /// manager's own limits for both are for processes that hang.
    fn say(&self, phase: Phase, now: Duration, status: impl FnOnce() -> String) -> Option<String> {
        let is_known = |(told, at): (Phase, Duration)| {
            told == phase && now.saturating_sub(at) < self.say_every
        };
        if self.told.is_some_and(is_known) {
            return None;
        }
        let mut text = format!("STATUS={}\n", one_line(&status()));
        let extended = format!("EXTEND_TIMEOUT_USEC={}\n", (self.say_every * SPARE).as_micros());
        match phase {
            Phase::Joining => text.push_str(&extended),
            Phase::Serving if !self.was_ready => text.push_str("READY=1\n"),
            Phase::Serving => {}
            Phase::Draining => {
                text.push_str("STOPPING=1\n");
                text.push_str(&extended);
            }
        }
        if self.watchdog {
            text.push_str("WATCHDOG=1\n");
        }
        Some(text)
    }

    /// What was to be said in this phase has been said.
    fn was_heard(&mut self, phase: Phase, now: Duration) {
        self.told = Some((phase, now));
        self.was_ready |= phase == Phase::Serving;
    }
}

/// A path, or a name that begins with `@` and is in no folder (`unix(7)`, abstract).
fn address_of(name: &OsString) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// How the relay is, for people: what `systemctl status` shows.
fn status(relay: &Relay, phase: Phase) -> String {
    let waiting = || relay.registry.status().waiting.map(|waiting| waiting.reason);
    match phase {
        Phase::Joining => {
            format!("joining: {}", waiting().unwrap_or_else(|| "looking for the others".into()))
        }
        Phase::Serving => {
            let (connected, (_, nodes)) = (relay.sessions.len(), report::total(relay));
            let place = if nodes > 1 { format!(", 1 of {nodes} nodes") } else { String::new() };
            let lack = waiting().map_or_else(String::new, |reason| format!("; {reason}"));
            format!("serving, {connected} connected{place}{lack}")
        }
        Phase::Draining => format!("draining, {} still connected", sessions_left(relay)),
    }
}

fn one_line(text: &str) -> String {
    let text = text.chars().map(|char| if char.is_control() { ' ' } else { char });
    text.take(STATUS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is said in that phase at that second, which is heard.
    fn said(speaker: &mut Speaker, phase: Phase, second: u64) -> Option<String> {
        let said = speaker.say(phase, at(second), || "so\nso".into());
        if said.is_some() {
            speaker.was_heard(phase, at(second));
        }
        said
    }

    #[test]
    fn each_change_is_told_at_once_and_readiness_only_once() {
        let mut speaker = Speaker::new(None);
        let joining = "STATUS=so so\nEXTEND_TIMEOUT_USEC=30000000\n";
        assert_eq!(said(&mut speaker, Phase::Joining, 0).as_deref(), Some(joining));
        assert_eq!(said(&mut speaker, Phase::Joining, 9), None);
        assert_eq!(said(&mut speaker, Phase::Joining, 10).as_deref(), Some(joining));
        let ready = "STATUS=so so\nREADY=1\n";
        assert_eq!(said(&mut speaker, Phase::Serving, 11).as_deref(), Some(ready));
        assert_eq!(said(&mut speaker, Phase::Serving, 21).as_deref(), Some("STATUS=so so\n"));
        let stopping = "STATUS=so so\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=30000000\n";
        assert_eq!(said(&mut speaker, Phase::Draining, 22).as_deref(), Some(stopping));
    }

    #[test]
    fn a_watchdog_hears_three_times_before_it_bites() {
        let mut speaker = Speaker::new(Some(at(6)));
        let mut pings = 0;
        for second in 0..12 {
            let text = said(&mut speaker, Phase::Serving, second).unwrap_or_default();
            pings += u32::from(text.contains("WATCHDOG=1\n"));
        }
        assert_eq!(pings, 6, "each 2 s, in every phase");
        let text = said(&mut speaker, Phase::Draining, 12).unwrap_or_default();
        assert!(text.contains("WATCHDOG=1\n") && text.contains("USEC=6000000\n"), "{text}");
    }

    #[test]
    fn what_was_not_heard_is_said_again() {
        let mut speaker = Speaker::new(None);
        assert!(speaker.say(Phase::Serving, at(0), String::new).is_some());
        assert!(said(&mut speaker, Phase::Serving, 0).is_some_and(|text| text.contains("READY=1")));
    }

    #[test]
    fn sockets_have_paths_or_names_of_their_own() {
        let path = address_of(&"/run/systemd/notify".into());
        assert!(path.is_ok_and(|address| address.as_pathname().is_some()));
        let name = address_of(&"@manager".into());
        assert!(name.is_ok_and(|address| address.as_abstract_name() == Some(b"manager")));
        assert!(address_of(&"x".repeat(200).into()).is_err());
    }
}
