//! Builds inputs from YAML as people write it.
#![allow(missing_docs, dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cluster;
pub mod policy;
pub mod restricted;
pub mod stored;

use jiff::Timestamp;
use securelink_crds::load::{self, Object, Source};
use securelink_crds::{LinkCut, LinkIdentity, LinkPolicy};
use securelink_plan::{
    Declared, Gathered, Mode, Standalone, Verdict, cut_orders, peer_names, policy_applies, snapshot, validate,
};
use securelink_relay_config::{LinkRef, Millis, Snapshot};

pub fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

pub fn link_ref() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "europol".to_owned() }
}

/// The link `liaison/europol` and what surrounds it in one file.
pub fn gather(text: &str) -> Gathered {
    let loaded = load::load(&[Source { name: "gathered.yaml", text }]);
    assert!(!loaded.incomplete, "{}", loaded.problems[0]);
    let (mut identity, mut policies, mut cuts) = (None, Vec::new(), Vec::<LinkCut>::new());
    let mut declared = Declared::Deleted;
    for object in loaded.objects {
        match object {
            Object::SecureLink(link) => declared = Declared::Valid(link),
            Object::LinkIdentity(found) => identity = Some(*found),
            Object::LinkPolicy(policy) => policies.push(*policy),
            Object::LinkCut(cut) => cuts.push(*cut),
        }
    }
    for salvaged in loaded.invalid {
        assert_eq!(salvaged.id.kind, "SecureLink", "only a link may be invalid in a case");
        declared = Declared::Invalid { value: salvaged.value, problems: loaded.problems.clone() };
    }
    assemble(declared, identity, policies, &cuts)
}

fn assemble(
    declared: Declared,
    identity: Option<LinkIdentity>,
    policies: Vec<LinkPolicy>,
    cuts: &[LinkCut],
) -> Gathered {
    let link = link_ref();
    let peers = peer_names(&declared, None);
    Gathered {
        cuts: cut_orders(cuts, &link, &peers),
        policies: policies.into_iter().filter(|policy| policy_applies(policy, &link.namespace, None)).collect(),
        link,
        declared,
        last_accepted: None,
        identity,
        identity_invalid: false,
        preferred: None,
        denied: None,
        mode: Mode::Standalone(Standalone::default()),
    }
}

/// The next edit after `verdict`, as a runtime gathers it.
pub fn after(verdict: &Verdict, mut next: Gathered) -> Gathered {
    next.last_accepted.clone_from(&verdict.accepted);
    next
}

pub fn snapshot_of(verdict: &Verdict, previous: Option<&Snapshot>) -> Option<Snapshot> {
    Some(snapshot(verdict.validated()?, verdict.orders(), previous, Millis::from(now())))
}

pub fn accept(text: &str) -> Verdict {
    let verdict = validate(&gather(text));
    assert!(verdict.is_accepted(), "{:?}", verdict.problems);
    verdict
}

pub const IDENTITY: &str = "
apiVersion: securelink.dev/v1alpha1
kind: LinkIdentity
metadata: {name: default, namespace: liaison}
spec:
  trustDomain: interpol.example
  issuer: {builtIn: {}}
  contacts: [{name: Duty desk, email: noc@interpol.example}]
";

/// A link that uses every field an edit can narrow.
pub const LINK: &str = "
apiVersion: securelink.dev/v1alpha1
kind: SecureLink
metadata: {name: europol, namespace: liaison}
spec:
  identityRef: {name: default}
  peer:
    trustDomain: europol.example
    fingerprints:
    - sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e
    - sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667
    endpoints: [{host: link.europol.example, port: 443}]
  agreement:
    reference: MoU-2011-10-11
    digest: sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667
    effectiveFrom: 2026-01-01T00:00:00Z
    expires: 2028-01-01T00:00:00Z
    next:
      reference: MoU-2027-12-01
      digest: sha256:88ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667
      effectiveFrom: 2027-12-01T00:00:00Z
      expires: 2030-01-01T00:00:00Z
  state: Active
  exports:
  - name: notices
    target: {host: notices.records.example, port: 8443}
    dataClass: strategic
    limits: {connections: 1000, bytesPerSecond: 100Mi}
  - name: diffusions
    target: {host: 10.1.2.3, port: 9443}
    dataClass: strategic
  imports:
  - name: siena
    port: 8443
    dataClass: operational
    clients:
    - podSelector: {matchLabels: {app: case-desk}}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: analysts}}
  - name: statistics
    port: 8444
    dataClass: strategic
    clients:
    - podSelector: {}
  expose: {type: LoadBalancer, hostname: link.interpol.example, port: 443}
  maxStaleness: 1h
";

pub fn file(link: &str) -> String {
    format!("{IDENTITY}---{link}")
}

/// [`LINK`] with pieces of its text replaced; each must occur.
pub fn edited(edits: &[(&str, &str)]) -> String {
    edits.iter().fold(LINK.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}
