//! What lies on the shelf, as JSON with a version; a later release reads what this one wrote.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::HEXLOWER;
use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{Shelf, ShelfError, Value};

/// The version of all records.
const VERSION: u32 = 1;

/// A kind of record: where it lies, and who may see it.
pub(super) trait Record: Serialize + DeserializeOwned + Send + Sync {
    const KEY: &'static str;
    const FOR_ALL: bool;
}

/// The account at an authority.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) directory: String,
    pub(super) credentials: AccountCredentials,
    /// Whom the authority writes to.
    #[serde(default)]
    pub(super) email: Option<String>,
    /// The account at the authority's operator that it was made for.
    #[serde(default)]
    pub(super) kid: Option<String>,
}

/// The order under way. Written before any challenge is answered, so that another leader can carry it
/// on: no second order is begun while this one may still succeed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) directory: String,
    pub(super) domains: Vec<String>,
    pub(super) url: String,
    /// The certificate's key, PEM.
    pub(super) key: Zeroizing<String>,
}

/// How every node answers the authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answers {
    /// Name → SHA-256 of the key authorization, hexadecimal.
    pub(super) tls_alpn: BTreeMap<String, String>,
    /// Token → key authorization.
    pub(super) http_01: BTreeMap<String, String>,
}

/// The certificate, which every node serves.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Certificate {
    pub(super) directory: String,
    pub(super) domains: Vec<String>,
    /// PEM, the relay's own first.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: Zeroizing<String>,
    /// When another is to be ordered, ms since 1970.
    pub(super) renew_at_ms: u64,
    /// When it ends, ms since 1970.
    pub(super) not_after_ms: u64,
}

/// How orders went lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Failures since the last success.
    pub(super) failures: u32,
    /// What the last one was, in words.
    pub(super) last_error: Option<String>,
    /// Not before this is another order tried, ms since 1970.
    pub(super) next_at_ms: u64,
    /// The authority that was asked; of another the rest says nothing.
    #[serde(default)]
    pub(super) directory: String,
    /// The names that it was asked for; of others the rest says nothing.
    #[serde(default)]
    pub(super) domains: Vec<String>,
}

impl Record for Account {
    const KEY: &'static str = "acme/account";
    const FOR_ALL: bool = false;
}

impl Record for Order {
    const KEY: &'static str = "acme/order";
    const FOR_ALL: bool = false;
}

impl Record for Answers {
    const KEY: &'static str = "acme/answers";
    const FOR_ALL: bool = true;
}

impl Record for Certificate {
    const KEY: &'static str = "acme/certificate";
    const FOR_ALL: bool = true;
}

impl Record for State {
    const KEY: &'static str = "acme/state";
    const FOR_ALL: bool = true;
}

impl Answers {
    /// The digests as bytes; a damaged one is left out, and its challenge fails.
    pub(super) fn digests(&self) -> BTreeMap<String, [u8; 32]> {
        let digest = |(name, hex): (&String, &String)| {
            let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
            Some((name.clone(), bytes.try_into().ok()?))
        };
        self.tls_alpn.iter().filter_map(digest).collect()
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    record: T,
}

/// A record on the shelf, and its version there.
pub(super) struct Found<T> {
    pub(super) version: u64,
    pub(super) record: Option<T>,
}

/// Reads a record that every node is given; one that cannot be read is as good as none, and is replaced.
pub(super) fn find<T: Record>(shelf: &dyn Shelf) -> Found<T> {
    const { assert!(T::FOR_ALL, "it is to be looked up") };
    Found::read(shelf.get(T::KEY))
}

/// Reads any record, as [`find`] does.
pub(super) async fn look_up<T: Record>(shelf: &dyn Shelf) -> Found<T> {
    Found::read(shelf.look_up(T::KEY).await)
}

impl<T: Record> Found<T> {
    fn read(value: Option<Value>) -> Self {
        let Some(value) = value else { return Self { version: 0, record: None } };
        let read: Option<Versioned<T>> = serde_json::from_slice(&value.bytes).ok();
        let record = read.filter(|read| read.v == VERSION).map(|read| read.record);
        Self { version: value.version, record }
    }
}

/// Puts a record in the place of the one that was found.
pub(super) async fn put<T: Record>(
    shelf: &dyn Shelf,
    expected: u64,
    record: &T,
) -> Result<u64, ShelfError> {
    let bytes = serde_json::to_vec(&Versioned { v: VERSION, record });
    let bytes = bytes.map_err(|error| ShelfError::Unavailable(error.to_string()))?;
    shelf.put(T::KEY, expected, Some(Zeroizing::new(bytes)), T::FOR_ALL).await
}

/// Removes a record, if there is one.
pub(super) async fn remove<T: Record>(shelf: &dyn Shelf) -> Result<(), ShelfError> {
    match shelf.look_up(T::KEY).await {
        Some(value) => shelf.put(T::KEY, value.version, None, T::FOR_ALL).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Since 1970, as records have it.
pub(super) fn ms(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::{super::MemoryShelf, *};

    #[tokio::test]
    async fn records_come_back_and_their_bytes_are_frozen() {
        let shelf = MemoryShelf::new();
        let state = State {
            failures: 2,
            last_error: Some("no".into()),
            next_at_ms: 1_795_341_600_000,
            directory: "https://ca".into(),
            domains: vec!["a.b".into()],
        };
        let version = put(&shelf, 0, &state).await.unwrap();
        let found = find::<State>(&shelf);
        assert_eq!((found.version, found.record), (version, Some(state)));
        let bytes = shelf.get("acme/state").unwrap().bytes;
        let frozen = r#"{"v":1,"failures":2,"last_error":"no","next_at_ms":1795341600000,"directory":"https://ca","domains":["a.b"]}"#;
        assert_eq!(&***bytes, frozen.as_bytes());

        let order = Order {
            directory: "https://ca".into(),
            domains: vec!["a.b".into()],
            url: "https://ca/1".into(),
            key: Zeroizing::new("PEM".into()),
        };
        put(&shelf, 0, &order).await.unwrap();
        let frozen = r#"{"v":1,"directory":"https://ca","domains":["a.b"],"url":"https://ca/1","key":"PEM"}"#;
        assert_eq!(&***shelf.get("acme/order").unwrap().bytes, frozen.as_bytes());
        remove::<Order>(&shelf).await.unwrap();
        remove::<Order>(&shelf).await.unwrap();
        assert!(look_up::<Order>(&shelf).await.record.is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_replaced() {
        let shelf = MemoryShelf::new();
        for bytes in ["junk", r#"{"v":9,"failures":0,"last_error":null,"next_at_ms":0}"#] {
            let version = shelf.get("acme/state").map_or(0, |value| value.version);
            let bytes = Zeroizing::new(bytes.as_bytes().to_vec());
            shelf.put("acme/state", version, Some(bytes), true).await.unwrap();
            let found = find::<State>(&shelf);
            assert_eq!(found.record, None);
            put(&shelf, found.version, &State::default()).await.unwrap();
        }
        assert_eq!(put(&shelf, 1, &State::default()).await, Err(ShelfError::Conflict));
    }
}
