//! What is counted of agents' TLS.

use ::rustls::{Error, ProtocolVersion};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::certificates::TlsReport;
use crate::net::tls::{HandshakeError, TlsStream};

/// Handles of what is counted of agents' TLS.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Handshakes that were done, by version and kind.
    pub done: Done,
    /// Handshakes that were not, by reason.
    pub failed: Failed,
    /// From accepting a connection to the end of its handshake.
    pub seconds: Histogram,
    /// Seconds until the first of the certificates expires; below 0 when it has, 0 where there is none
    /// yet, and without end without TLS.
    pub certificate_expires: Gauge,
    /// Orders of certificates that have failed since the last that succeeded.
    pub acme_failures: Gauge,
    /// Seconds until the next order; without end where none are made.
    pub acme_next: Gauge,
    /// 1 while this node orders, else 0.
    pub acme_ordering: Gauge,
    /// New certificates taken over from files.
    pub reloads: Counter,
    /// New certificates in files that were refused.
    pub reload_failures: Counter,
}

labelled!(
    /// Handshakes that were done.
    Done, "arc_tls_handshakes_total", "kind", {
    /// TLS 1.3, in full.
    full_13 => "1.3",
    /// TLS 1.3, of an earlier session.
    resumed_13 => "1.3 resumed",
    /// TLS 1.2, in full.
    full_12 => "1.2",
    /// TLS 1.2, of an earlier session.
    resumed_12 => "1.2 resumed",
    /// An authority's challenge.
    challenge => "challenge",
});

labelled!(
    /// Handshakes that were not done.
    Failed, "arc_tls_handshake_failures_total", "reason", {
    /// The connection broke, or the client went away.
    broken => "broken",
    /// It took too long.
    timeout => "timeout",
    /// There were too many, and it was the oldest.
    overtaken => "overtaken",
    /// The client spoke plain HTTP, or nothing known.
    not_tls => "not_tls",
    /// The client refused, most likely because it does not trust the certificate.
    distrusted => "distrusted",
    /// Client and relay have no version or algorithm in common.
    incompatible => "incompatible",
    /// There is no certificate for the client.
    no_certificate => "no_certificate",
    /// The client broke the rules.
    malformed => "malformed",
});

impl TlsMetrics {
    pub(super) fn registered() -> Self {
        describe_counter!("arc_tls_handshakes_total", "TLS handshakes done, by version and kind");
        describe_counter!("arc_tls_handshake_failures_total", "TLS handshakes failed, by reason");
        describe_histogram!(
            "arc_tls_handshake_seconds",
            "from a connection to its handshake's end"
        );
        describe_gauge!(
            "arc_tls_certificate_expires_seconds",
            "seconds until the first of the certificates for agents expires"
        );
        describe_gauge!("arc_acme_failures", "orders failed since the last that succeeded");
        describe_gauge!(
            "arc_acme_next_try_seconds",
            "seconds until the next order of a certificate"
        );
        describe_gauge!("arc_acme_ordering", "whether this node orders a certificate now");
        describe_counter!("arc_tls_reloads_total", "new certificates taken over from files");
        describe_counter!(
            "arc_tls_reload_failures_total",
            "certificates in files that were refused"
        );
        Self {
            done: Done::new(),
            failed: Failed::new(),
            seconds: histogram!("arc_tls_handshake_seconds"),
            certificate_expires: gauge!("arc_tls_certificate_expires_seconds"),
            acme_failures: gauge!("arc_acme_failures"),
            acme_next: gauge!("arc_acme_next_try_seconds"),
            acme_ordering: gauge!("arc_acme_ordering"),
            reloads: counter!("arc_tls_reloads_total"),
            reload_failures: counter!("arc_tls_reload_failures_total"),
        }
    }

    /// Says how it is with the certificates; none: there is no TLS.
    #[allow(clippy::cast_precision_loss)] // a year has 3e7 seconds
    pub fn set_certificate(&self, report: Option<&TlsReport>) {
        let expires = report.map(|report| report.expires_in.unwrap_or(0) as f64);
        self.certificate_expires.set(expires.unwrap_or(f64::INFINITY));
        let acme = report.and_then(|report| report.acme.as_ref());
        self.acme_failures.set(acme.map_or(0, |acme| acme.failures));
        self.acme_next.set(acme.map_or(f64::INFINITY, |acme| acme.next_in.max(0) as f64));
        self.acme_ordering.set(acme.map_or(0.0, |acme| f64::from(u8::from(acme.ordering))));
    }

    /// Counts a handshake that was done.
    pub fn count(&self, stream: &TlsStream) {
        let done = &self.done;
        let is_13 = stream.version() == Some(ProtocolVersion::TLSv1_3);
        let counter = match (is_13, stream.is_resumed()) {
            _ if stream.is_challenge() => &done.challenge,
            (true, false) => &done.full_13,
            (true, true) => &done.resumed_13,
            (false, false) => &done.full_12,
            (false, true) => &done.resumed_12,
        };
        counter.increment(1);
    }

    /// Counts why a handshake failed.
    pub fn count_failure(&self, error: &HandshakeError) {
        let failed = &self.failed;
        let counter = match error {
            HandshakeError::Broken(_) => &failed.broken,
            HandshakeError::PlainHttp(_) | HandshakeError::NotTls => &failed.not_tls,
            HandshakeError::TimedOut => &failed.timeout,
            HandshakeError::Overtaken => &failed.overtaken,
            HandshakeError::Failed(error) => match error {
                Error::AlertReceived(_) => &failed.distrusted,
                Error::PeerIncompatible(_) | Error::NoApplicationProtocol => &failed.incompatible,
                // What rustls says when nothing is served.
                Error::General(_) => &failed.no_certificate,
                _ => &failed.malformed,
            },
        };
        counter.increment(1);
    }
}
