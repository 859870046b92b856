//! `fingerprint`: our two lines for the agreement's annex. Reads public files only.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use securelink_pki::certificate::{MAX_ISSUER_CHAIN, certificates_from_pem};
use securelink_pki::issue::root_of;
use securelink_plan::Accepted;
use securelink_relay_config::Endpoint;
use serde::Serialize;

use super::process::only_in_cluster;
use crate::args::{LinkName, OutputArgs, StateArgs, teach};
use crate::output::{Failure, Out, Tone, clean};
use crate::state::{IdentityEntry, StateDir};

/// Print our lines for the agreement's annex: endpoint and fingerprint
///
/// The partner writes them to spec.peer.endpoints and spec.peer.fingerprints. Both are public; hand them over by a way on
/// which nobody can change them: on paper, in person, or read out on the phone.
#[derive(Debug, Args)]
#[command(after_help = teach!(
    "  Of the identities in a state folder:
    securelink fingerprint --state-dir ./state

  Of the identities in a namespace of a cluster:
    kubectl securelink -n liaison fingerprint

  Of a root that lies elsewhere, or of a chain that ends with it:
    securelink fingerprint --certificate root.pem

  Only the fingerprints:
    securelink fingerprint -o json | jq -r '.identities[].fingerprint'",
    "  0  printed
  1  the certificate or the state cannot be used
  2  the command line is wrong
  3  there is no state, or no root yet; in a cluster also no endpoint yet, and what to wait for",
    "  {identities: [{namespace, name, trustDomain, fingerprint, links: [{link, peer, endpoint}]}]}
  endpoint is absent where we only dial; of a certificate there is only the fingerprint"
))]
pub struct FingerprintArgs {
    /// In a cluster: only this LinkIdentity, as NAME or NAMESPACE/NAME
    pub(super) identity: Option<LinkName>,

    /// A root's certificate in PEM, or a chain that ends with it; neither state folder nor cluster is read then
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    pub(super) certificate: Option<PathBuf>,

    #[command(flatten)]
    state: StateArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Serialize)]
struct Answer<'a> {
    identities: &'a [Annex],
}

/// What one identity hands over.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Annex {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trust_domain: Option<String>,
    pub(super) fingerprint: String,
    pub(super) links: Vec<Line>,
}

/// Where one partner reaches us.
#[derive(Serialize)]
pub(super) struct Line {
    pub(super) link: String,
    pub(super) peer: String,
    /// Absent where only we dial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
}

/// Prints the lines.
pub fn run(args: &FingerprintArgs, out: Out) -> Result<(), Failure> {
    only_in_cluster(args.identity.is_some(), "IDENTITY")?;
    let identities = match &args.certificate {
        Some(path) => vec![of_certificate(path)?],
        None => of_state(&args.state.dir()?)?,
    };
    tell(&identities, args, out)
}

/// Prints what each identity hands over.
pub(super) fn tell(identities: &[Annex], args: &FingerprintArgs, out: Out) -> Result<(), Failure> {
    if args.output.is_json() {
        return out.json(&Answer { identities });
    }
    for (index, annex) in identities.iter().enumerate() {
        if index > 0 {
            out.line("")?;
        }
        show(annex, out)?;
    }
    Ok(())
}

pub(super) fn show(annex: &Annex, out: Out) -> Result<(), Failure> {
    let Some(trust_domain) = &annex.trust_domain else { return out.line(&annex.fingerprint) };
    out.line(out.style().paint(Tone::Strong, trust_domain))?;
    let style = out.style();
    for line in &annex.links {
        let endpoint = match &line.endpoint {
            Some(endpoint) => style.paint(Tone::Value, &clean(endpoint)),
            None => "none, we dial out".to_owned(),
        };
        let whom = style.paint(Tone::Dim, &format!("for {}", clean(&line.peer)));
        out.line(format!("  endpoint      {endpoint}  {whom}"))?;
    }
    out.line(format!("  fingerprint   {}", style.paint(Tone::Value, &annex.fingerprint)))
}

fn of_certificate(path: &Path) -> Result<Annex, Failure> {
    let failed = |why: String| Failure::failed(format!("{}: {why}", clean(&path.display().to_string())));
    let text = fs::read_to_string(path).map_err(|error| failed(format!("{error}; check its name and permissions")))?;
    let chain = certificates_from_pem(&text, MAX_ISSUER_CHAIN + 1).map_err(|error| failed(error.to_string()))?;
    let root = root_of(&chain).map_err(|error| failed(error.to_string()))?;
    let (namespace, name, trust_domain) = (None, None, None);
    Ok(Annex { namespace, name, trust_domain, fingerprint: root.to_string(), links: Vec::new() })
}

pub(super) fn of_state(dir: &Path) -> Result<Vec<Annex>, Failure> {
    let state = StateDir::open(dir, false)?;
    let found = state.fingerprints()?;
    if found.is_empty() {
        return Err(Failure::absent(format!(
            "{} holds no root yet; start `securelink run -f FILE_OR_FOLDER` with a LinkIdentity once",
            clean(&dir.display().to_string())
        )));
    }
    found.into_iter().map(|identity| annex(&state, identity)).collect()
}

fn annex(state: &StateDir, identity: IdentityEntry) -> Result<Annex, Failure> {
    let mut links = Vec::new();
    for link in state.links()?.into_iter().filter(|link| link.namespace == identity.namespace) {
        let Some(text) = state.link(&link)?.accepted()? else { continue };
        let accepted = Accepted::from_bytes(text.as_bytes(), &link);
        let spec = accepted.map_err(|error| Failure::failed(format!("{link}: {error}")))?.spec;
        if spec.identity_ref.name != identity.name {
            continue;
        }
        let endpoint = spec.expose.and_then(|expose| {
            let (host, port) = (expose.hostname?, expose.port);
            Some(Endpoint { host, port }.to_string())
        });
        links.push(Line { link: link.to_string(), peer: spec.peer.trust_domain, endpoint });
    }
    Ok(Annex {
        namespace: Some(identity.namespace),
        name: Some(identity.name),
        trust_domain: Some(identity.trust_domain.to_string()),
        fingerprint: identity.fingerprint.to_string(),
        links,
    })
}
