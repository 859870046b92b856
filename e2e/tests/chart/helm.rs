//! Helm, run as a user runs it but without a cluster, and what holds for both of its versions.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The Kubernetes that is rendered for. Helm 3 as the lab builds it would take an old one.
pub const FOR: [&str; 2] = ["--kube-version", "1.36.2"];
/// Where the operator lives in these tests.
pub const NAMESPACE: &str = "securelink-system";

/// Helm's two versions, promtool, and a folder of their own for what they write.
pub struct Tools {
    folder: PathBuf,
    home: TempDir,
}

/// A version of Helm, by the name of its program.
pub const HELMS: [&str; 2] = ["helm3", "helm4"];

impl Tools {
    pub fn new(folder: PathBuf) -> std::io::Result<Self> {
        Ok(Self { folder, home: TempDir::new()? })
    }

    /// Runs a tool; nothing of the user's configuration is read, and no cluster is known.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.folder.join(tool));
        for folder in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(folder, self.home.path().join(folder));
        }
        command.env("KUBECONFIG", self.home.path().join("none")).current_dir(root("."));
        command.args(arguments).output().unwrap_or_else(|error| panic!("{tool}: {error}"))
    }

    /// What a tool prints; fails with what it says where it fails.
    pub fn printed(&self, tool: &str, arguments: &[&str]) -> String {
        let output = self.run(tool, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{tool} {}: {}\n{said}\n{printed}", arguments.join(" "), output.status);
        printed
    }

    /// A chart as text, by one version of Helm, as the release `one` of the operator's namespace.
    pub fn text(&self, helm: &str, chart: &str, more: &[&str]) -> String {
        let chart = format!("charts/{chart}");
        self.printed(helm, &[&["template", "one", &chart, "--namespace", NAMESPACE], &FOR[..], more].concat())
    }

    /// The objects of the operator's chart with the chart's own values and these on top.
    pub fn objects(&self, more: &[&str]) -> Vec<Value> {
        documents(&self.text("helm4", "securelink", more))
    }

    /// The one object of a kind and a name.
    pub fn object(&self, kind: &str, name: &str, more: &[&str]) -> Value {
        let mut found = self.objects(more).into_iter().filter(|object| is(object, kind, name));
        let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
        assert!(found.next().is_none(), "{kind} {name} is there twice");
        one
    }

    /// What both versions of Helm say when they refuse these values; the same.
    pub fn refusal(&self, more: &[&str]) -> String {
        let [three, four] = HELMS.map(|helm| {
            let begin = ["template", "one", "charts/securelink", "--namespace", NAMESPACE];
            let output = self.run(helm, &[&begin, &FOR[..], more].concat());
            assert!(!output.status.success(), "{helm} takes {more:?}");
            String::from_utf8(output.stderr).unwrap()
        });
        assert_eq!(three.trim(), four.trim(), "{more:?}");
        four
    }
}

/// Values in which nothing is as the chart has it.
pub const FULL: [&str; 2] = ["--values", "e2e/tests/chart/full.yaml"];

/// The path of a file of this repository.
pub fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

/// A file of this repository.
pub fn read(file: &str) -> String {
    std::fs::read_to_string(root(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// YAML as it means.
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The documents of a stream that say something.
pub fn documents(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(yaml).filter(|document| !document.is_null()).collect()
}

pub fn is(object: &Value, kind: &str, name: &str) -> bool {
    object["kind"] == kind && object["metadata"]["name"] == name
}

pub fn helm_3_and_helm_4_render_the_same(tools: &Tools) {
    let lines = |text: String| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>();
    let values: [&[&str]; 3] = [&[], &FULL, &["--set", "linkNamespaces={a,b}", "--set", "operator.replicas=1"]];
    for (chart, values) in
        values.map(|values| ("securelink", values)).into_iter().chain([("securelink-crds", values[0])])
    {
        let [three, four] = HELMS.map(|helm| lines(tools.text(helm, chart, values)));
        let differ = three.iter().zip(&four).find(|(three, four)| three != four);
        assert!(differ.is_none() && three.len() == four.len(), "{chart} {values:?}: {differ:?}");
    }
}

pub fn helm_has_no_complaint(tools: &Tools) {
    for (helm, chart) in HELMS.iter().flat_map(|helm| ["securelink", "securelink-crds"].map(|chart| (helm, chart))) {
        let chart = format!("charts/{chart}");
        let said = tools.printed(helm, &["lint", "--strict", FOR[0], FOR[1], &chart]);
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{helm}: {said}");
    }
}

pub fn charts_and_crates_have_one_version(_: &Tools) {
    for chart in ["securelink", "securelink-crds"] {
        let chart = yaml(&read(&format!("charts/{chart}/Chart.yaml")));
        for field in ["version", "appVersion"] {
            assert_eq!(chart[field], env!("CARGO_PKG_VERSION"), "{field} of {}", chart["name"]);
        }
    }
}

pub fn the_notes_end_with_the_command_that_proves_a_link(tools: &Tools) {
    // Helm 3 shows no notes without a cluster.
    let notes = |more: &[&str]| {
        let begin = ["install", "one", "charts/securelink", "--namespace", NAMESPACE, "--dry-run=client"];
        let printed = tools.printed("helm4", &[&begin, more].concat());
        printed.split_once("NOTES:").unwrap().1.trim().to_owned()
    };
    let proof = "kubectl -n liaison wait --for=condition=Ready securelink/NAME --timeout=2m";
    let said = notes(&["--set", "linkNamespaces={liaison}"]);
    assert_eq!(said.lines().last().unwrap().trim(), proof);
    assert!(said.contains("MISSING: the kinds") && said.contains("OPEN: clusterCIDRs"), "{said}");
    let said = notes(&["--set", "clusterCIDRs={10.244.0.0/16}"]);
    assert!(said.contains("MISSING: linkNamespaces"), "{said}");
    assert!(!said.contains("OPEN:"), "{said}");
}
