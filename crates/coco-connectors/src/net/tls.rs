//! TLS: whom the certificate of an `https` server must come from.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::endpoint::{Endpoint, wrong};
use super::peer::Peer;
use coco_core::change::DeliveryError;

/// With the certificates that were given, or else the system's.
pub fn client(endpoint: &Endpoint) -> Result<ClientConfig, DeliveryError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &endpoint.root_certificates {
        roots = parse(pem).map_err(|why| wrong("sslrootcert", &why))?;
    } else if endpoint.url.scheme() == "https" {
        roots = system_roots(&endpoint.peer)?;
    }
    // Named here: a process may have several, and none as its default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|e| DeliveryError::server("08001", "TLS cannot be set up").detail(e.to_string()))
}

/// The certificates of a PEM text, at least one.
pub fn parse(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| "is no valid PEM".to_owned())?;
        roots
            .add(certificate)
            .map_err(|e| format!("has a certificate that cannot be used: {e}"))?;
    }
    if roots.is_empty() {
        return Err(
            "must have a certificate (-----BEGIN CERTIFICATE----- …), not a path".to_owned()
        );
    }
    Ok(roots)
}

fn system_roots(peer: &Peer) -> Result<RootCertStore, DeliveryError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's may be of old forms: the others will do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = format!("cannot tell who may certify {peer}: the system has no certificates");
        return Err(DeliveryError::server("08001", message).hint(
            "Install the package ca-certificates where Postgres runs, or give the server's option \
             sslrootcert.",
        ));
    }
    Ok(roots)
}
