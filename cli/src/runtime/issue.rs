//! The one effect on certificates: root, intermediate and leaf are issued as the planner decides, and kept.

use jiff::Timestamp;
use securelink_crds::LinkIdentity;
use securelink_crds::conditions::Reason;
use securelink_id::Fingerprint;
use securelink_pki::{Intermediate, Leaf, Root, Transitions};

use super::planning::{
    Certificate, Decision, Facts, LeafInUse, RootDecision, RootFacts, RootKey, Stored, ValidatedLink, Wanted, decide,
    failure, root,
};
use super::rotate::rotate;
use crate::state::{IdentityDir, LinkDir, StateError};

/// Why an identity cannot issue, in one word and for a person.
pub(crate) type Failure = (Reason, String);

/// An identity ready to issue, as far as it is.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// What partners pin, where it is known.
    pub(crate) root: Option<Fingerprint>,
    /// What signs leaves; absent where nothing can be issued.
    intermediate: Option<Intermediate>,
    /// The way from older roots.
    pub(crate) transitions: Transitions,
    /// What is wrong with the identity.
    pub(crate) failure: Option<Failure>,
    /// What a person should know.
    pub(crate) note: Option<String>,
    /// When there is something to do.
    pub(crate) due: Option<Timestamp>,
}

impl Issuer {
    pub(super) fn wake(&mut self, at: Option<Timestamp>) {
        self.due = [self.due, at].into_iter().flatten().min();
    }
}

/// Makes an identity ready: mints its first root, renews its intermediate. `declared` is absent while the object cannot
/// be read: then nothing is minted, and what there is goes on. Nor is anything minted where leaves tell of a root
/// (`by_leaves`): its folder was lost.
pub(crate) fn prepare(
    folder: &IdentityDir,
    declared: Option<&LinkIdentity>,
    by_leaves: Option<Fingerprint>,
    now: Timestamp,
) -> Issuer {
    let mut issuer = Issuer {
        root: by_leaves,
        intermediate: None,
        transitions: Transitions::none(),
        failure: None,
        note: None,
        due: None,
    };
    if let Err(error) = fill(&mut issuer, folder, declared, now) {
        issuer.failure = Some(failure(Reason::IssuerFailed, error.to_string()));
    }
    issuer
}

fn fill(
    issuer: &mut Issuer,
    folder: &IdentityDir,
    declared: Option<&LinkIdentity>,
    now: Timestamp,
) -> Result<(), StateError> {
    folder.finish_switch()?;
    let record = folder.record()?;
    issuer.root = record.as_ref().map(|record| record.fingerprint).or(issuer.root);
    if let Some(identity) = declared
        && let Some(refused) = refuse(identity, record.as_ref().map(|record| record.trust_domain.as_str()))
    {
        issuer.failure = Some(refused);
        return Ok(());
    }
    issuer.transitions = folder.transitions()?;
    let (stored, mut damage) = found(folder.root())?;
    if stored.is_none() && issuer.root.is_none() {
        // What was signed tells of the root that signed it.
        issuer.root = found(folder.intermediate())?.0.map(|left| left.root());
    }
    let decision = root(&RootFacts {
        key: match &stored {
            Some(root) => RootKey::Present { fingerprint: root.fingerprint(), made_for_this: true },
            None if damage.is_some() => RootKey::Unreadable,
            None => RootKey::Absent,
        },
        recorded: issuer.root,
        expected: declared.and_then(|identity| identity.spec.expected_fingerprint.as_ref()?.parse().ok()),
        traces: folder.is_begun()?,
        older: &[],
        next: found(folder.next())?.0.map(|next| next.fingerprint()),
    });
    let root = match (decision, declared) {
        (RootDecision::Use(_), Some(identity)) => {
            stored.map(|current| rotate(issuer, folder, identity, current, now)).transpose()?
        }
        (RootDecision::Use(_), None) => stored,
        (RootDecision::Mint, Some(identity)) => match mint(folder, identity, now) {
            Ok(root) => Some(root),
            Err(why) => {
                issuer.failure = Some(failure(Reason::IssuerFailed, why));
                return Ok(());
            }
        },
        (RootDecision::Mint, None) => None,
        (RootDecision::RootMissing { wanted }, _) => {
            issuer.failure = Some(missing(folder, wanted, damage.take()));
            None
        }
        (RootDecision::RootConflict { found, wanted }, _) => {
            issuer.failure = Some(conflict(folder, found, wanted));
            return Ok(());
        }
    };
    issuer.root = root.as_ref().map(Root::fingerprint).or(issuer.root);
    renew_intermediate(issuer, folder, root.as_ref(), now)
}

