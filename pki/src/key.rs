//! Private keys and what is signed with them outside TLS. Key material never reaches `Debug`, an error or a log.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    ParsedPublicKey, RsaKeyPair,
};
use rcgen::{PublicKeyData as _, SigningKey as _};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Largest PEM text of a key (faults, size caps).
pub const MAX_KEY_PEM: usize = 13_000;

/// What every signature outside TLS begins with, so that none of them can be passed off as another.
const DOMAIN: &[u8] = b"securelink/v1 leaf signature\0";

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random generator or the library failed.
    #[error("generating a {0} key failed; the system's random generator may be unavailable")]
    Generate(&'static str),
    /// The text is too long to be a key.
    #[error("a private key has at most {MAX_KEY_PEM} bytes of PEM; this text has {0}: is it a key?")]
    TooLarge(usize),
    /// Not a key we can read.
    #[error(
        "no usable private key; give one PEM block `PRIVATE KEY`, `EC PRIVATE KEY` or `RSA PRIVATE KEY`, unencrypted, of P-256, P-384, Ed25519 or RSA with 2048 bits or more"
    )]
    Unreadable,
    /// Signing failed.
    #[error("signing with the private key failed")]
    Sign,
    /// The signature does not belong to the message, the context or the key.
    #[error("the signature was not made by that leaf over that message")]
    BadSignature,
}

/// A private key. Wiped when dropped; prints as `PrivateKey(..)`. Whoever writes it to a file gives the file mode 0600.
pub struct PrivateKey(rcgen::KeyPair);

impl PrivateKey {
    /// A new P-384 key, for roots and intermediates.
    pub fn generate_p384() -> Result<Self, KeyError> {
        Self::generate(&rcgen::PKCS_ECDSA_P384_SHA384, "P-384")
    }

    /// A new P-256 key, for leaves.
    pub fn generate_p256() -> Result<Self, KeyError> {
        Self::generate(&rcgen::PKCS_ECDSA_P256_SHA256, "P-256")
    }

    fn generate(algorithm: &'static rcgen::SignatureAlgorithm, name: &'static str) -> Result<Self, KeyError> {
        rcgen::KeyPair::generate_for(algorithm).map(Self).map_err(|_| KeyError::Generate(name))
    }

    /// Reads one unencrypted PEM key: PKCS#8, SEC1 or PKCS#1.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if text.len() > MAX_KEY_PEM {
            return Err(KeyError::TooLarge(text.len()));
        }
        let mut der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::Unreadable)?;
        let pkcs8 = to_pkcs8(&der);
        der.zeroize();
        rcgen::KeyPair::try_from(pkcs8?.as_slice()).map(Self).map_err(|_| KeyError::Unreadable)
    }

    /// PEM of PKCS#8, whatever it was read from.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// The public half as a full DER `SubjectPublicKeyInfo`.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> &rcgen::KeyPair {
        &self.0
    }

    /// The key in the form rustls takes; that copy is rustls' to wipe.
    pub(crate) fn to_der(&self) -> Result<PrivateKeyDer<'static>, KeyError> {
        PrivateKeyDer::try_from(self.0.serialize_der()).map_err(|_| KeyError::Unreadable)
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The key as PKCS#8: rcgen keeps the bytes it was given and would label SEC1 and PKCS#1 wrongly.
fn to_pkcs8(der: &PrivateKeyDer<'_>) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bytes = der.secret_der();
    if matches!(der, PrivateKeyDer::Pkcs8(_)) {
        return Ok(Zeroizing::new(bytes.to_vec()));
    }
    if matches!(der, PrivateKeyDer::Pkcs1(_)) {
        let key = RsaKeyPair::from_der(bytes).map_err(|_| KeyError::Unreadable)?;
        let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(|_| KeyError::Unreadable)?;
        return Ok(Zeroizing::new(pkcs8.as_ref().to_vec()));
    }
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes)
        .or_else(|_| EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, bytes))
        .map_err(|_| KeyError::Unreadable)?;
    let pkcs8 = key.to_pkcs8v1().map_err(|_| KeyError::Unreadable)?;
    Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
}

/// Signs `message` for the purpose named by `context` (ECDSA P-256 with SHA-256, ASN.1), as in the answer to `_greet`.
pub fn sign_with_leaf(key: &PrivateKey, context: &str, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    key.0.sign(&bound(context, message)).map_err(|_| KeyError::Sign)
}

/// Checks a signature of [`sign_with_leaf`] against the signer's full DER `SubjectPublicKeyInfo`.
pub fn verify_leaf_signature(
    public_key: &[u8],
    context: &str,
    message: &[u8],
    signature: &[u8],
) -> Result<(), KeyError> {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
        .map_err(|_| KeyError::BadSignature)?
        .verify_sig(&bound(context, message), signature)
        .map_err(|_| KeyError::BadSignature)
}

/// What is signed: domain, length of the context, context, message; no two inputs give the same bytes.
fn bound(context: &str, message: &[u8]) -> Vec<u8> {
    let length = (context.len() as u64).to_be_bytes();
    [DOMAIN, length.as_slice(), context.as_bytes(), message].concat()
}
