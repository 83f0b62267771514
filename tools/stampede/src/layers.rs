//! The layer rules: who may import whom. Reviews do not hold such rules, so this does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::cargo::{LAUNCHER, Metadata, Package};

/// Which lib may lean on which: `libs/edges.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edges {
    /// Folder of a lib → folders of libs.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// Libs that every lib's tests may use.
    tests: BTreeSet<String>,
}

/// The kinds of crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Lib,
    Service,
    /// Everything else: tools and tests.
    Above,
}

/// A crate of ours, with the edges to others of ours.
#[derive(Debug)]
struct Crate {
    package: String,
    folder: String,
    layer: Layer,
    manifest: PathBuf,
    /// Package names and whether only its tests need them.
    edges: Vec<(String, Use)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Code,
    Tests,
}

/// All broken rules, one sentence each. `takes_lints` says of a manifest whether it takes the workspace's lints.
pub(crate) fn violations(
    metadata: &Metadata,
    edges: &Edges,
    takes_lints: impl Fn(&Path) -> bool,
) -> Vec<String> {
    let crates = crates(metadata);
    let mut broken = Vec::new();
    for one in &crates {
        for (target, kind) in &one.edges {
            if let Some(other) = crates.iter().find(|other| other.package == *target) {
                broken.extend(edge(one, other, *kind, edges));
            }
        }
        if one.layer == Layer::Lib && !has_caller(one, &crates) {
            broken.push(format!("libs/{} has no caller in services or tools", one.folder));
        }
        if !takes_lints(&one.manifest) {
            broken.push(format!(
                "{} does not take the workspace's lints ([lints] workspace = true)",
                one.package
            ));
        }
    }
    broken.extend(unused_permissions(&crates, edges));
    broken
}

fn crates(metadata: &Metadata) -> Vec<Crate> {
    let names: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let place = |package: &Package| {
        let inside = package.manifest_path.strip_prefix(&metadata.workspace_root).ok()?;
        let mut parts = inside.iter().map(|part| part.to_string_lossy().into_owned());
        Some((parts.next()?, parts.next()?))
    };
    let edges = |package: &Package| {
        let ours = package.dependencies.iter().filter(|dependency| names.contains(dependency.name.as_str()));
        let uses =
            |kind: &Option<String>| if kind.as_deref() == Some("dev") { Use::Tests } else { Use::Code };
        ours.map(|dependency| (dependency.name.clone(), uses(&dependency.kind))).collect()
    };
    metadata
        .packages
        .iter()
        .filter_map(|package| {
            let (shelf, folder) = place(package)?;
            let layer = match shelf.as_str() {
                "libs" => Layer::Lib,
                "services" => Layer::Service,
                _ => Layer::Above,
            };
            let manifest = package.manifest_path.clone();
            Some(Crate { package: package.name.clone(), folder, layer, manifest, edges: edges(package) })
        })
        .collect()
}

/// What is wrong with one crate importing another.
fn edge(one: &Crate, other: &Crate, kind: Use, edges: &Edges) -> Option<String> {
    let (from, to) = (&one.package, &other.package);
    match (one.layer, other.layer) {
        (Layer::Lib, Layer::Lib) => {
            let listed = edges.edges.get(&one.folder).is_some_and(|allowed| allowed.contains(&other.folder));
            let for_tests = kind == Use::Tests && edges.tests.contains(&other.folder);
            let allowed = listed || for_tests || one.package == other.package;
            (!allowed).then(|| format!("{from} imports {to}, which libs/edges.toml does not allow"))
        }
        (Layer::Lib, Layer::Service) => Some(format!("the lib {from} imports the service {to}")),
        (Layer::Service, Layer::Service) => Some(format!("the service {from} imports the service {to}")),
        // A service is tested against the real thing it talks to, for example the provider's simulator.
        (Layer::Service, Layer::Above) if kind == Use::Tests => None,
        (Layer::Lib | Layer::Service, Layer::Above) => {
            Some(format!("{from} imports {to}, which stands above it"))
        }
        (Layer::Service | Layer::Above, Layer::Lib) | (Layer::Above, _) => None,
    }
}

/// A lib that only libs use counts as used when one of those is. The launcher names every crate and calls none.
fn has_caller(lib: &Crate, crates: &[Crate]) -> bool {
    crates.iter().any(|other| {
        let uses = other.package != lib.package
            && other.package != LAUNCHER
            && other.edges.iter().any(|(target, _)| *target == lib.package);
        uses && (other.layer != Layer::Lib || has_caller(other, crates))
    })
}

