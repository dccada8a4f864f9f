//! What names a node in its certificate.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What follows the node's id in its name.
const SUFFIX: &str = ".node.arc-relay.internal";

/// Digits of a node's id.
const ID_DIGITS: usize = 16;

/// Why a certificate does not say which node it is for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// It is no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No subject alternative name is a node's.
    #[error("the certificate names no node")]
    NoNode,
    /// More than one is.
    #[error("the certificate names more than one node")]
    SeveralNodes,
    /// One looks like a node's, and is not.
    #[error("{0} in the certificate is no node's name: it takes 16 hexadecimal digits, a-f small")]
    BadName(String),
}

/// The name of a node in its certificate: its id as 16 hexadecimal digits, and a fixed end.
pub fn node_name(node: u64) -> String {
    format!("{node:016x}{SUFFIX}")
}

/// The node that a certificate (DER) is for: the one whose [name](node_name) is among its subject
/// alternative names. Whether the certificate is to be trusted, the handshake has judged.
pub fn node_of(certificate: &[u8]) -> Result<u64, NodeNameError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|_| NodeNameError::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| NodeNameError::Unreadable)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut nodes = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => node_named(name),
        _ => None,
    });
    let node = nodes.next().ok_or(NodeNameError::NoNode)??;
    if nodes.next().is_some() { Err(NodeNameError::SeveralNodes) } else { Ok(node) }
}

/// The node that `name` stands for; none if it is not meant for one.
fn node_named(name: &str) -> Option<Result<u64, NodeNameError>> {
    let (id, suffix) = name.split_at_checked(name.len().checked_sub(SUFFIX.len())?)?;
    if !suffix.eq_ignore_ascii_case(SUFFIX) {
        return None;
    }
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = id.len() == ID_DIGITS && id.bytes().all(is_digit) && suffix == SUFFIX;
    let parsed = u64::from_str_radix(id, 16).ok().filter(|_| well_formed);
    Some(parsed.ok_or_else(|| NodeNameError::BadName(name.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes() {
        assert_eq!(node_name(0x1f), "000000000000001f.node.arc-relay.internal");
        for node in [0, 1, u64::MAX, 0xfedc_ba98_7654_3210] {
            assert_eq!(node_named(&node_name(node)), Some(Ok(node)));
        }
        for foreign in ["", "node", "mesh.arc-relay.internal", "node.arc-relay.internal", "ä.b"] {
            assert_eq!(node_named(foreign), None, "{foreign}");
        }
        for bad in ["", "1f", "*", "000000000000001F", "+00000000000001f", "a.00000000000000f"] {
            let name = format!("{bad}{SUFFIX}");
            assert_eq!(node_named(&name), Some(Err(NodeNameError::BadName(name.clone()))));
        }
        let loud = node_name(1).to_ascii_uppercase();
        assert_eq!(node_named(&loud), Some(Err(NodeNameError::BadName(loud.clone()))));
    }
}
