//! `provision`: of the NATS that `up` runs, or of another one.

use std::process::ExitCode;

use anyhow::Context;

use crate::cli;
use crate::progress;
use crate::provision::{Provisioner, Refill};
use crate::run_file::RunFile;
use crate::secrets::Secrets;

pub(crate) async fn run(options: &cli::Provision) -> anyhow::Result<ExitCode> {
    let provisioner = target(options)?.with_replicas(options.stream_replicas);
    let refill = if options.refill { Refill::Everything } else { Refill::WhereNew };
    let done = provisioner.run(refill).await?;
    progress::say(format_args!("made {}, brought {} up to date", done.made.len(), done.kept));
    for made in &done.made {
        progress::say(format_args!("  new: {made}"));
    }
    for stream in &done.refilled {
        progress::say(format_args!("  will be published again: {stream}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn target(options: &cli::Provision) -> anyhow::Result<Provisioner> {
    if let Some(url) = &options.url {
        let password = options.password.clone().context("NATS_PASSWORD is not set")?;
        return Ok(Provisioner::new(url.clone(), options.user.clone(), password));
    }
    let state = options.place.existing()?;
    let run = RunFile::running(&state)?;
    let password = Secrets::open(&state)?.nats_password(&options.user)?;
    Ok(Provisioner::new(run.urls.nats, options.user.clone(), password))
}
