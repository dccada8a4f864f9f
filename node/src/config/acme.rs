//! How certificates by ACME are configured: for which names, from which authority.

use std::{fmt, path::PathBuf};

use axum::http::Uri;
use data_encoding::BASE64URL_NOPAD;
use tls::acme::{Challenge, ExternalAccount, LETS_ENCRYPT, Settings};
use zeroize::Zeroizing;

use super::rule::{Rule, choice};

/// Names in one certificate; Let's Encrypt takes no more.
const DOMAINS_MAX: usize = 100;

/// Longest name (RFC 1035, section 2.3.4), and longest label in it.
const NAME_BYTES_MAX: (usize, usize) = (253, 63);

/// What an authority is asked for, as written. Without names it is asked for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The names that the certificate is for, in small letters (`ACME_DOMAINS`).
    pub domains: Vec<String>,
    /// Whom the authority writes to (`ACME_EMAIL`).
    pub email: Option<String>,
    /// The authority's directory (`ACME_DIRECTORY`).
    pub directory: String,
    /// What vouches for the directory, if it is not what browsers trust (`ACME_CA_ROOT`).
    pub ca_root: Option<PathBuf>,
    /// The name of an account at the authority's operator (`ACME_EAB_KID`).
    pub eab_kid: Option<String>,
    /// The key of that account (`ACME_EAB_HMAC`).
    pub eab_hmac: Option<MacKey>,
    /// The kind of proof that is offered (`ACME_CHALLENGE`).
    pub challenge: Challenge,
}

/// A key that an authority's operator gave. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct MacKey(Zeroizing<Vec<u8>>);

impl AcmeConfig {
    /// What an authority is asked for; none if nothing.
    pub(super) fn settings(&self) -> Option<Settings> {
        let external_account = match (&self.eab_kid, &self.eab_hmac) {
            (Some(kid), Some(MacKey(hmac))) => {
                Some(ExternalAccount { kid: kid.clone(), hmac: hmac.clone() })
            }
            _ => None,
        };
        (!self.domains.is_empty()).then(|| Settings {
            domains: self.domains.clone(),
            email: self.email.clone(),
            directory: self.directory.clone(),
            ca_root: self.ca_root.clone(),
            external_account,
            challenge: self.challenge,
        })
    }
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            email: None,
            directory: LETS_ENCRYPT.into(),
            ca_root: None,
            eab_kid: None,
            eab_hmac: None,
            challenge: Challenge::default(),
        }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(hidden)")
    }
}

/// Names for a certificate, comma separated.
pub(super) fn domains() -> Rule<Vec<String>> {
    let read_all = |text: &str| {
        let mut domains = Vec::new();
        for name in text.split(',') {
            let name = domain(name.trim())?;
            if !domains.contains(&name) {
                domains.push(name);
            }
        }
        (domains.len() <= DOMAINS_MAX).then_some(domains)
    };
    Rule::new(
        "NAMES",
        "host names, comma separated, at most 100, such as relay.example.com,relay.example.org, or \
         none; no wildcards, which authorities want proven in the DNS, which the relay does not \
         change, and no IP addresses",
        move |text| match text {
            "none" => Some(Vec::new()),
            _ => read_all(text),
        },
        |domains| if domains.is_empty() { "none".into() } else { domains.join(",") },
    )
}

/// An address for mail, or none.
pub(super) fn email() -> Rule<Option<String>> {
    optional("ADDRESS", "one address for mail, such as ops@example.com, or none", |text| {
        let good = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '<' | '>' | '"');
        let (local, host) = text.split_once('@')?;
        (!local.is_empty() && local.chars().all(good) && domain(host).is_some())
            .then(|| text.to_owned())
    })
}

/// The URL of an authority's directory.
pub(super) fn directory() -> Rule<String> {
    Rule::new(
        "URL",
        "the https URL of an ACME directory, such as \
         https://acme-staging-v02.api.letsencrypt.org/directory for trials",
        |text| {
            let url: Uri = text.parse().ok()?;
            let host = url.host().is_some_and(|host| !host.is_empty());
            (url.scheme_str() == Some("https") && host && !text.contains('@'))
                .then(|| text.to_owned())
        },
        String::clone,
    )
}

