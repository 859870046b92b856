//! The parser of CONNECT requests, as the pure function it is: one way to write each thing, whatever way it comes in, and
//! nothing that another reader could understand differently.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::collection::vec;
use proptest::prelude::*;
use securelink_relay::connect::{BadRequest, MAX_HEAD, Request, read};
use securelink_relay_config::Digest;

const DIGEST: &str = "sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667";

fn good() -> String {
    format!(
        "CONNECT notices:443 HTTP/1.1\r\nHost: notices:443\r\nUser-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\nSecurelink-Agreement: {DIGEST}\r\n\r\n"
    )
}

/// `good` with one thing written otherwise.
fn but(old: &str, new: &str) -> String {
    let good = good();
    assert!(good.contains(old), "{old}");
    good.replacen(old, new, 1)
}

#[test]
fn what_curl_and_envoy_send_is_understood() {
    let wanted = Request { export: "notices".to_owned(), agreement: DIGEST.parse().ok() };
    let envoy = format!("CONNECT notices:443 HTTP/1.1\r\nhost: notices:443\r\nsecurelink-agreement: {DIGEST}\r\n\r\n");
    let bare = format!("CONNECT notices HTTP/1.1\r\nHost: notices\r\nSECURELINK-AGREEMENT:\t{DIGEST} \r\n\r\n");
    for head in [good(), envoy, bare] {
        assert_eq!(read(head.as_bytes()), Ok(Some(wanted.clone())), "{head}");
    }
    let unnamed = read(b"CONNECT notices:443 HTTP/1.1\r\nHost: notices:443\r\n\r\n").unwrap().unwrap();
    assert_eq!(unnamed.agreement, None);
}

#[test]
fn each_deviation_is_refused_for_what_it_is() {
    use BadRequest as B;
    let line = |new: &str| but("CONNECT notices:443 HTTP/1.1", new);
    let target = |new: &str| good().replace("notices:443", new);
    let more = |field: &str| but("User-Agent: curl/7.88.1", field);
    let cases = [
        (line("GET / HTTP/1.1"), B::Method),
        (line("connect notices:443 HTTP/1.1"), B::Method),
        (line("CONNECT notices:443 HTTP/1.0"), B::Version),
        (line("CONNECT notices:443 HTTP/2"), B::Version),
        (line("CONNECT notices:443 http/1.1"), B::Line),
        (line("CONNECT  notices:443 HTTP/1.1"), B::Line),
        (line("CONNECT notices:443 HTTP/1.1 "), B::Line),
        (line(" CONNECT notices:443 HTTP/1.1"), B::Line),
        (line("CONNECT\tnotices:443\tHTTP/1.1"), B::Line),
        (line("CONNECT notices:443"), B::Line),
        (line(""), B::Line),
        (format!("\r\n{}", good()), B::Line),
        (target("notices:"), B::Target),
        (target("notices:0"), B::Target),
        (target("notices:65536"), B::Target),
        (target("notices:+443"), B::Target),
        (target("notices:443:443"), B::Target),
        (target("http://notices/"), B::Target),
        (target("user@notices:443"), B::NoExport),
        (target("NOTICES:443"), B::NoExport),
        (target("notices.any:443"), B::NoExport),
        (target("-notices:443"), B::NoExport),
        (target("_probe:443"), B::NoExport),
        (target("../notices:443"), B::NoExport),
        (target("[::1]:443"), B::Target),
        (target(&"n".repeat(64)), B::NoExport),
        (target("/"), B::NoExport),
        (but("Host: notices:443", "Host: notices"), B::Host),
        (but("Host: notices:443", "Host: siena:443"), B::Host),
        (but("Host: notices:443", "X-Host: notices:443"), B::Host),
        (more("host: notices:443"), B::Twice("Host")),
        (more(&format!("securelink-agreement: {DIGEST}")), B::Twice("Securelink-Agreement")),
        (but(DIGEST, &DIGEST.to_uppercase()), B::Agreement),
        (but(DIGEST, &DIGEST[..70]), B::Agreement),
        (but(DIGEST, &format!("{DIGEST}, {DIGEST}")), B::Agreement),
        (but(DIGEST, ""), B::Agreement),
        (more("Content-Length: 0"), B::Body("Content-Length")),
        (more("content-length: 5"), B::Body("Content-Length")),
        (more("Transfer-Encoding: chunked"), B::Body("Transfer-Encoding")),
        (more("tRANSFER-eNCODING: identity"), B::Body("Transfer-Encoding")),
        (more("Expect: 100-continue"), B::Body("Expect")),
        (more("Content-Length : 5"), B::Field),
        (more("Transfer-Encoding\t: chunked"), B::Field),
        (more(" Transfer-Encoding: chunked"), B::Field),
        (more("\tgoes on"), B::Field),
        (more("no colon"), B::Field),
        (more(": no name"), B::Field),
        (more("X: \0"), B::Field),
        (more("X: \x7f"), B::Field),
        (more("X: caf\u{e9}"), B::Field),
        (more("X\u{e9}: y"), B::Field),
        (more("X: y\nTransfer-Encoding: chunked"), B::LineEnd),
        (more("X: y\rTransfer-Encoding: chunked"), B::LineEnd),
        (more("X: y\r\r"), B::LineEnd),
        (good().replace("\r\n", "\n"), B::LineEnd),
        (more(&"X: y\r\n".repeat(64)), B::TooLong),
        (more(&format!("X: {}", "y".repeat(MAX_HEAD))), B::TooLong),
        (good() + "\r\n", B::Early),
        (good() + "\0", B::Early),
        (good() + &good(), B::Early),
    ];
    for (head, wanted) in cases {
        assert_eq!(read(head.as_bytes()), Err(wanted), "{head:?}");
    }
}

