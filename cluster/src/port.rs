//! Binding a port, of TCP or UDP, as every part of the relay does.
//!
//! Owns the rule of what an address means where a system has only one of IPv4 and IPv6. Listens to nothing
//! and reads nothing.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Socket, Type};

/// A socket that is bound to `address`. All IPv6 addresses mean all IPv4 addresses, too, whatever the
/// system's default; on a system without IPv6, those alone.
///
/// # Errors
/// Those of the system, such as [`AddrInUse`](ErrorKind::AddrInUse).
pub fn bind(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    bind_to(address, kind).or_else(|error| match instead(address, error.kind()) {
        Some(address) => bind_to(address, kind),
        None => Err(error),
    })
}

/// What to bind where that failed; none if it would not help.
fn instead(address: SocketAddr, error: ErrorKind) -> Option<SocketAddr> {
    // Any other error may mean that the system has no IPv6.
    let is_refused = matches!(error, ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    let is_any = address.ip() == Ipv6Addr::UNSPECIFIED;
    (is_any && !is_refused).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

fn bind_to(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted relay need not wait until the old one's connections are forgotten. Of UDP sockets it
    // would hide that one is there.
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    #[test]
    fn only_who_may_have_any_address_is_given_those_of_ipv4() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let any = address("[::]:7946");
        for error in [ErrorKind::Unsupported, ErrorKind::AddrNotAvailable, ErrorKind::Other] {
            assert_eq!(instead(any, error), Some(address("0.0.0.0:7946")), "{error}");
            for one in ["[::1]:7946", "0.0.0.0:7946", "127.0.0.1:7946"] {
                assert_eq!(instead(address(one), error), None, "{one}");
            }
        }
        for error in [ErrorKind::AddrInUse, ErrorKind::PermissionDenied] {
            assert_eq!(instead(any, error), None, "{error}");
        }
    }

    #[test]
    fn a_port_is_had_once() {
        for kind in [Type::STREAM, Type::DGRAM] {
            let first = bind("127.0.0.1:0".parse().unwrap(), kind).unwrap();
            if kind == Type::STREAM {
                first.listen(1).unwrap();
            }
            let address = first.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(bind(address, kind).unwrap_err().kind(), ErrorKind::AddrInUse);
            drop(first);
            bind(address, kind).unwrap();
        }
    }
}
