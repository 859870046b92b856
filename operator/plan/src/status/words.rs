//! What a person reads. Each sentence says what is wrong, whose fault it is and what to do; peer text is escaped.

use std::net::SocketAddr;

use securelink_crds::conditions::Reason;
use securelink_relay_config::{Disagreement, LinkReport};

use crate::validated::ValidatedLink;

/// Longest text of a peer inside of a message, in characters.
const QUOTED: usize = 256;

/// Text from elsewhere, held to one line of plain characters and to `max` of them.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let plain = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut cleaned = String::new();
    let mut left = max;
    for c in text.chars() {
        let shown = if plain(c) { c.to_string() } else { c.escape_unicode().to_string() };
        let length = shown.chars().count();
        if length > left {
            break;
        }
        left -= length;
        cleaned.push_str(&shown);
    }
    cleaned
}

/// Text without the local ends of connections in it, as Go writes them (`10.0.0.7:53214->10.0.0.10:53`): the port is another
/// one each time, and a status that says the same must be the same.
pub fn without_local_ports(text: &str) -> String {
    let mut parts = text.split("->").peekable();
    let mut short = String::new();
    while let Some(part) = parts.next() {
        let local = part.rsplit_once(' ').map_or(part, |(_, last)| last);
        let is_local = parts.peek().is_some() && local.parse::<SocketAddr>().is_ok();
        short.push_str(if is_local { part.strip_suffix(local).unwrap_or_default() } else { part });
        if !is_local && parts.peek().is_some() {
            short.push_str("->");
        }
    }
    short
}

/// Text from elsewhere inside of a sentence of ours. A semicolon parts what is wrong from what to do: only we give
/// remedies.
pub(crate) fn quoted(text: &str, max: usize) -> String {
    clean(&text.replace(';', ","), max)
}

/// What a relay found out. Its own remedy is left out, the sentence around it has one; if it begins as the sentence does, it
/// takes its place.
fn detailed(what: &str, error: Option<&str>, remedy: &str) -> String {
    let Some(error) = error else { return format!("{what}; {remedy}") };
    let (found, own_remedy) = error.split_once("; ").unwrap_or((error, remedy));
    match found.strip_prefix(what) {
        Some(rest) => format!("{what}{}; {}", quoted(rest, QUOTED), quoted(own_remedy, QUOTED)),
        None => format!("{what}: {}; {remedy}", quoted(found, QUOTED)),
    }
}

/// Why no control connection is up: whose fault it is and what to do.
pub(super) fn unreachable(reason: Reason, error: Option<&str>, link: &ValidatedLink) -> String {
    let peer = &link.peer.trust_domain;
    let (what, remedy) = match reason {
        Reason::DnsFailed => {
            ("the peer's name does not resolve", "compare peer.endpoints with the agreement's annex, or ask your DNS")
        }
        Reason::Refused => (
            "the peer's port is closed",
            "its relay is down, peer.endpoints names another port, or a firewall rejects us",
        ),
        Reason::TimedOut if link.is_connect() => {
            ("the partner has not called for longer than maxStaleness", "nothing to do here; its next call counts")
        }
        Reason::TimedOut => ("the peer does not answer", "maybe a firewall or a NetworkPolicy drops it, here or there"),
        Reason::WrongRoot => (
            "the peer's root is not pinned",
            "compare peer.fingerprints with the line `securelink fingerprint` prints there, by another way than this link",
        ),
        Reason::WrongTrustDomain => {
            ("the certificate is of another organization", "compare peer.trustDomain and peer.endpoints with the annex")
        }
        Reason::WrongAudience => (
            "the certificate was made for another partner of theirs",
            "the peer must point its link to us, with our trust domain, at this endpoint",
        ),
        Reason::CertificateExpired => {
            ("the peer's certificate has expired", "the peer must renew it; if it is new, compare clocks")
        }
        Reason::CertificateNotYetValid => {
            ("the peer's certificate is not valid yet", "one of the two clocks is wrong; compare them")
        }
        Reason::ClassicalKeyExchange => (
            "one side has no post-quantum key exchange",
            "update that side, or let both set crypto.allowClassicalKeyExchange",
        ),
        Reason::RefusedByPeer => {
            ("the peer refused us", "ask the peer for its status: maybe it pins another fingerprint of ours")
        }
        Reason::VersionMismatch => ("the two sides have no protocol version in common", "update the older side"),
        _ if link.is_connect() => {
            ("the partner has not called yet", "send it our endpoint, our fingerprint and the page docs/partners.md")
        }
        _ if link.peer.endpoints.is_empty() => {
            ("the peer has not dialed us yet", "send it our endpoint and fingerprint; it declares its half")
        }
        _ => (
            "the peer has not been reached yet",
            "nothing to do here while it is being set up; else compare peer.endpoints with the annex",
        ),
    };
    format!("{peer}: {}", detailed(what, error, remedy))
}

