//! What two nodes say to each other before anything else, byte for byte, and how each judges it.
//!
//! The dialler opens: who it is. The other end answers: who it is, or why not. The dialler confirms.
//! Magic, versions and releases come first and never change, so that any two releases understand
//! why they do not understand each other. Decides nothing about connections; see
//! [`pairing`](super::pairing).

use std::{cmp::Ordering, io, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    Allegiance, Introduction,
    refusal::{Reason, Refusal},
};
use crate::{Generation, NodeId, UnixMillis};

/// The first bytes of each direction.
const MAGIC: [u8; 4] = *b"ARCM";

/// The versions of the wire that this release speaks, lowest and highest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// The dialler's last word, after which both are linked.
const CONFIRMED: u8 = 1;

/// An introduction or a reason takes no more.
const BODY_BYTES_MAX: usize = 4 << 10;

/// Clocks further apart than this are not linked: session ids of the later clock would outdo all
/// others.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// What a node says in the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The cluster that it belongs to.
    pub(super) cluster: String,
    /// Who it is.
    pub(super) introduction: Introduction,
    /// Its mesh time, from which the other learns.
    pub(super) time: UnixMillis,
    /// Its wall clock, by which it is judged.
    pub(super) wall: UnixMillis,
    /// Which process says so, for copies of one data directory may be of one generation: a number
    /// that each draws when it starts.
    pub(super) process: u64,
    /// Which registry it knows, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) allegiance: Option<Allegiance>,
}

/// Why there is no handshake.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("what was received is no handshake: is it a node's mesh port?")]
    Malformed,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The dialler's first word.
pub(super) struct Opening {
    versions: (u16, u16),
    release: String,
    body: Vec<u8>,
}

/// Says who this node is.
pub(super) async fn open(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    hello: &Hello,
) -> io::Result<()> {
    open_as(to, hello, VERSIONS).await
}

/// As [`open`] does, in other versions.
pub(super) async fn open_as(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    hello: &Hello,
    (lowest, highest): (u16, u16),
) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(lowest.to_le_bytes());
    bytes.extend(highest.to_le_bytes());
    append(&mut bytes, hello.introduction.version.as_bytes())?;
    append(&mut bytes, &encode(hello)?)?;
    to.write_all(&bytes).await
}

/// Reads who dials, as far as all releases agree on it.
pub(super) async fn opening(from: &mut (impl AsyncRead + Unpin)) -> Result<Opening, Fault> {
    magic(from).await?;
    let versions = (from.read_u16_le().await?, from.read_u16_le().await?);
    let release = text(read(from).await?)?;
    let body = read(from).await?;
    Ok(Opening { versions, release, body })
}

impl Opening {
    /// The highest version that both speak, and what the dialler says in it.
    pub(super) fn understand(self, release: &str) -> Result<(u16, Hello), Fault> {
        let (lowest, highest) = VERSIONS;
        let common = self.versions.1.min(highest);
        if common < self.versions.0.max(lowest) {
            let text = format!(
                "release {} speaks versions {} to {} of the wire, and release {release} {lowest} \
                 to {highest}: upgrade the older one",
                self.release, self.versions.0, self.versions.1,
            );
            return Err(Refusal::new(Reason::Version, text).into());
        }
        Ok((common, decode(&self.body)?))
    }
}

/// Accepts the dialler, in this version of the wire.
pub(super) async fn accept(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    version: u16,
    hello: &Hello,
) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(version.to_le_bytes());
    append(&mut bytes, &encode(hello)?)?;
    to.write_all(&bytes).await
}

/// Refuses the dialler.
pub(super) async fn refuse(
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    refusal: &Refusal,
) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(0_u16.to_le_bytes());
    bytes.push(refusal.reason as u8);
    let text = refusal.text.as_bytes();
    append(&mut bytes, text.get(..BODY_BYTES_MAX).unwrap_or(text))?;
    to.write_all(&bytes).await
}

