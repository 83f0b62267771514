//! What all tests look at: the code, and every combination rendered.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use stampede_manifests::{Code, Kubectl, Renderer, Rendering, Rule};

pub const OVERLAYS: [&str; 2] = ["kind", "ha"];
const COMPONENTS: [&str; 6] =
    ["observability", "autoscaling-cpu", "autoscaling-queue", "ingress", "load", "loadbalancer"];
/// All that go together.
pub const TOGETHER: [&str; 4] = ["observability", "autoscaling-cpu", "ingress", "load"];
/// No component, but what two of them share.
const SHARED: &str = "autoscaling-common";

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| Code::read(&workspace()).unwrap_or_else(|error| panic!("{error:#}")))
}

pub fn renderer() -> &'static Renderer {
    static RENDERER: OnceLock<Renderer> = OnceLock::new();
    RENDERER.get_or_init(|| {
        let kubectl = Kubectl::on(&std::env::var_os("PATH").unwrap_or_default());
        let kubectl = kubectl.unwrap_or_else(|error| panic!("{error:#}"));
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rendered");
        Renderer::new(&workspace().join("k8s"), &scratch, kubectl).unwrap()
    })
}

pub fn text(overlay: &str, components: &[&str]) -> String {
    renderer()
        .render(overlay, components)
        .unwrap_or_else(|error| panic!("{overlay} {components:?}: {error:#}"))
}

fn render(overlay: &str, components: &[&str]) -> Rendering {
    let name = [&[overlay], components].concat().join(" + ");
    let read = Rendering::parse(&name, &text(overlay, components));
    read.unwrap_or_else(|error| panic!("{error:#}"))
}

/// Every overlay alone, with each component, and with all that go together.
pub fn renderings() -> &'static [Rendering] {
    static RENDERINGS: OnceLock<Vec<Rendering>> = OnceLock::new();
    RENDERINGS.get_or_init(|| {
        let alone = COMPONENTS.iter().map(std::slice::from_ref);
        let sets: Vec<&[&str]> = [&[][..]].into_iter().chain(alone).chain([&TOGETHER[..]]).collect();
        OVERLAYS.iter().flat_map(|overlay| sets.iter().map(|set| render(overlay, set))).collect()
    })
}

pub fn rendering(name: &str) -> &'static Rendering {
    renderings().iter().find(|rendering| rendering.name == name).unwrap()
}

/// Nothing is broken, wherever it is applied.
pub fn holds(rule: Rule) {
    let all = renderings().iter();
    let faults: Vec<String> = all
        .flat_map(|rendering| {
            rule(rendering, code()).into_iter().map(|fault| format!("{}: {fault}", rendering.name))
        })
        .collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_component_is_looked_at() {
    let folders = |path: &str| -> Vec<String> {
        let entries = std::fs::read_dir(workspace().join(path)).unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut known = [&COMPONENTS[..], &[SHARED]].concat();
    known.sort_unstable();
    assert_eq!(folders("k8s/components"), known);
    let mut overlays = OVERLAYS.to_vec();
    overlays.sort_unstable();
    assert_eq!(folders("k8s/overlays"), overlays);
}