/// What standalone cannot do, and what an identity cannot become.
fn refuse(identity: &LinkIdentity, recorded: Option<&str>) -> Option<Failure> {
    if identity.spec.issuer.built_in.is_none() {
        let message = "without a cluster only `issuer: {builtIn: {}}` is supported; write that, or run the operator";
        return Some(failure(Reason::IssuerFailed, message));
    }
    let recorded = recorded.filter(|recorded| *recorded != identity.spec.trust_domain)?;
    let message = format!(
        "the state folder holds the root of {recorded}, the LinkIdentity says {}; correct the trust domain, or create a LinkIdentity of another name",
        identity.spec.trust_domain.escape_debug()
    );
    Some(failure(Reason::RootConflict, message))
}

fn mint(folder: &IdentityDir, identity: &LinkIdentity, now: Timestamp) -> Result<Root, String> {
    let trust_domain =
        identity.spec.trust_domain.parse().map_err(|error: securelink_id::TrustDomainError| error.to_string())?;
    let root = Root::generate(&trust_domain, now).map_err(|error| error.to_string())?;
    folder.save_first_root(&root).map_err(|error| error.to_string())?;
    tracing::info!(%trust_domain, fingerprint = %root.fingerprint(), "minted a root; partners pin this fingerprint");
    Ok(root)
}

fn missing(folder: &IdentityDir, wanted: Option<Fingerprint>, damage: Option<StateError>) -> Failure {
    let which = wanted.map(|wanted| format!(" {wanted}")).unwrap_or_default();
    let why = damage.map_or_else(|| "its key is gone".to_owned(), |damage| damage.to_string());
    failure(
        Reason::RootMissing,
        format!(
            "the root{which} cannot be used: {why}; restore root.key and root.pem in {} from a backup, no other root is ever made in its place",
            folder.path().display()
        ),
    )
}

fn conflict(folder: &IdentityDir, found: Fingerprint, wanted: Option<Fingerprint>) -> Failure {
    let wanted = wanted.map_or_else(|| "another".to_owned(), |wanted| wanted.to_string());
    failure(
        Reason::RootConflict,
        format!(
            "{} holds the root {found}, expected is {wanted}; restore the expected root, or correct expectedFingerprint",
            folder.path().display()
        ),
    )
}

fn renew_intermediate(
    issuer: &mut Issuer,
    folder: &IdentityDir,
    root: Option<&Root>,
    now: Timestamp,
) -> Result<(), StateError> {
    let Some(wanted) = issuer.root else { return Ok(()) };
    let (mut stored, damage) = found(folder.intermediate())?;
    let facts = |intermediate: &Intermediate| Facts {
        key_matches: true,
        root: Some(intermediate.root()),
        identity: None,
        dns_names: std::collections::BTreeSet::new(),
        not_before: intermediate.validity().not_before,
        not_after: intermediate.end(),
        renew_at: intermediate.due(),
        superseded: false,
    };
    let decision = decide(&described(stored.as_ref().map(facts), damage.as_ref()), &Wanted::intermediate(wanted), now);
    if let (Decision::Issue { reason }, Some(root)) = (decision, root) {
        match root.issue_intermediate(now) {
            Ok(intermediate) => {
                folder.save_intermediate(&intermediate)?;
                tracing::info!(reason = reason.as_str(), until = %intermediate.end(), "issued an intermediate");
                stored = Some(intermediate);
            }
            Err(error) => issuer.failure = Some(failure(Reason::IssuerFailed, error.to_string())),
        }
    }
    // One that is due and cannot be renewed goes on to its end, if it is of our root.
    let usable = stored.filter(|held| held.root() == wanted && now < held.end() && held.validity().contains(now));
    issuer.wake(usable.as_ref().map(Intermediate::due));
    issuer.intermediate = usable;
    Ok(())
}

