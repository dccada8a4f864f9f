//! Certificates that an operator hands out, where nodes must not hold the authority's key.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use super::{
    SERVER_NAME,
    certificate::{node_name, node_of},
    identity::{IdentityError, MeshIdentity, Wall},
};

/// Where the operator's files are; all are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshFiles {
    /// The authority's certificate (`MESH_CA`). Others after it are believed too, so that one
    /// authority can follow another; the first names the cluster.
    pub ca: PathBuf,
    /// This node's certificate (`MESH_CERT`), and those between it and the authority's, if there are.
    pub cert: PathBuf,
    /// The key of this node's certificate (`MESH_KEY`).
    pub key: PathBuf,
}

impl MeshIdentity {
    /// The identity that the operator's files give this node, checked as its peers will check it now.
    /// Its certificate must be for `node`, if that is known.
    ///
    /// # Errors
    /// [`IdentityError`] says which file is wrong, and what it must be.
    pub fn from_files(
        files: &MeshFiles,
        node: Option<u64>,
        wall: Wall,
    ) -> Result<Self, IdentityError> {
        let authorities = certificates(&files.ca)?;
        let chain = certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|why| {
            IdentityError::Unreadable { path: files.key.clone(), why: said(&why) }
        })?;
        let named = chain.first().map(|own| node_of(own)).transpose().map_err(|why| {
            let names = names(node);
            IdentityError::Unnamed { path: files.cert.clone(), why, names }
        })?;
        let named = named.unwrap_or_default();
        if let Some(node) = node.filter(|node| *node != named) {
            let path = files.cert.clone();
            return Err(IdentityError::OtherNode { path, named, names: names(Some(node)) });
        }
        let identity = Self::new(&authorities, vec![(chain, key)], named, wall)?;
        identity.check().map_err(|why| IdentityError::Refused {
            path: files.cert.clone(),
            ca: files.ca.clone(),
            why,
        })?;
        Ok(identity)
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let all =
        all.and_then(|all| if all.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(all) });
    all.map_err(|why| IdentityError::Unreadable { path: path.to_owned(), why: said(&why) })
}

/// What is wrong with a PEM file, without its bytes, which may be a secret's.
fn said(why: &pem::Error) -> String {
    match why {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "nothing of the kind is in it".into(),
        _ => "it is no PEM".into(),
    }
}

/// The names that a node's certificate must have, as openssl takes them.
fn names(node: Option<u64>) -> String {
    let node = node.map_or_else(|| node_name(0).replace('0', "x"), node_name);
    format!("subjectAltName=DNS:{SERVER_NAME},DNS:{node}")
}