/// The name of an account at an authority's operator, or none.
pub(super) fn eab_kid() -> Rule<Option<String>> {
    optional("ID", "the key id just as the authority gave it, or none", |text| {
        let good = (1..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| text.to_owned())
    })
}

/// The key of that account; never shown.
pub(super) fn eab_hmac() -> Rule<Option<MacKey>> {
    Rule::new(
        "KEY",
        "the HMAC key just as the authority gave it, in base64url",
        |text| {
            let bytes = BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()?;
            (!bytes.is_empty()).then(|| Some(MacKey(Zeroizing::new(bytes))))
        },
        |key| if key.is_some() { "(hidden)".into() } else { "none".into() },
    )
}

/// What `ACME_CHALLENGE` may be.
pub(super) fn challenge() -> Rule<Challenge> {
    choice(&[("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01)])
}

fn optional(
    value_name: &'static str,
    allowed: &'static str,
    read: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Rule<Option<String>> {
    Rule::new(
        value_name,
        allowed,
        move |text| match text {
            "none" => Some(None),
            _ => read(text).map(Some),
        },
        |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into()),
    )
}

/// A host name in small letters (RFC 1123, section 2.1); none if it is an address or no name.
fn domain(text: &str) -> Option<String> {
    let (name_max, label_max) = NAME_BYTES_MAX;
    let is_label = |label: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=label_max).contains(&label.len())
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = text.len() <= name_max && text.split('.').all(is_label);
    // The last label of a name is never a number: then it is an address, or a slip in one.
    let is_address = text.rsplit('.').next()?.bytes().all(|b| b.is_ascii_digit());
    (is_name && !is_address).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn names_are_in_small_letters_and_each_once() {
        let read = |text: &str| domains().read(text);
        assert_eq!(
            read("Relay.Example, b-1.example,relay.example").unwrap(),
            ["relay.example", "b-1.example"]
        );
        assert_eq!(read("none").unwrap(), [""; 0]);
        let long = "a".repeat(64);
        for bad in [
            "",
            "*.a.example",
            "a..b",
            "10.0.0.1",
            "::1",
            "-a.b",
            "a.b-",
            "a b",
            "a.b:443",
            "a.b,",
            &long,
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        let many = |count: usize| (0..count).map(|n| format!("n{n}.example")).collect::<Vec<_>>();
        assert!(read(&many(100).join(",")).is_some() && read(&many(101).join(",")).is_none());
        assert_eq!(domains().show(&many(2)), "n0.example,n1.example");
    }

    #[test]
    fn what_the_authority_gave_is_taken_as_it_is_and_nothing_else() {
        assert_eq!(
            email().read("ops+acme@example.com").unwrap(),
            Some("ops+acme@example.com".into())
        );
        for bad in ["ops", "@a.b", "a@", "a@b@c", "a,b@c.d", "<a@b.c>"] {
            assert_eq!(email().read(bad), None, "{bad:?}");
        }
        assert!(directory().read("https://localhost:14000/dir").is_some());
        for bad in ["http://a.b/dir", "a.b/dir", "https://", "https://u@a.b/", "ftp://a.b"] {
            assert_eq!(directory().read(bad), None, "{bad:?}");
        }
        let key = |text| eab_hmac().read(text).flatten().map(|MacKey(bytes)| bytes.to_vec());
        assert_eq!(key("-_8").unwrap(), [0xfb, 0xff]);
        assert_eq!(key("-_8="), key("-_8"));
        assert_eq!((key(""), key("+/8"), key("a b")), (None, None, None));
    }

    #[test]
    fn an_account_is_its_name_and_its_key_which_is_never_shown() {
        let mut config = AcmeConfig { domains: vec!["a.b".into()], ..AcmeConfig::default() };
        assert!(config.settings().unwrap().external_account.is_none());
        config.eab_kid = Some("kid".into());
        config.eab_hmac = eab_hmac().read("c2VjcmV0").unwrap();
        let account = config.settings().unwrap().external_account.unwrap();
        assert_eq!((account.kid.as_str(), account.hmac.as_slice()), ("kid", b"secret".as_slice()));
        assert_eq!(eab_hmac().show(&config.eab_hmac), "(hidden)");
        let shown = format!("{config:?}");
        assert!(shown.contains("MacKey(hidden)") && !shown.contains("115"), "{shown}");
        assert_eq!(AcmeConfig::default().settings(), None);
    }
}
