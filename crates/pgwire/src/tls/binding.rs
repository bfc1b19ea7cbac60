//! The `tls-server-end-point` channel binding (RFC 5929): what ties a SCRAM login to the server's
//! certificate.
//!
//! It is the hash of the certificate, by the hash function of the certificate's own signature. Only
//! the signature algorithm has to be found in the certificate, so a few steps through its DER
//! replace a parser.

use ring::digest::{self, Algorithm};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// Returns the channel binding, or `None` where none is defined (Ed25519, RSA-PSS with parameters)
/// or readable.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (fields, _) = element(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = element(fields, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let hash = hash_of_signature(identifier)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// Returns the hash function for a signature algorithm; RFC 5929 replaces MD5 and SHA-1 by SHA-256.
fn hash_of_signature(identifier: &[u8]) -> Option<&'static Algorithm> {
    // 1.2.840.113549.1.1.x: PKCS #1; 1.2.840.10045.4.x: ECDSA.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    if let Some(kind) = identifier.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => Some(&digest::SHA256),
            [12] => Some(&digest::SHA384),
            [13] => Some(&digest::SHA512),
            _ => None,
        };
    }
    match identifier.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&digest::SHA256),
        [3, 3] => Some(&digest::SHA384),
        [3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

/// Splits a DER element of the given tag from the front: its content and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (
                digits
                    .iter()
                    .fold(0, |length, digit| length << 8 | usize::from(*digit)),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outline: a to-be-signed part of 200 bytes, then the algorithm, then a
    /// signature.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, 0x81, length], content].concat()
        };
        let algorithm = wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, identifier));
        let to_be_signed = wrap(SEQUENCE, &[0; 180]);
        wrap(SEQUENCE, &[to_be_signed, algorithm, vec![3, 1, 0]].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let binding_bytes = |identifier: &[u8]| {
            tls_server_end_point(&certificate(identifier)).map(|binding| binding.len())
        };
        let rsa = |kind| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, kind];
        assert_eq!(binding_bytes(&rsa(5)), Some(32));
        assert_eq!(binding_bytes(&rsa(12)), Some(48));
        assert_eq!(binding_bytes(&rsa(13)), Some(64));
        assert_eq!(binding_bytes(&rsa(10)), None);
        assert_eq!(
            binding_bytes(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 3]),
            Some(48)
        );
        assert_eq!(binding_bytes(&[0x2b, 0x65, 0x70]), None);
    }

    #[test]
    fn a_broken_certificate_has_no_binding() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 2]);
        assert!(tls_server_end_point(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(tls_server_end_point(&whole[..length]), None, "{length}");
        }
    }
}