/// Reads the answer to an opening.
pub(super) async fn answer(from: &mut (impl AsyncRead + Unpin)) -> Result<Hello, Fault> {
    magic(from).await?;
    let version = from.read_u16_le().await?;
    if version == 0 {
        let reason = usize::from(from.read_u8().await?);
        let reason = Reason::ALL.get(reason).copied().unwrap_or(Reason::Unwanted);
        let text = String::from_utf8_lossy(&read(from).await?).into_owned();
        return Err(Refusal::new(reason, text).into());
    }
    if version < VERSIONS.0 || version > VERSIONS.1 {
        return Err(Fault::Malformed);
    }
    decode(&read(from).await?)
}

/// Says that both are linked from now on.
pub(super) async fn confirm(to: &mut (impl AsyncWrite + Unpin + ?Sized)) -> io::Result<()> {
    to.write_all(&[CONFIRMED]).await
}

/// Waits for the dialler to say so.
pub(super) async fn confirmed(from: &mut (impl AsyncRead + Unpin)) -> Result<(), Fault> {
    match from.read_u8().await? {
        CONFIRMED => Ok(()),
        _ => Err(Fault::Malformed),
    }
}

/// Judges what a peer says of itself, by what this node says and what the peer's certificate names.
pub(super) fn judge(ours: &Hello, theirs: &Hello, certified: NodeId) -> Result<(), Refusal> {
    let (me, peer) = (&ours.introduction, &theirs.introduction);
    let refuse = |reason, text: String| Err(Refusal::new(reason, text));
    if certified == me.incarnation.node {
        return Err(of_one_id(ours, theirs));
    }
    if theirs.cluster != ours.cluster {
        let text = format!(
            "node {:?} is of cluster {:?} and node {:?} of {:?}: remove the wrong address from the \
             seeds, or start the stray node with an empty data directory",
            peer.name, theirs.cluster, me.name, ours.cluster,
        );
        return refuse(Reason::Cluster, text);
    }
    if peer.incarnation.node != certified {
        let text = format!(
            "node {:?} says that it is {}, its certificate names {certified}: give it a certificate \
             of its own",
            peer.name, peer.incarnation.node,
        );
        return refuse(Reason::Certificate, text);
    }
    if peer.name == me.name {
        let text =
            format!("two nodes are called {:?}: give one of them another NODE_NAME", me.name);
        return refuse(Reason::Name, text);
    }
    let apart = Duration::from_millis(theirs.wall.0.abs_diff(ours.wall.0));
    if apart > CLOCK_SKEW_MAX {
        let text = format!(
            "the clocks of {:?} and {:?} are {} s apart, more than {} s: synchronize them (NTP)",
            peer.name,
            me.name,
            apart.as_secs(),
            CLOCK_SKEW_MAX.as_secs(),
        );
        return refuse(Reason::Clock, text);
    }
    if let (Some(own), Some(other)) = (&ours.allegiance, &theirs.allegiance)
        && !own.goes_with(other)
    {
        return refuse(Reason::Registry, two_registries(me, own, peer, other));
    }
    Ok(())
}

/// The life that has said this, to be compared with another of the same node.
pub(super) fn life(hello: &Hello) -> (Generation, u64) {
    (hello.introduction.incarnation.generation, hello.process)
}

/// A node has met its own id: itself, or another process that has it. Of two processes the one that was
/// started first is told so, since the other has its place.
fn of_one_id(ours: &Hello, theirs: &Hello) -> Refusal {
    let (me, peer) = (&ours.introduction, &theirs.introduction);
    let (reason, other) = match life(theirs).cmp(&life(ours)) {
        Ordering::Equal => {
            return Refusal::new(Reason::Myself, "this is the node itself");
        }
        Ordering::Less => (Reason::Generation, "was started later"),
        Ordering::Greater => (Reason::Unwanted, "was started before, and stops"),
    };
    let text = format!(
        "node id {} is in use at {} by {:?}, which {other}, and at {} by {:?}: a data directory was \
         copied, or runs twice; stop one of the two and empty its data directory",
        me.incarnation.node, me.address, me.name, peer.address, peer.name,
    );
    Refusal::new(reason, text)
}

