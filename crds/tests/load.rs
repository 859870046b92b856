//! Reading files: nothing is lost to a mistake elsewhere, and no text makes the reader panic or swell.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use securelink_crds::load::{Object, Source, load};
use securelink_crds::{ByteRate, LinkDuration, LinkState, duration, quantity};

const CUT: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: LinkCut
metadata: {name: NAME}
spec: {trustDomain: europol.example, reason: drill}
";

const LINK: &str = "\
apiVersion: securelink.dev/v1alpha1
kind: SecureLink
metadata: {name: europol}
spec:
  identityRef: {name: default}
  peer:
    trustDomain: europol.example
    fingerprints: ['sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667']
    endpoints: [{host: link.europol.example, port: 443}]
";

fn cut(name: &str) -> String {
    CUT.replace("NAME", name)
}

fn one(text: &str) -> [Source<'_>; 1] {
    [Source { name: "a.yaml", text }]
}

#[test]
fn a_broken_document_hides_no_other_and_nothing_counts_as_deleted() {
    let text = format!("{}---\nspec: [\n---\n{}", cut("first"), cut("second"));
    let loaded = load(&one(&text));
    assert_eq!((loaded.objects.len(), loaded.problems.len(), loaded.incomplete), (2, 1, true));
    let problem = &loaded.problems[0];
    assert_eq!((problem.source.as_str(), problem.document), ("a.yaml", 2));
    assert!(matches!(problem.line, Some(6 | 7)), "{problem}");
}

#[test]
fn an_invalid_object_is_handed_back_as_it_was_written() {
    let text = format!("{LINK}  state: Suspended\n  maxStaleness: never\n");
    let loaded = load(&one(&text));
    assert!(loaded.objects.is_empty() && !loaded.incomplete);
    let salvaged = &loaded.invalid[0];
    assert_eq!(salvaged.id.to_string(), "SecureLink default/europol");
    assert_eq!(salvaged.value["spec"]["state"], "Suspended");
    assert_eq!(loaded.problems[0].object.as_ref(), Some(&salvaged.id));
}

#[test]
fn several_mistakes_in_one_object_are_all_said_at_once() {
    let text = LINK.replace("europol.example\n", "Europol\n").replace("port: 443", "port: 0") + "  colour: red\n";
    let fields: Vec<String> = load(&one(&text)).problems.into_iter().map(|problem| problem.field).collect();
    for field in ["spec.peer.trustDomain", "spec.peer.endpoints[0].port", "spec.colour"] {
        assert!(fields.iter().any(|said| said == field), "{field} is not among {fields:?}");
    }
}

#[test]
fn defaults_are_applied_as_an_api_server_does() {
    let Object::SecureLink(link) = load(&one(LINK)).objects.remove(0) else { panic!("a link") };
    assert_eq!(link.metadata.namespace.as_deref(), Some("default"));
    assert_eq!((link.spec.state, link.spec.relay.replicas), (LinkState::Active, 2));
    assert_eq!(link.spec.max_staleness.parse(), Ok(Duration::from_hours(1)));
    assert!(!link.spec.crypto.allow_classical_key_exchange);
}

#[test]
fn nulls_and_status_are_dropped_as_an_api_server_does() {
    let text = format!("{LINK}  agreement: null\n  expose: ~\nstatus: {{conditions: nonsense}}\n");
    let loaded = load(&one(&text));
    assert_eq!(loaded.problems, []);
    let Object::SecureLink(link) = &loaded.objects[0] else { panic!("a link") };
    assert!(link.spec.agreement.is_none() && link.status.is_none());
}

#[test]
fn documents_of_other_kinds_are_passed_over_with_a_note() {
    let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: x}}\n---\n{}", cut("a"));
    let loaded = load(&one(&text));
    assert_eq!((loaded.objects.len(), loaded.problems.len(), loaded.incomplete), (1, 0, false));
    assert!(loaded.notes[0].contains("a.yaml, document 1: `Service` of `v1`"), "{}", loaded.notes[0]);
}

#[test]
fn what_might_hide_an_object_of_ours_makes_the_set_incomplete() {
    for text in ["apiVersion: v1\nkind: List\nitems: []\n", "just text\n", "kind: SecureLink\n", "- a\n- b\n"] {
        assert!(load(&one(text)).incomplete, "{text}");
    }
    for text in ["", "---\n---\n", "# nothing\n", "\u{feff}---\n...\n"] {
        let loaded = load(&one(text));
        assert!(!loaded.incomplete && loaded.problems.is_empty(), "{text:?}");
    }
}

#[test]
fn an_object_declared_twice_is_taken_once_and_said() {
    let (first, second) = (cut("same"), cut("same"));
    let loaded = load(&[Source { name: "a.yaml", text: &first }, Source { name: "b.yaml", text: &second }]);
    assert_eq!((loaded.objects.len(), loaded.problems.len()), (1, 1));
    assert!(
        loaded.problems[0]
            .to_string()
            .starts_with("b.yaml, document 1: LinkCut default/same: metadata.name: is declared")
    );
}

#[test]
fn a_marker_inside_a_block_of_text_is_no_end_of_the_document() {
    let text = format!("{}  \n# ---\n--- # the next one\n{}\r\n---\r\n{}", cut("a"), cut("b"), cut("c"));
    assert_eq!(load(&one(&text)).objects.len(), 3);
}

