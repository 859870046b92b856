//! Looks step by step for what keeps a link from working, and says what to do. Does nothing a stream would not do: it dials
//! the peer and the targets of exports, sends none of them a byte of anybody's, and leaves the connection at rest.

use std::sync::Arc;

use futures_util::future::join_all;
use securelink_pki::Refusal;
use securelink_relay_config::{Disagreement, Endpoint, EntryReport, Export, Finding, LinkReport, Outcome, Probe};

use crate::connection::Connection;
use crate::dial::resolve;
use crate::failure::Failure;
use crate::handshake;
use crate::link::Link;
use crate::pool::Pool;
use crate::reserved::probe;
use crate::serve;
use crate::view::View;
use crate::ways::Way;
use crate::wire::Role;

/// What the way to the peer takes, in order.
const WAY: [Probe; 4] = [Probe::Dns, Probe::Tcp, Probe::Tls, Probe::Peer];

/// The way to the peer, endpoint by endpoint.
pub(crate) async fn way(link: &Arc<Link>) -> Vec<Finding> {
    let view = link.view();
    let endpoints = &view.snapshot.peer.endpoints;
    if endpoints.is_empty() {
        let peer = view.snapshot.peer.trust_domain.as_str();
        let mut findings: Vec<_> = WAY[..3]
            .iter()
            .map(|probe| skipped(*probe, peer, "PeerDials", "the peer dials us, we have no endpoint of it"))
            .collect();
        findings.push(if link.is_connected() {
            ok(Probe::Peer, peer, "a control connection that the peer dialed is up")
        } else {
            failed(
                Probe::Peer,
                peer,
                "NeverConnected",
                "the peer has not dialed us; send it our endpoint and fingerprint, and ask for its status",
            )
        });
        return findings;
    }
    join_all(endpoints.iter().map(|endpoint| reach(link, &view, endpoint))).await.concat()
}

async fn reach(link: &Arc<Link>, view: &View, endpoint: &Endpoint) -> Vec<Finding> {
    let (mut findings, subject) = (Vec::new(), endpoint.to_string());
    let Err((at, failure)) = walk(link, view, endpoint, &mut findings).await else { return findings };
    findings.extend(
        WAY.iter().filter(|probe| **probe < at).skip(findings.len()).map(|probe| ok(*probe, &subject, "in order")),
    );
    findings.push(of_failure(at, &subject, &failure));
    let why = format!("not tried: {at} failed");
    findings
        .extend(WAY.iter().filter(|probe| **probe > at).map(|probe| skipped(*probe, &subject, failure.reason(), &why)));
    findings
}

/// Goes the way as a stream would; says where it ends.
async fn walk(
    link: &Arc<Link>,
    view: &View,
    endpoint: &Endpoint,
    findings: &mut Vec<Finding>,
) -> Result<(), (Probe, Failure)> {
    let subject = endpoint.to_string();
    let proxy = view.snapshot.peer.proxy.as_ref();
    let first = proxy.unwrap_or(endpoint);
    let addresses = resolve(first).await.map_err(|failure| (Probe::Dns, failure))?;
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.push(ok(Probe::Dns, &subject, &format!("{} is {}", first.host, list.join(", "))));
    let way = Way { endpoint: endpoint.clone(), address: None };
    let socket = handshake::reach(view, &way).await.map_err(|failure| (Probe::Tcp, failure))?;
    let by = proxy.map_or_else(|| "connected".to_owned(), |proxy| format!("connected through {proxy}"));
    findings.push(ok(Probe::Tcp, &subject, &by));
    let connection = handshake::greet(link, view, endpoint, socket, Role::Forward).await;
    let connection = connection.map_err(|failure| (whose(&failure), failure))?;
    let group = connection.facts.tls_group.unwrap_or("an unnamed group");
    findings.push(ok(Probe::Tls, &subject, &format!("TLS 1.3 with {group}")));
    findings.push(peer(&connection, &subject));
    Pool::put(link, connection);
    Ok(())
}

/// Whether a failed handshake failed for TLS, or for who the two sides are.
fn whose(failure: &Failure) -> Probe {
    match failure {
        Failure::Refusal(
            Refusal::ClassicalKeyExchange | Refusal::Tls12 | Refusal::NoCommonProtocol | Refusal::BrokenTls(_),
        )
        | Failure::Tls(_)
        | Failure::Socket { .. }
        | Failure::Silent(_) => Probe::Tls,
        _ => Probe::Peer,
    }
}

fn peer(connection: &Connection, subject: &str) -> Finding {
    let proved = &connection.facts.peer;
    let message = format!("{}, by its root {}, its leaf until {}", proved.trust_domain, proved.root, proved.not_after);
    let mut finding = ok(Probe::Peer, subject, &message);
    if proved.root != proved.pin {
        finding.reason = Some("PinOutdated".to_owned());
        finding.remedy = Some(format!("pin {} too: its root was replaced", proved.root));
    }
    finding
}

/// What both sides say, and the services.
pub(crate) async fn services(link: &Arc<Link>, report: &LinkReport) -> Vec<Finding> {
    let view = link.view();
    let agreed = report.agreed.disagreement.is_none();
    let mut findings = vec![agreement(&view, report)];
    // A partner without our software has nothing that echoes.
    if !view.is_connect() {
        findings.push(round_trip(link, &view, agreed).await);
    }
    let exports = view.snapshot.exports.iter();
    findings.extend(join_all(exports.map(|entry| export(link, entry, &report.exports, agreed))).await);
    findings.extend(report.imports.iter().map(|entry| import(entry, agreed)));
    findings
}

