//! What to do about files that may have changed: pure.
//!
//! The two files of a pair are replaced one after the other, so what is seen once may be half of each.
//! A pair that is no good is refused only when it is seen a second time, or the operator asks.

use std::{hash::Hasher, time::Duration};

use siphasher::sip128::{Hasher128, SipHasher13};
use tls::agents::{Chain, ChainError};
use zeroize::Zeroizing;

/// The contents of a certificate's and a key's file.
pub(super) struct Pair {
    /// The certificate, and those up to its authority, PEM.
    pub(super) chain: Vec<u8>,
    /// Its key, PEM.
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// What has been seen of the files.
#[derive(Debug)]
pub(super) struct Watched {
    served: u128,
    /// Seen once, and no good.
    doubtful: Option<u128>,
    /// Refused.
    refused: Option<u128>,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Nothing,
    /// Serve this from now on.
    Serve(Chain),
    /// The files are again those that are served: what was wrong with them is not any more.
    Back,
    /// Go on as before, and say why.
    Refuse(String),
}

impl Pair {
    /// The two as one, if they are good at `now`, the time since 1970.
    pub(super) fn chain(&self, now: Duration) -> Result<Chain, ChainError> {
        let chain = Chain::from_pem(&self.chain, &self.key)?;
        chain.check_time(now)?;
        Ok(chain)
    }

    /// Tells pairs apart without keeping the key.
    fn fingerprint(&self) -> u128 {
        fingerprint(&[&self.chain, &self.key])
    }
}

impl Watched {
    /// This pair is served.
    pub(super) fn new(served: &Pair) -> Self {
        Self { served: served.fingerprint(), doubtful: None, refused: None }
    }

    /// The files were looked at; `Err` says why they cannot be read. What was refused is judged again
    /// each time, for its hour may come, but spoken of once, or when the operator asks.
    pub(super) fn look(
        &mut self,
        found: Result<Pair, String>,
        now: Duration,
        at_once: bool,
    ) -> Action {
        let seen = match &found {
            Ok(pair) => pair.fingerprint(),
            Err(why) => fingerprint(&[b"unreadable", why.as_bytes()]),
        };
        if seen == self.served {
            let was_wrong = self.refused.take().is_some();
            self.doubtful = None;
            return if was_wrong { Action::Back } else { Action::Nothing };
        }
        let judged = found.and_then(|pair| pair.chain(now).map_err(|why| why.to_string()));
        match judged {
            Ok(chain) => {
                *self = Self { served: seen, doubtful: None, refused: None };
                Action::Serve(chain)
            }
            Err(_) if !at_once && self.refused == Some(seen) => Action::Nothing,
            Err(_) if !at_once && self.doubtful != Some(seen) => {
                self.doubtful = Some(seen);
                Action::Nothing
            }
            Err(why) => {
                (self.doubtful, self.refused) = (None, Some(seen));
                Action::Refuse(why)
            }
        }
    }
}

fn fingerprint(parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher13::new();
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// The time since 1970 in November 2026.
    const NOW: Duration = Duration::from_hours(498_706);

    /// The certificate and the key of a name, good from this year to 2030.
    fn files(name: &str, from: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn pair(chain: &str, key: &str) -> Pair {
        Pair { chain: chain.into(), key: Zeroizing::new(key.into()) }
    }

    #[test]
    fn a_good_pair_is_served_at_once_and_once() {
        let (old, new) = (files("old.example", 2020), files("new.example", 2020));
        let mut watched = Watched::new(&pair(&old.0, &old.1));
        assert_eq!(watched.look(Ok(pair(&old.0, &old.1)), NOW, false), Action::Nothing);
        let action = watched.look(Ok(pair(&new.0, &new.1)), NOW, false);
        assert!(matches!(&action, Action::Serve(c) if c.names() == ["new.example"]), "{action:?}");
        assert_eq!(watched.look(Ok(pair(&new.0, &new.1)), NOW, true), Action::Nothing);
    }

    #[test]
    fn a_pair_that_is_half_written_is_waited_for() {
        let (old, new) = (files("old.example", 2020), files("new.example", 2020));
        let mut watched = Watched::new(&pair(&old.0, &old.1));
        assert_eq!(watched.look(Ok(pair(&new.0, &old.1)), NOW, false), Action::Nothing);
        let action = watched.look(Ok(pair(&new.0, &new.1)), NOW, false);
        assert!(matches!(action, Action::Serve(_)), "{action:?}");
    }

    #[test]
    fn a_bad_pair_is_refused_once_until_it_is_mended() {
        let (old, new) = (files("old.example", 2020), files("new.example", 2020));
        let mut watched = Watched::new(&pair(&old.0, &old.1));
        let bad = || Ok(pair(&new.0, &old.1));
        assert_eq!(watched.look(bad(), NOW, false), Action::Nothing, "it may be half written");
        assert!(matches!(watched.look(bad(), NOW, false), Action::Refuse(_)));
        assert_eq!(watched.look(bad(), NOW, false), Action::Nothing, "that was said");
        assert!(
            matches!(watched.look(bad(), NOW, true), Action::Refuse(_)),
            "who asks is answered"
        );
        assert_eq!(watched.look(Ok(pair(&old.0, &old.1)), NOW, false), Action::Back);
        assert_eq!(watched.look(Ok(pair(&old.0, &old.1)), NOW, false), Action::Nothing);
        assert!(matches!(watched.look(bad(), NOW, true), Action::Refuse(_)), "at once");
        let gone = || Err("cannot read it".to_owned());
        assert_eq!(watched.look(gone(), NOW, false), Action::Nothing);
        assert_eq!(watched.look(gone(), NOW, false), Action::Refuse("cannot read it".into()));
    }

    #[test]
    fn a_pair_whose_time_has_not_come_is_served_when_it_has() {
        let (old, new) = (files("old.example", 2020), files("new.example", 2027));
        let mut watched = Watched::new(&pair(&old.0, &old.1));
        let look = |watched: &mut Watched, now| watched.look(Ok(pair(&new.0, &new.1)), now, false);
        assert_eq!(look(&mut watched, NOW), Action::Nothing);
        assert!(matches!(look(&mut watched, NOW), Action::Refuse(_)));
        assert_eq!(look(&mut watched, NOW), Action::Nothing);
        let in_a_year = NOW + Duration::from_hours(8_760);
        assert!(matches!(look(&mut watched, in_a_year), Action::Serve(_)));
    }
}
