//! The chart of the kinds: what the types generate, and one annotation.

use securelink_crds::definitions;

use crate::helm::{Tools, documents, read, root};

pub fn the_kinds_in_the_chart_are_the_manifests_byte_for_byte(_: &Tools) {
    let names = |folder: &str| {
        let files =
            std::fs::read_dir(root(folder)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        files.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(names("charts/securelink-crds/manifests"), names("crds/manifests"), "run: make manifests");
    for name in names("crds/manifests") {
        let [chart, manifest] =
            ["charts/securelink-crds", "crds"].map(|folder| read(&format!("{folder}/manifests/{name}")));
        assert!(chart == manifest, "{name} in the chart is not the manifest; run: make manifests");
    }
}

pub fn the_rendered_kinds_are_those_of_the_types_and_stay_when_the_chart_goes(tools: &Tools) {
    let mut rendered = documents(&tools.text("helm4", "securelink-crds", &[]));
    for kind in &mut rendered {
        let metadata = kind["metadata"].as_object_mut().unwrap();
        let annotations = metadata.remove("annotations").expect("annotations");
        assert_eq!(annotations, serde_json::json!({"helm.sh/resource-policy": "keep"}));
    }
    let mut generated = definitions().map(|definition| serde_json::to_value(definition).unwrap());
    let name = |kind: &serde_json::Value| kind["metadata"]["name"].to_string();
    rendered.sort_by_key(name);
    generated.sort_by_key(name);
    assert!(rendered == generated, "the rendered kinds are not those of the types");
}
