//! The file of a backup: all that a registry holds, sealed with a key that only the cluster's secret
//! makes.
//!
//! A header in plain text, then the content in frames. Each frame is encrypted and authenticated
//! (AES-256-GCM) under a key of this file alone, together with the whole header, its own place, and
//! whether it is the last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). So a file
//! that was cut off, put together otherwise, or altered anywhere does not open. What the content says,
//! this module does not know.
//!
//! ```text
//! header  ARCBAK · version u16 · registry u128 · created u64, Unix ms · secret's mark 8 bytes ·
//!         salt 16 bytes · length u8 · release, ASCII
//! frame   length n u32, at most 65,536 · n encrypted bytes · tag 16 bytes
//! ```
//! Numbers are big-endian. The last frame is empty. A release that changes any of this raises the
//! version, and keeps reading the old ones.

use std::{
    fmt,
    io::{self, Read},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::HEXLOWER;
use rand::Rng;
use tls::mesh::{Secret, derive};
use zeroize::Zeroizing;

use super::RegistryId;
use crate::UnixMillis;

const MAGIC: &[u8; 6] = b"ARCBAK";

/// The version of header and frames.
const VERSION: u16 = 1;

/// Names this use of the cluster's secret.
const LABEL: &str = "backup";

/// Names what tells secrets apart; nothing follows from it for the key.
const MARK_LABEL: &str = "backup mark";

/// The longest chunk of the content, in bytes; more than the registry's stream makes.
const CHUNK_BYTES_MAX: usize = 64 << 10;

const TAG_BYTES: usize = 16;
const MARK_BYTES: usize = 8;
const SALT_BYTES: usize = 16;

/// What a backup says of itself. It is authentic once the whole file has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupHeader {
    /// The registry that it was taken of.
    pub registry: RegistryId,
    /// When.
    pub created: UnixMillis,
    /// The release that wrote it, as in `0.2.0`; at most 255 ASCII characters.
    pub release: String,
}

/// Why a backup could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no backup of arc-relay")]
    Foreign,
    /// Its version is not known to this release.
    #[error("it was written by a newer release of arc-relay (format {0}): use that release")]
    Newer(u16),
    /// Another secret made its key.
    #[error(
        "it was sealed with another CLUSTER_SECRET: give the one of the cluster that it was taken of"
    )]
    OtherSecret,
    /// Something is missing at its end.
    #[error("it is cut off: its end is missing")]
    Truncated,
    /// It is not what was written.
    #[error("it was altered or damaged: {0}")]
    Altered(&'static str),
}

/// A chunk of the content cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is longer than a frame may be.
    #[error("a chunk of a backup has at most {CHUNK_BYTES_MAX} bytes")]
    TooLong,
    /// Its place has no number: the backup has more than 256 TiB.
    #[error("the backup is too long")]
    TooMany,
    /// The cipher refused.
    #[error("the backup cannot be encrypted")]
    Cipher,
}

/// Makes a backup's bytes, one after the other.
pub struct BackupWriter {
    frames: Frames,
    header: Vec<u8>,
}

/// Reads a backup's bytes, and gives no chunk that is not authentic.
pub struct BackupReader<R> {
    frames: Frames,
    header: BackupHeader,
    source: R,
    ended: bool,
}

impl BackupWriter {
    /// Begins a backup that `secret` opens.
    pub fn new(secret: &Secret, header: &BackupHeader) -> Self {
        Self::salted(secret, header, rand::rng().random())
    }

    fn salted(secret: &Secret, header: &BackupHeader, salt: [u8; SALT_BYTES]) -> Self {
        let header = header.to_bytes(mark(secret), &salt);
        Self { frames: Frames::new(secret, &salt, &header), header }
    }

    /// The first bytes of the file.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The bytes for the next chunk of the content, of at most 65,536 bytes; none for an empty one.
    pub fn chunk(&mut self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if plain.is_empty() { Ok(Vec::new()) } else { self.frames.seal(plain, false) }
    }

    /// The last bytes of the file, without which it is no backup.
    pub fn finish(mut self) -> Result<Vec<u8>, SealError> {
        self.frames.seal(&[], true)
    }
}

