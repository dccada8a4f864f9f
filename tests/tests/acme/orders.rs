//! The crate `tls` with a real authority: nodes in one process that share a shelf, each behind a TLS
//! listener of its own.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tests::{
    cluster::loopback_address,
    eventually,
    pebble::{Options, Pebble},
};
use tls::{
    acme::{Challenge, ExternalAccount, MemoryShelf, Orders, Settings, Shelf, ShelfError, Value},
    agents::{Served, server_config},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

const NAME: &str = "relay.test";

/// A node as far as certificates go.
struct Node {
    address: Ipv4Addr,
    served: Arc<Served>,
    orders: Arc<Orders>,
    _tasks: JoinSet<()>,
}

fn settings(pebble: &Pebble) -> Settings {
    Settings {
        domains: vec![NAME.into()],
        email: Some("ops@example.org".into()),
        directory: pebble.directory(),
        ca_root: Some(pebble.ca_file()),
        external_account: None,
        challenge: Challenge::TlsAlpn01,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

impl Node {
    /// A node that the name leads to.
    async fn named(pebble: &Pebble, settings: Settings, shelf: &(impl Shelf + Clone)) -> Self {
        let address = loopback_address();
        pebble.name(NAME, address).await;
        Self::at(address, pebble, settings, shelf).await
    }

    /// A node that the name does not lead to.
    async fn elsewhere(pebble: &Pebble, settings: Settings, shelf: &MemoryShelf) -> Self {
        Self::at(loopback_address(), pebble, settings, shelf).await
    }

    /// A node that answers handshakes at this address, and orders if `shelf` leads.
    async fn at(
        address: Ipv4Addr,
        pebble: &Pebble,
        settings: Settings,
        shelf: &(impl Shelf + Clone),
    ) -> Self {
        let served = Arc::new(Served::default());
        let shelf: Arc<dyn Shelf> = Arc::new(shelf.clone());
        let orders = Orders::new(settings, shelf, Arc::clone(&served), Arc::new(now));
        let orders = Arc::new(orders.expect("the authority's root can be read"));
        let mut tasks = JoinSet::new();
        let running = Arc::clone(&orders);
        tasks.spawn(async move {
            running.run().await;
        });
        let listener = TcpListener::bind((address, pebble.tls_port)).await.expect("it is free");
        let acceptor = TlsAcceptor::from(server_config(Arc::clone(&served)).expect("it is sound"));
        tasks.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                // The handshake is all that the authority wants.
                let _ = acceptor.accept(stream).await;
            }
        });
        Self { address, served, orders, _tasks: tasks }
    }

    async fn has_certificate(&self) {
        let served = || async { !self.served.chains().is_empty() };
        eventually("there is a certificate", served).await;
        assert_eq!(self.served.chains()[0].names(), [NAME]);
    }

    fn serial(&self) -> Vec<u8> {
        self.served.chains()[0].certificates()[0].to_vec()
    }
}

#[tokio::test]
async fn one_node_gets_a_certificate_and_orders_no_second_after_a_restart() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let shelf = MemoryShelf::new();
    let node = Node::named(&pebble, settings(&pebble), &shelf).await;
    node.has_certificate().await;
    let status = node.orders.status();
    assert_eq!((status.failures, status.last_error), (0, None));
    assert!(status.not_after > Some(now()) && status.next_at > now());
    let (address, serial) = (node.address, node.serial());
    drop(node);
    let again = Node::elsewhere(&pebble, settings(&pebble), &shelf).await;
    assert_ne!(again.address, address);
    again.has_certificate().await;
    assert_eq!(again.serial(), serial);
    assert_eq!(pebble.log().matches("Issued certificate").count(), 1);
}

#[tokio::test]
async fn any_node_answers_for_the_one_that_orders() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let shelf = MemoryShelf::new();
    let others = [shelf.at_another_node(), shelf.at_another_node()];
    let first = Node::elsewhere(&pebble, settings(&pebble), &others[0]).await;
    let second = Node::named(&pebble, settings(&pebble), &others[1]).await;
    // The name leads to a node that does not order.
    let leader = Node::elsewhere(&pebble, settings(&pebble), &shelf).await;
    for node in [&first, &second, &leader] {
        node.has_certificate().await;
        assert_eq!(node.serial(), leader.serial());
    }
}

