//! Bad YAML, row by row: the field that is named, what is said to be wrong, and the remedy a person sees.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

use securelink_crds::load::{Source, load, load_over};
use serde_json::Value;

const PIN: &str = "sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667";

const LINK: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: SecureLink
metadata:
  name: europol
  namespace: liaison
spec:
  identityRef: {name: default}
  peer:
    trustDomain: europol.example
    fingerprints: [PIN]
    endpoints: [{host: link.europol.example, port: 443}]
    #peer
  agreement:
    reference: MoU
    digest: PIN
    effectiveFrom: 2026-01-01T00:00:00Z
    expires: 2028-01-01T00:00:00Z
  maxStaleness: 1h
  exports:
  - name: notices
    target: {service: notices, port: 8443}
    dataClass: strategic
    limits: {bytesPerSecond: 100Mi, connections: 10}
  imports:
  - name: siena
    port: 8443
    dataClass: operational
    clients: [{podSelector: {matchLabels: {app: desk}}}]
  expose: {type: LoadBalancer, hostname: link.interpol.example}
";

const IDENTITY: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: LinkIdentity
metadata: {name: default, namespace: liaison}
spec:
  trustDomain: interpol.example
  issuer: {builtIn: {}}
  contacts: [{name: Duty desk, email: noc@interpol.example}]
";

const CUT: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: LinkCut
metadata: {name: incident, namespace: liaison}
spec:
  trustDomain: europol.example
  reason: incident 114
";

const POLICY: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: LinkPolicy
metadata: {name: liaison}
spec:
  allowedTrustDomains: {own: [interpol.example], peer: ['*.example']}
  maxDataClass: operational
  limits: {connections: 10}
";

/// What is replaced in which document, by what; the field, the words and the remedy that must be said.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