impl<R: Read> BackupReader<R> {
    /// Reads the header. One of `secrets` must be the one that the backup was sealed with.
    pub fn open(mut source: R, secrets: &[Secret]) -> Result<Self, BackupError> {
        let mut bytes = Vec::new();
        let (header, found, salt) = BackupHeader::read(&mut source, &mut bytes)?;
        let secret = secrets.iter().find(|secret| mark(secret) == found);
        let secret = secret.ok_or(BackupError::OtherSecret)?;
        Ok(Self { frames: Frames::new(secret, &salt, &bytes), header, source, ended: false })
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The next chunk of the content; none once the whole file has been found as it was written.
    pub fn next_chunk(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let mut length = [0; 4];
        fill(&mut self.source, &mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > CHUNK_BYTES_MAX {
            return Err(BackupError::Altered("a frame says that it is longer than any is"));
        }
        let mut frame = Zeroizing::new(vec![0; length + TAG_BYTES]);
        fill(&mut self.source, &mut frame)?;
        let last = length == 0;
        self.frames.open(&mut frame, last)?;
        frame.truncate(length);
        if !last {
            return Ok(Some(frame));
        }
        self.ended = true;
        match self.source.read(&mut [0])? {
            0 => Ok(None),
            _ => Err(BackupError::Altered("something follows its end")),
        }
    }
}

impl BackupHeader {
    fn to_bytes(&self, mark: [u8; MARK_BYTES], salt: &[u8; SALT_BYTES]) -> Vec<u8> {
        let release: Vec<u8> = self.release.bytes().take(usize::from(u8::MAX)).collect();
        let length = u8::try_from(release.len()).unwrap_or(u8::MAX);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.registry.0.to_be_bytes());
        bytes.extend_from_slice(&self.created.0.to_be_bytes());
        bytes.extend_from_slice(&mark);
        bytes.extend_from_slice(salt);
        bytes.push(length);
        bytes.extend_from_slice(&release);
        bytes
    }

    /// Reads a header, of which `bytes` becomes the copy.
    fn read(
        source: &mut impl Read,
        bytes: &mut Vec<u8>,
    ) -> Result<(Self, [u8; MARK_BYTES], [u8; SALT_BYTES]), BackupError> {
        let magic: [u8; MAGIC.len()] = match take(source, bytes) {
            Err(BackupError::Truncated) => return Err(BackupError::Foreign),
            taken => taken?,
        };
        if magic != *MAGIC {
            return Err(BackupError::Foreign);
        }
        match u16::from_be_bytes(take(source, bytes)?) {
            VERSION => {}
            0 => return Err(BackupError::Foreign),
            newer => return Err(BackupError::Newer(newer)),
        }
        let registry = RegistryId(u128::from_be_bytes(take(source, bytes)?));
        let created = UnixMillis(u64::from_be_bytes(take(source, bytes)?));
        let (mark, salt) = (take(source, bytes)?, take(source, bytes)?);
        let [length] = take(source, bytes)?;
        let mut release = vec![0; usize::from(length)];
        fill(source, &mut release)?;
        bytes.extend_from_slice(&release);
        let release = String::from_utf8(release)
            .map_err(|_| BackupError::Altered("its header names no release"))?;
        Ok((Self { registry, created, release }, mark, salt))
    }
}

/// Seals or opens one frame after the other.
struct Frames {
    key: Option<LessSafeKey>,
    header: Vec<u8>,
    /// The next frame's place; none when there is no further number.
    place: Option<u32>,
}

impl Frames {
    fn new(secret: &Secret, salt: &[u8; SALT_BYTES], header: &[u8]) -> Self {
        let key = derive(&secret.derive(LABEL), &HEXLOWER.encode(salt));
        let key = UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new);
        Self { key, header: header.to_vec(), place: Some(0) }
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> Result<Vec<u8>, SealError> {
        let length = u32::try_from(plain.len()).map_err(|_| SealError::TooLong)?;
        if plain.len() > CHUNK_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let nonce = self.next_nonce(last).ok_or(SealError::TooMany)?;
        let key = self.key.as_ref().ok_or(SealError::Cipher)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(&self.header), &mut sealed)
            .map_err(|_| SealError::Cipher)?;
        Ok([&length.to_be_bytes()[..], &sealed].concat())
    }

    fn open(&mut self, frame: &mut [u8], last: bool) -> Result<(), BackupError> {
        let altered = BackupError::Altered("a frame is not what was written");
        let Some((nonce, key)) = self.next_nonce(last).zip(self.key.as_ref()) else {
            return Err(altered);
        };
        key.open_in_place(nonce, Aad::from(&self.header), frame).map_err(|_| altered)?;
        Ok(())
    }

    /// The frame's place and whether it is the last; the key is of this file alone.
    fn next_nonce(&mut self, last: bool) -> Option<Nonce> {
        let place = self.place?;
        self.place = place.checked_add(1);
        let mut nonce = [0; NONCE_LEN];
        let (counter, flag) = nonce.split_at_mut(NONCE_LEN - 1);
        counter[NONCE_LEN - 5..].copy_from_slice(&place.to_be_bytes());
        flag.fill(u8::from(last));
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

/// Tells secrets apart without telling anything of them.
fn mark(secret: &Secret) -> [u8; MARK_BYTES] {
    secret.derive(MARK_LABEL).first_chunk().copied().unwrap_or_default()
}

/// The next bytes of a header, which `bytes` remembers.
fn take<const N: usize>(
    source: &mut impl Read,
    bytes: &mut Vec<u8>,
) -> Result<[u8; N], BackupError> {
    let mut taken = [0; N];
    fill(source, &mut taken)?;
    bytes.extend_from_slice(&taken);
    Ok(taken)
}

fn fill(source: &mut impl Read, bytes: &mut [u8]) -> Result<(), BackupError> {
    source.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::Truncated,
        _ => BackupError::Io(error),
    })
}

impl fmt::Debug for BackupWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupWriter(..)")
    }
}

