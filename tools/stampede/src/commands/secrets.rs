//! `secrets`: what the manifests of a cluster, or compose, need to be told and nobody else may know.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::ClusterPlace;
use crate::cluster;
use crate::progress;
use crate::secrets::Secrets as Kept;
use crate::state::StateDir;

/// Options of `secrets`.
#[derive(Args, Debug)]
pub(crate) struct Secrets {
    #[command(flatten)]
    place: ClusterPlace,
    /// Write them into this folder, as files for deploy/compose.yaml. They are kept there as well, unless --state is given.
    #[arg(long, value_name = "DIR")]
    compose: Option<PathBuf>,
}

impl Secrets {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match &self.compose {
            None => {
                for secret in cluster::manifests(&Kept::open(&self.place.create()?)?)? {
                    progress::say(secret.to_string().trim_end());
                }
            }
            Some(folder) => {
                let state = match &self.place.state {
                    Some(named) => StateDir::create(named)?,
                    None => StateDir::create(&folder.join("state"))?,
                };
                cluster::write(folder, &Kept::open(&state)?)?;
                progress::say(format_args!("written to {}", folder.display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
