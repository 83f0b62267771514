//! What a first `cargo stampede up` costs: each crate is compiled once. `.ci/first-start` counts it on a fresh clone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use stampede::scratch::Scratch;

use crate::said;

/// The launcher, compiled for this test, next to the programs that cargo has built. A shell stands in for cargo:
/// `sh build --workspace …` runs the script `build`.
struct Launcher(Scratch);

impl Launcher {
    fn compiled() -> Self {
        let scratch = Scratch::new("launcher").unwrap();
        let programs = Path::new(env!("CARGO_BIN_EXE_stampede")).parent().unwrap();
        symlink(programs, scratch.path().join("debug")).unwrap();
        fs::create_dir(scratch.path().join("launcher")).unwrap();
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "src/main.rs", "-o"]).arg(scratch.path().join("launcher/launcher"));
        rustc.env("CARGO_PKG_NAME", "stampede-launcher");
        let output = rustc.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../launcher")).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        Self(scratch)
    }

    fn run(&self, script: &str, args: &[&str]) -> Output {
        fs::write(self.0.path().join("build"), script).unwrap();
        let mut command = Command::new(self.0.path().join("launcher/launcher"));
        command.args(args).current_dir(self.0.path()).env("CARGO", "/bin/sh");
        command.env("OUT_DIR", "/of/this/package").env("DATABASE_URL", "postgres://h/d");
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").output().unwrap()
    }
}

/// Every crate that this workspace is made of, and ours first.
fn metadata(more: &[&str]) -> Vec<Value> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked"]).args(more);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(metadata["packages"].take()).unwrap()
}

#[test]
fn a_build_is_told_nothing_of_the_package_that_starts_it() {
    let ran = Launcher::compiled().run("env", &["--version"]);
    let handed_on = said(&ran);
    assert!(ran.status.success() && handed_on.contains(env!("CARGO_PKG_VERSION")), "{handed_on}");
    let names: BTreeSet<&str> = handed_on.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    // What cargo has set for this test is what it sets for the launcher.
    let ours = |name: &&str| {
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || name.starts_with("CARGO_BIN_")
    };
    assert!(std::env::var("CARGO_PKG_NAME").is_ok() && std::env::var("CARGO_MANIFEST_DIR").is_ok());
    assert_eq!(names.iter().find(|name| ours(name)), None);
    assert!(!names.contains("OUT_DIR") && !names.contains("DATABASE_URL"), "{names:?}");
    assert!(names.contains("CARGO_PROFILE_DEV_DEBUG"), "what a user sets for cargo stays: {names:?}");
}

#[test]
fn every_command_builds_what_it_needs_in_one_run_of_cargo_that_chooses_the_whole_workspace() {
    let all = "build --workspace --exclude stampede-launcher --bins";
    let alone = "build --workspace --exclude stampede-launcher --bin stampede";
    let release = format!("{all} --release");
    let launcher = Launcher::compiled();
    for (command, expected) in [
        ("up", all),
        ("up --detach --fresh", all),
        ("up --release", release.as_str()),
        ("up --no-build", alone),
        ("up --infra", alone),
        ("up --help", alone),
        ("buy", alone),
        ("load --buyers 10", alone),
        ("verify", alone),
        ("test -p orders", alone),
        ("", alone),
    ] {
        let args: Vec<&str> = command.split_ascii_whitespace().collect();
        let ran = launcher.run("echo build \"$@\"; exit 7", &args);
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim_end(), expected, "{command}");
        assert!(!ran.status.success() && said(&ran).contains("failed (exit status: 7)"), "{}", said(&ran));
    }
}

#[test]
fn the_launcher_stands_for_every_crate_of_the_workspace() {
    let packages = metadata(&["--no-deps"]);
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let (launcher, others): (Vec<Value>, Vec<Value>) =
        packages.into_iter().partition(|package| package["name"] == "stampede-launcher");
    let all: BTreeSet<String> = others.iter().map(name).collect();
    let named: BTreeSet<String> = launcher[0]["dependencies"].as_array().unwrap().iter().map(name).collect();
    assert_eq!(named, all, "see the end of tools/launcher/Cargo.toml");
}

#[test]
fn the_minimum_version_of_rust_is_one_that_every_crate_accepts() {
    let version = |package: &Value| -> Option<[u32; 3]> {
        let text = package["rust_version"].as_str()?;
        let mut numbers = text.split('.').map(|number| number.parse().unwrap());
        Some(std::array::from_fn(|_| numbers.next().unwrap_or(0)))
    };
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let about = String::from_utf8(rustc.stdout).unwrap();
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let (ours, others): (Vec<Value>, Vec<Value>) =
        metadata(&["--filter-platform", host]).into_iter().partition(|package| package["source"].is_null());
    let minimum = ours.iter().map(|package| version(package).unwrap()).collect::<BTreeSet<_>>();
    assert_eq!(minimum.len(), 1, "each of ours takes the workspace's: {minimum:?}");
    let newer = |package: &&Value| version(package).as_ref() > minimum.first();
    let too_new: Vec<String> = others
        .iter()
        .filter(newer)
        .map(|package| format!("{} {}", package["name"], package["rust_version"]))
        .collect();
    assert_eq!(too_new, Vec::<String>::new(), "with a newer minimum than {minimum:?}");
}