fn assert_row(row: &Row<'_>) {
    let (base, from, to, field, message, remedy) = row;
    assert!(base.contains(from), "the row replaces {from:?}, which is not there");
    let text = base.replacen(from, to, 1).replace("PIN", PIN);
    let loaded = load(&[Source { name: "a.yaml", text: &text }]);
    let said: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let hit = loaded
        .problems
        .iter()
        .any(|problem| problem.field == *field && problem.message.contains(message) && problem.remedy.contains(remedy));
    assert!(hit, "{to:?} at {field}: expected {message:?} and {remedy:?}, got {said:#?}");
    assert!(loaded.objects.is_empty(), "{to:?} is an object all the same");
    for line in said {
        assert!(line.len() < 1000 && !line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn the_documents_the_rows_break_are_sound() {
    for base in [LINK, IDENTITY, CUT, POLICY] {
        let loaded = load(&[Source { name: "a.yaml", text: &base.replace("PIN", PIN) }]);
        assert_eq!(loaded.problems, [], "{base}");
        assert_eq!(loaded.objects.len(), 1);
    }
}

#[test]
fn names_that_look_right_or_hide_something_are_refused() {
    let long = format!("name: {}", "a".repeat(64));
    let longer = format!("name: {}", "a".repeat(253));
    let rows: &[Row<'_>] = &[
        (LINK, "name: europol", "name: Europol", "metadata.name", "`Europol` is not a name", "a-z, 0-9"),
        (
            LINK,
            "name: europol",
            "name: 9europol",
            "",
            "the link's name becomes the name of Services",
            "beginning with a letter",
        ),
        (LINK, "name: europol", &longer, "", "the link's name becomes", "at most 40 characters"),
        (LINK, "name: europol", "name: ../etc", "metadata.name", "`../etc` is not a name", "a-z"),
        (
            LINK,
            "name: europol",
            "name: '{{ .Release.Name }}'",
            "metadata.name",
            "`{{ .Release.Name }}` is not a name",
            "a-z",
        ),
        (LINK, "name: europol", "name: \"a\\nb\"", "metadata.name", "`a\\nb` is not a name", "a-z"),
        (LINK, "name: europol", "name: \"e\\u202Europol\"", "metadata.name", "\\u{202e}", "a-z"),
        (
            LINK,
            "namespace: liaison",
            "namespace: kube.system",
            "metadata.namespace",
            "`kube.system` is not a name",
            "at most 63",
        ),
        (
            LINK,
            "trustDomain: europol.example",
            "trustDomain: \u{435}uropol.example",
            "spec.peer.trustDomain",
            "`\\u{435}uropol.example` is not a trust domain",
            "only a-z",
        ),
        (
            LINK,
            "trustDomain: europol.example",
            "trustDomain: Europol.Example",
            "spec.peer.trustDomain",
            "is not a trust domain",
            "lower case",
        ),
        (
            LINK,
            "trustDomain: europol.example",
            "trustDomain: spiffe://europol.example",
            "spec.peer.trustDomain",
            "is not a trust domain",
            "without `spiffe://`",
        ),
        (
            LINK,
            "trustDomain: europol.example",
            "trustDomain: europol..example",
            "spec.peer.trustDomain",
            "is not a trust domain",
            "bare DNS name",
        ),
        (LINK, "trustDomain: europol.example", "trustDomain: ''", "spec.peer.trustDomain", "is empty", "at least 1"),
        (LINK, "- name: notices", "- name: _probe", "spec.exports[0].name", "`_probe` is not a DNS label", "reserved"),
        (LINK, "- name: notices", "- name: Notices", "spec.exports[0].name", "is not a DNS label", "a-z, 0-9"),
        (LINK, "- name: notices", &format!("- {long}"), "spec.exports[0].name", "has 64 characters", "shorten"),
        (LINK, "- name: siena", "- name: _greet", "spec.imports[0].name", "`_greet` is not a DNS label", "reserved"),
        (LINK, "- name: siena", &format!("- name: {}", "s".repeat(60)), "", "exceeds 63 characters", "set serviceName"),
        (
            LINK,
            "service: notices",
            "service: records/notices",
            "spec.exports[0].target.service",
            "is not a Service name",
            "a-z",
        ),
        (
            LINK,
            "{name: default}",
            "{name: other/default}",
            "spec.identityRef.name",
            "is not the name of a Kubernetes object",
            "same namespace",
        ),
        (
            LINK,
            "reference: MoU",
            "reference: \"a\\nforged line\"",
            "spec.agreement.reference",
            "holds a line break",
            "one line",
        ),
        (LINK, "reference: MoU", "reference: \"\\u202Etxt\"", "spec.agreement.reference", "invisible", "plain text"),
        (IDENTITY, "interpol.example", "'*.example'", "spec.trustDomain", "is not a trust domain", "bare DNS name"),
        (
            IDENTITY,
            "noc@interpol.example",
            "Duty <noc@interpol.example>",
            "spec.contacts[0].email",
            "is not a mail address",
            "without a display name",
        ),
        (
            POLICY,
            "'*.example'",
            "'*'",
            "spec.allowedTrustDomains.peer[0]",
            "is not a trust domain or",
            "*.example for everything",
        ),
        (CUT, "reason: incident 114", "reason: ''", "spec.reason", "is empty", "at least 1"),
    ];
    rows.iter().for_each(assert_row);
}

#[test]
fn fingerprints_and_digests_are_taken_whole_or_not_at_all() {
    let upper = PIN.to_uppercase().replace("SHA256", "sha256");
    let cut = &PIN[..PIN.len() - 1];
    let five =
        format!("[{}]", (1..=5).map(|n| format!("sha256:{}", n.to_string().repeat(64))).collect::<Vec<_>>().join(", "));
    let rows: &[Row<'_>] = &[
        (LINK, "[PIN]", &format!("[{upper}]"), "spec.peer.fingerprints[0]", "is not a fingerprint", "lower case"),
        (LINK, "[PIN]", &format!("[{cut}]"), "spec.peer.fingerprints[0]", "is not a fingerprint", "64 digits"),
        (
            LINK,
            "[PIN]",
            &format!("['{}']", &PIN[7..]),
            "spec.peer.fingerprints[0]",
            "is not a fingerprint",
            "`sha256:`",
        ),
        (LINK, "[PIN]", &five, "spec.peer.fingerprints", "has 5 entries, at most 4", "shorten"),
        (LINK, "[PIN]", "[]", "spec.peer.fingerprints", "is empty", "at least 1"),
        (LINK, "[PIN]", "[PIN, PIN]", "spec.peer.fingerprints[1]", "is there twice", "remove"),
        (LINK, "fingerprints: [PIN]", "x: 1", "spec.peer.fingerprints", "is required", "sha256:"),
        (
            LINK,
            "fingerprints: [PIN]",
            "fingerprint: PIN",
            "spec.peer.fingerprint",
            "is not a field",
            "did you mean `fingerprints`?",
        ),
        (
            LINK,
            "fingerprints: [PIN]",
            "fingerprints: PIN",
            "spec.peer.fingerprints",
            "is text where a list is meant",
            "`- `",
        ),
        (LINK, "digest: PIN", "digest: md5:abc", "spec.agreement.digest", "is not a digest", "securelink digest"),
        (LINK, "digest: PIN", "digest: 12345", "spec.agreement.digest", "is a number where text is meant", "in quotes"),
        (
            IDENTITY,
            "issuer:",
            "expectedFingerprint: sha256:abc\n  issuer:",
            "spec.expectedFingerprint",
            "is not a fingerprint",
            "64 digits",
        ),
    ];
    rows.iter().for_each(assert_row);
}

#[test]
fn durations_quantities_times_and_numbers_have_bounds() {
    let duration = |text| format!("maxStaleness: {text}");
    for (text, message) in [
        ("0s", "is out of bounds"),
        ("-1h", "is not a duration"),
        ("4s", "is out of bounds"),
        ("26281h", "is out of bounds"),
        ("99999999999999999h", "is out of bounds"),
        ("1d", "is not a duration"),
        ("'1 h'", "is not a duration"),
        ("1m1h", "is not a duration"),
        ("1.5h", "is not a duration"),
    ] {
        assert_row(&(LINK, "maxStaleness: 1h", &duration(text), "spec.maxStaleness", message, "write"));
    }
    for (text, message) in [
        ("0", "is out of bounds"),
        ("'-5Mi'", "is not a byte rate"),
        ("-5", "is not a byte rate"),
        ("999", "is out of bounds"),
        ("2Ti", "is out of bounds"),
        ("999999999999Ti", "is out of bounds"),
        ("1.5Gi", "is not a byte rate"),
        ("100MB", "is not a byte rate"),
        ("fast", "is not a byte rate"),
        ("1e6", "is"),
    ] {
        assert_row(&(LINK, "100Mi", text, "spec.exports[0].limits.bytesPerSecond", message, ""));
    }
    let rows: &[Row<'_>] = &[
        (LINK, "port: 443}", "port: 0}", "spec.peer.endpoints[0].port", "0 is out of bounds", "from 1 to 65535"),
        (
            LINK,
            "port: 443}",
            "port: 65536}",
            "spec.peer.endpoints[0].port",
            "65536 is out of bounds",
            "from 1 to 65535",
        ),
        (LINK, "port: 443}", "port: 99999999999999999999}", "spec.peer.endpoints[0].port", "", ""),
        (
            LINK,
            "port: 443}",
            "port: '443'}",
            "spec.peer.endpoints[0].port",
            "is text where a whole number is meant",
            "without quotes",
        ),
        (LINK, "port: 443}", "port: https}", "spec.peer.endpoints[0].port", "is text", "number"),
        (
            LINK,
            "connections: 10}",
            "connections: -1}",
            "spec.exports[0].limits.connections",
            "-1 is out of bounds",
            "from 1 to 1000000",
        ),
        (
            LINK,
            "connections: 10}",
            "connections: 1.5}",
            "spec.exports[0].limits.connections",
            "a number where a whole number",
            "",
        ),
        (
            LINK,
            "2028-01-01T00:00:00Z",
            "2025-01-01T00:00:00Z",
            "spec.agreement.expires",
            "expires before it begins",
            "later than effectiveFrom",
        ),
        (
            LINK,
            "2028-01-01T00:00:00Z",
            "2028-01-01",
            "spec.agreement.expires",
            "`2028-01-01` is not a time",
            "RFC 3339",
        ),
        (LINK, "2028-01-01T00:00:00Z", "tomorrow", "spec.agreement.expires", "`tomorrow` is not a time", "RFC 3339"),
        (LINK, "2028-01-01T00:00:00Z", "2028-02-30T00:00:00Z", "spec.agreement.expires", "is not a time", "RFC 3339"),
        (
            LINK,
            "expires: 2028-01-01T00:00:00Z",
            "x: 1",
            "spec.agreement.expires",
            "is required: When it ends",
            "such as",
        ),
        (POLICY, "connections: 10", "connections: 0", "spec.limits.connections", "0 is out of bounds", "from 1"),
    ];
    rows.iter().for_each(assert_row);
}

#[test]
fn hosts_proxies_and_networks_are_what_they_say() {
    let rows: &[Row<'_>] = &[
        (
            LINK,
            "host: link.europol.example",
            "host: https://link.europol.example",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "without scheme",
        ),
        (
            LINK,
            "host: link.europol.example",
            "host: link.europol.example:443",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "port",
        ),
        (
            LINK,
            "host: link.europol.example",
            "host: '[2001:db8::1]'",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "brackets",
        ),
        (
            LINK,
            "host: link.europol.example",
            "host: 169.254.169.254",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "link-local",
        ),
        (
            LINK,
            "host: link.europol.example",
            "host: fe80::1",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "link-local",
        ),
        (
            LINK,
            "host: link.europol.example",
            "host: link.europol.example.",
            "spec.peer.endpoints[0].host",
            "is not a host",
            "DNS name",
        ),
        (
            LINK,
            "#peer",
            "proxy: http://user:secret@proxy.example:3128",
            "spec.peer.proxy",
            "is not the URL of a proxy",
            "without user name, password",
        ),
        (LINK, "#peer", "proxy: https://proxy.example", "spec.peer.proxy", "is not the URL of a proxy", "https"),
        (LINK, "#peer", "egressCIDRs: [10.0.0.1]", "spec.peer.egressCIDRs[0]", "is not a network", "prefix length"),
        (LINK, "#peer", "egressCIDRs: [10.0.0.0/33]", "spec.peer.egressCIDRs[0]", "is not a network", "192.0.2.0/24"),
        (
            LINK,
            "#peer",
            "protocol: connect",
            "spec.peer.protocol",
            "`connect` is not one of",
            "did you mean `Connect`?",
        ),
    ];
    rows.iter().for_each(assert_row);
}

#[test]
fn fields_that_exclude_or_need_each_other_say_which() {
    let lb = "{type: LoadBalancer, hostname: link.interpol.example}";
    let rows: &[Row<'_>] = &[
        (
            IDENTITY,
            "{builtIn: {}}",
            "{builtIn: {}, secret: {name: ca}}",
            "spec.issuer",
            "has one issuer",
            "exactly one",
        ),
        (IDENTITY, "{builtIn: {}}", "{}", "spec.issuer", "has one issuer", "builtIn, secret and certManager"),
        (
            LINK,
            "{service: notices, port: 8443}",
            "{service: notices, host: 10.0.0.1, port: 8443}",
            "spec.exports[0].target",
            "a Service or a host",
            "exactly one",
        ),
        (
            LINK,
            "{service: notices, port: 8443}",
            "{port: 8443}",
            "spec.exports[0].target",
            "a Service or a host",
            "exactly one",
        ),
        (
            LINK,
            "{service: notices, port: 8443}",
            "{host: 10.0.0.1, namespace: x, port: 8443}",
            "spec.exports[0].target",
            "a host has no namespace",
            "remove namespace",
        ),
        (
            CUT,
            "trustDomain: europol.example",
            "trustDomain: europol.example\n  linkRef: {name: europol}",
            "spec",
            "one link or one organization",
            "exactly one",
        ),
        (CUT, "trustDomain: europol.example\n", "\n", "spec", "one link or one organization", "exactly one"),
        (LINK, "#peer", "protocol: Connect", "spec", "cannot be dialed", "remove peer.endpoints"),
        (LINK, "#peer", "protocol: Connect", "spec", "nothing to import", "remove imports"),
        (LINK, lb, "{type: LoadBalancer, nodePort: 30443}", "spec.expose", "only for type NodePort", "remove nodePort"),
        (
            LINK,
            lb,
            "{type: ClusterIP, externalTrafficPolicy: Local}",
            "spec.expose",
            "no external traffic",
            "remove externalTrafficPolicy",
        ),
        (
            LINK,
            lb,
            "{type: ClusterIP, allowedSources: [192.0.2.0/24]}",
            "spec.expose",
            "callers' own addresses",
            "remove allowedSources",
        ),
        (
            LINK,
            lb,
            "{type: LoadBalancer, allowedSources: [192.0.2.0/24]}",
            "spec.expose",
            "callers' own addresses",
            "externalTrafficPolicy: Local",
        ),
        (LINK, lb, "{type: NodePort, loadBalancerClass: x}", "spec.expose", "only for type LoadBalancer", "remove it"),
        (
            LINK,
            "[{podSelector: {matchLabels: {app: desk}}}]",
            "[]",
            "spec.imports[0].clients",
            "is empty",
            "at least 1",
        ),
        (
            LINK,
            "[{podSelector: {matchLabels: {app: desk}}}]",
            "[{}]",
            "spec.imports[0].clients[0]",
            "names no client",
            "podSelector",
        ),
        (
            LINK,
            "matchLabels: {app: desk}",
            "matchExpressions: [{key: app, operator: In}]",
            "spec.imports[0].clients[0].podSelector.matchExpressions[0]",
            "lacks those it needs",
            "at least one value",
        ),
        (
            LINK,
            "matchLabels: {app: desk}",
            "matchExpressions: [{key: app, operator: Exists, values: [desk]}]",
            "spec.imports[0].clients[0].podSelector.matchExpressions[0]",
            "does not take",
            "Exists and DoesNotExist none",
        ),
        (
            LINK,
            "{podSelector: {matchLabels: {app: desk}}}",
            "{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, 198.51.100.0/25]}}",
            "spec.imports[0].clients[0].ipBlock",
            "not a part of cidr",
            "parts of cidr only",
        ),
        (
            LINK,
            "{podSelector: {matchLabels: {app: desk}}}",
            "{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/24]}}",
            "spec.imports[0].clients[0].ipBlock",
            "not a part of cidr",
            "smaller than all of it",
        ),
        (
            LINK,
            "- name: siena",
            "- {name: siena, port: 1, dataClass: strategic, clients: [{podSelector: {}}]}\n  - name: siena",
            "spec.imports[1].name",
            "`siena` is there twice",
            "rename",
        ),
        (
            LINK,
            "- name: notices",
            "- {name: notices, target: {host: h, port: 1}, dataClass: strategic}\n  - name: notices",
            "spec.exports[1].name",
            "`notices` is there twice",
            "rename",
        ),
        (
            POLICY,
            "own: [interpol.example]",
            "own: []",
            "spec.allowedTrustDomains",
            "would forbid every link",
            "remove the list",
        ),
        (
            LINK,
            "dataClass: strategic",
            "dataClass: secret",
            "spec.exports[0].dataClass",
            "`secret` is not one of strategic, operational",
            "use one of",
        ),
        (
            LINK,
            "    endpoints: [{host: link.europol.example, port: 443}]\n",
            "    proxy: http://p.example:1\n",
            "spec.peer",
            "only used for dialing out",
            "add peer.endpoints",
        ),
    ];
    rows.iter().for_each(assert_row);
    let neither = LINK.replace("    endpoints: [{host: link.europol.example, port: 443}]\n", "");
    let row = "  expose: {type: LoadBalancer, hostname: link.interpol.example}\n";
    assert_row(&(&neither, row, "", "spec", "neither side can dial", "set expose"));
    let dialed = neither.replace("#peer", "protocol: Connect");
    assert_row(&(&dialed, row, "", "spec", "always dials us", "set expose with a hostname"));
}

#[test]
fn unknown_words_are_refused_with_the_nearest_known_one() {
    let rows: &[Row<'_>] = &[
        (LINK, "identityRef:", "identityref:", "spec.identityref", "is not a field", "did you mean `identityRef`?"),
        (LINK, "maxStaleness:", "maxStalenes:", "spec.maxStalenes", "is not a field", "did you mean `maxStaleness`?"),
        (LINK, "#peer", "bearerToken: abc", "spec.peer.bearerToken", "is not a field", "use one of"),
        (LINK, "#peer", "namespace: other", "spec.peer.namespace", "is not a field", "remove it"),
        (LINK, "spec:", "sepc: {}\nspec:", "sepc", "is not a field", "did you mean `spec`?"),
        (
            LINK,
            "namespace: liaison",
            "namespac: liaison",
            "metadata.namespac",
            "is not a field",
            "did you mean `namespace`?",
        ),
        (
            LINK,
            "kind: SecureLink",
            "kind: Securelink",
            "kind",
            "`Securelink` is not a kind",
            "did you mean `SecureLink`?",
        ),
        (LINK, "v1alpha1", "v1", "apiVersion", "is not a version", "securelink.dev/v1alpha1"),
        (
            LINK,
            "securelink.dev/v1alpha1",
            "securelink.io/v1alpha1",
            "apiVersion",
            "is not in",
            "securelink.dev/v1alpha1",
        ),
        (LINK, "kind: SecureLink\n", "", "apiVersion", "kind is missing", "begin it with"),
        (LINK, "  name: europol\n", "", "metadata.name", "has no name", "set metadata.name"),
        (
            LINK,
            "  maxStaleness: 1h",
            "  state: suspended",
            "spec.state",
            "`suspended` is not one of Active, Suspended",
            "did you mean `Suspended`?",
        ),
        (LINK, "peer:\n", "peer:\n    trustDomain: x.example\n", "", "is not YAML", "mend"),
        (LINK, "spec:", "spec: [", "", "is not YAML", "mend"),
    ];
    rows.iter().for_each(assert_row);
}

#[test]
fn what_cannot_be_changed_says_what_to_do_instead() {
    let rows = [
        (LINK, "{name: default}", "{name: second}", "spec.identityRef", "cannot be changed", "create a new SecureLink"),
        (
            LINK,
            "trustDomain: europol.example",
            "trustDomain: other.example",
            "spec.peer.trustDomain",
            "cannot be changed",
            "create a new",
        ),
        (
            IDENTITY,
            "interpol.example",
            "other.example",
            "spec.trustDomain",
            "cannot be changed",
            "create a new LinkIdentity",
        ),
        (CUT, "incident 114", "incident 115", "", "cannot be changed", "create another"),
    ];
    for (base, from, to, field, message, remedy) in rows {
        let base = base.replace("PIN", PIN);
        let old: Value = serde_saphyr::from_str(&base).unwrap();
        let text = base.replacen(from, to, 1);
        let source = [Source { name: "a.yaml", text: &text }];
        assert_eq!(load(&source).problems, [], "a new object may have any {field}");
        let loaded = load_over(&source, |_| Some(old.clone()));
        let problem = &loaded.problems[0];
        assert_eq!((problem.field.as_str(), loaded.problems.len()), (field, 1), "{problem}");
        assert!(problem.message.contains(message) && problem.remedy.contains(remedy), "{problem}");
        let same = load_over(&[Source { name: "a.yaml", text: &base }], |_| Some(old.clone()));
        assert_eq!(same.problems, [], "the same again is no change");
    }
}
