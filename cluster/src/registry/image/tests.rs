//! Streams of the book as they are written, cut, altered and invented.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::{super::store_tests::*, *};
use crate::{
    registry::{
        Claim, Revocation,
        command::{Audience, Command, Secret},
    },
    token::Serial,
};

async fn written() -> Vec<u8> {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc"), register("def"), Command::Ban(id("abc"))]).await;
    bench.bytes()
}

fn read(bytes: &[u8], chunk: usize) -> Result<Image, ImageError> {
    let mut receiving = Receiving::new();
    for chunk in bytes.chunks(chunk) {
        receiving.push(Bytes::copy_from_slice(chunk))?;
    }
    receiving.finish()
}

#[tokio::test]
async fn the_bytes_are_frozen() {
    let mut bench = Bench::founded().await;
    let claim = Claim { id: [9; 16], repeatable: false };
    let take = |agent, claim| Command::Register { agent: id(agent), claim, expires: None };
    let put = Command::PutVault {
        key: "cert".into(),
        expected: 0,
        value: Some(Secret(b"pem".to_vec().into())),
        audience: Audience::All,
    };
    let released = Claim { id: [8; 16], repeatable: false };
    bench
        .commit(vec![
            take("abc", claim),
            Command::Revoke(Revocation::Token(Serial(1))),
            Command::Revoke(Revocation::Agent(id("abc"))),
            Command::Ban(id("abc")),
            put,
            Command::Release { agent: id("def"), claim: released },
        ])
        .await;
    assert_eq!(HEXLOWER.encode(&bench.bytes()), WRITTEN);
}

const WRITTEN: &str = "617263626f6f6b01000000002d019892c4100000000000000000000000000000000190cf000001a202b2c502\
    01cfffffffffffffffff010190c0010000002f0003616263020000000000000001000001a202b2c502010909\
    0909090909090909090909090909ffffffffffffffff020000001b0008000000000000000101000000000000\
    0001ffffffffffffffff03000000160003616263010000000000000001ffffffffffffffff04000000050003\
    616263050000005800040000000001ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea6914\
    46d22c000001a202b2c501ffffffffffffffff00070707070707070707070707070707070707070707070707\
    070707070707070706000000130004636572740100000000000000010170656d070000001a00100808080808\
    0808080808080808080808000001a202b3af62ff000000280000000000000008a388ce9769b8c3b337ad6d52\
    c70694640a53c8e42aa83785f97ca59c5a6fb9c4";

#[tokio::test]
async fn is_read_in_pieces_of_any_length() {
    let bytes = written().await;
    for chunk in [1, 2, 3, 50, 1 << 20] {
        let mut image = read(&bytes, chunk).unwrap();
        let Image::Received(received) = &image else { panic!("pinned") };
        assert_eq!(received.names(), 2);
        let mut again = Vec::new();
        while let Some(chunk) = image.next_chunk().unwrap() {
            again.extend_from_slice(&chunk);
        }
        assert_eq!(again, bytes);
    }
}

#[tokio::test]
async fn what_is_cut_altered_or_longer_is_refused() {
    let bytes = written().await;
    for length in 0..bytes.len() {
        assert_eq!(read(&bytes[..length], 64).unwrap_err(), ImageError::Truncated, "{length}");
    }
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(read(&altered, 64).is_err(), "byte {at} of {}", bytes.len());
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(read(&longer, 64), Err(ImageError::Damaged(_))));
    assert_eq!(read(b"{\"names\": []}", 64).unwrap_err(), ImageError::Foreign);
    let mut newer = bytes;
    newer[7] = 2;
    assert_eq!(read(&newer, 64).unwrap_err(), ImageError::Version(2));
}

#[tokio::test]
async fn chunks_are_bounded() {
    let mut bench = Bench::founded().await;
    for part in 0..8 {
        let names = (0..1000).map(|n| id(&format!("name-{part}-{n}"))).collect();
        bench.commit(vec![Command::Import(names)]).await;
    }
    let (mut image, mut chunks) = (bench.store.export().unwrap(), Vec::new());
    while let Some(chunk) = image.next_chunk().unwrap() {
        chunks.push(chunk.len());
    }
    let (last, rest) = chunks.split_last().unwrap();
    assert!(chunks.len() > 3 && *last <= CHUNK_BYTES_MAX);
    assert!(rest.iter().all(|length| *length == CHUNK_BYTES_MAX), "{chunks:?}");
}

#[tokio::test]
async fn a_pinned_book_stays_as_it_was() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc")]).await;
    let (before, pinned) = (bench.bytes(), bench.store.export().unwrap());
    bench.commit(vec![register("def")]).await;
    assert_eq!(bytes(pinned), before);
    assert_ne!(bench.bytes(), before);
}

proptest! {
    #[test]
    fn any_bytes_are_a_book_or_an_error(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[&MAGIC[..], &tail].concat(), 16);
        let _ = read(&tail, 16);
    }
}
