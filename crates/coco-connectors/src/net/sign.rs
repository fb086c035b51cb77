//! Signs requests. A receiver that has the secret can verify that coco sent the request, and when.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Signs with one secret.
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// Creates a signer. The key is the UTF-8 text of the secret. Returns `None` if the secret
    /// cannot be a key; HMAC accepts any key.
    pub fn new(secret: &str) -> Option<Signer> {
        Hmac::new_from_slice(secret.as_bytes()).ok().map(Signer)
    }

    /// Returns the value of `X-Coco-Signature`: `t=<seconds since 1970>,v1=<HMAC-SHA256 of
    /// "<t>.<body>", in hexadecimal digits>`. The signature covers the time, so that nobody can
    /// send an old request as a new one.
    pub fn sign(&self, seconds: u64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body);
        format!("t={seconds},v1={:x}", mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '1700000000.{}' | openssl dgst -sha256 -hmac s3cret`
    #[test]
    fn as_openssl_does() {
        let signed = Signer::new("s3cret").map(|s| s.sign(1_700_000_000, b"{}"));
        let expected =
            "t=1700000000,v1=97926816e98fbb41ccb1673225ff29a2f35369099990e1b1561651e7bd097ebf";
        assert_eq!(signed.as_deref(), Some(expected));
    }
}