/// The leaf of one link: kept, or issued anew.
pub(crate) fn leaf(
    folder: &LinkDir,
    issuer: &Issuer,
    link: &ValidatedLink,
    now: Timestamp,
) -> Result<(Option<Leaf>, Certificate), StateError> {
    let mut certificate = Certificate { root: issuer.root, leaf: None, failure: issuer.failure.clone() };
    let (mut stored, damage) = found(folder.leaf())?;
    let Some(root) = issuer.root else { return Ok((None, certificate)) };
    let facts = |leaf: &Leaf| Facts {
        key_matches: true,
        root: leaf.chains_to(now),
        identity: Some(leaf.identity().clone()),
        dns_names: leaf.dns_names().iter().cloned().collect(),
        not_before: leaf.validity().not_before,
        not_after: leaf.validity().not_after,
        renew_at: leaf.due(),
        superseded: false,
    };
    let wanted = Wanted::leaf(root, link);
    let described = described(stored.as_ref().map(facts), damage.as_ref());
    if let Decision::Issue { reason } = decide(&described, &wanted, now) {
        match issue_leaf(issuer, link, now) {
            Ok(leaf) => {
                folder.save_leaf(&leaf)?;
                tracing::info!(link = %link.link, reason = reason.as_str(), until = %leaf.validity().not_after, "issued a leaf");
                stored = Some(leaf);
            }
            Err(why) => certificate.failure = certificate.failure.or(Some(failure(Reason::IssuerFailed, why))),
        }
    }
    // What cannot be renewed is presented as long as it is this link's: an end or a wrong name the peer would refuse.
    let usable = stored.filter(|held| Some(held.identity()) == wanted.identity.as_ref() && held.root() == root);
    certificate.leaf = usable.as_ref().map(in_use);
    Ok((usable, certificate))
}

fn issue_leaf(issuer: &Issuer, link: &ValidatedLink, now: Timestamp) -> Result<Leaf, String> {
    let Some(intermediate) = &issuer.intermediate else {
        return Err("there is no intermediate to issue it; see the LinkIdentity".to_owned());
    };
    intermediate.leaf_for(&link.identity(), &link.dns_names(), now).map_err(|error| error.to_string())
}

fn in_use(leaf: &Leaf) -> LeafInUse {
    LeafInUse { serial: leaf.serial_hex(), not_after: leaf.validity().not_after, renew_at: leaf.due() }
}

fn described(facts: Option<Facts>, damage: Option<&StateError>) -> Stored {
    match (facts, damage) {
        (Some(facts), _) => Stored::Present(facts),
        (None, Some(_)) => Stored::Unreadable,
        (None, None) => Stored::Missing,
    }
}

