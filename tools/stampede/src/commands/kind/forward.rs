//! Ports that lead into the cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::run::Run;

/// Until kubectl has found the pod and listens.
const LIMIT: Duration = Duration::from_secs(30);

/// A port of this machine that leads into the cluster until it is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) port: u16,
    _kubectl: Child,
    // It says a line a connection, and would end if nobody read them.
    _output: JoinSet<()>,
}

impl Forward {
    /// To this port of a pod behind a Service.
    pub(super) async fn to(kubectl: Run, service: &str, port: u16) -> Result<Self> {
        Self::by(kubectl.args(["port-forward", &format!("service/{service}"), &format!(":{port}")])).await
    }

    async fn by(mut forward: Run) -> Result<Self> {
        let mut child = forward.spawn_piped()?;
        let stdout = child.stdout.take().context("kubectl has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(LIMIT, lines.next_line())
            .await
            .context("kubectl forwards nothing and says nothing")??;
        let line = line.unwrap_or_default();
        // Forwarding from 127.0.0.1:34567 -> 5432
        let local = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let port = local.with_context(|| format!("kubectl forwards no port: {line:?}"))?;
        let mut output = JoinSet::new();
        output.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { port, _kubectl: child, _output: output })
    }
}

#[cfg(test)]
mod tests {
    use stampede_testkit::eventually;

    use super::super::run::program;
    use super::*;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn it_lasts_as_long_as_it_is_held_whatever_is_said_meanwhile() {
        let scratch = Scratch::new("forward").unwrap();
        let end = scratch.path().join("end");
        // More than a pipe holds.
        let script = "echo 'Forwarding from 127.0.0.1:34567 -> 5432'
            i=0; while [ $i -lt 5000 ]; do echo 'Handling connection for 34567'; i=$((i + 1)); done; : > \"$0\"";
        let forward = Forward::by(program("sh").args(["-c", script]).arg(&end)).await.unwrap();
        assert_eq!(forward.port, 34_567);
        eventually(Duration::from_secs(20), async || end.exists()).await;
    }

    #[tokio::test]
    async fn who_forwards_nothing_is_quoted() {
        let refused = Forward::by(program("echo").arg("Unable to listen")).await.err().unwrap();
        assert!(refused.to_string().contains("Unable to listen"), "{refused}");
    }
}
