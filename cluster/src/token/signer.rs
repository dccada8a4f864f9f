//! Issuing tokens. Owns the private key, and shows it to nobody but the registry's store.

use std::fmt;

use biscuit_auth::{
    Algorithm, Biscuit, KeyPair, PrivateKey,
    builder::{
        Binary, Check, CheckKind, Expression, Op, Term, bytes, constrained_rule, fact, int, pred,
        string, var,
    },
};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::{KeyId, Serial, TOKEN_PREFIX, TokenVerifier, seconds_rounded_up, verifier::facts};
use crate::{AgentId, UnixMillis};

/// Issues tokens: the half of the key pair that only the registry holds.
///
/// The key is wiped from memory when this is dropped.
pub struct TokenSigner {
    key: KeyPair,
    id: KeyId,
}

/// A token could not be made, or a stored key is none.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The bytes are no ed25519 private key.
    #[error("the stored signing key is no ed25519 key")]
    Key,
    /// The biscuit library refused.
    #[error("the token could not be signed: {0}")]
    Token(#[from] biscuit_auth::error::Token),
    /// More tokens were issued than serials can count.
    #[error("the registry has no serial left for a new token")]
    Serial,
}

impl TokenSigner {
    /// A new key from the system's randomness, the first of its registry.
    pub fn generate() -> Self {
        Self { key: KeyPair::new(), id: KeyId::default() }
    }

    /// The key that [`secret`](Self::secret) gave, as the first of its registry.
    pub fn from_secret(secret: &[u8]) -> Result<Self, SigningError> {
        PrivateKey::from_bytes(secret, Algorithm::Ed25519)
            .map(|key| Self { key: KeyPair::from(&key), id: KeyId::default() })
            .map_err(|_| SigningError::Key)
    }

    /// The same key, which its tokens name by this number; the first they do not name.
    #[must_use]
    pub fn with_id(self, id: KeyId) -> Self {
        Self { id, ..self }
    }

    /// Its number among the registry's keys.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The private key's 32 bytes, for storing.
    pub fn secret(&self) -> Zeroizing<Vec<u8>> {
        self.key.private().to_bytes()
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.key.public().to_bytes().try_into().unwrap_or_default() // an ed25519 key has 32
    }

    /// The half that verifies what this one issues.
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier::new([(self.id, self.public())])
    }

    /// The text of a new token. Tokens count in whole seconds: `expires` is rounded up.
    pub fn issue(
        &self,
        agent: &AgentId,
        serial: Serial,
        issued: UnixMillis,
        expires: Option<UnixMillis>,
    ) -> Result<String, SigningError> {
        let serial = i64::try_from(serial.0).map_err(|_| SigningError::Serial)?;
        let mut authority = Biscuit::builder()
            .fact(fact(facts::AGENT, &[string(agent.as_str())]))?
            .fact(fact(facts::SERIAL, &[int(serial)]))?
            .fact(fact(facts::ISSUED, &[Term::Date(issued.0 / 1000)]))?
            .fact(fact(facts::SIGNER, &[bytes(&self.public())]))?;
        if let Some(expires) = expires {
            let date = Term::Date(seconds_rounded_up(expires));
            authority = authority
                .fact(fact(facts::EXPIRES, std::slice::from_ref(&date)))?
                .check(before(date))?;
        }
        if self.id != KeyId::default() {
            authority = authority.root_key_id(self.id.0);
        }
        let biscuit = authority.build(&self.key)?;
        Ok(format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&biscuit.to_vec()?)))
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSigner(..)")
    }
}

/// `check if time($t), $t < date`: for biscuit's own tools; the relay reads the fact.
fn before(date: Term) -> Check {
    let ops = vec![Op::Value(var("t")), Op::Value(date), Op::Binary(Binary::LessThan)];
    let none: [Term; 0] = [];
    let query =
        constrained_rule("query", &none, &[pred("time", &[var("t")])], &[Expression { ops }]);
    Check { queries: vec![query], kind: CheckKind::One }
}
