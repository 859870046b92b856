//! `relay.json`, a peer's declaration and stored cuts: what parses is written back the same, one content has one hash, and
//! a cut in force is in force until a snapshot says it is over.

use securelink_relay_config::{Cut, CutBook, Declaration, FORMAT, MAX_DECLARATION_BYTES, MAX_SNAPSHOT_BYTES, Snapshot};

/// Reads the bytes as each of them.
pub fn run(data: &[u8]) {
    if let Ok(snapshot) = Snapshot::from_bytes(data) {
        assert!(data.len() <= MAX_SNAPSHOT_BYTES && snapshot.format == FORMAT && snapshot.requires.is_empty());
        let bytes = snapshot.to_bytes();
        // Pretty-printing may bring a file at the bound over it.
        if bytes.len() <= MAX_SNAPSHOT_BYTES {
            let again = Snapshot::from_bytes(&bytes).expect("a snapshot of ours is one");
            assert_eq!(again, snapshot);
            assert_eq!(again.hash(), snapshot.hash());
        }
        let declaration = snapshot.declaration(Some("note".to_owned()));
        let (head, cut) = (snapshot.head(&declaration.to_bytes(), false), snapshot.head(&declaration.to_bytes(), true));
        assert_eq!((head.sequence, head.state), (snapshot.version, snapshot.state));
        assert!(cut.state >= head.state, "a cut widens");
        cuts(&snapshot);
    }
    if let Ok(declaration) = Declaration::from_bytes(data) {
        assert!(data.len() <= MAX_DECLARATION_BYTES);
        let bytes = declaration.to_bytes();
        if bytes.len() <= MAX_DECLARATION_BYTES {
            let again = Declaration::from_bytes(&bytes).expect("a declaration of ours is one");
            assert_eq!(again.to_bytes(), bytes, "one declaration, two hashes");
        }
    }
    if let Ok(book) = serde_json::from_slice::<CutBook>(data) {
        let bytes = serde_json::to_vec(&book).expect("a book is written");
        assert_eq!(serde_json::from_slice::<CutBook>(&bytes).expect("a book of ours is one"), book);
    }
}

/// Each cut of the snapshot, pushed once more as the next revision.
fn cuts(snapshot: &Snapshot) {
    for cut in &snapshot.cuts_in_force {
        let mut book = CutBook::default();
        let pushed = Cut { revision: cut.revision.saturating_add(1), ..cut.clone() };
        let fresh = book.admit(pushed.clone(), snapshot);
        let acknowledged = snapshot.released.contains(&pushed.id)
            || snapshot.seen.get(&pushed.id).is_some_and(|seen| *seen >= pushed.revision);
        assert_eq!(fresh, !acknowledged, "obeyed twice, or not at all");
        assert!(!book.admit(pushed.clone(), snapshot), "the same revision is news twice");
        let effective = book.effective(snapshot);
        assert!(
            snapshot.cuts_in_force.iter().all(|cut| effective.contains(cut)) && effective.contains(&pushed) >= fresh
        );
        assert!(!book.reconcile(snapshot), "forgotten without a newer snapshot");
    }
}