/// Why nothing flows although both sides may be connected.
pub(super) fn disagreement(why: Disagreement, report: &LinkReport, link: &ValidatedLink) -> String {
    let peer = &link.peer.trust_domain;
    let said = report.agreed.peer_reason.as_deref();
    let said = said.map(|reason| format!(", saying \"{}\"", quoted(reason, QUOTED))).unwrap_or_default();
    match why {
        Disagreement::CutHere => "the link is cut here; delete the cut to resume".to_owned(),
        Disagreement::SuspendedHere => "the link is suspended here; set state: Active to resume".to_owned(),
        Disagreement::CutByPeer => format!("{peer} has cut the link{said}; nothing to do here, ask the peer"),
        Disagreement::SuspendedByPeer => {
            format!("{peer} has suspended the link{said}; nothing to do here, ask the peer")
        }
        Disagreement::AwaitingDeclaration if link.is_connect() => {
            format!("{peer} has not named an agreement yet; see PeerConnected")
        }
        Disagreement::AwaitingDeclaration => format!("{peer} has not declared its half yet; wait, or ask the peer"),
        Disagreement::Stale => {
            format!("{peer} has said nothing for longer than maxStaleness; see PeerConnected")
        }
        Disagreement::DigestDiffers => digest_differs(report, link),
        Disagreement::NotYetEffective { at } => {
            format!("the agreement begins at {at}, the later start of both sides; wait, or agree on an earlier one")
        }
        Disagreement::Expired { at } => {
            format!(
                "the agreement ended at {at}, the earlier end of both sides; put its renewal into agreement.next on both sides"
            )
        }
    }
}

/// Names both sides' texts, so that the two desks can compare on the telephone.
fn digest_differs(report: &LinkReport, link: &ValidatedLink) -> String {
    let peer = &link.peer.trust_domain;
    let named = |side: &securelink_relay_config::SideReport| {
        let digests = [side.current, side.next].into_iter().flatten().map(|term| term.digest.to_string());
        Some(digests.collect::<Vec<_>>().join(", ")).filter(|all| !all.is_empty()).unwrap_or_else(|| "none".to_owned())
    };
    let theirs = report.agreed.peer.as_ref().map_or_else(|| "none".to_owned(), named);
    format!(
        "the two sides name different agreements: here {}, {peer} {theirs}; one side must correct agreement.digest (`securelink digest FILE`)",
        named(&report.agreed.own)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_ends_of_connections_are_left_out_and_other_arrows_stay() {
        for (text, short) in [
            ("read udp 10.0.0.7:53214->10.0.0.10:53: i/o timeout", "read udp 10.0.0.10:53: i/o timeout"),
            ("dial tcp [fd00::7]:4021->[fd00::a]:53: refused", "dial tcp [fd00::a]:53: refused"),
            ("10.0.0.7:1->10.0.0.10:2 and 10.0.0.7:3->10.0.0.10:4", "10.0.0.10:2 and 10.0.0.10:4"),
            ("from a->b, and ->", "from a->b, and ->"),
            ("", ""),
        ] {
            assert_eq!(without_local_ports(text), short);
        }
    }
}
