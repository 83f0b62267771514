//! What this program does in its own image.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::Report;
use super::jail::Jail;
use super::names::Names;
use super::run::Run;
use crate::images::VERSION;
use crate::ports::Ports;

/// Runs all checks.
pub(super) async fn checks(jail: &Jail, names: &Names, report: &mut Report) {
    let began = Instant::now();
    report.tell(began, version(jail).await);
    let began = Instant::now();
    report.tell(began, cannot_write(jail).await);
    let began = Instant::now();
    report.tell(began, provision(jail, names).await);
}

async fn version(jail: &Jail) -> Result<String> {
    let mut run = Run::start(jail.command(&["--version"], &[])?)?;
    let status = run.ended().await?;
    ensure!(status.success() && run.said() == format!("stampede {VERSION}"), "it says {:?}", run.said());
    Ok(run.said())
}

/// Of all programs this is the one that would write something.
async fn cannot_write(jail: &Jail) -> Result<String> {
    let mut run =
        Run::start(jail.command(&["load", "--url", "http://127.0.0.1", "--state", "/state"], &[])?)?;
    let status = run.ended().await?;
    ensure!(
        !status.success() && run.said().contains("Read-only file system"),
        "it should not be able to write, and says {:?}",
        run.said()
    );
    Ok("can write nothing".to_owned())
}

async fn provision(jail: &Jail, names: &Names) -> Result<String> {
    let port = Ports::default().free()?;
    for (name, error) in names.all() {
        let url = format!("nats://{name}:{port}");
        let env = [("STAMPEDE_NATS_URL", url.as_str()), ("NATS_PASSWORD", "secret")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut run = Run::start(jail.command(&["provision"], &env)?)?;
        let status = run.ended().await?;
        let said = run.said();
        ensure!(
            !status.success() && said.contains(&format!("cannot connect to {url}")) && said.contains(error),
            "of {url} it should say {error:?}, and says {said:?}"
        );
    }
    Ok(names.described().to_owned())
}
