//! `blueprint`: the whole system, printed as tables and drawn.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::blueprint::{System, picture, table};
use crate::{progress, state};

/// Where the tables are kept.
pub(crate) const PAGE: &str = "docs/system.md";
/// Where the picture is kept.
pub(crate) const PICTURE: &str = "docs/system.svg";

/// Options of `blueprint`.
#[derive(Args, Debug)]
pub(crate) struct Blueprint {
    /// Write the tables into docs/system.md, and the picture into docs/system.svg.
    #[arg(long)]
    write: bool,
}

impl Blueprint {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let system = System::read(&workspace)?;
        progress::say(table(&system).trim_end());
        if self.write {
            for (path, text) in [(PAGE, page(&system)), (PICTURE, picture(&system))] {
                fs::write(workspace.join(path), text).with_context(|| format!("{path} cannot be written"))?;
            }
            progress::say(format_args!("\nwritten to {PAGE}, drawn in {PICTURE}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The page with picture and tables.
pub(crate) fn page(system: &System) -> String {
    format!(
        "# The system\n\nMade by `cargo stampede blueprint --write` from `services/*/blueprint.toml`; what the columns \
         mean stands in [`libs/blueprint`](../libs/blueprint).\n\n![Who calls whom](system.svg)\n\n{}",
        table(system)
    )
    .trim_end()
    .to_owned()
        + "\n"
}