impl<R> fmt::Debug for BackupReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupReader({:?})", self.header)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "arcs_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcUbF2o";

    fn secret() -> Secret {
        SECRET.parse().unwrap()
    }

    fn header() -> BackupHeader {
        BackupHeader {
            registry: RegistryId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            created: UnixMillis(0x019a_bcde_f012),
            release: "0.2.0".into(),
        }
    }

    fn written(chunks: &[&[u8]]) -> Vec<u8> {
        let mut writer = BackupWriter::salted(&secret(), &header(), [9; SALT_BYTES]);
        let mut file = writer.header().to_vec();
        for chunk in chunks {
            file.extend(writer.chunk(chunk).unwrap());
        }
        file.extend(writer.finish().unwrap());
        file
    }

    fn read(file: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
        let mut reader = BackupReader::open(file, &[Secret::generate(), secret()])?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk.to_vec());
        }
        assert!(reader.next_chunk()?.is_none(), "it stays at its end");
        assert_eq!(*reader.header(), header());
        Ok(chunks)
    }

    #[test]
    fn bytes_are_frozen() {
        let frozen = [
            "41524342414b0001",
            "0123456789abcdef0011223344556677",
            "0000019abcdef012",
            "96dd60b8b9d9389d",
            "09090909090909090909090909090909",
            "05302e322e30",
            "00000003259bedb86c341b7139c97cb50f2d2f4a7afb23",
            "00000003455c941e96cfcd1191c416512e7964d495df77",
            "000000009a8c0e2a01be35967b26b06d85a18799",
        ]
        .concat();
        let file = written(&[b"one", b"two"]);
        assert_eq!(HEXLOWER.encode(&file), frozen);
        assert_eq!(read(&HEXLOWER.decode(frozen.as_bytes()).unwrap()).unwrap(), [b"one", b"two"]);
    }

    #[test]
    fn what_was_written_is_read() {
        let longest = vec![7; CHUNK_BYTES_MAX];
        assert_eq!(read(&written(&[&longest, b"x"])).unwrap(), [longest, b"x".to_vec()]);
        assert!(read(&written(&[])).unwrap().is_empty());
        let mut writer = BackupWriter::new(&secret(), &header());
        assert!(matches!(writer.chunk(&vec![0; CHUNK_BYTES_MAX + 1]), Err(SealError::TooLong)));
        let (a, b) = (BackupWriter::new(&secret(), &header()), writer);
        assert_ne!(a.header(), b.header(), "each file has a key of its own");
    }

    #[test]
    fn a_refusal_says_why() {
        let file = written(&[b"one", b"two", b"three"]);
        let head = BackupWriter::salted(&secret(), &header(), [9; SALT_BYTES]).header().len();
        assert!(matches!(read(b""), Err(BackupError::Foreign)));
        assert!(matches!(read(b"PK\x03\x04 an archive"), Err(BackupError::Foreign)));
        let mut newer = file.clone();
        newer[7] = 2;
        assert!(matches!(read(&newer), Err(BackupError::Newer(2))));
        let other = BackupReader::open(file.as_slice(), &[Secret::generate()]);
        assert!(matches!(other, Err(BackupError::OtherSecret)));
        assert!(matches!(read(&file[..file.len() - 1]), Err(BackupError::Truncated)));
        let followed = [file.as_slice(), b"x"].concat();
        assert!(matches!(read(&followed), Err(BackupError::Altered("something follows its end"))));
        // The first two frames are equally long: exchanged, each is whole, and in a wrong place.
        let (one, rest) = file[head..].split_at(4 + 3 + TAG_BYTES);
        let (two, rest) = rest.split_at(4 + 3 + TAG_BYTES);
        let exchanged = [&file[..head], two, one, rest].concat();
        assert!(matches!(read(&exchanged), Err(BackupError::Altered(_))));
        // Without its third frame, the end is not where it was.
        let left_out = [&file[..head], one, two, &rest[4 + 5 + TAG_BYTES..]].concat();
        assert!(matches!(read(&left_out), Err(BackupError::Altered(_))));
    }

    #[test]
    fn no_plain_text_is_in_the_file() {
        let file = written(&[b"a very secret text"]);
        assert!(!file.windows(6).any(|window| window == b"secret"));
    }

    proptest! {
        #[test]
        fn whatever_byte_is_altered_it_is_refused(place in any::<prop::sample::Index>(), with in 1_u8..) {
            let mut file = written(&[b"some names", b"and some keys"]);
            let place = place.index(file.len());
            file[place] ^= with;
            prop_assert!(read(&file).is_err());
        }

        #[test]
        fn wherever_it_is_cut_off_it_is_refused(place in any::<prop::sample::Index>()) {
            let file = written(&[b"some names", b"and some keys"]);
            let place = place.index(file.len());
            prop_assert!(read(&file[..place]).is_err());
        }

        #[test]
        fn any_bytes_are_refused_in_peace(bytes in any::<Vec<u8>>()) {
            let bytes = [MAGIC.as_slice(), &VERSION.to_be_bytes(), &bytes].concat();
            prop_assert!(read(&bytes).is_err());
        }
    }
}