/// The list would stop telling what the graph looks like.
fn unused_permissions(crates: &[Crate], edges: &Edges) -> Vec<String> {
    let lib = |folder: &str| crates.iter().find(|one| one.layer == Layer::Lib && one.folder == folder);
    let is_used = |from: &str, to: &str| match (lib(from), lib(to)) {
        (Some(from), Some(to)) => from.edges.iter().any(|(target, _)| *target == to.package),
        _ => false,
    };
    let all = edges.edges.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
    all.filter(|(from, to)| !is_used(from, to))
        .map(|(from, to)| format!("libs/edges.toml allows {from} to import {to}, which it does not"))
        .collect()
}

/// Whether a manifest says `[lints] workspace = true`.
pub(crate) fn takes_workspace_lints(manifest: &str) -> bool {
    let table: Option<toml::Table> = manifest.parse().ok();
    let lints = table.as_ref().and_then(|table| table.get("lints"));
    lints.and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
}

/// Reads `libs/edges.toml`.
pub(crate) fn read_edges(text: &str) -> anyhow::Result<Edges> {
    toml::from_str(text).context("libs/edges.toml")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EDGES: &str = "tests = ['testkit']\n[edges]\nbus = ['contracts']\n";

    /// What a crate imports, and `dev` where only its tests do.
    type Imports = &'static [(&'static str, &'static str)];

    fn check(crates: &[(&str, Imports)], edges: &str) -> Vec<String> {
        let name = |folder: &str| format!("stampede-{}", folder.rsplit('/').next().unwrap());
        let packages: Vec<_> = crates
            .iter()
            .map(|(folder, imports)| {
                let dependencies: Vec<_> = imports
                    .iter()
                    .map(|(target, kind)| json!({ "name": name(target), "kind": (*kind == "dev").then_some("dev") }))
                    .collect();
                let manifest = format!("/w/{folder}/Cargo.toml");
                json!({ "name": name(folder), "manifest_path": manifest, "dependencies": dependencies })
            })
            .collect();
        let metadata = json!({ "packages": packages, "workspace_root": "/w" });
        let metadata: Metadata = serde_json::from_value(metadata).unwrap();
        violations(&metadata, &read_edges(edges).unwrap(), |_| true)
    }

    fn good() -> Vec<(&'static str, Imports)> {
        vec![
            ("libs/contracts", &[("testkit", "dev")]),
            ("libs/testkit", &[]),
            ("libs/bus", &[("contracts", "")]),
            ("services/orders", &[("bus", ""), ("testkit", "dev")]),
            ("tools/stampede", &[("orders", "")]),
            ("tools/launcher", &[("bus", "dev"), ("lonely", "dev"), ("orders", "dev")]),
        ]
    }

    #[test]
    fn a_good_tree_passes() {
        assert_eq!(check(&good(), EDGES), Vec::<String>::new());
    }

    #[test]
    fn every_rule_is_found_broken() {
        let cases: [(&str, Imports, &str); 5] = [
            ("libs/bus", &[("contracts", ""), ("orders", "")], "the lib stampede-bus imports the service"),
            ("libs/bus", &[("contracts", ""), ("testkit", "")], "libs/edges.toml does not allow"),
            ("services/catalog", &[("orders", "dev")], "the service stampede-catalog imports the service"),
            ("services/orders", &[("bus", ""), ("stampede", "")], "stands above"),
            ("libs/lonely", &[], "libs/lonely has no caller"),
        ];
        for (folder, imports, expected) in cases {
            let mut crates = good();
            crates.retain(|(other, _)| *other != folder);
            crates.push((folder, imports));
            let found = check(&crates, EDGES);
            assert!(found.iter().any(|broken| broken.contains(expected)), "{folder}: {found:?}");
        }
    }

    #[test]
    fn a_lib_used_only_by_an_unused_lib_is_unused() {
        let mut crates = good();
        crates.retain(|(folder, _)| !folder.starts_with("services"));
        crates.retain(|(folder, _)| !folder.starts_with("tools"));
        let found = check(&crates, EDGES);
        assert!(found.iter().any(|broken| broken.contains("libs/contracts has no caller")), "{found:?}");
    }

    #[test]
    fn a_permission_nobody_uses_is_pointed_out() {
        let found = check(&good(), "tests = ['testkit']\n[edges]\nbus = ['contracts', 'testkit']\n");
        assert_eq!(found, ["libs/edges.toml allows bus to import testkit, which it does not"]);
    }

    #[test]
    fn lints_are_taken_only_from_the_workspace() {
        assert!(takes_workspace_lints("[lints]\nworkspace = true\n"));
        assert!(!takes_workspace_lints("[lints.rust]\nunsafe_code = 'allow'\n"));
        assert!(!takes_workspace_lints("[package]\nname = 'x'\n"));
        assert!(!takes_workspace_lints("[lints]\nworkspace = false\n"));
    }
}
