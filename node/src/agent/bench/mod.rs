//! `arc-relay bench`: what an installation can do, measured from where its agents are.
//!
//! Registers agents of its own and keeps their tokens for the next run; connects them to all nodes
//! given; checks that each message came once and in order; and tells what limits the result. Never
//! passes a limit of the relay, or its own, for the relay's capacity.

mod args;
mod board;
mod checker;
mod cost;
mod drive;
mod flaw;
mod limits;
mod member;
mod names;
mod progress;
mod registering;
mod report;
mod schedule;
mod stamp;
mod statistics;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fs::File, io::Write as _, path::Path};

use hyper::{StatusCode, header::HeaderValue};

pub use self::args::BenchArgs;
pub(super) use self::flaw::Flaw;
use self::{
    args::{Place, Plan},
    drive::{Bench, Measured},
    names::Names,
    registering::Registrar,
    report::{Environment, NotMeasured, Relay, Report},
};
use super::{
    failure::Failure,
    output::Output,
    secret::Secret,
    session::{Dialer, SILENCE_MAX, Welcome},
    text::escaped,
};
use crate::{clock::Clock, files};

/// What the help says after the options.
pub(super) const HELP: &str = "\
The relay under test must have no rate limits, or what is measured is the limit, which bench says:
  RATE_LIMIT_PER_MIN=0 RATE_LIMIT_PER_HOUR=0 REGISTRATION_LIMIT_PER_MIN=0
  CONNECTIONS_PER_ADDRESS=0 HANDSHAKES_PER_ADDRESS=0
`bench latency` and `bench connect` with their defaults stay below the default limits.

Agents register as bench-…; names are never given back, so their tokens are kept (--agents-file) and
the next run takes the same. `arc-relay agents ban` shuts them out for good.

`broadcast` reaches every agent that is connected to the relay, not only those of this run.

Exit codes:
  0  measured, and delivery was exact
  1  the relay was not reached, did not answer in time, or a connection was lost
  2  wrong usage: options, files
  3  a limit of the relay was reached
  4  token refused
  5  replaced by another session of the same agent
  6  a message was lost, came twice, out of order, or spoilt";

/// When so many of its agents are refused, a relay was founded anew: what is kept is of no use to it.
const REFUSED_MAX: usize = 5;

/// Measures, until it is done or `stop` comes.
pub(super) async fn run(
    args: &BenchArgs,
    output: &mut Output,
    clock: &Clock,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    tokio::select! {
        outcome = measure(args, output, clock) => outcome.map_err(limits::named),
        () = stop => Err(Flaw::Interrupted.into()),
    }
}

async fn measure(args: &BenchArgs, output: &mut Output, clock: &Clock) -> Result<(), Failure> {
    let plans = args.plans()?;
    args::check_files(args.agents(), files::raise_file_limit())?;
    let places = args.places()?;
    let ops = args.ops()?;
    let first = places.first().ok_or_else(|| Flaw::Senseless("--url names no relay".into()))?;
    let mut names = Names::open(args.agents_file.as_deref())?;
    let json = args.json.as_deref().filter(|path| *path != Path::new("-"));
    let mut file = json.map(create).transpose()?;

    let key = args.key.as_ref().filter(|key| !key.is_empty());
    let key = key.map(|key| key.bearer("registration key")).transpose()?;
    let registrar = Registrar { place: first, key, limit: args.timeout };
    let welcomes = acquaint(&registrar, &places, &mut names, output).await?;
    let agents = enlist(&registrar, args.agents(), &mut names, output).await?;
    let bench = Bench { places: &places, ops: &ops, agents, limit: args.timeout, clock };
    let mut crew = Crew { bench, registrar: &registrar, names: &mut names };

    let mut report = Report::new(environment(&places, &welcomes, clock));
    let quiet = args.json.is_some() && json.is_none();
    let held_back = carry_out(&mut crew, &plans, &welcomes, &mut report, quiet, output).await?;
    match (&mut file, quiet) {
        (Some((path, file)), _) => {
            let written = writeln!(file, "{}", report.json());
            written.map_err(|source| Failure::Write { path: path.clone(), source })?;
        }
        (None, true) => output.result(&report.json()).await?,
        (None, false) => {}
    }
    match (report.faults(), held_back) {
        (faults, _) if !faults.is_none() => Err(Flaw::Faulty(faults).into()),
        (_, Some(limited)) => Err(limited),
        (_, None) => Ok(()),
    }
}

/// The agents that measure, and where others come from.
struct Crew<'a> {
    bench: Bench<'a>,
    registrar: &'a Registrar<'a>,
    names: &'a mut Names,
}

impl Crew<'_> {
    /// Carries out the plan; once more, with others in their places, if the relay refuses agents of the runs
    /// before.
    async fn carry_out(&mut self, plan: &Plan, output: &mut Output) -> Result<Measured, Failure> {
        match self.bench.carry_out(plan, output).await {
            Err(Failure::Bench(Flaw::Refused { agents, .. })) => {
                self.replace(agents, output).await?;
                self.bench.carry_out(plan, output).await
            }
            measured => measured,
        }
    }

    async fn replace(
        &mut self,
        refused: BTreeSet<usize>,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let relay = self.registrar.place.relay.to_string();
        for (name, _) in refused.iter().filter_map(|agent| self.bench.agents.get(*agent)) {
            self.names.set_one_aside(&relay, name);
        }
        self.names.save()?;
        output.note(&without(&relay, refused.len())).await;
        let count = self.bench.agents.len();
        self.bench.agents = enlist(self.registrar, count, self.names, output).await?;
        Ok(())
    }
}

