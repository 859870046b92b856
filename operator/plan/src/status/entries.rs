//! Each export and import: usable, or why not.

use std::collections::BTreeMap;

use securelink_crds::conditions::ConditionType;
use securelink_crds::{ExportStatus, ImportStatus};
use securelink_relay_config::{Cut, CutScope, EntryReport};

use super::conditions::Finding;
use super::{Observed, SENTENCE, words};
use crate::names;
use crate::validated::ValidatedImport;
use crate::verdict::{About, Verdict};

/// The word where a relay says in a sentence why an entry cannot be used.
const UNAVAILABLE: &str = "Unavailable";

/// Why an entry cannot be used: a word and a sentence.
type Why = Option<(String, String)>;

pub(super) fn exports(verdict: &Verdict, observed: Observed<'_>, findings: &[Finding]) -> Vec<ExportStatus> {
    let mut entries: BTreeMap<&str, Why> = BTreeMap::new();
    for export in verdict.validated().into_iter().flat_map(|link| &link.exports) {
        let report = find(observed.report.map(|report| report.exports.as_slice()), &export.name);
        let cut = cut(verdict, &CutScope::Export(export.name.clone()));
        entries.insert(&export.name, why(cut, report, findings));
    }
    for problem in &verdict.problems {
        if let About::Export(name) = &problem.about {
            entries.entry(name).or_insert_with(|| Some((problem.reason.to_string(), problem.to_string())));
        }
    }
    let status = |(name, why): (&str, Why)| {
        let (reason, message) = split(why);
        ExportStatus { name: name.to_owned(), usable: reason.is_none(), reason, message }
    };
    entries.into_iter().map(status).collect()
}

pub(super) fn imports(verdict: &Verdict, observed: Observed<'_>, findings: &[Finding]) -> Vec<ImportStatus> {
    let mut entries: BTreeMap<&str, (Why, Option<String>)> = BTreeMap::new();
    for import in verdict.validated().into_iter().flat_map(|link| &link.imports) {
        let report = find(observed.report.map(|report| report.imports.as_slice()), &import.name);
        let cut = cut(verdict, &CutScope::Import(import.name.clone()));
        entries.insert(&import.name, (why(cut, report, findings), Some(address(verdict, import))));
    }
    for problem in &verdict.problems {
        if let About::Import(name) = &problem.about {
            entries.entry(name).or_insert_with(|| (Some((problem.reason.to_string(), problem.to_string())), None));
        }
    }
    let status = |(name, (why, address)): (&str, (Why, Option<String>))| {
        let (reason, message) = split(why);
        ImportStatus { name: name.to_owned(), usable: reason.is_none(), address, reason, message }
    };
    entries.into_iter().map(status).collect()
}

/// Where clients connect: an address of this machine, or a Service.
fn address(verdict: &Verdict, import: &ValidatedImport) -> String {
    import.listen.map_or_else(
        || {
            let service = names::import_service(&verdict.link.name, &import.declared);
            format!("{service}.{}:{}", verdict.link.namespace, import.declared.port)
        },
        |address| address.to_string(),
    )
}

/// First what is cut, then what keeps the whole link from carrying, then what the relay says of the entry.
fn why(cut: Option<&Cut>, report: Option<&EntryReport>, findings: &[Finding]) -> Why {
    if let Some(cut) = cut {
        return Some(("CutHere".to_owned(), cut.reason.clone()));
    }
    let whole = [ConditionType::RelayAvailable, ConditionType::PeerConnected, ConditionType::Agreed];
    let blocked = findings.iter().find(|finding| whole.contains(&finding.kind) && finding.holds != Some(true));
    if let Some(finding) = blocked {
        return Some((finding.reason.to_owned(), format!("see {}", finding.kind)));
    }
    let unusable = report.and_then(|report| report.unusable.as_deref())?;
    Some((UNAVAILABLE.to_owned(), unusable.to_owned()))
}

fn cut<'a>(verdict: &'a Verdict, scope: &CutScope) -> Option<&'a Cut> {
    verdict.cuts.iter().find(|cut| cut.scope == *scope)
}

fn find<'a>(reports: Option<&'a [EntryReport]>, name: &str) -> Option<&'a EntryReport> {
    reports?.iter().find(|report| report.name == name)
}

fn split(why: Why) -> (Option<String>, Option<String>) {
    why.map_or((None, None), |(reason, message)| (Some(reason), Some(words::clean(&message, SENTENCE))))
}
