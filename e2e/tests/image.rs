//! The image's recipe follows the workspace.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

fn root(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).expect("both are in the file").0
}

#[test]
fn the_image_is_built_with_the_pinned_toolchain() {
    let (toolchain, dockerfile) = (root("rust-toolchain.toml"), root("Dockerfile"));
    let pinned = between(&toolchain, "channel = \"", "\"");
    assert_eq!(between(&dockerfile, "FROM rust:", "-"), pinned, "Dockerfile and rust-toolchain.toml");
}

#[test]
fn every_crate_of_the_workspace_is_in_the_context_of_the_image() {
    let (workspace, ignore) = (root("Cargo.toml"), root(".dockerignore"));
    for member in between(&workspace, "members = [", "]").split(',') {
        let member = member.trim().trim_matches('"');
        let kept = ignore.lines().filter_map(|line| line.strip_prefix('!'));
        let manifest = format!("{member}/Cargo.toml");
        assert!(
            kept.clone().any(|path| Path::new(&manifest).starts_with(path)),
            "{manifest} does not reach the image; name {member} in .dockerignore"
        );
    }
}
