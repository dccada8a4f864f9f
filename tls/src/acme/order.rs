//! One order, from the account to the certificate; carried on from wherever a former leader left it.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{
    Challenge, Settings, Shelf, ShelfError,
    http::Client,
    plan::{Trouble, is_same, renew_at_ms},
    record::{self, Answers, Certificate, ms},
};
use crate::{
    agents::{Chain, ChainError},
    mesh::Wall,
};

/// How long an order may take before it is left alone for a while. It is carried on then.
const ORDER_DEADLINE: Duration = Duration::from_mins(10);

/// How long the other nodes may take to learn how to answer.
const SPREAD_DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at an order: the first wait, which then grows to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How often a request is repeated with another nonce, beside what the library does: half of all may be
/// refused, and still one request in a million fails.
const NONCE_TRIES: u32 = 7;

/// What an authority says of an account that it does not know (RFC 8555, section 6.7).
const ACCOUNT_GONE: &str = "accountDoesNotExist";

/// Characters of a failure's text that are kept: an authority may say what it likes, at any length, and
/// what is too long for the shelf could never be written down.
const TEXT_CHARS_MAX: usize = 4_000;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) trouble: Trouble,
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{0}")]
    Acme(#[from] Error),
    #[error("the cluster's registry cannot be written: {0}")]
    Shelf(#[from] ShelfError),
    #[error("not all nodes know how to answer the authority: {0}")]
    Spread(String),
    #[error("the authority does not accept: {0}")]
    Invalid(String),
    #[error("the authority offers no {0} challenge for {1}: set ACME_CHALLENGE to the other kind")]
    NotOffered(&'static str, String),
    #[error("the authority's certificate is of no use: {0}")]
    Chain(#[from] ChainError),
    #[error("cannot make the certificate's key: {0}")]
    Key(#[from] rcgen::Error),
    #[error(
        "the authority lets its account order nothing ({0}): ask the authority's operator, or have \
         another account made by another ACME_EAB_KID, with its ACME_EAB_HMAC, or ACME_DIRECTORY"
    )]
    NotAllowed(Problem),
    #[error("the order took longer than {ORDER_DEADLINE:?}")]
    Deadline,
}

/// Repeats a request whose nonce was refused; the library gives up after a few times.
macro_rules! with_any_nonce {
    ($request:expr) => {{
        let mut tries = 0;
        loop {
            match $request {
                Err(error) if is_bad_nonce(&error) && tries < NONCE_TRIES => tries += 1,
                other => break other,
            }
        }
    }};
}

/// Gets a certificate for the settings' names: carries on the order that lies on the shelf, or begins
/// one. On success the certificate is on the shelf.
pub(super) async fn obtain(
    settings: &Settings,
    client: &Client,
    shelf: &dyn Shelf,
    wall: &Wall,
) -> Result<(), Failure> {
    // What it was asked to wait before has been waited.
    client.take_wait();
    let ordering = Ordering { settings, shelf, wall, client };
    let obtained = timeout(ORDER_DEADLINE, ordering.obtain()).await;
    let obtained = obtained.unwrap_or(Err(OrderError::Deadline));
    obtained.map_err(|error| failure(&error, client.take_wait()))
}

struct Ordering<'a> {
    settings: &'a Settings,
    shelf: &'a dyn Shelf,
    wall: &'a Wall,
    client: &'a Client,
}

impl Ordering<'_> {
    async fn obtain(&self) -> Result<(), OrderError> {
        let account = self.account().await?;
        let ordered = self.order(&account).await;
        if let Err(OrderError::Acme(Error::Api(problem))) = &ordered
            && is(problem, ACCOUNT_GONE)
        {
            tracing::warn!(%problem, "the authority has forgotten the account; making another");
            self.forget::<record::Account>().await;
            self.forget::<record::Order>().await;
        }
        let (mut order, recorded) = ordered?;
        let outcome = self.pursue(&account, &mut order, &recorded.key).await;
        match &outcome {
            Ok(()) | Err(OrderError::Invalid(_) | OrderError::Chain(_)) => {
                self.forget::<record::Order>().await;
                self.forget::<Answers>().await;
            }
            Err(_) => {} // it may still succeed
        }
        outcome
    }

    /// Removes a record; what is left of an order that is over changes nothing.
    async fn forget<T: record::Record>(&self) {
        if let Err(error) = record::remove::<T>(self.shelf).await {
            tracing::warn!(%error, record = T::KEY, "cannot remove what is not needed any more");
        }
    }

    /// The account that was made once, here or by another node.
    async fn account(&self) -> Result<Account, OrderError> {
        let Settings { directory, email, external_account, .. } = self.settings;
        let kid = external_account.as_ref().map(|account| account.kid.clone());
        let found = record::look_up::<record::Account>(self.shelf).await;
        let http = || Box::new(self.client.clone());
        let is_ours = |known: &record::Account| known.directory == *directory && known.kid == kid;
        let contact = email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        if let Some(known) = found.record.filter(is_ours) {
            let restored = Account::builder_with_http(http());
            let account = restored.from_credentials(known.credentials).await?;
            if known.email != *email {
                self.change_email(&account, &contact).await?;
            }
            return Ok(account);
        }
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let external = external_account
            .as_ref()
            .map(|account| ExternalAccountKey::new(account.kid.clone(), &account.hmac));
        let (account, credentials) = with_any_nonce!(
            Account::builder_with_http(http())
                .create(&wanted, directory.clone(), external.as_ref())
                .await
        )?;
        let made = record::Account {
            directory: directory.clone(),
            credentials,
            email: email.clone(),
            kid,
        };
        record::put(self.shelf, found.version, &made).await?;
        tracing::info!(directory, "made an account at the certificate authority");
        Ok(account)
    }

    /// Tells the authority whom to write to from now on.
    async fn change_email(&self, account: &Account, contact: &[&str]) -> Result<(), OrderError> {
        match with_any_nonce!(account.update_contacts(contact).await) {
            // Whoever orders next finds that out, and what to do about it.
            Err(Error::Api(problem)) if is(&problem, ACCOUNT_GONE) => return Ok(()),
            changed => changed?,
        }
        let found = record::look_up::<record::Account>(self.shelf).await;
        let Some(known) = found.record else { return Ok(()) };
        let told = record::Account { email: self.settings.email.clone(), ..known };
        record::put(self.shelf, found.version, &told).await?;
        tracing::info!("told the certificate authority the new ACME_EMAIL");
        Ok(())
    }

    /// The order under way, or a new one.
    async fn order(&self, account: &Account) -> Result<(Order, record::Order), OrderError> {
        let Settings { directory, domains, .. } = self.settings;
        let found = record::look_up::<record::Order>(self.shelf).await;
        let done = record::find::<Certificate>(self.shelf).record;
        let is_ours = |known: &record::Order| {
            let is_over = done.as_ref().is_some_and(|certificate| certificate.key == known.key);
            known.directory == *directory && is_same(&known.domains, domains) && !is_over
        };
        if let Some(known) = found.record.filter(is_ours) {
            match with_any_nonce!(account.order(known.url.clone()).await) {
                Ok(order) => {
                    tracing::info!(url = known.url, "carrying on with an order");
                    return Ok((order, known));
                }
                Err(Error::Api(problem)) if is_about_the_order(&problem) => {
                    tracing::info!(%problem, "the authority has forgotten an order; making another");
                }
                Err(error) => return Err(error.into()),
            }
        }
        let names: Vec<_> = domains.iter().cloned().map(Identifier::Dns).collect();
        let order = with_any_nonce!(account.new_order(&NewOrder::new(&names)).await);
        let order = order.map_err(|error| match error {
            Error::Api(problem) if is(&problem, "unauthorized") => OrderError::NotAllowed(problem),
            error => error.into(),
        })?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let recorded = record::Order {
            directory: directory.clone(),
            domains: domains.clone(),
            url: order.url().to_owned(),
            key: Zeroizing::new(key.serialize_pem()),
        };
        record::put(self.shelf, found.version, &recorded).await?;
        tracing::info!(?domains, "ordered a certificate");
        Ok((order, recorded))
    }

    /// Does what the order's state asks for, until there is a certificate.
    async fn pursue(
        &self,
        account: &Account,
        order: &mut Order,
        key: &str,
    ) -> Result<(), OrderError> {
        let (mut wait, longest) = POLL;
        let mut proven = false;
        loop {
            match order.state().status {
                OrderStatus::Pending if !proven => {
                    self.prove(account, order).await?;
                    proven = true;
                }
                OrderStatus::Ready => {
                    let csr = self.request(key)?;
                    with_any_nonce!(order.finalize_csr(&csr).await)?;
                }
                OrderStatus::Valid => return self.keep(order, key).await,
                OrderStatus::Invalid => return Err(self.refusal(order).await),
                OrderStatus::Pending | OrderStatus::Processing => {
                    sleep(wait).await;
                    wait = (wait * 2).min(longest);
                    with_any_nonce!(order.refresh().await.map(|_| ()))?;
                }
            }
        }
    }

    /// Tells all nodes how to answer, and then the authority that it may ask.
    async fn prove(&self, account: &Account, order: &mut Order) -> Result<(), OrderError> {
        let answers = with_any_nonce!(answers(account, order).await)?;
        let found = record::find::<Answers>(self.shelf);
        if found.record.as_ref() != Some(&answers) {
            record::put(self.shelf, found.version, &answers).await?;
        }
        self.shelf.spread(SPREAD_DEADLINE).await.map_err(OrderError::Spread)?;
        with_any_nonce!(self.invite(order).await)?;
        match self.not_offered(order).await? {
            Some(name) => Err(OrderError::NotOffered(self.kind().1, name)),
            None => Ok(()),
        }
    }

    /// Says of each name that still has to be proven that all is ready.
    async fn invite(&self, order: &mut Order) -> Result<(), Error> {
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            // Its own answer says only that it has heard.
            if let Some(mut challenge) = authorization.challenge(self.kind().0)
                && challenge.status == ChallengeStatus::Pending
            {
                challenge.set_ready().await?;
            }
        }
        Ok(())
    }

    /// A name that the authority wants proven in another way only.
    async fn not_offered(&self, order: &mut Order) -> Result<Option<String>, Error> {
        let mut all = order.authorizations();
        while let Some(authorization) = all.next().await {
            let authorization = authorization?;
            let is_offered = authorization.challenges.iter().any(|it| it.r#type == self.kind().0);
            if authorization.status == AuthorizationStatus::Pending && !is_offered {
                return Ok(Some(authorization.identifier().to_string()));
            }
        }
        Ok(None)
    }

    fn kind(&self) -> (ChallengeType, &'static str) {
        match self.settings.challenge {
            Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
            Challenge::Http01 => (ChallengeType::Http01, "http-01"),
        }
    }

    /// The certificate's request, DER.
    fn request(&self, key: &str) -> Result<Vec<u8>, OrderError> {
        let mut params = CertificateParams::new(self.settings.domains.clone())?;
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&KeyPair::from_pem(key)?)?.der().to_vec())
    }

    async fn keep(&self, order: &mut Order, key: &str) -> Result<(), OrderError> {
        let (mut wait, longest) = POLL;
        let pem = loop {
            if let Some(pem) = with_any_nonce!(order.certificate().await)? {
                break pem;
            }
            sleep(wait).await;
            wait = (wait * 2).min(longest);
        };
        let chain = Chain::from_pem(pem.as_bytes(), key.as_bytes())?;
        chain.check_time((self.wall)())?;
        let (not_before, not_after) = (chain.not_before(), chain.not_after());
        let certificate = Certificate {
            directory: self.settings.directory.clone(),
            domains: self.settings.domains.clone(),
            chain: pem,
            key: Zeroizing::new(key.to_owned()),
            renew_at_ms: renew_at_ms(not_before, not_after, rand::random()),
            not_after_ms: ms(not_after),
        };
        let found = record::find::<Certificate>(self.shelf);
        record::put(self.shelf, found.version, &certificate).await?;
        Ok(())
    }

    /// What the authority says of an order that it has given up.
    async fn refusal(&self, order: &mut Order) -> OrderError {
        let mut said: Vec<String> = Vec::new();
        let mut all = order.authorizations();
        while let Some(Ok(mut authorization)) = all.next().await {
            let refreshed = with_any_nonce!(authorization.refresh().await.map(|_| ()));
            if refreshed.is_err() {
                continue;
            }
            let name = authorization.identifier().to_string();
            let errors = authorization.challenges.iter().filter_map(|it| it.error.as_ref());
            said.extend(errors.map(|error| format!("{name}: {error}")));
        }
        if let Some(error) = &order.state().error {
            said.push(error.to_string());
        }
        if said.is_empty() {
            said.push("it does not say why".into());
        }
        OrderError::Invalid(said.join("; "))
    }
}

