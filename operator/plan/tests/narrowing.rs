//! An invalid edit that narrows: the narrowing takes effect, everything else stays as it was accepted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use securelink_plan::{Base, ValidatedLink, Verdict, validate};
use securelink_relay_config::{LinkState, Millis};

use support::{LINK, accept, after, edited, file, gather};

/// A mistake that makes any edit invalid and narrows nothing itself.
const TYPO: (&str, &str) = ("maxStaleness: 1h", "maxStalenes: 1h");

fn judge(edits: &[(&str, &str)]) -> (ValidatedLink, Verdict) {
    let before = accept(&file(LINK));
    let verdict = validate(&after(&before, gather(&file(&edited(edits)))));
    let Base::LastAccepted(link) = &verdict.base else { panic!("{:?}", verdict.base) };
    assert!(!verdict.is_accepted());
    (link.as_ref().clone(), verdict)
}

fn accepted() -> ValidatedLink {
    accept(&file(LINK)).validated().unwrap().clone()
}

fn millis(text: &str) -> Millis {
    Millis::from(text.parse::<jiff::Timestamp>().unwrap())
}

/// The edits, and what they take away from the accepted link. Whatever is not named must stay.
type Row = (&'static str, Vec<(&'static str, &'static str)>, fn(&mut ValidatedLink));

const SECOND_PIN: &str = "    - sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667\n";
const DIFFUSIONS: &str = "  - name: diffusions
    target: {host: 10.1.2.3, port: 9443}
    dataClass: strategic
";
const STATISTICS: &str = "  - name: statistics
    port: 8444
    dataClass: strategic
    clients:
    - podSelector: {}
";
const CASE_DESK: &str = "    - podSelector: {matchLabels: {app: case-desk}}\n";

#[allow(clippy::too_many_lines)]
fn rows() -> Vec<Row> {
    vec![
        ("a typo alone narrows nothing", vec![TYPO], |_| {}),
        ("suspended beside a typo", vec![TYPO, ("state: Active", "state: Suspended")], |link| {
            link.state = LinkState::Suspended;
        }),
        ("a misspelled state narrows nothing", vec![("state: Active", "state: Suspendd")], |_| {}),
        (
            "an earlier end beside a bad fingerprint",
            vec![("expires: 2028-01-01", "expires: 2026-12-01"), ("sha256:9f2c", "sha256:XX2c")],
            |link| link.agreements.current.as_mut().unwrap().term.until = Some(millis("2026-12-01T00:00:00Z")),
        ),
        ("a later end narrows nothing", vec![TYPO, ("expires: 2028-01-01", "expires: 2029-01-01")], |_| {}),
        ("an end that is no time narrows nothing", vec![("expires: 2028-01-01T00:00:00Z", "expires: soon")], |_| {}),
        (
            "an earlier end before the beginning ends the agreement",
            vec![("expires: 2028-01-01", "expires: 2025-01-01")],
            |link| link.agreements.current.as_mut().unwrap().term.until = Some(millis("2025-01-01T00:00:00Z")),
        ),
        ("an earlier end of the renewal", vec![TYPO, ("expires: 2030-01-01", "expires: 2029-01-01")], |link| {
            link.agreements.next.as_mut().unwrap().term.until = Some(millis("2029-01-01T00:00:00Z"));
        }),
        (
            "an agreement moved up from next keeps its own end",
            vec![
                TYPO,
                ("77ab3c4b", "88ab3c4b"),
                ("expires: 2028-01-01", "expires: 2029-06-01"),
                (
                    "    next:\n      reference: MoU-2027-12-01\n      digest: sha256:88ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667\n      effectiveFrom: 2027-12-01T00:00:00Z\n      expires: 2030-01-01T00:00:00Z\n",
                    "",
                ),
            ],
            |link| link.agreements.next.as_mut().unwrap().term.until = Some(millis("2029-06-01T00:00:00Z")),
        ),
        ("a removed pin beside a typo", vec![TYPO, (SECOND_PIN, "")], |link| {
            link.peer.fingerprints.remove(1);
        }),
        ("a mistyped pin is not a removed one", vec![("sha256:9f2c3c4b", "sha256:9f2c3c4")], |_| {}),
        (
            "an emptied list of pins is a mistake",
            vec![
                (SECOND_PIN, ""),
                (
                    "    fingerprints:\n    - sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e",
                    "    fingerprints: []",
                ),
            ],
            |_| {},
        ),
        (
            "pins of another organization say nothing",
            vec![TYPO, ("trustDomain: europol.example", "trustDomain: eurojust.example"), (SECOND_PIN, "")],
            |_| {},
        ),
        ("a removed export beside a bad port", vec![(DIFFUSIONS, ""), ("port: 8443}", "port: 84430}")], |link| {
            link.exports.retain(|export| export.name == "notices");
        }),
        ("a moved target is a removed export", vec![TYPO, ("10.1.2.3", "10.1.2.4")], |link| {
            link.exports.retain(|export| export.name == "notices");
        }),
        ("a target with a mistake is not a moved one", vec![("10.1.2.3", "169.254.169.254")], |_| {}),
        ("a renamed export is removed", vec![TYPO, ("name: diffusions", "name: diffusion")], |link| {
            link.exports.retain(|export| export.name == "notices");
        }),
        ("a nameless export may be any of them", vec![("  - name: diffusions\n    target", "  - target")], |_| {}),
        (
            "all exports removed beside a bad import",
            vec![
                (
                    "  exports:\n  - name: notices\n    target: {host: notices.records.example, port: 8443}\n    dataClass: strategic\n    limits: {connections: 1000, bytesPerSecond: 100Mi}\n",
                    "",
                ),
                (DIFFUSIONS, ""),
                ("port: 8444", "port: none"),
            ],
            |link| link.exports.clear(),
        ),
        ("a misspelled list is not an empty one", vec![("exports:", "export:")], |_| {}),
        ("a removed import beside a typo", vec![TYPO, (STATISTICS, "")], |link| {
            link.imports.retain(|import| import.name == "siena");
        }),
        ("a moved port is a removed import", vec![TYPO, ("port: 8444", "port: 8445")], |link| {
            link.imports.retain(|import| import.name == "siena");
        }),
        ("two imports on one port keep what was accepted", vec![("port: 8444", "port: 8443")], |_| {}),
        ("a removed client beside a typo", vec![TYPO, (CASE_DESK, "")], |link| {
            link.imports[0].declared.clients.remove(0);
        }),
        (
            "a client with a mistake is not a removed one",
            vec![("podSelector: {matchLabels", "podSelectr: {matchLabels")],
            |_| {},
        ),
        (
            "an import whose only client moved has none left",
            vec![TYPO, ("podSelector: {}", "podSelector: {matchLabels: {app: x}}")],
            |link| {
                link.imports.retain(|import| import.name == "siena");
            },
        ),
        (
            "everything at once",
            vec![TYPO, ("state: Active", "state: Suspended"), (SECOND_PIN, ""), (DIFFUSIONS, ""), (STATISTICS, "")],
            |link| {
                link.state = LinkState::Suspended;
                link.peer.fingerprints.remove(1);
                link.exports.retain(|export| export.name == "notices");
                link.imports.retain(|import| import.name == "siena");
            },
        ),
        (
            "what widens waits",
            vec![
                TYPO,
                ("connections: 1000", "connections: 2000"),
                ("dataClass: operational", "dataClass: strategic"),
                ("link.europol.example", "other.example"),
            ],
            |_| {},
        ),
    ]
}

#[test]
fn an_invalid_edit_narrows_and_does_nothing_else() {
    for (name, edits, narrow) in rows() {
        let mut expected = accepted();
        narrow(&mut expected);
        let (link, verdict) = judge(&edits);
        assert_eq!(link, expected, "{name}: {:?}", verdict.problems);
    }
}

#[test]
fn what_was_narrowed_stays_so_through_further_invalid_edits() {
    let before = accept(&file(LINK));
    let suspended = edited(&[TYPO, ("state: Active", "state: Suspended"), (DIFFUSIONS, "")]);
    let first = validate(&after(&before, gather(&file(&suspended))));
    let second = validate(&after(&first, gather(&file(&edited(&[TYPO])))));
    let link = second.validated().unwrap();
    assert_eq!((link.state, link.exports.len()), (LinkState::Suspended, 1));
    let mended = validate(&after(&second, gather(&file(LINK))));
    assert_eq!(mended.validated().unwrap(), &accepted());
    assert!(matches!(mended.base, Base::New(_)) && mended.accepted.unwrap().narrowing.exports.is_empty());
}

#[test]
fn narrowing_survives_a_restart() {
    let before = accept(&file(LINK));
    let edit = edited(&[TYPO, (SECOND_PIN, ""), (CASE_DESK, ""), ("expires: 2028-01-01", "expires: 2026-12-01")]);
    let verdict = validate(&after(&before, gather(&file(&edit))));
    let stored = verdict.accepted.clone().unwrap();
    let read = securelink_plan::Accepted::from_bytes(&stored.to_bytes(), &support::link_ref()).unwrap();
    assert_eq!(read, stored);
    let mut again = gather(&file(&edited(&[TYPO])));
    again.last_accepted = Some(read);
    assert_eq!(validate(&again).validated(), verdict.validated());
}

#[test]
fn a_valid_edit_that_cannot_run_yet_narrows_too() {
    let before = accept(&file(LINK));
    let mut gathered = after(&before, gather(&file(&edited(&[("state: Active", "state: Suspended")]))));
    gathered.identity = None;
    let verdict = validate(&gathered);
    assert!(matches!(verdict.base, Base::LastAccepted(_)));
    assert_eq!(verdict.validated().unwrap().state, LinkState::Suspended);
}
