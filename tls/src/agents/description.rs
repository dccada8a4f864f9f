//! What a certificate says of itself, for people to read.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The host names, in small letters, and IP addresses that it is for.
    pub names: Vec<String>,
    /// Who has issued it: its distinguished name (RFC 4514).
    pub issuer: String,
    /// From when on it is good, as time since 1970.
    pub not_before: Duration,
    /// Until when it is good, as time since 1970.
    pub not_after: Duration,
    /// SHA-256 of its DER form, in small hexadecimal digits: as `openssl x509 -fingerprint -sha256`
    /// shows it, without the colons.
    pub fingerprint: String,
}

impl Description {
    /// Of a certificate in DER form; none if it is no certificate.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            names: names(&certificate),
            issuer: certificate.issuer().to_string(),
            not_before: since_1970(validity.not_before.timestamp()),
            not_after: since_1970(validity.not_after.timestamp()),
            fingerprint: HEXLOWER.encode(digest(&SHA256, der).as_ref()),
        })
    }
}

/// Subject alternative names that a connection can be made to.
pub(super) fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

/// The time of an X.509 date, as time since 1970.
pub(super) fn since_1970(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_is_described_as_it_says_itself() {
        let names = ["Relay.Example", "10.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.not_before = date_time_ymd(1970, 1, 2);
        params.not_after = date_time_ymd(1970, 1, 3);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let told = Description::of(made.der()).unwrap();
        assert_eq!(told.names, ["relay.example", "10.0.0.1", "::1"]);
        assert!(told.issuer.contains("an authority"), "{}", told.issuer);
        let day = Duration::from_hours(24);
        assert_eq!((told.not_before, told.not_after), (day, day * 2));
        assert_eq!(told.fingerprint.len(), 64);
        assert_eq!(Description::of(b"no certificate"), None);
    }
}
