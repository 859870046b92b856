//! Certificates that are wrong on purpose, and right ones in one line. For tests only; product code never enables it.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use securelink_id::{Fingerprint, SpiffeId, TrustDomain};

use crate::certificate::certificates_to_pem;
use crate::issue::{Intermediate, Root};
use crate::key::PrivateKey;
use crate::leaf::Leaf;
use crate::lifetimes::{BACKDATE, Validity};
use crate::template;
use crate::transitions::Transitions;
use crate::verify::PeerTrust;

/// The moment tests take for now: 2026-06-01T00:00:00Z.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_780_272_000).expect("a time in range")
}

/// An organization with its own root and intermediate.
#[derive(Debug)]
pub struct Organization {
    /// Its name.
    pub domain: TrustDomain,
    /// Its root.
    pub root: Root,
    /// Its online issuer.
    pub intermediate: Intermediate,
    /// What lies behind it.
    pub transitions: Transitions,
}

impl Organization {
    /// A new one, made at [`now`].
    pub fn new(domain: &str) -> Self {
        let domain: TrustDomain = domain.parse().expect("a trust domain");
        let root = Root::generate(&domain, now()).expect("a root");
        let intermediate = root.issue_intermediate(now()).expect("an intermediate");
        Self { domain, root, intermediate, transitions: Transitions::none() }
    }

    /// Its leaf for the link to `peer`.
    pub fn leaf_to(&self, peer: &TrustDomain) -> Leaf {
        let identity = SpiffeId::link(self.domain.clone(), peer.clone());
        self.intermediate.issue_leaf(&identity, &[], now()).expect("a leaf")
    }

    /// What it presents on the link to `peer`.
    pub fn presents_to(&self, peer: &TrustDomain) -> Vec<CertificateDer<'static>> {
        self.transitions.presented(self.leaf_to(peer).chain(), None)
    }

    /// How it trusts `peer`, with the peer's current root pinned.
    pub fn trusts(&self, peer: &Self) -> PeerTrust {
        self.pins(&peer.domain, vec![peer.root.fingerprint()])
    }

    /// How it trusts a peer by other pins.
    pub fn pins(&self, peer: &TrustDomain, pins: Vec<Fingerprint>) -> PeerTrust {
        PeerTrust { own: self.domain.clone(), peer: peer.clone(), pins }
    }

    /// The intermediate that it signs for a key, with these dates; below another authority of its own if that has dates.
    pub fn signs(&self, key: &PrivateKey, own: Validity, above: Option<Validity>) -> Intermediate {
        let mut chain = vec![self.root.certificate().clone()];
        let mut signer = PrivateKey::from_pem(&self.root.key().to_pem()).expect("a key");
        if let Some(dates) = above {
            let between = PrivateKey::generate_p384().expect("a key");
            let params = template::root(&self.domain, &between, dates).expect("parameters");
            let certificate = template::sign(&params, between.pair(), &chain[0], &signer, "an authority");
            chain.insert(0, certificate.expect("a certificate"));
            signer = between;
        }
        let params = template::intermediate(&self.domain, key, own).expect("parameters");
        let certificate = template::sign(&params, key.pair(), &chain[0], &signer, "an intermediate");
        chain.insert(0, certificate.expect("a certificate"));
        Intermediate::from_pem(&key.to_pem(), &certificates_to_pem(&chain)).expect("an intermediate")
    }

    /// Replaces its root, with a transition, and its intermediate.
    pub fn rotate_root(&mut self) {
        let next = Root::generate(&self.domain, now()).expect("a root");
        self.transitions.append(&self.root, &next, now()).expect("a transition");
        self.intermediate = next.issue_intermediate(now()).expect("an intermediate");
        self.root = next;
    }
}

/// A certificate to be signed whatever it says. Starts as a leaf that would be accepted; spoil what the test is about.
#[derive(Clone, Debug)]
pub struct LeafForge {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP address names.
    pub addresses: Vec<std::net::IpAddr>,
    /// Extended key usages.
    pub ekus: Vec<ExtendedKeyUsagePurpose>,
    /// Key usages.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
    /// Whether it claims to be a CA.
    pub ca: bool,
    /// Whether it carries a critical extension nobody knows.
    pub unknown_critical: bool,
    /// Length of a useless extension, to make it big.
    pub padding: usize,
}

impl LeafForge {
    /// A faultless leaf of `owner` for its link to `audience`.
    pub fn new(owner: &TrustDomain, audience: &TrustDomain) -> Self {
        Self {
            uris: vec![SpiffeId::link(owner.clone(), audience.clone()).to_string()],
            dns: Vec::new(),
            addresses: Vec::new(),
            ekus: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            not_before: now() - BACKDATE,
            not_after: now() + SignedDuration::from_hours(72),
            ca: false,
            unknown_critical: false,
            padding: 0,
        }
    }

