//! Labels and versions.

use serde_json::Value;

use crate::rendering::title;
use crate::{Code, Rendering};

const PREFIX: &str = "app.kubernetes.io/";
/// What has no name of its own because it holds for everything.
const FOR_ALL: [&str; 3] = ["Namespace/stampede", "NetworkPolicy/default-deny", "NetworkPolicy/dns"];

/// The recommended labels on every object, and on every pod as well.
pub fn everything_is_labelled(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for object in &rendering.objects {
        let title = title(object);
        let mut want = |place: &str, metadata: &Value, labels: &[&str]| {
            for label in labels {
                if metadata["labels"][format!("{PREFIX}{label}")].as_str().is_none_or(str::is_empty) {
                    faults.push(format!("{title}, {place}: {PREFIX}{label} is missing"));
                }
            }
        };
        want("metadata", &object["metadata"], &["part-of", "instance", "managed-by"]);
        if !FOR_ALL.contains(&title.as_str()) {
            want("metadata", &object["metadata"], &["name", "component"]);
        }
        let spec = &object["spec"];
        for template in [&spec["template"], &spec["jobTemplate"]["spec"]["template"]] {
            if template.is_object() {
                let all = ["part-of", "instance", "managed-by", "name", "component"];
                want("template", &template["metadata"], &all);
            }
        }
    }
    faults
}

/// Images of ours have the workspace's version; foreign ones have one, and the label says the same.
pub fn images_are_of_this_version(rendering: &Rendering, code: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in &rendering.workloads {
        for one in workload.containers() {
            let image = one.container.image.clone().unwrap_or_default();
            // A digest may follow: the version is still there to read.
            let tagged = image.split('@').next().unwrap_or_default();
            let tag = tagged.rsplit_once(':').map(|(_, tag)| tag).unwrap_or_default();
            match one.image_of_ours() {
                Some(name) if name != "stampede" && !code.services.contains_key(name) => {
                    faults.push(format!("{}, image: nobody builds {image}", one.title()));
                }
                Some(_) if tag != code.version => {
                    faults.push(format!("{}, image: {image} is not {}", one.title(), code.version));
                }
                Some(_) => {}
                None if !tag.trim_start_matches('v').starts_with(|first: char| first.is_ascii_digit()) => {
                    faults.push(format!("{}, image: {image} has no version", one.title()));
                }
                None => {}
            }
            let version = workload.labels().get("app.kubernetes.io/version").cloned();
            let version = version.unwrap_or_default();
            let number = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
            if version != number && workload.is_long_running() {
                faults.push(format!("{}, label version: {version:?} is not {number}", one.title()));
            }
        }
    }
    faults
}

/// What a server never lets anybody change is the same in the next version: selectors, and labels of volumes.
pub fn what_cannot_change_has_no_version(rendering: &Rendering, _: &Code) -> Vec<String> {
    let mut faults = Vec::new();
    for object in rendering.objects.iter().filter(|object| object["kind"] != "Job") {
        let spec = &object["spec"];
        let claims = spec["volumeClaimTemplates"].as_array().into_iter().flatten();
        let claims = claims.map(|claim| ("volumeClaimTemplates", &claim["metadata"]["labels"]));
        for (field, labels) in claims.chain([("selector", &spec["selector"]["matchLabels"])]) {
            if !labels[format!("{PREFIX}version")].is_null() {
                faults.push(format!("{}, {field}: it names a version", title(object)));
            }
        }
    }
    faults
}