fn two_registries(
    me: &Introduction,
    own: &Allegiance,
    peer: &Introduction,
    other: &Allegiance,
) -> String {
    if own.descends_from(other) {
        return restored_and_former((me, own), (peer, other));
    }
    if other.descends_from(own) {
        return restored_and_former((peer, other), (me, own));
    }
    format!(
        "node {:?} at {} is of registry {}, and node {:?} at {} of registry {}: two registries never \
         become one; stop the nodes of the wrong one and empty their DATA_DIR, or let their SEEDS lead \
         to their own",
        peer.name,
        peer.address,
        other.registry(),
        me.name,
        me.address,
        own.registry(),
    )
}

/// Either may be the one that is wanted: only who keeps the former registry's majority tells.
fn restored_and_former(
    restored: (&Introduction, &Allegiance),
    former: (&Introduction, &Allegiance),
) -> String {
    let ((backup, new), (kept, old)) = (restored, former);
    let (new, old) = (new.registry(), old.registry());
    format!(
        "node {:?} at {} has registry {new}, which was restored from a backup of registry {old}, and \
         node {:?} at {} has the data of that one itself: two registries never become one. While most \
         voters of {old} still run, they have all names: stop {:?} and empty its DATA_DIR. Only if {old} \
         was given up, and {new} takes its place: stop {:?} and empty its DATA_DIR. Whichever is emptied \
         joins as a new node",
        backup.name, backup.address, kept.name, kept.address, backup.name, kept.name,
    )
}

async fn magic(from: &mut (impl AsyncRead + Unpin)) -> Result<(), Fault> {
    let mut magic = [0; 4];
    from.read_exact(&mut magic).await?;
    if magic == MAGIC { Ok(()) } else { Err(Fault::Malformed) }
}

/// A length (u16) and so many bytes.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Fault> {
    let length = usize::from(from.read_u16_le().await?);
    if length > BODY_BYTES_MAX {
        return Err(Fault::Malformed);
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    match u16::try_from(part.len()) {
        Ok(length) if part.len() <= BODY_BYTES_MAX => {
            bytes.extend(length.to_le_bytes());
            bytes.extend(part);
            Ok(())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "an introduction is over 4 KiB")),
    }
}

fn encode(hello: &Hello) -> io::Result<Vec<u8>> {
    rmp_serde::to_vec(hello).map_err(io::Error::other)
}

fn decode(body: &[u8]) -> Result<Hello, Fault> {
    rmp_serde::from_slice(body).map_err(|_| Fault::Malformed)
}

fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Incarnation, registry::RegistryId};

    fn hello() -> Hello {
        Hello {
            cluster: "c".to_owned(),
            introduction: Introduction {
                incarnation: Incarnation { node: NodeId(7), generation: Generation(2) },
                name: "n".to_owned(),
                region: "r".to_owned(),
                version: "1.2".to_owned(),
                address: ([10, 0, 0, 1], 9).into(),
            },
            time: UnixMillis(5),
            wall: UnixMillis(4),
            process: 3,
            allegiance: None,
        }
    }

    /// Obeying must not empty the nodes that have all names.
    #[test]
    fn both_sides_of_a_restore_say_which_of_them_is_to_be_emptied_when() {
        let of = |name: &str, node, registry, lineage: &[u128]| {
            let mut hello = hello();
            (hello.introduction.name, hello.introduction.incarnation.node) = (name.into(), node);
            let lineage = lineage.iter().copied().map(RegistryId).collect();
            hello.allegiance = Some(Allegiance::new(RegistryId(registry), lineage).stored(true));
            hello
        };
        let (restored, kept) = (NodeId(1), NodeId(2));
        let backup = of("backup", restored, 9, &[7]);
        let former = of("former", kept, 7, &[]);
        let said = [
            judge(&backup, &former, kept).unwrap_err(),
            judge(&former, &backup, restored).unwrap_err(),
        ];
        assert_eq!(said[0], said[1]);
        let text = &said[0].text;
        assert!(text.contains("have all names: stop \"backup\" and empty its DATA_DIR"), "{text}");
        assert!(text.contains("takes its place: stop \"former\" and empty"), "{text}");
    }

    /// Other releases read these.
    #[tokio::test]
    async fn the_bytes_are_frozen() {
        let body = [
            &[0x95, 0xa1, b'c', 0x95, 0x92, 7, 2, 0xa1, b'n', 0xa1, b'r', 0xa3][..],
            b"1.2",
            &[0x81, 0xa2, b'V', b'4', 0x92, 0x94, 10, 0, 0, 1, 9, 5, 4, 3],
        ]
        .concat();
        let mut bytes = Vec::new();
        open(&mut bytes, &hello()).await.unwrap();
        let head = b"ARCM\x01\x00\x01\x00\x03\x001.2\x1d\x00";
        assert_eq!(bytes, [&head[..], &body].concat());
        let read = opening(&mut &bytes[..]).await.unwrap().understand("1.0").unwrap();
        assert_eq!(read, (1, hello()));

        let mut bytes = Vec::new();
        accept(&mut bytes, 1, &hello()).await.unwrap();
        assert_eq!(bytes, [&b"ARCM\x01\x00\x1d\x00"[..], &body].concat());
        assert_eq!(answer(&mut &bytes[..]).await.unwrap(), hello());

        let mut bytes = Vec::new();
        refuse(&mut bytes, &Refusal::new(Reason::Clock, "no")).await.unwrap();
        assert_eq!(bytes, b"ARCM\x00\x00\x05\x02\x00no");
        let refused = answer(&mut &bytes[..]).await;
        assert!(matches!(refused, Err(Fault::Refused(it)) if it.reason == Reason::Clock));

        let mut bytes = Vec::new();
        let lineage = vec![RegistryId(2), RegistryId(1)];
        let allegiance = Some(Allegiance::new(RegistryId(3), lineage));
        let hello = Hello { allegiance, ..hello() };
        accept(&mut bytes, 1, &hello).await.unwrap();
        let id = |last| [&[0xc4, 16][..], &[0; 15], &[last]].concat();
        let more = [&[0x93][..], &id(3), &[0x92], &id(2), &id(1), &[0xc2]].concat();
        let body = [&[0x96], &body[1..], &more].concat();
        assert_eq!(bytes, [&b"ARCM\x01\x00\x56\x00"[..], &body].concat());
        assert_eq!(answer(&mut &bytes[..]).await.unwrap(), hello);

        let mut bytes = Vec::new();
        confirm(&mut bytes).await.unwrap();
        assert_eq!(bytes, [1]);
    }

    #[tokio::test]
    async fn an_introduction_that_is_too_long_is_not_sent() {
        let mut long = hello();
        long.introduction.name = "n".repeat(BODY_BYTES_MAX);
        let mut bytes = Vec::new();
        assert!(open(&mut bytes, &long).await.is_err());
        assert!(bytes.is_empty());
    }

    #[test]
    fn of_two_processes_with_one_node_id_the_earlier_is_outlived() {
        let of = |generation, process| {
            let mut hello = Hello { process, ..hello() };
            hello.introduction.incarnation.generation = Generation(generation);
            hello
        };
        let refused = |ours: &Hello, theirs: &Hello| judge(ours, theirs, NodeId(7)).unwrap_err();
        assert_eq!(refused(&of(2, 3), &of(2, 3)).reason, Reason::Myself);
        for (earlier, later) in [(of(1, 9), of(2, 3)), (of(2, 3), of(2, 9))] {
            let (to_earlier, to_later) = (refused(&later, &earlier), refused(&earlier, &later));
            assert_eq!(to_earlier.reason, Reason::Generation);
            assert_eq!(to_later.reason, Reason::Unwanted);
            for refusal in [to_earlier, to_later] {
                assert!(!refusal.reason.is_ordinary());
                assert!(refusal.text.contains("was copied, or runs twice"), "{refusal}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            use futures_util::FutureExt;
            for magic in [false, true] {
                if magic {
                    bytes.splice(0..0, MAGIC);
                }
                let opened = opening(&mut &bytes[..]).now_or_never();
                if let Some(Ok(opened)) = opened {
                    let _ = opened.understand("1.0");
                }
                let _ = answer(&mut &bytes[..]).now_or_never();
            }
        }
    }
}
