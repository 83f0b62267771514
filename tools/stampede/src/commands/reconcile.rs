//! `reconcile`: the command of `payments` of that name, in the environment of the running platform.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::run_file::RunFile;
use crate::secrets::Secrets;
use crate::state::StateDir;

const PAYMENTS: &str = "payments";

pub(crate) async fn run(state: &StateDir) -> anyhow::Result<ExitCode> {
    let run = RunFile::running(state)?;
    let secrets = Secrets::open(state)?;
    let program = std::env::current_exe()?.with_file_name("stampede-payments");
    ensure!(
        program.is_file(),
        "{} is not built; build it first: cargo build --workspace --bins",
        program.display()
    );
    let password = secrets.postgres_password(PAYMENTS)?;
    let database =
        format!("postgres://{PAYMENTS}:{password}@{}/{PAYMENTS}?sslmode=disable", run.urls.postgres);
    let status = Command::new(&program)
        .arg("reconcile")
        .env("DATABASE_URL", database)
        .env("NATS_PASSWORD", secrets.nats_password(PAYMENTS)?)
        .env("PSP_URL", &run.urls.psp)
        .env("PSP_API_KEY", secrets.psp_api_key()?)
        .env("RUST_LOG", "warn")
        .status()
        .await
        .with_context(|| format!("{} cannot be started", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
