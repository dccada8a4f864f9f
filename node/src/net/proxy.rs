//! Who is behind a proxy that says so before anything else: the PROXY protocol, versions 1 and 2, as
//! `proxy-protocol.txt` (`HAProxy` Technologies, 2020) has it.
//!
//! Reads the header and not one byte more, so that what follows is as if the proxy were not there. Whom
//! to believe is for the caller to decide; the specification forbids guessing whether there is a header.

use std::{error::Error, io, net::IpAddr};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Both versions have at least so many bytes; version 2 begins with that many fixed ones.
const START_BYTES: usize = 12;

/// The part of a version 2 header that has always the same length (section 2.2).
const FIXED_BYTES: usize = 16;

/// The longest line of version 1, CR and LF included (section 2.1).
const LINE_BYTES_MAX: usize = 107;

/// The longest version 2 header that is read: addresses take 216 bytes at most, the rest is for what
/// the proxy adds, which means nothing here.
const HEADER_BYTES_MAX: usize = 4 << 10;

/// Reads the header: who is at the proxy's other end; none if the proxy speaks for itself, as its
/// health checks do.
///
/// # Errors
/// Those of reading, and `InvalidData` if there is no header or it makes no sense: what follows cannot
/// be trusted then.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut start = [0; START_BYTES];
    stream.read_exact(&mut start).await?;
    if start == v2::PROTOCOL_PREFIX {
        read_binary(stream, &start).await
    } else {
        read_line(stream, &start).await
    }
}

async fn read_binary(
    stream: &mut (impl AsyncRead + Unpin),
    start: &[u8],
) -> io::Result<Option<IpAddr>> {
    let mut header = start.to_vec();
    header.resize(FIXED_BYTES, 0);
    stream.read_exact(&mut header[START_BYTES..]).await?;
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > HEADER_BYTES_MAX {
        return Err(invalid("the header is too long"));
    }
    header.resize(FIXED_BYTES + length, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = v2::Header::try_from(header.as_slice()).map_err(invalid)?;
    Ok(match header.addresses {
        _ if header.command == v2::Command::Local => None,
        v2::Addresses::IPv4(addresses) => Some(addresses.source_address.into()),
        v2::Addresses::IPv6(addresses) => Some(addresses.source_address.into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

/// A line has no length in front, so it is read byte by byte: what follows it is not ours.
async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    start: &[u8],
) -> io::Result<Option<IpAddr>> {
    if !start.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        return Err(invalid("there is no header"));
    }
    let mut line = start.to_vec();
    while line.last() != Some(&b'\n') {
        if line.len() == LINE_BYTES_MAX {
            return Err(invalid("the line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(invalid)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Tcp6(addresses) => Some(addresses.source_address.into()),
        v1::Addresses::Unknown => None,
    })
}

fn invalid(why: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// What is read of `bytes`, and how many of them are left.
    fn read(bytes: &[u8]) -> (io::Result<Option<IpAddr>>, usize) {
        let mut rest = bytes;
        let header = read_header(&mut rest).now_or_never().expect("memory is never waited for");
        (header, rest.len())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("well-formed")
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, addresses].concat()
    }

    #[test]
    fn lines_name_who_is_there() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", Some(ip("192.0.2.1"))),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", Some(ip("2001:db8::1"))),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            let (header, rest) = read(format!("{line}GET / HTTP/1.1\r\n").as_bytes());
            assert_eq!(header.expect(line), expected);
            assert_eq!(rest, "GET / HTTP/1.1\r\n".len(), "{line}");
        }
    }

    #[test]
    fn binary_headers_name_who_is_there() {
        let four = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 1, 187];
        let mut six = [0; 36];
        six[..16].copy_from_slice(&"2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let with_more = [four.as_slice(), &[4, 0, 1, 7]].concat();
        for (header, expected) in [
            (binary(1, 0x11, &four), Some(ip("192.0.2.1"))),
            (binary(1, 0x11, &with_more), Some(ip("192.0.2.1"))),
            (binary(1, 0x21, &six), Some(ip("2001:db8::1"))),
            (binary(0, 0x11, &four), None),
            (binary(0, 0, &[]), None),
            (binary(1, 0x31, &[7; 216]), None),
        ] {
            let (read, rest) = read(&[&header, b"hello".as_slice()].concat());
            assert_eq!(read.unwrap(), expected, "{header:?}");
            assert_eq!(rest, 5);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let endless = ["PROXY TCP4 ", &"1".repeat(200)].concat();
        for bytes in [
            b"GET /arc HTTP/1.1\r\n".as_slice(),
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 hello",
            b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
            endless.as_bytes(),
            &binary(1, 0x11, &[1, 2, 3]),
            &binary(7, 0x11, &[0; 12]),
            &binary(1, 0x11, &vec![0; HEADER_BYTES_MAX + 1]),
        ] {
            let error = read(bytes).0.expect_err("refused");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{}", bytes.escape_ascii());
        }
        let unfinished = read(b"PROXY TCP4 192.0.2.1 198.").0.expect_err("refused");
        assert_eq!(unfinished.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300),
            start in 0..3_usize) {
            let prefix = [b"".as_slice(), b"PROXY ", v2::PROTOCOL_PREFIX][start];
            let _ = read(&[prefix, &bytes].concat());
        }
    }
}