fn agreement(view: &View, report: &LinkReport) -> Finding {
    let subject = view.snapshot.peer.trust_domain.as_str();
    let Some(why) = report.agreed.disagreement else {
        let text =
            report.agreed.digest.map_or_else(|| "neither side names one".to_owned(), |digest| digest.to_string());
        return ok(Probe::Agreement, subject, &text);
    };
    let said =
        report.agreed.peer_reason.as_deref().map(|said| format!(", saying \"{}\"", plain(said))).unwrap_or_default();
    let text = match why {
        Disagreement::CutHere => "the link is cut here; take the cut back to resume".to_owned(),
        Disagreement::SuspendedHere => "the link is suspended here; set state: Active to resume".to_owned(),
        Disagreement::CutByPeer => format!("the peer has cut the link{said}; ask the peer"),
        Disagreement::SuspendedByPeer => format!("the peer has suspended the link{said}; ask the peer"),
        Disagreement::AwaitingDeclaration => {
            "the peer has not declared its half; mend the way to the peer first".to_owned()
        }
        Disagreement::Stale => {
            "the peer's last word is older than maxStaleness; mend the way to the peer first".to_owned()
        }
        Disagreement::DigestDiffers => {
            "the two sides name different agreements; compare agreement.digest with `securelink digest FILE` on both sides".to_owned()
        }
        Disagreement::NotYetEffective { at } => {
            format!("the agreement begins at {at}; wait, or agree on an earlier start")
        }
        Disagreement::Expired { at } => {
            format!("the agreement ended at {at}; put its renewal into agreement.next on both sides")
        }
    };
    failed(Probe::Agreement, subject, why.reason(), &text)
}

async fn round_trip(link: &Arc<Link>, view: &View, agreed: bool) -> Finding {
    let subject = view.snapshot.peer.trust_domain.as_str();
    if !agreed {
        return skipped(Probe::RoundTrip, subject, "NotAgreed", "nothing may be sent yet");
    }
    match probe(link).await {
        Ok(took) => ok(Probe::RoundTrip, subject, &format!("{} µs", took.as_micros())),
        Err(error) => {
            let text = format!("{}; look at the log of both relays", plain(&error.to_string()));
            failed(Probe::RoundTrip, subject, "ProbeFailed", &text)
        }
    }
}

async fn export(link: &Arc<Link>, export: &Export, entries: &[EntryReport], agreed: bool) -> Finding {
    let name = export.name.as_str();
    if link.view().export(name).is_none() {
        return skipped(Probe::Export, name, "CutHere", "it is cut here");
    }
    match serve::reach(link, export).await {
        Err(failure) => {
            let found = failure.to_string();
            let cause = found.split_once("; ").map_or(found.as_str(), |(cause, _)| cause);
            let text =
                format!("{cause}; see that the service runs, and compare exports[].target with where it listens");
            failed(Probe::Export, name, failure.reason(), &text)
        }
        // That it answered was all that was asked.
        Ok(_) => match entries.iter().find(|entry| entry.name == name).and_then(|entry| entry.unusable.as_deref()) {
            Some(why) if agreed => failed(Probe::Export, name, "Unusable", &declared(why)),
            _ => ok(Probe::Export, name, &format!("{} answers", export.target)),
        },
    }
}

fn import(entry: &EntryReport, agreed: bool) -> Finding {
    let name = entry.name.as_str();
    match (&entry.unusable, entry.address) {
        (_, None) => failed(Probe::Import, name, "NotListening", "no port is open for it; see the relay's log"),
        (_, Some(_)) if !agreed => skipped(Probe::Import, name, "NotAgreed", "nothing may be opened yet"),
        (Some(why), _) => failed(Probe::Import, name, "Unusable", &declared(why)),
        (None, Some(address)) => ok(Probe::Import, name, &format!("the peer offers it, clients connect to {address}")),
    }
}

fn declared(why: &str) -> String {
    format!("{}; one side must change what it declares", plain(why))
}

fn of_failure(probe: Probe, subject: &str, failure: &Failure) -> Finding {
    let said = failure.to_string();
    // What a peer says is no remedy.
    let (what, remedy) = match failure {
        Failure::Bye { .. } => (plain(&said), None),
        _ => match said.split_once("; ") {
            Some((what, remedy)) => (what.to_owned(), Some(remedy.to_owned())),
            None => (said, None),
        },
    };
    let remedy =
        remedy.unwrap_or_else(|| "ask the peer for its status and its log, and compare both sides' clocks".to_owned());
    failed(probe, subject, failure.reason(), &format!("{what}; {remedy}"))
}

/// A semicolon parts what is wrong from what to do, and only we say what to do.
fn plain(said: &str) -> String {
    said.replace(';', ",")
}

fn ok(probe: Probe, subject: &str, message: &str) -> Finding {
    finding(probe, subject, Outcome::Ok, message)
}

fn skipped(probe: Probe, subject: &str, reason: &str, message: &str) -> Finding {
    Finding { reason: Some(reason.to_owned()), ..finding(probe, subject, Outcome::Skipped, message) }
}

/// `text` reads `what is wrong; what to do`.
fn failed(probe: Probe, subject: &str, reason: &str, text: &str) -> Finding {
    let (message, remedy) = text.split_once("; ").unwrap_or((text, ""));
    Finding {
        reason: Some(reason.to_owned()),
        remedy: Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty()),
        ..finding(probe, subject, Outcome::Failed, message)
    }
}

fn finding(probe: Probe, subject: &str, outcome: Outcome, message: &str) -> Finding {
    let (subject, message) = (subject.to_owned(), message.to_owned());
    Finding { probe, subject, outcome, reason: None, message, remedy: None }
}