/// Runs one plan after the other; the last that met a limit is given back, if others remain.
async fn carry_out(
    crew: &mut Crew<'_>,
    plans: &[Plan],
    welcomes: &[Welcome],
    report: &mut Report,
    quiet: bool,
    output: &mut Output,
) -> Result<Option<Failure>, Failure> {
    let mut held_back = None;
    for plan in plans {
        let foreseen = welcomes.iter().try_for_each(|welcome| limits::foreseen(plan, welcome));
        let measured = match foreseen {
            Ok(()) => crew.carry_out(plan, output).await.map_err(limits::named),
            Err(flaw) => Err(flaw.into()),
        };
        match measured {
            Ok(measured) => {
                let lines = report.add(plan, &measured);
                if !quiet {
                    output.result(&lines).await?;
                }
            }
            Err(failure @ Failure::Bench(Flaw::Limited { .. })) if plans.len() > 1 => {
                output.note(&format!("{} was not measured: {failure}", plan.scenario)).await;
                let reason = failure.to_string();
                report.not_measured.push(NotMeasured { scenario: plan.scenario, reason });
                held_back = Some(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(held_back)
}

/// Opens one session at each place, so that what is wrong shows before anything is measured.
async fn acquaint(
    registrar: &Registrar<'_>,
    places: &[Place],
    names: &mut Names,
    output: &mut Output,
) -> Result<Vec<Welcome>, Failure> {
    if let Some(welcomes) = recognised(registrar, places, names, output).await? {
        return Ok(welcomes);
    }
    registrar.fill(names, 1, output).await?;
    visit(registrar, places, names).await
}

/// The same with the first agent of the runs before that the relay takes; none if there is none. Somebody
/// may have revoked one: only a relay that refuses several does not know any of them.
async fn recognised(
    registrar: &Registrar<'_>,
    places: &[Place],
    names: &mut Names,
    output: &mut Output,
) -> Result<Option<Vec<Welcome>>, Failure> {
    let relay = registrar.place.relay.to_string();
    let mut refused = 0;
    let visited = loop {
        if names.count(&relay) == 0 {
            break None;
        }
        match visit(registrar, places, names).await {
            Err(Failure::Refused { status: StatusCode::UNAUTHORIZED, .. }) => refused += 1,
            visited => break Some(visited),
        }
        names.set_aside(&relay, if refused == REFUSED_MAX { usize::MAX } else { 1 });
    };
    if refused > 0 {
        names.save()?;
        let told = match visited {
            None => format!("{relay} does not know its agents of before: new ones"),
            Some(_) => without(&relay, refused),
        };
        output.note(&told).await;
    }
    visited.transpose()
}

fn without(relay: &str, refused: usize) -> String {
    format!("{relay} refuses {refused} of its agents of before: without those")
}

async fn visit(
    registrar: &Registrar<'_>,
    places: &[Place],
    names: &Names,
) -> Result<Vec<Welcome>, Failure> {
    let relay = registrar.place.relay.to_string();
    let token = names.at(&relay).next().map(|(_, token)| token);
    let authorization = bearer(token.map_or("", |token| token.as_str()))?;
    let mut welcomes = Vec::new();
    for Place { relay, connector } in places {
        let dialer = Dialer {
            relay: relay.clone(),
            connector: connector.clone(),
            authorization: authorization.clone(),
            limit: registrar.limit,
            silence: SILENCE_MAX,
        };
        let mut session = dialer.open().await?;
        welcomes.push(std::mem::take(&mut session.welcome));
        session.close().await;
    }
    Ok(welcomes)
}

/// So many agents, registered where they are missing.
async fn enlist(
    registrar: &Registrar<'_>,
    count: usize,
    names: &mut Names,
    output: &mut Output,
) -> Result<Vec<(String, HeaderValue)>, Failure> {
    let relay = registrar.place.relay.to_string();
    let known = names.count(&relay);
    if known < count {
        registrar.fill(names, count, output).await?;
        let (new, path) = (count - known, names.path().display());
        output.note(&format!("registered {new} more names, for good; tokens: {path}")).await;
    }
    let agents = names.at(&relay).take(count);
    agents.map(|(name, token)| Ok((name.to_owned(), bearer(token)?))).collect()
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    // Reading a secret from text never fails.
    let Ok(secret) = token.parse::<Secret>();
    secret.bearer("token in the agents file")
}

fn environment(places: &[Place], welcomes: &[Welcome], clock: &Clock) -> Environment {
    let relay = |(place, welcome): (&Place, &Welcome)| Relay {
        url: place.relay.to_string(),
        version: escaped(&welcome.version),
        node: escaped(&welcome.node),
        rate_limit: welcome.limits.rate_limit.as_deref().map(escaped),
    };
    Environment {
        relays: places.iter().zip(welcomes).map(relay).collect(),
        client_version: env!("CARGO_PKG_VERSION"),
        client_cores: std::thread::available_parallelism().map_or(1, usize::from),
        started_ms: clock.wall().0,
    }
}

fn create(path: &Path) -> Result<(std::path::PathBuf, File), Failure> {
    let file = File::create(path);
    let file = file.map_err(|source| Failure::Write { path: path.to_owned(), source })?;
    Ok((path.to_owned(), file))
}
