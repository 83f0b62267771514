//! Everything that is found, fetched or built before a process starts.

use std::path::PathBuf;
use std::time::Instant;

use crate::cargo::{self, Binaries, Profile};
use crate::infra::postgres::Programs;
use crate::infra::venv::Venv;
use crate::infra::{nats, smtp};
use crate::state::StateDir;
use crate::{cli, progress};

/// Programs that are on this machine now.
pub(crate) struct Prepared {
    pub(crate) postgres: Programs,
    pub(crate) nats: PathBuf,
    pub(crate) sink: Venv,
    /// `None` with `--infra`.
    pub(crate) binaries: Option<Binaries>,
}

pub(crate) async fn prepare(state: &StateDir, options: &cli::Up) -> anyhow::Result<Prepared> {
    let began = Instant::now();
    let postgres = Programs::find().await?;
    let nats = nats::find(state).await?;
    let sink = Venv::with(&[smtp::PACKAGE], state).await?;
    progress::done("found", format_args!("Postgres {}, NATS, mail sink", postgres.version()), began);
    let binaries = if options.infra { None } else { Some(binaries(options).await?) };
    Ok(Prepared { postgres, nats, sink, binaries })
}

/// What was asked for: built now, or found.
pub(crate) async fn binaries(options: &cli::Up) -> anyhow::Result<Binaries> {
    if let Some(folder) = &options.binaries {
        return Binaries::in_folder(folder);
    }
    if options.no_build {
        return Binaries::beside_us();
    }
    let began = Instant::now();
    let profile = if options.release { Profile::Release } else { Profile::Dev };
    let binaries = cargo::build(profile).await?;
    progress::done("built", binaries.folder().display(), began);
    Ok(binaries)
}