/// How the challenges of all names that still have to be proven are answered, of both kinds.
async fn answers(account: &Account, order: &mut Order) -> Result<Answers, Error> {
    let mut answers = Answers::default();
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let Identifier::Dns(name) = authorization.identifier().identifier.clone() else { continue };
        for challenge in &authorization.challenges {
            // RFC 8555, section 8.1.
            let text = format!("{}.{}", challenge.token, account.key_thumbprint());
            match challenge.r#type {
                ChallengeType::TlsAlpn01 => {
                    let hash = HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref());
                    answers.tls_alpn.insert(name.clone(), hash);
                }
                ChallengeType::Http01 => {
                    answers.http_01.insert(challenge.token.clone(), text);
                }
                _ => {}
            }
        }
    }
    Ok(answers)
}

fn failure(error: &OrderError, retry_after: Option<Duration>) -> Failure {
    let trouble = match error {
        OrderError::Acme(Error::Api(problem)) if is(problem, "rateLimited") => Trouble::RateLimited,
        OrderError::Acme(Error::Api(problem)) if is_passing(problem) => Trouble::Unreachable,
        OrderError::Acme(Error::Api(_))
        | OrderError::NotAllowed(_)
        | OrderError::Invalid(_)
        | OrderError::NotOffered(..)
        | OrderError::Chain(_)
        | OrderError::Key(_) => Trouble::Refused,
        OrderError::Acme(_)
        | OrderError::Shelf(_)
        | OrderError::Spread(_)
        | OrderError::Deadline => Trouble::Unreachable,
    };
    let mut text: String = error.to_string().chars().take(TEXT_CHARS_MAX).collect();
    if matches!(error, OrderError::Acme(Error::Api(it)) if is(it, "externalAccountRequired")) {
        text.push_str(": set ACME_EAB_KID and ACME_EAB_HMAC to what its operator gave you");
    }
    Failure { trouble, text, retry_after }
}

fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if is(problem, "badNonce"))
}

/// Whether it will be better soon, whoever is to blame.
fn is_passing(problem: &Problem) -> bool {
    is(problem, "badNonce")
        || is(problem, "serverInternal")
        || is(problem, ACCOUNT_GONE)
        || problem.status.is_some_and(|status| status >= 500)
}

/// Whether the authority knows nothing of the order, or does not let this account have it.
fn is_about_the_order(problem: &Problem) -> bool {
    problem.status == Some(404) || is(problem, "malformed") || is(problem, "unauthorized")
}

/// Whether a problem is of this type (RFC 8555, section 6.7).
fn is(problem: &Problem, kind: &str) -> bool {
    let named =
        problem.r#type.as_deref().and_then(|it| it.strip_prefix("urn:ietf:params:acme:error:"));
    named == Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_says_much_is_cut_short() {
        let said = failure(&OrderError::Invalid("\u{1}".repeat(1 << 20)), None);
        assert_eq!(said.text.chars().count(), TEXT_CHARS_MAX);
        assert!(said.text.starts_with("the authority does not accept: "));
    }
}
