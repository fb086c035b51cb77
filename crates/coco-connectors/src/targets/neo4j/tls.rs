//! TLS: the certificates that coco trusts for the server.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Creates the TLS configuration. It trusts the certificates of a PEM text, or else those of the
/// system.
pub fn client(pem: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|e| format!("sslrootcert: {e}"))?;
                roots.add(certificate).map_err(|e| format!("sslrootcert: {e}"))?;
            }
        }
        // Some certificates of the system may be in obsolete formats. The others are enough.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no root certificates to verify the server's certificate".to_owned());
    }
    // Passed explicitly: a process may have several crypto providers, and no default.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        .map_err(|e| e.to_string())
}