/// Parts what is damaged, which the decision judges, from what cannot be read or must not be used.
pub(super) fn found<T>(read: Result<Option<T>, StateError>) -> Result<(Option<T>, Option<StateError>), StateError> {
    match read {
        Ok(found) => Ok((found, None)),
        Err(error) if error.is_damage() => Ok((None, Some(error))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use securelink_crds::keys::REPLACE_ROOT;
    use securelink_crds::load::{Object, judge};
    use serde_json::json;

    use super::*;
    use crate::state::StateDir;

    fn identity() -> LinkIdentity {
        let written = json!({
            "apiVersion": "securelink.dev/v1alpha1", "kind": "LinkIdentity",
            "metadata": {"name": "default", "namespace": "liaison"},
            "spec": {"trustDomain": "interpol.example", "issuer": {"builtIn": {}}},
        });
        let Ok(Object::LinkIdentity(identity)) = judge(&written, None) else { panic!("it is valid") };
        *identity
    }

    #[test]
    fn f76_no_root_is_minted_in_a_folder_where_anything_is_left() {
        let now = Timestamp::now();
        for left in [&["intermediate.key", "intermediate.pem"][..], &["intermediate.pem"], &["root.pem"], &["notes"]] {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(&dir.path().join("state"), true).unwrap();
            let folder = state.identity("liaison", "default").unwrap();
            let made = prepare(&folder, Some(&identity()), None, now);
            assert!(made.failure.is_none() && made.intermediate.is_some());
            fs::write(folder.path().join("notes"), "").unwrap();
            for file in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()) {
                if !left.contains(&file.file_name().to_str().unwrap()) {
                    fs::remove_file(file.path()).unwrap();
                }
            }
            let found = prepare(&folder, Some(&identity()), None, now);
            assert_eq!(found.failure.map(|(reason, _)| reason), Some(Reason::RootMissing), "{left:?}");
            assert!(!folder.path().join("root.key").exists(), "{left:?}");
            assert_eq!(found.root, made.root.filter(|_| left.len() == 2), "{left:?}");
            assert_eq!(found.intermediate.is_some(), left.len() == 2, "what is left signs on");
        }
    }

    fn write_key(path: &std::path::Path, bytes: &[u8]) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn fresh() -> (tempfile::TempDir, IdentityDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("state"), true).unwrap();
        let folder = state.identity("liaison", "default").unwrap();
        (dir, folder)
    }

    /// A root, and another that was announced at a person's word.
    fn announced(folder: &IdentityDir, now: Timestamp) -> (LinkIdentity, [Fingerprint; 2]) {
        let mut identity = identity();
        let old = prepare(folder, Some(&identity), None, now).root.unwrap();
        identity.metadata.annotations = Some([(REPLACE_ROOT.to_owned(), old.to_string())].into());
        let announcing = prepare(folder, Some(&identity), None, now);
        let next = folder.next().unwrap().unwrap().fingerprint();
        assert_eq!((announcing.root, announcing.failure), (Some(old), None));
        let line = format!("put `expectedFingerprint: {next}` into spec");
        assert!(announcing.note.unwrap().contains(&line));
        (identity, [old, next])
    }

    #[test]
    fn a_root_takes_over_from_another_at_a_persons_word_and_the_old_pin_leads_to_it() {
        let now = Timestamp::now();
        let (_dir, folder) = fresh();
        let (mut identity, [old, next]) = announced(&folder, now);
        identity.spec.expected_fingerprint = Some(next.to_string());
        let switched = prepare(&folder, Some(&identity), None, now);
        assert_eq!((switched.root, switched.failure, switched.note), (Some(next), None, None));
        assert_eq!(switched.intermediate.unwrap().root(), next);
        assert_eq!(switched.transitions.leads_to(), Some(next));
        assert_eq!(switched.transitions.left_behind()[0].0, old);
        assert_eq!(folder.record().unwrap().unwrap().fingerprint, next);
        assert!(folder.next().unwrap().is_none());
        let again = prepare(&folder, Some(&identity), None, now);
        assert_eq!((again.root, again.transitions), (Some(next), switched.transitions), "once");
    }

    #[test]
    fn an_announced_root_takes_over_by_itself_after_a_month_unless_the_object_cannot_be_read() {
        let now = Timestamp::now();
        let (_dir, folder) = fresh();
        let (identity, [old, next]) = announced(&folder, now);
        let at = prepare(&folder, Some(&identity), None, now).due.unwrap();
        assert!(at > now);
        let later = now + jiff::SignedDuration::from_hours(24 * 31);
        assert_eq!(prepare(&folder, None, None, later).root, Some(old));
        assert_eq!(prepare(&folder, Some(&identity), None, later).root, Some(next));
    }

    /// The switch is several files; a crash may come after any of them.
    #[test]
    fn a_switch_that_a_crash_interrupted_is_ended_by_the_next_look() {
        let now = Timestamp::now();
        let (_dir, folder) = fresh();
        let (mut identity, [old, next]) = announced(&folder, now);
        let file = |name: &str| folder.path().join(name);
        let names = ["transitions.pem", "root.key", "root.pem", "status.json", "next.pem", "next.key"];
        let before = names.map(|name| fs::read(file(name)).ok());
        identity.spec.expected_fingerprint = Some(next.to_string());
        prepare(&folder, Some(&identity), None, now);
        let after = names.map(|name| fs::read(file(name)).ok());
        let put = |name: &str, bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => write_key(&file(name), bytes),
            None => drop(fs::remove_file(file(name))),
        };
        for done in 0..=names.len() {
            for (place, name) in names.iter().enumerate() {
                put(name, if place < done { &after[place] } else { &before[place] });
            }
            let found = prepare(&folder, Some(&identity), None, now);
            assert_eq!((found.root, found.failure), (Some(next), None), "after {done} files");
            assert_eq!(found.transitions.left_behind()[0].0, old);
            assert_eq!(found.intermediate.unwrap().root(), next);
            assert!(folder.next().unwrap().is_none());
        }
    }
}