#[test]
fn files_beyond_the_caps_are_refused_whole() {
    let many: String = (0..257).fold(String::new(), |mut text, n| {
        write!(text, "---\n{}", cut(&format!("c{n}"))).unwrap();
        text
    });
    let large = format!("{}# {}\n", cut("a"), "x".repeat(1 << 20));
    for text in [&many, &large] {
        let loaded = load(&one(text));
        assert!(loaded.objects.is_empty() && loaded.incomplete);
        assert_eq!(loaded.problems[0].remedy, "split it");
    }
}

#[test]
fn a_document_that_grows_by_its_aliases_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let alias = format!("*a{}", n - 1);
        writeln!(bomb, "a{n}: &a{n} [{}]", [alias.as_str(); 9].join(", ")).unwrap();
    }
    let deep = format!("a: {}{}", "[".repeat(500), "]".repeat(500));
    for text in [bomb, deep] {
        let loaded = load(&one(&text));
        assert!(loaded.incomplete && loaded.problems[0].message.contains("is not YAML"), "{}", loaded.problems[0]);
    }
}

#[test]
fn a_flood_of_mistakes_yields_a_page_and_no_more() {
    let mut text = format!("{LINK}  exports:\n");
    for n in 0..5_000 {
        writeln!(text, "  - {{bad{n}: 1}}").unwrap();
    }
    let problems = load(&one(&text)).problems;
    assert!((2..=64).contains(&problems.len()), "{}", problems.len());
    assert!(problems.iter().any(|problem| problem.message.contains("has 5000 entries, at most 64")));
}

#[test]
fn a_problem_names_the_line_of_the_file_its_field_stands_on() {
    let link = LINK.replace("europol.example\n", "Europol\n") + "  exports:\n  - name: _a\n    target: {port: 1}\n";
    let text = format!("# first\n{}---\n{link}", cut("a"));
    let problems = load(&one(&text)).problems;
    for (field, said) in [
        ("spec.peer.trustDomain", "    trustDomain: Europol"),
        ("spec.exports[0].name", "  - name: _a"),
        ("spec.exports[0].dataClass", "  - name: _a"),
    ] {
        let problem = problems.iter().find(|problem| problem.field == field).expect(field);
        let number = usize::try_from(problem.line.unwrap()).unwrap();
        assert_eq!(text.lines().nth(number - 1), Some(said), "{problem}");
    }
}

#[test]
fn a_problem_is_a_flat_object_for_programs() {
    let loaded = load(&one(&LINK.replace("port: 443", "port: 0")));
    let json = serde_json::to_value(&loaded.problems[0]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "source": "a.yaml",
            "document": 1,
            "line": 9,
            "object": {"kind": "SecureLink", "namespace": "default", "name": "europol"},
            "field": "spec.peer.endpoints[0].port",
            "message": "0 is out of bounds",
            "remedy": "write a number from 1 to 65535",
        })
    );
}

/// Every piece of a link by something that does not belong there.
fn mangled() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("'\u{202e}'".to_owned()),
        "[ -~]{0,12}",
        "\\PC{0,8}",
    ];
    let line = 0..LINK.lines().count();
    (line, value).prop_map(|(at, value)| {
        let swap = |(number, line): (usize, &str)| match line.split_once(':') {
            Some((key, _)) if number == at => format!("{key}: {value}\n"),
            _ => format!("{line}\n"),
        };
        LINK.lines().enumerate().map(swap).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|\n|---\n|: |- |\\{|\\[|&a |\\*a ){0,200}") {
        let loaded = load(&one(&text));
        prop_assert!(loaded.objects.is_empty());
    }

    #[test]
    fn no_mangled_link_makes_the_reader_panic_or_forge_a_line(text in mangled()) {
        for problem in load(&one(&text)).problems {
            prop_assert!(!problem.to_string().chars().any(char::is_control), "{problem:?}");
            prop_assert!(!problem.message.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
        }
    }

    #[test]
    fn a_duration_survives_being_written_and_read(seconds in duration::MIN.as_secs()..=duration::MAX.as_secs()) {
        let duration = Duration::from_secs(seconds);
        prop_assert_eq!(LinkDuration::from(duration).parse(), Ok(duration));
    }

    #[test]
    fn a_byte_rate_survives_being_written_and_read(bytes in quantity::MIN..=quantity::MAX, shift in 0..30_u32) {
        let bytes = (bytes >> shift << shift).max(quantity::MIN);
        prop_assert_eq!(ByteRate::from(bytes).parse(), Ok(bytes));
    }

    #[test]
    fn the_schema_and_the_parser_judge_a_duration_alike(text in "[0-9hms]{2,8}|[0-9]{1,5}[hms]([0-9]{1,3}[ms])?|\\PC{0,6}") {
        let yaml = serde_saphyr::to_string(&serde_json::json!({"maxStaleness": text})).unwrap();
        let loaded = load(&one(&format!("{LINK}  {yaml}")));
        prop_assert_eq!(loaded.objects.len() == 1, LinkDuration(text.clone()).parse().is_ok(), "{:?}", loaded.problems);
    }

    #[test]
    fn the_schema_and_the_parser_judge_a_byte_rate_alike(text in "[0-9]{1,6}([kMGT]i?)?|[0-9]{12,15}|[-+.0-9eEmu]{1,5}|\\PC{0,6}") {
        let limits = serde_json::json!({"exports": [{
            "name": "a", "dataClass": "strategic", "target": {"service": "a", "port": 1}, "limits": {"bytesPerSecond": text},
        }]});
        let loaded = load(&one(&LINK.replace("spec:\n", &format!("spec:\n  exports: {}\n", limits["exports"]))));
        prop_assert_eq!(loaded.objects.len() == 1, ByteRate::Text(text.clone()).parse().is_ok(), "{:?}", loaded.problems);
    }
}
