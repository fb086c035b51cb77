//! TLS with the rules of libpq's sslmode for server certificates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::{Config, SslMode};
use coco_core::change::DeliveryError;

/// Creates the TLS connector of a server.
pub fn connector(config: &Config) -> Result<MakeRustlsConnect, DeliveryError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| DeliveryError::server("HV000", format!("could not set up TLS: {e}")))?;
    let lenient = |roots: Option<RootCertStore>| Arc::new(Lenient { provider, roots });
    let client = match config.sslmode {
        SslMode::VerifyFull => builder.with_root_certificates(roots(config)?),
        SslMode::VerifyCa => {
            builder.dangerous().with_custom_certificate_verifier(lenient(Some(roots(config)?)))
        }
        // As in libpq, `require` checks the certificate if a root certificate is given.
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            let roots = config.roots.as_ref().map(|_| roots(config)).transpose()?;
            builder.dangerous().with_custom_certificate_verifier(lenient(roots))
        }
    };
    Ok(MakeRustlsConnect::new(client.with_no_client_auth()))
}

fn roots(config: &Config) -> Result<RootCertStore, DeliveryError> {
    let mut store = RootCertStore::empty();
    match &config.roots {
        Some(given) => {
            for certificate in given {
                store.add(certificate.clone()).map_err(|e| {
                    DeliveryError::server(
                        "HV024",
                        format!("invalid certificate in sslrootcert: {e}"),
                    )
                })?;
            }
        }
        // The certificates of the system, in its own location: a user cannot name a file.
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(DeliveryError::server("08001", "this system has no root certificates")
                    .hint("Set the server's root certificate in the option sslrootcert."));
            }
        }
    }
    Ok(store)
}

/// Accepts any certificate, or any that one of the roots has signed, whatever its host name.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    roots: Option<RootCertStore>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(certificate)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
