//! What configuration says when something is wrong or worth knowing.
//!
//! A [`Problem`] keeps the relay from starting; a [`Notice`] does not. Neither ever holds the value
//! of a secret.

use std::fmt;

use super::written::ENVIRONMENT;

/// Longest part of a bad value that is repeated to the operator, in characters.
const VALUE_SHOWN_MAX: usize = 60;

/// One reason not to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, or the file if no single variable is to blame.
    pub subject: String,
    /// Where it was set: `flag --port`, `environment`, `.env:3`, or the file's name.
    pub origin: Option<String>,
    /// The bad value, shortened; none for a secret.
    pub value: Option<String>,
    /// What is allowed, or what to do.
    pub remedy: String,
}

impl Problem {
    /// A problem with `subject`, solved by `remedy`.
    pub fn new(subject: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject: subject.into(), origin: None, value: None, remedy: remedy.into() }
    }

    /// Adds where the subject was set.
    #[must_use]
    pub fn set_in(self, origin: impl Into<String>) -> Self {
        Self { origin: Some(origin.into()), ..self }
    }

    /// Adds the bad value, which must not be a secret's.
    #[must_use]
    pub fn with_value(self, value: &str) -> Self {
        Self { value: Some(shorten(value)), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)?;
        if let Some(value) = &self.value {
            write!(f, " = {value:?}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.remedy)
    }
}

/// Every problem of a configuration, at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has 1 problem:")?,
            n => write!(f, "the configuration has {n} problems:")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// Something worth knowing that does not keep the relay from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The settings file has a key that means nothing; refused by `--check-config`.
    UnknownKey {
        /// The file's name.
        file: String,
        /// The key as written.
        key: String,
        /// The known key that was probably meant.
        suggestion: Option<String>,
    },
    /// `.env` or the environment has a name that looks like one of ours, misspelt; in `.env` it is refused by
    /// `--check-config`, the environment may be another program's.
    Misspelt {
        /// `.env` and the line, or the environment.
        origin: String,
        /// The name as written.
        name: String,
        /// The variable that was probably meant.
        suggestion: String,
    },
    /// A variable of the reference relay that this one does not need.
    Retired {
        /// The variable.
        variable: &'static str,
        /// Why it is not needed.
        reason: &'static str,
    },
    /// `BEHIND_PROXY` without `TRUSTED_PROXIES`: all agents share the proxy's address.
    NoTrustedProxy,
    /// The ops listener is on an address that is neither this machine's own nor of a private network.
    OpsListenerPublic,
    /// `PORT` is set, but with TLS agents connect to `TLS_PORT`.
    PortUnused,
    /// A port of TLS is set, but there is no certificate.
    TlsPortUnused {
        /// The variable.
        variable: &'static str,
    },
    /// `TLS_SELF_SIGNED` in production.
    SelfSignedInProduction,
    /// A node that could join others, but was told of none.
    NoSeeds,
}

impl Notice {
    /// Whether the operator has probably made a mistake; if not, it is only for information.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::Retired { .. } | Self::NoSeeds)
    }

    /// Whether `--check-config` refuses it: a mistake in a file that is read by nobody else.
    pub(super) fn is_refused_by_check(&self) -> bool {
        match self {
            Self::UnknownKey { .. } => true,
            Self::Misspelt { origin, .. } => origin != ENVIRONMENT,
            _ => false,
        }
    }

    /// What `--check-config` makes of this: a problem if it is surely a mistake in a file.
    pub(super) fn as_problem(&self) -> Option<Problem> {
        let (origin, name, suggestion) = match self {
            Self::UnknownKey { file, key, suggestion } => (file, key, suggestion.as_ref()),
            Self::Misspelt { origin, name, suggestion } => (origin, name, Some(suggestion)),
            Self::Retired { .. }
            | Self::NoTrustedProxy
            | Self::OpsListenerPublic
            | Self::PortUnused
            | Self::TlsPortUnused { .. }
            | Self::SelfSignedInProduction
            | Self::NoSeeds => return None,
        };
        Some(Problem::new(shorten(name), unknown(suggestion)).set_in(origin))
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(problem) = self.as_problem() {
            return write!(f, "{problem}; ignored");
        }
        match self {
            Self::Retired { variable, reason } => {
                write!(f, "{variable} is no longer needed: {reason}")
            }
            Self::NoTrustedProxy => f.write_str(
                "BEHIND_PROXY is true but TRUSTED_PROXIES is empty: every agent seems to come from \
                 the proxy's address and shares its limits; set TRUSTED_PROXIES to the proxy's \
                 address",
            ),
            Self::OpsListenerPublic => f.write_str(
                "STATS_HOST lets whoever reaches this machine ask the ops port, for statistics and the admin \
                 API in plain HTTP: set it to 127.0.0.1 or to an address of a private network; where it is \
                 meant, as in a container, let a firewall, or what publishes STATS_PORT, keep others out",
            ),
            Self::PortUnused => f.write_str(
                "PORT is set, but not used: with TLS agents connect to TLS_PORT, and nothing is served \
                 unencrypted; unset PORT",
            ),
            Self::TlsPortUnused { variable } => write!(
                f,
                "{variable} is set, but not used: there is no TLS without ACME_DOMAINS, TLS_CERT \
                 and TLS_KEY, or TLS_SELF_SIGNED=true",
            ),
            Self::SelfSignedInProduction => f.write_str(
                "TLS_SELF_SIGNED is for development: agents refuse the certificate unless each is told \
                 to trust it; in production set ACME_DOMAINS, or \
                 TLS_CERT and TLS_KEY",
            ),
            Self::NoSeeds => f.write_str(
                "CLUSTER_SECRET is set and SEEDS is not: this relay is alone, and no other can join it, \
                 for it listens to others only with SEEDS; the secret still seals backups and what is \
                 stored",
            ),
            Self::UnknownKey { .. } | Self::Misspelt { .. } => Ok(()), // said above, as a problem
        }
    }
}

/// What to say of a name that means nothing.
fn unknown(suggestion: Option<&String>) -> String {
    match suggestion {
        Some(meant) => format!("is not a setting; did you mean {meant}?"),
        None => "is not a setting; `arc-relay --help` lists them".into(),
    }
}

fn shorten(value: &str) -> String {
    match value.char_indices().nth(VALUE_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_where_and_what_to_do() {
        let problem = Problem::new("PORT", "must be a whole number from 0 to 65535")
            .set_in("environment")
            .with_value("http\n");
        assert_eq!(
            problem.to_string(),
            r#"PORT = "http\n" (environment): must be a whole number from 0 to 65535"#
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let problem = Problem::new("REGION", "…").with_value(&"ä".repeat(500));
        assert_eq!(problem.value.map(|value| value.chars().count()), Some(VALUE_SHOWN_MAX + 1));
    }

    #[test]
    fn all_problems_are_listed() {
        let problems = Problems(vec![Problem::new("A", "first"), Problem::new("B", "second")]);
        assert_eq!(
            problems.to_string(),
            "the configuration has 2 problems:\n  A: first\n  B: second"
        );
    }
}
