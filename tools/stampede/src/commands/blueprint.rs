//! `blueprint`: the whole system, printed as tables and drawn.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use stampede_contracts::topology;

use crate::blueprint::{System, picture, table};
use crate::infra::nats;
use crate::{progress, state};

/// Options of `blueprint`.
#[derive(Args, Debug)]
pub(crate) struct Blueprint {
    /// Write the tables into docs/system.md, the picture into docs/system.svg, and the users of NATS into k8s.
    #[arg(long)]
    write: bool,
}

impl Blueprint {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let system = System::read(&workspace)?;
        progress::say(table(&system).trim_end());
        if self.write {
            progress::say("");
            for (path, text) in made(&system) {
                fs::write(workspace.join(path), text).with_context(|| format!("{path} cannot be written"))?;
                progress::say(format_args!("written: {path}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The files that are made from blueprints and contracts, with what they should hold.
pub(crate) fn made(system: &System) -> [(&'static str, String); 3] {
    [
        ("docs/system.md", page(system)),
        ("docs/system.svg", picture(system)),
        ("k8s/base/infra/nats/accounts.conf", nats::accounts(&topology::users())),
    ]
}

/// The page with picture and tables.
fn page(system: &System) -> String {
    format!(
        "# The system\n\nMade by `cargo stampede blueprint --write` from `services/*/blueprint.toml`; what the columns \
         mean stands in [`libs/blueprint`](../libs/blueprint).\n\n![Who calls whom](system.svg)\n\n{}",
        table(system)
    )
    .trim_end()
    .to_owned()
        + "\n"
}