#[test]
fn a_head_of_exactly_the_bound_is_read_and_one_byte_more_is_not() {
    let of = |length: usize| {
        let padding = length - good().len() - "X: \r\n".len();
        but("Host", &format!("X: {}\r\nHost", "y".repeat(padding)))
    };
    assert_eq!(of(MAX_HEAD).len(), MAX_HEAD);
    assert!(matches!(read(of(MAX_HEAD).as_bytes()), Ok(Some(_))));
    assert_eq!(read(of(MAX_HEAD + 1).as_bytes()), Err(BadRequest::TooLong));
    assert_eq!(read(&[b'A'; MAX_HEAD - 1]), Ok(None));
    assert_eq!(read(&[b'A'; MAX_HEAD]), Err(BadRequest::TooLong), "known at once, not only when a line ends");
}

#[test]
fn messages_say_what_to_do_and_show_nothing_of_the_request() {
    use BadRequest as B;
    let all = [
        B::Line,
        B::Method,
        B::Version,
        B::Target,
        B::NoExport,
        B::LineEnd,
        B::Field,
        B::TooLong,
        B::Body("Expect"),
        B::Twice("Host"),
        B::Host,
        B::Agreement,
        B::Early,
        B::Slow,
    ];
    for error in all {
        assert!(error.to_string().contains("; "), "{error}");
    }
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

/// A field that is nobody's business here.
fn other_field() -> impl Strategy<Value = String> {
    let name = "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}".prop_filter("it has a meaning here", |name: &String| {
        let meant = ["host", "securelink-agreement", "content-length", "transfer-encoding", "expect"];
        !meant.contains(&name.to_ascii_lowercase().as_str())
    });
    (name, "[ \t]{0,2}[!-~ \t]{0,40}").prop_map(|(name, value)| format!("{name}:{value}\r\n"))
}

prop_compose! {
    /// A faultless head and what it means.
    fn faultless()(
        export in label(),
        port in proptest::option::of(1..=u16::MAX),
        digest in proptest::option::of(any::<[u8; 32]>()),
        others in vec(other_field(), 0..20),
        place in any::<prop::sample::Index>(),
    ) -> (String, Request) {
        let target = port.map_or_else(|| export.clone(), |port| format!("{export}:{port}"));
        let agreement = digest.map(Digest);
        let mut fields = others;
        fields.insert(place.index(fields.len() + 1), format!("Host: {target}\r\n"));
        if let Some(agreement) = agreement {
            fields.insert(place.index(fields.len() + 1), format!("Securelink-Agreement: {agreement}\r\n"));
        }
        (format!("CONNECT {target} HTTP/1.1\r\n{}\r\n", fields.concat()), Request { export, agreement })
    }
}

proptest! {
    #[test]
    fn a_faultless_head_is_read_in_any_pieces_and_nothing_may_follow_it(
        (head, meant) in faultless(),
        cut in any::<prop::sample::Index>(),
        after in vec(any::<u8>(), 1..20),
    ) {
        let cut = cut.index(head.len());
        prop_assert_eq!(read(&head.as_bytes()[..cut]), Ok(None));
        prop_assert_eq!(read(head.as_bytes()), Ok(Some(meant)));
        prop_assert_eq!(read(&[head.as_bytes(), &after].concat()), Err(BadRequest::Early));
    }

    #[test]
    fn anything_at_all_is_read_or_refused_and_what_is_refused_stays_refused(
        bytes in vec(prop_oneof![8 => any::<u8>(), 4 => Just(b'\r'), 4 => Just(b'\n'), 2 => Just(b':')], 0..400),
        more in vec(any::<u8>(), 0..40),
    ) {
        if read(&bytes).is_err() {
            prop_assert!(read(&[bytes.as_slice(), &more].concat()).is_err());
        }
    }

    #[test]
    fn one_changed_byte_makes_no_other_export_of_a_faultless_head_than_the_one_it_spells(
        (head, meant) in faultless(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut changed = head.clone().into_bytes();
        changed[at.index(head.len())] = byte;
        if let Ok(Some(read)) = read(&changed) {
            // `Host` repeats the target: a slip in one of them is found by the other.
            prop_assert_eq!(read.export, meant.export);
        }
    }

    #[test]
    fn whoever_reads_the_same_bytes_by_the_book_finds_the_same_target_and_no_body(
        bytes in vec(any::<prop::sample::Index>(), 0..6),
        (head, _) in faultless(),
        inserted in "[ \t\r\n:,;A-Za-z0-9-]{0,6}",
    ) {
        let mut changed = head.clone();
        for at in bytes {
            changed.insert_str(at.index(changed.len()), &inserted);
        }
        if let Ok(Some(read)) = read(changed.as_bytes()) {
            let lines: Vec<&str> = changed.split("\r\n").collect();
            prop_assert!(!changed.replace("\r\n", "").contains(['\r', '\n']), "no line that only some would see");
            let target = lines[0].split(' ').nth(1).unwrap();
            prop_assert_eq!(target.split(':').next(), Some(read.export.as_str()));
            let body = |line: &&str| {
                let name = line.to_ascii_lowercase().split(':').next().unwrap_or_default().trim().to_owned();
                name == "content-length" || name == "transfer-encoding"
            };
            prop_assert!(!lines.iter().any(body));
        }
    }
}
