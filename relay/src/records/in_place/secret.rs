//! The secrets that traffic keys come from (RFC 8446 section 7), and how they are taken from rustls: by its key log, which is this
//! connection's own and ends here. rustls' kernel connection derives keys too, but keeps the peer's certificates for it.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use rustls::crypto::cipher::{Iv, NONCE_LEN};
use rustls::crypto::tls13::OkmBlock;
use rustls::{ConnectionTrafficSecrets, Error, KeyLog, Tls13CipherSuite};
use zeroize::Zeroizing;

/// The secret of one direction and one generation. Wiped when dropped.
pub(super) struct Secret {
    suite: &'static Tls13CipherSuite,
    bytes: Bytes,
}

/// In a place of their own: what is moved leaves a copy behind that nobody wipes.
type Bytes = Zeroizing<Box<[u8]>>;

impl Secret {
    pub(super) fn suite(&self) -> &'static Tls13CipherSuite {
        self.suite
    }

    /// The key, as long as the suite's are, and the initialization vector (section 7.3).
    pub(super) fn derive(&self) -> Result<(Zeroizing<Vec<u8>>, Iv), Error> {
        let mut key = Zeroizing::new(vec![0; self.suite.aead_alg.key_len()]);
        let mut iv = [0; NONCE_LEN];
        self.expand(b"key", &mut key)?;
        self.expand(b"iv", &mut iv)?;
        Ok((key, Iv::new(iv)))
    }

    /// The secret that follows it (section 7.2).
    pub(super) fn next(&self) -> Result<Self, Error> {
        let mut next = Zeroizing::new(vec![0; self.bytes.len()].into_boxed_slice());
        self.expand(b"traffic upd", &mut next)?;
        Ok(Self { suite: self.suite, bytes: next })
    }

    /// Whether `keys` came of it.
    pub(super) fn gives(&self, keys: &ConnectionTrafficSecrets) -> Result<bool, Error> {
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = keys
        else {
            return Ok(false);
        };
        let own = self.derive()?;
        Ok(verify_slices_are_equal(&own.0, key.as_ref()).is_ok() && own.1.as_ref() == iv.as_ref())
    }

    /// HKDF-Expand-Label with an empty context (section 7.1).
    fn expand(&self, label: &[u8], output: &mut [u8]) -> Result<(), Error> {
        const PREFIX: &[u8] = b"tls13 ";
        let length = u16::try_from(output.len()).map_err(|_| too_long())?.to_be_bytes();
        let label_length = u8::try_from(PREFIX.len() + label.len()).map_err(|_| too_long())?;
        let info = [&length[..], &[label_length], PREFIX, label, &[0]];
        let expander = self.suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&self.bytes));
        expander.expand_slice(&info, output).map_err(|_| too_long())
    }
}

fn too_long() -> Error {
    Error::General("longer than HKDF expands".to_owned())
}

/// What rustls has said of one connection: the client's secret and the server's.
#[derive(Default)]
pub(super) struct Heard(Mutex<[Option<Bytes>; 2]>);

/// NSS Key Log Format.
const LABELS: [&str; 2] = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"];

impl Heard {
    /// The client's secret and the server's, once a handshake has finished.
    pub(super) fn take(&self, suite: &'static Tls13CipherSuite) -> Result<[Secret; 2], Error> {
        let heard = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let [Some(client), Some(server)] = heard else { return Err(Error::HandshakeNotComplete) };
        Ok([client, server].map(|bytes| Secret { suite, bytes }))
    }
}

impl KeyLog for Heard {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = LABELS.iter().zip(heard.iter_mut()).find(|(known, _)| **known == label)
            && secret.len() <= OkmBlock::MAX_LEN
        {
            *place = Some(Bytes::new(secret.into()));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        LABELS.contains(&label)
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Heard")
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// RFC 8448 section 3, "derive write traffic keys for application data" and the same for reading.
    #[test]
    fn keys_are_those_of_rfc_8448() {
        let heard = Heard::default();
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        assert!(heard.take(suite).is_err(), "nothing was said");
        let said = [
            ("CLIENT_TRAFFIC_SECRET_0", "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5"),
            ("EXPORTER_SECRET", "fe22f881176eda18eb8f44529e6792c50c9a3f89452f68d8ae311b4309d3cf50"),
            ("SERVER_TRAFFIC_SECRET_0", "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"),
        ];
        for (label, secret) in said {
            heard.log(label, &[], &bytes(secret));
        }
        let expected = [
            ("17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"),
            ("9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"),
        ];
        for (secret, (key, iv)) in heard.take(suite).unwrap().iter().zip(expected) {
            let derived = secret.derive().unwrap();
            assert_eq!((derived.0.to_vec(), derived.1.as_ref().to_vec()), (bytes(key), bytes(iv)));
        }
        assert!(heard.take(suite).is_err(), "they are kept once");
    }
}