/// A shelf whose leader learns that all nodes know how to answer, but is never heard of again.
#[derive(Clone)]
struct LostBeforeTheChallenge(MemoryShelf, Arc<Notify>);

#[async_trait]
impl Shelf for LostBeforeTheChallenge {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.get(key)
    }

    async fn look_up(&self, key: &str) -> Option<Value> {
        self.0.look_up(key).await
    }

    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        for_all: bool,
    ) -> Result<u64, ShelfError> {
        self.0.put(key, expected, value, for_all).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    async fn spread(&self, _: Duration) -> Result<(), String> {
        self.1.notify_one();
        std::future::pending().await
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.0.leads()
    }
}

#[tokio::test]
async fn the_next_leader_carries_on_where_one_was_lost() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let shelf = MemoryShelf::new();
    let lost = Arc::new(Notify::new());
    let failing: Arc<dyn Shelf> =
        Arc::new(LostBeforeTheChallenge(shelf.clone(), Arc::clone(&lost)));
    let first = Orders::new(settings(&pebble), failing, Arc::default(), Arc::new(now))
        .expect("the authority's root can be read");
    tokio::select! {
        _ = first.run() => {}
        () = lost.notified() => {}
    }
    drop(first);
    let order = shelf.get("acme/order").expect("an order lies there").bytes;
    let next = shelf.at_another_node();
    let node = Node::named(&pebble, settings(&pebble), &next).await;
    assert_eq!(shelf.get("acme/order").expect("it lies there still").bytes, order);
    next.lead(true);
    node.has_certificate().await;
    assert_eq!(pebble.log().matches("POST /order-plz").count(), 1, "nobody has ordered anew");
}

#[tokio::test]
async fn half_of_all_nonces_may_be_refused() {
    let options = Options { reject_nonces: 50, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let node = Node::named(&pebble, settings(&pebble), &MemoryShelf::new()).await;
    node.has_certificate().await;
    assert_eq!(node.orders.status().failures, 0);
}

#[tokio::test]
async fn an_authority_that_is_down_is_asked_again() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    pebble.stop();
    let node = Node::named(&pebble, settings(&pebble), &MemoryShelf::new()).await;
    eventually("it has failed", || async { node.orders.status().failures > 0 }).await;
    let error = node.orders.status().last_error.expect("it says why");
    assert!(error.contains("cannot connect to localhost"), "{error}");
    pebble.begin().await;
    node.has_certificate().await;
    eventually("all is well", || async { node.orders.status().failures == 0 }).await;
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_told_in_the_authoritys_words() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    pebble.name(NAME, Ipv4Addr::new(127, 255, 255, 254)).await;
    let node = Node::elsewhere(&pebble, settings(&pebble), &MemoryShelf::new()).await;
    eventually("it has failed", || async { node.orders.status().failures > 0 }).await;
    let status = node.orders.status();
    let error = status.last_error.expect("it says why");
    assert!(error.contains(NAME) && error.contains("127.255.255.254"), "{error}");
    assert!(status.next_at > now() + Duration::from_secs(30), "it is not asked at once again");
    // The operator mends it, and does not want to wait.
    pebble.name(NAME, node.address).await;
    node.orders.try_now().await.expect("the shelf can be written");
    node.has_certificate().await;
}

#[tokio::test]
async fn an_account_at_the_operator_is_named_where_one_is_asked_for() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let account = Some(("kid-1".to_owned(), key.to_owned()));
    let options = Options { external_account: account, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let nobody = Node::elsewhere(&pebble, settings(&pebble), &MemoryShelf::new()).await;
    eventually("it has failed", || async { nobody.orders.status().failures > 0 }).await;
    let error = nobody.orders.status().last_error.expect("it says why");
    assert!(error.contains("set ACME_EAB_KID and ACME_EAB_HMAC"), "{error}");
    let hmac = data_encoding::BASE64URL_NOPAD.decode(key.as_bytes()).expect("base64url");
    let known = ExternalAccount { kid: "kid-1".into(), hmac: Zeroizing::new(hmac) };
    let settings = Settings { external_account: Some(known), ..settings(&pebble) };
    let node = Node::named(&pebble, settings, &MemoryShelf::new()).await;
    node.has_certificate().await;
}

