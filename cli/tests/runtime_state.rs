//! The laws of the state folder, on real files.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use securelink::state::{StateDir, StateError, StoredCut};
use securelink_id::{SpiffeId, TrustDomain};
use securelink_pki::Root;
use securelink_relay_config::{Digest, LinkRef, Millis};

fn interpol() -> TrustDomain {
    "interpol.example".parse().unwrap()
}

fn link() -> LinkRef {
    LinkRef { namespace: "liaison".to_owned(), name: "europol".to_owned() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every path below `dir` with its contents, folders with none.
fn picture(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.display().to_string(), Vec::new()));
            found.extend(picture(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// A new state with one identity.
fn minted() -> (tempfile::TempDir, StateDir, Root) {
    let temp = tempfile::tempdir().unwrap();
    let state = StateDir::open(&temp.path().join("state"), true).unwrap();
    let root = Root::generate(&interpol(), Timestamp::now()).unwrap();
    state.identity("liaison", "default").unwrap().save_first_root(&root).unwrap();
    (temp, state, root)
}

#[test]
fn a_mistyped_folder_is_refused_with_the_remedy_and_nothing_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let mistyped = temp.path().join("sate");
    let error = StateDir::open(&mistyped, false).unwrap_err();
    assert!(matches!(error, StateError::NoState(_)), "{error}");
    assert!(error.to_string().contains("--state-dir") && error.to_string().contains("--init"), "{error}");
    assert!(!mistyped.exists());
}

#[test]
fn init_takes_a_new_or_an_empty_folder_and_closes_it_to_others() {
    let temp = tempfile::tempdir().unwrap();
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    chmod(&empty, 0o755);
    for dir in [empty, temp.path().join("a/new/one")] {
        StateDir::open(&dir, true).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let marker = fs::read_to_string(dir.join("securelink-state.json")).unwrap();
        assert_eq!(marker.split_whitespace().collect::<String>(), r#"{"format":1}"#);
        StateDir::open(&dir, false).expect("it is a state folder from now on");
    }
}

#[test]
fn init_refuses_a_folder_with_anything_else_in_it() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("thesis.tex"), "x").unwrap();
    chmod(temp.path(), 0o755);
    let before = picture(temp.path());
    let error = StateDir::open(temp.path(), true).unwrap_err();
    assert!(matches!(error, StateError::Foreign(_)), "{error}");
    assert_eq!((picture(temp.path()), mode(temp.path())), (before, 0o755));
}

#[test]
fn init_on_existing_state_changes_nothing() {
    let (_temp, state, _root) = minted();
    let before = picture(state.path());
    StateDir::open(state.path(), true).unwrap();
    assert_eq!(picture(state.path()), before);
}

#[test]
fn a_second_root_is_never_minted_over_a_first() {
    let (_temp, state, root) = minted();
    let before = picture(state.path());
    let other = Root::generate(&interpol(), Timestamp::now()).unwrap();
    let identity = state.identity("liaison", "default").unwrap();
    identity.save_first_root(&other).expect_err("the folder holds a root");
    assert_eq!(picture(state.path()), before, "not a byte changed, nothing left behind");
    // Nor where the key is gone.
    fs::remove_file(identity.path().join("root.key")).unwrap();
    identity.save_first_root(&other).expect_err("the folder names a root");
    assert!(identity.root().unwrap().is_none());
    assert_eq!(identity.record().unwrap().unwrap().fingerprint, root.fingerprint());
}

#[test]
fn a_damaged_state_file_is_reported_and_left_as_it_is_even_with_init() {
    let (_temp, state, _root) = minted();
    fs::write(state.path().join("securelink-state.json"), "{").unwrap();
    let before = picture(state.path());
    for init in [false, true] {
        let error = StateDir::open(state.path(), init).unwrap_err();
        assert!(matches!(error, StateError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("restore"), "{error}");
    }
    assert_eq!(picture(state.path()), before);
}

#[test]
fn the_state_of_a_later_version_is_refused() {
    let (_temp, state, _root) = minted();
    fs::write(state.path().join("securelink-state.json"), r#"{"format": 2}"#).unwrap();
    let error = StateDir::open(state.path(), true).unwrap_err();
    assert!(matches!(error, StateError::Format { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn keys_and_folders_are_for_their_owner_only() {
    let (_temp, state, root) = minted();
    let intermediate = root.issue_intermediate(Timestamp::now()).unwrap();
    state.identity("liaison", "default").unwrap().save_intermediate(&intermediate).unwrap();
    let identity = SpiffeId::link(interpol(), "europol.example".parse().unwrap());
    let leaf = intermediate.issue_leaf(&identity, &[], Timestamp::now()).unwrap();
    state.link(&link()).unwrap().save_leaf(&leaf).unwrap();
    state.link(&link()).unwrap().save_cut(&StoredCut::by_command("test")).unwrap();
    let mut seen = 0;
    for (path, _) in picture(state.path()) {
        let path = Path::new(&path);
        assert_eq!(mode(path), if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        seen += usize::from(path.extension().is_some_and(|extension| extension == "key"));
    }
    assert_eq!(seen, 3);
}

#[test]
fn a_key_others_can_read_is_refused_with_the_chmod_that_mends_it() {
    let (_temp, state, root) = minted();
    let identity = state.identity("liaison", "default").unwrap();
    let key = identity.path().join("root.key");
    for open in [0o640, 0o604, 0o660] {
        chmod(&key, open);
        let error = identity.root().unwrap_err();
        assert!(error.to_string().contains(&format!("chmod 600 {}", key.display())), "{error}");
    }
    chmod(&key, 0o600);
    assert_eq!(identity.root().unwrap().unwrap().fingerprint(), root.fingerprint());
}

#[test]
fn a_folder_others_can_enter_is_refused() {
    let (_temp, state, _root) = minted();
    chmod(state.path(), 0o750);
    let error = StateDir::open(state.path(), false).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
}

#[test]
fn a_second_process_is_told_who_holds_the_folder() {
    let (_temp, state, _root) = minted();
    let held = state.lock().unwrap();
    let error = state.lock().unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let error = state.write_cut(&link(), "x").unwrap_err();
    assert!(matches!(error, StateError::Held { .. }), "{error}");
    drop(held);
    state.lock().expect("the lock is free again");
}

#[test]
fn what_is_written_is_read_back() {
    let (_temp, state, root) = minted();
    let identity = state.identity("liaison", "default").unwrap();
    assert_eq!(identity.root().unwrap().unwrap().fingerprint(), root.fingerprint());
    let intermediate = root.issue_intermediate(Timestamp::now()).unwrap();
    identity.save_intermediate(&intermediate).unwrap();
    assert_eq!(identity.intermediate().unwrap().unwrap().chain(), intermediate.chain());
    let entry = state.fingerprints().unwrap().remove(0);
    assert_eq!((entry.namespace.as_str(), entry.name.as_str()), ("liaison", "default"));
    assert_eq!((entry.trust_domain, entry.fingerprint), (interpol(), root.fingerprint()));

    let folder = state.link(&link()).unwrap();
    assert!(folder.leaf().unwrap().is_none() && folder.snapshot().unwrap().is_none());
    let mut latch = folder.latch().unwrap();
    latch.record(Digest::of(b"mou"), Millis(7));
    folder.save_latch(&latch).unwrap();
    assert_eq!(folder.latch().unwrap(), latch);
    assert_eq!(state.links().unwrap(), vec![link()]);
}

#[test]
fn a_cut_ordered_while_nothing_runs_is_kept_until_it_is_taken_back() {
    let (_temp, state, _root) = minted();
    let cut = state.write_cut(&link(), "incident 2026-114").unwrap();
    let folder = state.link(&link()).unwrap();
    let by_object = StoredCut::by_object("brake", "LinkCut/liaison/brake", 1, "incident");
    folder.save_cut(&by_object).unwrap();
    assert!(folder.cuts().unwrap().contains(&cut));
    assert_eq!(state.write_cut(&link(), "incident 2026-115").unwrap(), cut, "one order is enough");
    assert_eq!(state.remove_cut(&link()).unwrap(), std::slice::from_ref(&cut.cut.id));
    assert_eq!(folder.cuts().unwrap(), vec![by_object], "only the LinkCut's removal takes it back");
    let again = state.write_cut(&link(), "incident 2026-116").unwrap();
    assert_ne!(cut.cut.id, again.cut.id, "an identifier that was released would not be obeyed again");
}

type Read<'a> = &'a dyn Fn() -> Result<(), StateError>;

#[test]
fn each_damaged_file_is_reported_and_left_as_it_is() {
    let (_temp, state, root) = minted();
    let identity = state.identity("liaison", "default").unwrap();
    let folder = state.link(&link()).unwrap();
    identity.save_intermediate(&root.issue_intermediate(Timestamp::now()).unwrap()).unwrap();
    fs::write(identity.path().join("transitions.pem"), "").unwrap();
    let spiffe = SpiffeId::link(interpol(), "europol.example".parse().unwrap());
    let leaf = identity.intermediate().unwrap().unwrap().issue_leaf(&spiffe, &[], Timestamp::now()).unwrap();
    folder.save_leaf(&leaf).unwrap();
    folder.save_cut(&StoredCut::by_command("test")).unwrap();
    let cut = fs::read_dir(folder.path().join("cuts")).unwrap().next().unwrap().unwrap().path();
    let cases: [(_, Read<'_>); 9] = [
        (identity.path().join("root.key"), &|| identity.root().map(drop)),
        (identity.path().join("root.pem"), &|| identity.root().map(drop)),
        (identity.path().join("intermediate.pem"), &|| identity.intermediate().map(drop)),
        (identity.path().join("transitions.pem"), &|| identity.transitions().map(drop)),
        (identity.path().join("status.json"), &|| identity.record().map(drop)),
        (folder.path().join("leaf.key"), &|| folder.leaf().map(drop)),
        (folder.path().join("relay.json"), &|| folder.snapshot().map(drop)),
        (folder.path().join("latch.json"), &|| folder.latch().map(drop)),
        (cut, &|| folder.cuts().map(drop)),
    ];
    for (path, read) in cases {
        let before = fs::read(&path).ok();
        let damaged = [&b"\xff\xfe"[..], b"{\"half\": ", &vec![b'x'; 2 << 20]];
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            chmod(&path, 0o600);
            let error = read().expect_err(&path.display().to_string());
            assert!(error.is_damage(), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        read().unwrap();
    }
}

#[test]
fn a_name_cannot_lead_out_of_the_folder() {
    let (_temp, state, _root) = minted();
    for name in ["..", ".", "", "a/b", "../x", ".hidden", "Ä", "a b"] {
        let error = state.identity("liaison", name).unwrap_err();
        assert!(matches!(error, StateError::Name(_)), "{name}: {error}");
        let outside = LinkRef { namespace: name.to_owned(), name: "europol".to_owned() };
        state.link(&outside).unwrap_err();
    }
    let folder = state.link(&link()).unwrap();
    for id in ["", "../x", ".x", "a b", "Command/\0"] {
        folder.remove_cut(id).unwrap_err();
    }
}

#[test]
fn what_a_killed_process_left_half_written_is_gone_once_another_holds_the_folder() {
    let (_temp, state, root) = minted();
    let unfinished = ["links/default/link/.new-1", "links/default/link/cuts/.new-2", "identities/x/.new-3/root.key"];
    for file in unfinished.map(|file| state.path().join(file)) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "a key").unwrap();
    }
    let lock = state.lock().unwrap();
    let left: Vec<_> =
        picture(state.path()).into_iter().map(|(name, _)| name).filter(|name| name.contains(".new-")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(state.fingerprints().unwrap()[0].fingerprint, root.fingerprint());
    drop(lock);
}

#[test]
fn a_file_somebody_left_among_the_folders_hides_nothing() {
    let (_temp, state, _root) = minted();
    state.write_cut(&link(), "drill").unwrap();
    for folder in ["links", "links/default", "identities", "identities/default"] {
        fs::create_dir_all(state.path().join(folder)).unwrap();
        fs::write(state.path().join(folder).join("notes.txt"), "").unwrap();
    }
    assert_eq!(state.links().unwrap(), [link()]);
    assert_eq!(state.fingerprints().unwrap().len(), 1);
    // Ordered again, it is the same order.
    state.write_cut(&link(), "again").unwrap();
    assert_eq!(state.remove_cut(&link()).unwrap().len(), 1);
}
