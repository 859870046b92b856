//! Keys and certificates of the two ends.

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};
use securelink_pki::{Leaf, Root};

/// How the relays of others know their other end.
const DNS_NAME: &str = "relay.test";

/// One end of our pair: its root, and the leaves it issues.
pub struct Organization {
    pub domain: TrustDomain,
    root: Root,
}

impl Organization {
    /// Both ends.
    pub fn two() -> [Self; 2] {
        ["here.example", "there.example"].map(|name| {
            let domain: TrustDomain = name.parse().unwrap();
            Self { root: Root::generate(&domain, Timestamp::now()).unwrap(), domain }
        })
    }

    pub fn leaf_to(&self, peer: &TrustDomain) -> Leaf {
        let identity = SpiffeId::link(self.domain.clone(), peer.clone());
        let issuer = self.root.issue_intermediate(Timestamp::now()).unwrap();
        issuer.issue_leaf(&identity, &[], Timestamp::now()).unwrap()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        self.root.fingerprint()
    }
}

/// One end of a pair of others: the cheapest chain there is, a root and a leaf of P-256. Our own P-384 authorities cost
/// OpenSSL ten times as much a handshake, which nobody who tunes it would choose.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn generate() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "bench root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate and the key of another leaf.
    pub fn leaf(&self) -> (String, String) {
        let mut params = CertificateParams::new([DNS_NAME.to_owned()]).unwrap();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}
