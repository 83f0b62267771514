//! `bench resilience`: our patterns beside the best libraries of their kind, as a table of ratios.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;

use crate::bench::{Measured, table};
use crate::{cargo, progress, state};

/// Where the table is kept.
const PAGE: &str = "docs/resilience-figures.md";

/// Options of `bench resilience`.
#[derive(Args, Debug)]
pub(crate) struct Resilience {
    /// Write the table into docs/resilience-figures.md.
    #[arg(long)]
    write: bool,
}

impl Resilience {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let home = workspace.join("target/criterion");
        // Figures of another run, perhaps of a pattern that is gone, are no part of this one.
        if home.exists() {
            fs::remove_dir_all(&home).with_context(|| format!("{} cannot be removed", home.display()))?;
        }
        let mut command = cargo::cargo();
        command
            .args(["bench", "--bench", "resilience", "--manifest-path", "tools/bench/Cargo.toml"])
            .current_dir(&workspace)
            // What the platform has in common with it need not be built twice.
            .env("CARGO_TARGET_DIR", workspace.join("target"))
            .env("CRITERION_HOME", &home);
        let status = command.status().await.context("cargo cannot be started")?;
        ensure!(status.success(), "the benchmark failed ({status})");
        let measured = Measured::read(&home)?;
        let table = table(&measured);
        progress::say(format_args!("\n{table}"));
        if self.write {
            let path = workspace.join(PAGE);
            fs::write(&path, page(&table))
                .with_context(|| format!("{} cannot be written", path.display()))?;
            progress::say(format_args!("written to {PAGE}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn page(table: &str) -> String {
    format!(
        "# What the layers around a call cost\n\n\
         Written by `cargo stampede bench resilience --write`; nothing here is typed in. A call that succeeds at once goes\n\
         through one layer, ours or a peer's, around the same inner service: nanoseconds a call (criterion's median),\n\
         allocations a call, and ratios within this one run. The machine is shared and its nanoseconds are its own; the\n\
         ratios are what counts.\n\n{table}"
    )
}
