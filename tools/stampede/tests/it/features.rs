//! What a first `cargo stampede up` costs.

use std::collections::BTreeSet;
use std::process::Command;

/// Crates with their features, as cargo chooses them for these packages.
fn chosen(packages: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--edges", "no-dev", "--prefix", "none", "--format", "{p} [{f}]"]).args(packages);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_command_line_and_the_services_share_every_crate_they_are_made_of() {
    let (alone, together) = (chosen(&["--package", "stampede"]), chosen(&["--workspace"]));
    let twice: Vec<&String> = alone.difference(&together).collect();
    assert!(
        twice.is_empty(),
        "compiled once for `cargo stampede` and again for the services; see the end of [dependencies]: {twice:#?}"
    );
}