#[tokio::test]
async fn a_short_lived_certificate_is_renewed_in_time() {
    let options = Options { validity_s: 12, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let node = Node::named(&pebble, settings(&pebble), &MemoryShelf::new()).await;
    node.has_certificate().await;
    let (first, end) = (node.serial(), node.served.chains()[0].not_after());
    eventually("it is renewed", || async { node.serial() != first }).await;
    assert!(now() < end, "the one before is still good");
}

/// A shelf from which nothing is removed.
#[derive(Clone)]
struct Keeping(MemoryShelf);

#[async_trait]
impl Shelf for Keeping {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.get(key)
    }

    async fn look_up(&self, key: &str) -> Option<Value> {
        self.0.look_up(key).await
    }

    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        for_all: bool,
    ) -> Result<u64, ShelfError> {
        match value {
            Some(_) => self.0.put(key, expected, value, for_all).await,
            None => Err(ShelfError::Unavailable("out of order".into())),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    async fn spread(&self, deadline: Duration) -> Result<(), String> {
        self.0.spread(deadline).await
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.0.leads()
    }
}

#[tokio::test]
async fn an_order_that_cannot_be_removed_is_no_failure_and_not_carried_on() {
    let options = Options { validity_s: 12, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let shelf = Keeping(MemoryShelf::new());
    let node = Node::named(&pebble, settings(&pebble), &shelf).await;
    node.has_certificate().await;
    let first = node.serial();
    eventually("it is renewed", || async { node.serial() != first }).await;
    let status = node.orders.status();
    assert_eq!((status.failures, status.last_error), (0, None));
    assert!(shelf.get("acme/order").is_some(), "it lies there still");
}

/// What the account's record says of `key`.
fn in_account(shelf: &MemoryShelf, key: &str) -> Option<String> {
    let bytes = shelf.get("acme/account")?.bytes;
    let record: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
    record[key].as_str().map(str::to_owned)
}

#[tokio::test]
async fn an_authority_that_has_lost_its_accounts_is_given_another() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    let shelf = MemoryShelf::new();
    let node = Node::named(&pebble, settings(&pebble), &shelf).await;
    node.has_certificate().await;
    drop(node);
    pebble.stop();
    pebble.begin().await;
    let (other, address) = ("www.relay.test", loopback_address());
    pebble.name(NAME, address).await;
    pebble.name(other, address).await;
    let domains = vec![NAME.to_owned(), other.to_owned()];
    let settings = Settings { domains, ..settings(&pebble) };
    let node = Node::at(address, &pebble, settings, &shelf).await;
    let is_for_both =
        || async { node.served.chains().first().is_some_and(|chain| chain.names().len() == 2) };
    eventually("there is a certificate for both names", is_for_both).await;
}

#[tokio::test]
async fn a_new_address_of_the_operators_is_told_and_a_new_kid_is_another_account() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let account = Some(("kid-1".to_owned(), key.to_owned()));
    let options = Options { external_account: account, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let hmac = data_encoding::BASE64URL_NOPAD.decode(key.as_bytes()).expect("base64url");
    let known = |kid: &str| {
        let hmac = Zeroizing::new(hmac.clone());
        Some(ExternalAccount { kid: kid.into(), hmac })
    };
    let shelf = MemoryShelf::new();
    let first = Settings { external_account: known("kid-1"), ..settings(&pebble) };
    let node = Node::named(&pebble, first.clone(), &shelf).await;
    node.has_certificate().await;
    assert_eq!(in_account(&shelf, "email").as_deref(), Some("ops@example.org"));
    drop(node);
    let email = Some("night@example.org".to_owned());
    let domains = vec!["www.relay.test".to_owned()];
    let second = Settings { email: email.clone(), domains, ..first };
    let node = Node::elsewhere(&pebble, second.clone(), &shelf).await;
    eventually("the authority is told", || async { in_account(&shelf, "email") == email }).await;
    drop(node);
    let third = Settings { external_account: known("kid-2"), ..second };
    let third = Settings { domains: vec!["ftp.relay.test".to_owned()], ..third };
    let node = Node::elsewhere(&pebble, third, &shelf).await;
    eventually("it has failed", || async { node.orders.status().failures > 0 }).await;
    let error = node.orders.status().last_error.expect("it says why");
    assert!(error.contains("'kid'"), "another account is asked for: {error}");
}
