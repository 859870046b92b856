//! The examples people copy load without a problem.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use securelink_crds::load::{Object, Source, load};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_example_loads_without_a_problem() {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"));
    assert!(files.len() >= 9);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = load(&[Source { name: &path.display().to_string(), text: &text }]);
        assert!(loaded.problems.is_empty(), "{}", loaded.problems[0]);
        assert!(!loaded.objects.is_empty() && loaded.invalid.is_empty() && !loaded.incomplete, "{}", path.display());
    }
}

#[test]
fn the_two_sides_of_the_story_mirror_each_other() {
    let link = |side: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(side).join("link.yaml");
        let text = std::fs::read_to_string(path).unwrap();
        match load(&[Source { name: side, text: &text }]).objects.remove(0) {
            Object::SecureLink(link) => link.spec,
            other => panic!("{other:?}"),
        }
    };
    let (interpol, europol) = (link("interpol"), link("europol"));
    assert_eq!(interpol.agreement, europol.agreement);
    for (here, there) in [(&interpol, &europol), (&europol, &interpol)] {
        for import in &here.imports {
            let export = there.exports.iter().find(|export| export.name == import.name).unwrap();
            assert!(import.data_class.admits(export.data_class));
        }
        assert_eq!(Some(&here.peer.endpoints[0].host), there.expose.as_ref().unwrap().hostname.as_ref());
    }
}
