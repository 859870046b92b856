//! Commands that need no process: what they print, to whom, and with which exit code.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli_support;

use std::fs;

use cli_support::{Ran, examples, securelink};
use serde_json::Value;

const COMMANDS: [&str; 13] = [
    "demo",
    "run",
    "status",
    "doctor",
    "greet",
    "cut",
    "resume",
    "fingerprint",
    "digest",
    "check",
    "render",
    "grant",
    "completion",
];

#[test]
fn every_command_teaches_by_example_and_names_its_exit_codes() {
    for command in COMMANDS {
        let help = securelink(&[command, "--help"]).expect(0);
        assert!(help.out.contains("Examples:\n") && help.out.contains(&format!("securelink {command} ")), "{command}");
        let codes = help.out.split("Exit codes:\n").nth(1).unwrap_or_else(|| panic!("{command} names no exit codes"));
        assert!(codes.contains("  0  ") && codes.contains("  2  the command line is wrong"), "{command}: {codes}");
        assert!(!help.out.contains('\u{1b}'), "{command} colours a pipe");
        assert!(command == "completion" || help.out.contains("With -o json:\n  {"), "{command} does not say its JSON");
    }
    let help = securelink(&["--help"]).expect(0);
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command} is not listed");
    }
}

#[test]
fn kubectl_finds_it_as_a_plugin_and_is_answered_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-securelink");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_securelink"), &plugin).unwrap();
    let help = Ran::of(std::process::Command::new(plugin).args(["digest", "--help"]), "").expect(0);
    assert!(help.out.contains("Usage: kubectl securelink digest"), "{}", help.out);
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_says_so_on_standard_error() {
    for line in [
        &["nothing"][..],
        &["digest"],
        &["check"],
        &["cut", "europol"],
        &["cut", "europol", "--reason", " "],
        &["greet", "a/b/c"],
        &["run", "-f", ".", "--listen", "europol"],
        &["run", "-f", ".", "--local", "here"],
        &["check", "-f", "no/such/file.yaml"],
        &["demo", "--size", "1KiB"],
        &["demo", "--size", "99999999999999GiB"],
    ] {
        let ran = securelink(line).expect(2);
        assert!(ran.out.is_empty() && ran.err.starts_with("error: "), "{line:?}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn the_version_is_the_packages() {
    let ran = securelink(&["--version"]).expect(0);
    assert_eq!(ran.out, format!("securelink {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_digest_is_the_sha_256_of_the_file_whatever_its_size() {
    let folder = tempfile::tempdir().unwrap();
    // FIPS 180-4: the empty message, "abc", and a million times "a".
    let vectors = [
        ("empty", String::new(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "abc".to_owned(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("many", "a".repeat(1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    let mut paths = Vec::new();
    for (name, text, digest) in &vectors {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        assert_eq!(securelink(&["digest", &path]).expect(0).out, format!("sha256:{digest}\n"));
        assert_eq!(Ran::with_input(&["digest", "-"], text).expect(0).out, format!("sha256:{digest}\n"));
        paths.push(path);
    }
    let several = securelink(&["digest", &paths[0], &paths[1]]).expect(0);
    assert_eq!(several.out.lines().count(), 2);
    assert!(several.out.lines().all(|line| line.starts_with("sha256:") && line.contains("  ")));

    let json = securelink(&["digest", "-o", "json", &paths[1], &paths[2]]).expect(0).json();
    let digests = json["digests"].as_array().unwrap();
    assert_eq!(digests[1]["digest"], format!("sha256:{}", vectors[2].2));
    assert_eq!(digests[0]["file"], paths[1].as_str());
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
    let ran = securelink(&["digest", "no/such.pdf"]).expect(1);
    assert_eq!(
        ran.err,
        "error: no/such.pdf cannot be read: No such file or directory (os error 2); check its name and permissions\n"
    );
}

#[test]
fn the_examples_are_valid() {
    let ran = securelink(&["check", "-R", "-f", &examples("")]).expect(0);
    assert!(ran.out.starts_with("ok 10 objects in 9 files: 0 problems"), "{}", ran.out);
    let json = securelink(&["check", "-o", "json", "-f", &examples("interpol")]).expect(0).json();
    assert_eq!(json["valid"], true);
    assert_eq!(json["objects"], serde_json::json!(["LinkIdentity liaison/default", "SecureLink liaison/europol"]));
    assert_eq!(
        (&json["problems"], &json["warnings"], &json["files"]),
        (&Value::Array(vec![]), &Value::Array(vec![]), &2.into())
    );
}

const BAD: &str = "apiVersion: securelink.dev/v1alpha1
kind: SecureLink
metadata: {name: europol, namespace: liaison}
spec:
  identityRef: {name: default}
  peer:
    trustDomain: Europol.example
    fingerprints: [sha256:4be0a1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e]
    endpoints: [{host: \"a\\e[2Jb\", port: 443}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
";

#[test]
fn bad_yaml_is_exit_code_1_with_line_cause_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.yaml");
    fs::write(&path, BAD).unwrap();
    let path = path.display().to_string();
    let ran = securelink(&["check", "-f", &path]).expect(1);
    assert!(ran.out.contains("error: spec.peer.trustDomain: "), "{}", ran.out);
    assert!(ran.out.contains(&format!("--> {path}:7 (SecureLink liaison/europol)\n  do: ")), "{}", ran.out);
    assert!(ran.out.contains("\nwarning: ") && ran.out.contains("ConfigMap"), "{}", ran.out);
    assert!(!ran.out.contains('\u{1b}'), "a value of the file reached the terminal");

    let json = securelink(&["check", "-o", "json", "-f", &path]).expect(1).json();
    assert_eq!(json["valid"], false);
    let problem = json["problems"].as_array().unwrap().iter().find(|p| p["field"] == "spec.peer.trustDomain").unwrap();
    assert_eq!(problem["line"], 7);
    assert!(problem["message"].is_string() && problem["remedy"].is_string() && problem["source"] == path.as_str());
    assert_eq!(
        Ran::with_input(&["check", "-f", "-"], BAD).expect(1).out.matches("standard input").count(),
        ran.out.matches(&path).count()
    );
}

#[test]
fn files_without_an_object_of_ours_are_not_called_valid() {
    let ran = Ran::with_input(&["check", "-f", "-"], "").expect(1);
    assert!(ran.err.starts_with("error: no object of securelink.dev was found; "), "{}", ran.err);
}

#[test]
fn rendering_is_deterministic_and_shows_what_a_machine_cannot_run() {
    let (link, first) = (examples("one-way"), securelink(&["render", "-f", &examples("minimal")]).expect(0));
    assert!(first.out.starts_with("# relay.json of default/b\nformat: 1\nversion: 1\n"), "{}", first.out);
    assert_eq!(first.out, securelink(&["render", "-f", &examples("minimal")]).expect(0).out);

    let json = securelink(&["render", "-o", "json", "-f", &examples("minimal")]).expect(0).json();
    assert_eq!(json["links"][0]["link"], "default/b");
    assert_eq!(json["links"][0]["relay"]["peer"]["trustDomain"], "b.example");

    // Its identity is not among the files.
    let ran = securelink(&["render", "-f", &link]).expect(1);
    assert!(ran.err.contains("error: field-office/hub: spec.identityRef: "), "{}", ran.err);
}

#[test]
fn loopback_peers_are_dialed_only_when_asked_for() {
    let denied = |more: &[&str]| {
        let minimal = examples("minimal");
        let line = [&["render", "-o", "json", "-f", &minimal][..], more].concat();
        securelink(&line).expect(0).json()["links"][0]["relay"]["dial"]["deniedEndpoints"].clone()
    };
    assert!(denied(&[]).to_string().contains("127.0.0.0/8"));
    assert!(!denied(&["--allow-loopback-peers"]).to_string().contains("127.0.0.0/8"));
}

#[test]
fn the_relay_makes_records_itself_only_when_asked_to() {
    let records = |more: &[&str]| {
        let minimal = examples("minimal");
        let line = [&["render", "-o", "json", "-f", &minimal][..], more].concat();
        securelink(&line).expect(0).json()["links"][0]["relay"]["records"].clone()
    };
    // Left out, so that the configuration of links that do not ask for it is the one it was.
    assert_eq!([records(&[]), records(&["--records", "rustls"])], [Value::Null, Value::Null]);
    assert_eq!(records(&["--records", "in-place"]), "InPlace");
}

#[test]
fn completion_scripts_name_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = securelink(&["completion", shell]).expect(0).out;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        for flag in ["kubeconfig", "context", "namespace", "all-namespaces", "trust-domain", "timeout", "exports"] {
            assert!(script.contains(flag), "{shell}: {flag}");
        }
    }
    let script = securelink(&["completion", "bash"]).expect(0).out;
    let parsed = Ran::of(std::process::Command::new("bash").arg("-n"), &script);
    assert!(parsed.code == 0 && parsed.err.is_empty(), "{}", parsed.err);
}

#[test]
fn colour_is_for_terminals_unless_asked_for() {
    let line = ["check", "-f", &examples("interpol")];
    assert!(!securelink(&line).expect(0).out.contains('\u{1b}'));
    assert!(securelink(&[&["--color", "always"][..], &line].concat()).expect(0).out.contains("\u{1b}[32mok\u{1b}[0m"));
}

#[test]
fn without_a_process_or_state_commands_say_so_with_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state").display().to_string();
    for line in [
        &["status"][..],
        &["greet", "europol"],
        &["fingerprint"],
        &["cut", "europol", "--reason", "x"],
        &["resume", "europol"],
    ] {
        let ran = securelink(&[line, &["--state-dir", &dir]].concat()).expect(3);
        assert!(
            ran.err.starts_with("error: ") && ran.err.contains("; ") && ran.err.contains(&dir),
            "{line:?}: {}",
            ran.err
        );
        assert!(ran.out.is_empty(), "{line:?}");
    }
    let ran = securelink(&["status", "--state-dir", &dir]).expect(3);
    assert!(ran.err.contains("`securelink run`"), "{}", ran.err);
    let ran = securelink(&["run", "-f", &examples("minimal"), "--state-dir", &dir, "--local", "off"]).expect(3);
    assert!(ran.err.contains("--init"), "{}", ran.err);
    assert!(!folder.path().join("state").exists(), "a mistyped folder was made");
}
