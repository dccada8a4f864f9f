//! From a token's text to what it grants. Holds public keys only.
//!
//! The text comes from strangers, so everything is bounded before it is worked on: the length of the
//! text, then the number of blocks, then (in `vocabulary`) what a block may say.

use std::{fmt, sync::Arc};

use biscuit_auth::{
    Algorithm, PublicKey, UnverifiedBiscuit,
    datalog::{SymbolTable, Term},
    format::{convert::proto_fact_to_token_fact, schema},
};
use data_encoding::{BASE64URL, BASE64URL_NOPAD};

use super::{
    Grant, KeyId, Serial, TOKEN_BLOCKS_MAX, TOKEN_BYTES_MAX, TOKEN_PREFIX, TokenError,
    narrowing::Narrowing, start_of_second,
};
use crate::{AgentId, UnixMillis};

/// The facts of the authority block. Only the registry's key can sign them.
pub(super) mod facts {
    /// `agent("id")`: whom the token speaks for.
    pub(crate) const AGENT: &str = "agent";
    /// `serial(n)`: its number, for revocation.
    pub(crate) const SERIAL: &str = "serial";
    /// `issued(date)`: since when.
    pub(crate) const ISSUED: &str = "issued";
    /// `expires(date)`: until when, exclusive; absent in a token that does not expire.
    pub(crate) const EXPIRES: &str = "expires";
    /// `signer(key)`: the public key. Verifiers have their own and ignore it; it is there for
    /// holders, since some biscuit libraries can only narrow what they can verify.
    pub(crate) const SIGNER: &str = "signer";
}

/// Verifies tokens without asking anybody: the halves of the key pairs that every node holds. Clones
/// share them.
#[derive(Clone)]
pub struct TokenVerifier {
    /// In the order of their numbers.
    keys: Arc<[(KeyId, PublicKey)]>,
}

impl TokenVerifier {
    /// Verifies what these keys, by their public halves' 32 bytes, have signed. What is no key, or has
    /// a number beyond [`KeyId::MAX`], is left out.
    pub fn new(keys: impl IntoIterator<Item = (KeyId, [u8; 32])>) -> Self {
        let read = |(id, bytes): (KeyId, [u8; 32])| {
            let key = PublicKey::from_bytes(&bytes, Algorithm::Ed25519).ok()?;
            (id <= KeyId::MAX).then_some((id, key))
        };
        let mut keys: Vec<_> = keys.into_iter().filter_map(read).collect();
        keys.sort_by_key(|(id, _)| *id);
        Self { keys: keys.into() }
    }

    /// Checks form, signatures, narrowings and, at `now`, expiry.
    ///
    /// Whether the token was revoked, the caller must ask the registry.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError> {
        let grant = self.read(token)?;
        grant.check_time(now)?;
        Ok(grant)
    }

    /// All of [`verify`](Self::verify) but the time.
    pub(super) fn read(&self, token: &str) -> Result<Grant, TokenError> {
        let bytes = decode(token).ok_or(TokenError::Invalid)?;
        let unverified = UnverifiedBiscuit::from(bytes).map_err(invalid)?;
        let id = KeyId(unverified.root_key_id().unwrap_or_default());
        let found = self.keys.binary_search_by_key(&id, |(id, _)| *id);
        let (_, key) = found.ok().and_then(|at| self.keys.get(at)).ok_or(TokenError::Invalid)?;
        grant(id, &authentic_blocks(unverified, *key)?)
    }
}

/// The blocks of a biscuit, once every signature in it has been found right.
fn authentic_blocks(
    unverified: UnverifiedBiscuit,
    key: PublicKey,
) -> Result<schema::AuthorizerWorld, TokenError> {
    if unverified.block_count() > TOKEN_BLOCKS_MAX {
        let reason = format!("it has more than {TOKEN_BLOCKS_MAX} blocks");
        return Err(TokenError::Unsupported(reason));
    }
    let biscuit = unverified.verify(key).map_err(invalid)?;
    if biscuit.external_public_keys().iter().any(Option::is_some) {
        return Err(TokenError::Unsupported("a block is signed by a third party".to_owned()));
    }
    // The snapshot is the library's public view of single blocks, all in one symbol table. No
    // datalog has run when it is taken.
    let snapshot = biscuit.authorizer().map_err(invalid)?.snapshot().map_err(invalid)?;
    Ok(snapshot.world)
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.keys.iter().map(|(id, key)| (id.0, key.to_bytes_hex()));
        f.debug_map().entries(shown).finish()
    }
}

/// The biscuit inside a token's text. Padding is optional: biscuit's own tools write it.
fn decode(token: &str) -> Option<Vec<u8>> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let text = token.strip_prefix(TOKEN_PREFIX)?.as_bytes();
    let encoding = if text.ends_with(b"=") { BASE64URL } else { BASE64URL_NOPAD };
    encoding.decode(text).ok()
}

fn grant(key: KeyId, world: &schema::AuthorizerWorld) -> Result<Grant, TokenError> {
    let symbols = SymbolTable::from(world.symbols.clone()).map_err(invalid)?;
    let (authority, appended) = world.blocks.split_first().ok_or(TokenError::Invalid)?;
    let authority = Authority::read(authority, &symbols).ok_or(TokenError::Invalid)?;
    let narrowing = match appended {
        [] => None,
        blocks => Some(Narrowing::read(blocks, symbols)?),
    };
    Ok(Grant::new(key, authority.agent, authority.serial, authority.expires, narrowing))
}

/// What the registry signed.
struct Authority {
    agent: AgentId,
    serial: Serial,
    expires: Option<UnixMillis>,
}

impl Authority {
    /// None if a fact is missing, said twice, or of the wrong type: then this relay's key signed
    /// something that is no token.
    fn read(block: &schema::SnapshotBlock, symbols: &SymbolTable) -> Option<Self> {
        let (mut agent, mut serial, mut issued, mut expires) = (None, None, None, None);
        for fact in &block.facts {
            let predicate = proto_fact_to_token_fact(fact).ok()?.predicate;
            let earlier = match (symbols.get_symbol(predicate.name)?, predicate.terms.as_slice()) {
                (facts::AGENT, [Term::Str(id)]) => {
                    agent.replace(symbols.get_symbol(*id)?.parse().ok()?).is_some()
                }
                (facts::SERIAL, [Term::Integer(n)]) => {
                    serial.replace(Serial(u64::try_from(*n).ok()?)).is_some()
                }
                (facts::ISSUED, [Term::Date(date)]) => issued.replace(*date).is_some(),
                (facts::EXPIRES, [Term::Date(date)]) => {
                    expires.replace(start_of_second(*date)).is_some()
                }
                (facts::SIGNER, [Term::Bytes(_)]) => false,
                _ => return None,
            };
            if earlier {
                return None;
            }
        }
        issued?;
        Some(Self { agent: agent?, serial: serial?, expires })
    }
}

/// What a stranger gets wrong is not told apart for him.
fn invalid<E>(_: E) -> TokenError {
    TokenError::Invalid
}
