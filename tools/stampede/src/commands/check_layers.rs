//! `check-layers`: the layer rules, on the tree as it is.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;

use crate::{cargo, layers, progress, state};

pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let workspace = state::workspace().context("not inside a checkout of Stampede")?;
    let metadata = cargo::metadata(&workspace).await?;
    let path = workspace.join("libs/edges.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let edges = layers::read_edges(&text)?;
    let takes_lints = |manifest: &std::path::Path| {
        fs::read_to_string(manifest).is_ok_and(|text| layers::takes_workspace_lints(&text))
    };
    let broken = layers::violations(&metadata, &edges, takes_lints);
    if broken.is_empty() {
        progress::say("layers: as they should be");
        return Ok(ExitCode::SUCCESS);
    }
    for sentence in &broken {
        progress::say(sentence);
    }
    progress::say(format_args!("\n{} broken rules; see CONTRIBUTING.md", broken.len()));
    Ok(ExitCode::FAILURE)
}
