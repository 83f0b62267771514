//! Everything that is found, fetched or built before a process starts.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;

use crate::cargo::Binaries;
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
    let binaries = if options.infra { None } else { Some(binaries(options)?) };
    Ok(Prepared { postgres, nats, sink, binaries })
}

/// What was named, or what the launcher has built together with this program.
pub(crate) fn binaries(options: &cli::Up) -> anyhow::Result<Binaries> {
    ensure!(
        !options.release || !cfg!(debug_assertions),
        "cargo stampede up --release builds a program of its own"
    );
    match &options.binaries {
        Some(folder) => Binaries::in_folder(folder),
        None => Binaries::beside_us(),
    }
}