    /// Signed by `issuer` over a new P-256 key, with the issuer's chain after it.
    pub fn issue(&self, issuer: &Intermediate) -> Vec<CertificateDer<'static>> {
        self.issue_for(&PrivateKey::generate_p256().expect("a key"), issuer)
    }

    /// The same over a given key.
    pub fn issue_for(&self, key: &PrivateKey, issuer: &Intermediate) -> Vec<CertificateDer<'static>> {
        let leaf = self.sign(key.pair(), &issuer.chain()[0], issuer.key());
        std::iter::once(leaf).chain(issuer.chain().iter().cloned()).collect()
    }

    /// As [`Leaf`], so that a handshake can be made with it. Fails where [`Leaf::from_pem`] does.
    pub fn leaf(&self, issuer: &Intermediate) -> Result<Leaf, crate::issue::IssueError> {
        let key = PrivateKey::generate_p256()?;
        let chain = self.issue_for(&key, issuer);
        Leaf::assemble(key, chain)
    }

    /// One certificate over the public key of `subject`, signed by `issuer_key` in the name of `issuer`.
    pub fn sign(
        &self,
        subject: &impl PublicKeyData,
        issuer: &CertificateDer<'_>,
        issuer_key: &PrivateKey,
    ) -> CertificateDer<'static> {
        let validity = Validity { not_before: self.not_before, not_after: self.not_after };
        let mut params = template::params("forged", validity).expect("parameters");
        let ia5 = |text: &String| text.as_str().try_into().expect("an ASCII name");
        params.subject_alt_names = self.uris.iter().map(|uri| SanType::URI(ia5(uri))).collect();
        params.subject_alt_names.extend(self.dns.iter().map(|name| SanType::DnsName(ia5(name))));
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages.clone_from(&self.ekus);
        params.key_usages.clone_from(&self.key_usages);
        params.is_ca = if self.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        if self.unknown_critical {
            params.custom_extensions.push(extension(9, Vec::from([5, 0]), true));
        }
        if self.padding > 0 {
            params.custom_extensions.push(extension(10, vec![0; self.padding], false));
        }
        let issuer = Issuer::from_ca_cert_der(issuer, issuer_key.pair()).expect("an issuer");
        params.signed_by(subject, &issuer).expect("a certificate").into()
    }
}

fn extension(number: u64, content: Vec<u8>, critical: bool) -> CustomExtension {
    // 1.3.6.1.4.1.55555 is nobody's arc.
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55_555, number], content);
    extension.set_criticality(critical);
    extension
}

/// A transition to `next` with faults of the caller's choosing: signed by `signer` in the name of `previous`, naming
/// `uri` as its trust domain, a CA or not.
#[derive(Debug)]
pub struct CrossForge<'a> {
    /// The certificate whose subject stands as issuer.
    pub previous: &'a Root,
    /// The key that really signs.
    pub signer: &'a Root,
    /// The root whose key is certified.
    pub next: &'a Root,
    /// The URI name.
    pub uri: String,
    /// Whether it is a CA.
    pub ca: bool,
    /// Last moment.
    pub not_after: Timestamp,
    /// Whether it carries a critical extension nobody knows.
    pub unknown_critical: bool,
}

impl<'a> CrossForge<'a> {
    /// A faultless transition.
    pub fn new(previous: &'a Root, next: &'a Root) -> Self {
        Self {
            previous,
            signer: previous,
            next,
            uri: format!("spiffe://{}", next.trust_domain()),
            ca: true,
            not_after: previous.validity().not_after,
            unknown_critical: false,
        }
    }

    /// The certificate.
    pub fn sign(&self) -> CertificateDer<'static> {
        let validity = Validity { not_before: now() - BACKDATE, not_after: self.not_after };
        let mut params = template::root(self.next.trust_domain(), self.next.key(), validity).expect("a root");
        params.subject_alt_names = vec![SanType::URI(self.uri.as_str().try_into().expect("an ASCII name"))];
        if !self.ca {
            params.is_ca = IsCa::ExplicitNoCa;
        }
        if self.unknown_critical {
            params.custom_extensions.push(extension(9, Vec::from([5, 0]), true));
        }
        let issuer =
            Issuer::from_ca_cert_der(self.previous.certificate(), self.signer.key().pair()).expect("an issuer");
        params.signed_by(self.next.key().pair(), &issuer).expect("a certificate").into()
    }
}

/// Trusts every server, so that a test sees what the server does.
#[derive(Debug)]
pub struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
