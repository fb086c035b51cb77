//! Computes fingerprints: BLAKE3 over separated parts, cut to 128 bits.

use super::version::Fingerprint;

/// Hashes the parts of a value. The length of each part precedes it, and NULL differs from a part
/// of any length, so `('a', 'bc')`, `('ab', 'c')` and `('a', NULL, 'bc')` differ.
pub struct Hasher(blake3::Hasher);

const NULL: u64 = u64::MAX;

impl Hasher {
    pub fn new() -> Hasher {
        Hasher(blake3::Hasher::new())
    }

    pub fn part(&mut self, bytes: &[u8]) -> &mut Hasher {
        // Hashes a short part in one call: most columns are short, and each call has a cost.
        let mut short = [0u8; 64];
        let length = (bytes.len() as u64).to_le_bytes();
        if bytes.len() <= short.len() - length.len() {
            short[..8].copy_from_slice(&length);
            short[8..8 + bytes.len()].copy_from_slice(bytes);
            self.0.update(&short[..8 + bytes.len()]);
        } else {
            self.0.update(&length).update(bytes);
        }
        self
    }

    pub fn null(&mut self) -> &mut Hasher {
        self.0.update(&NULL.to_le_bytes());
        self
    }

    pub fn finish(&self) -> Fingerprint {
        let mut out = [0u8; 16];
        self.0.finalize_xof().fill(&mut out);
        Fingerprint(out)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parts: &[Option<&str>]) -> Fingerprint {
        let mut h = Hasher::new();
        for p in parts {
            match p {
                Some(p) => h.part(p.as_bytes()),
                None => h.null(),
            };
        }
        h.finish()
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let all = [
            of(&[Some("a"), Some("bc")]),
            of(&[Some("ab"), Some("c")]),
            of(&[Some("a"), None, Some("bc")]),
            of(&[Some("abc")]),
            of(&[Some("")]),
            of(&[None]),
            of(&[]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn long_and_short_parts_are_framed_alike() {
        for n in [0, 55, 56, 57, 100_000] {
            let bytes = vec![7u8; n];
            let mut plain = blake3::Hasher::new();
            plain.update(&(n as u64).to_le_bytes()).update(&bytes);
            let whole = plain.finalize();
            assert_eq!(Hasher::new().part(&bytes).finish().0, whole.as_bytes()[..16]);
        }
    }
}
