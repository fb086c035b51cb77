//! TLS: the certificates that coco trusts for an `https` server.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::endpoint::{Endpoint, wrong};
use super::peer::Peer;
use coco_core::change::DeliveryError;

/// Creates the TLS configuration. It trusts the certificates in the options, or else those of the
/// system.
pub fn client(endpoint: &Endpoint) -> Result<ClientConfig, DeliveryError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = &endpoint.root_certificates {
        roots = parse(pem).map_err(|why| wrong("sslrootcert", &why))?;
    } else if endpoint.url.scheme() == "https" {
        roots = system_roots(&endpoint.peer)?;
    }
    // Passed explicitly: a process may have several crypto providers, and no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|e| DeliveryError::server("08001", "could not set up TLS").detail(e.to_string()))
}

/// Parses the certificates of a PEM text, which must contain at least one.
pub fn parse(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| "is not valid PEM".to_owned())?;
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
    // Some certificates of the system may be in obsolete formats. The others are enough.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = format!(
            "could not verify the certificate of {peer}: the system has no root certificates"
        );
        return Err(DeliveryError::server("08001", message).hint(
            "Install the package ca-certificates where Postgres runs, or set the server's option \
             sslrootcert.",
        ));
    }
    Ok(roots)
}
