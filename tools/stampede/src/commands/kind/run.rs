//! Steps: command lines that a person could type, shown before they run.

use std::ffi::OsStr;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::progress;

/// A command line that is shown before it runs.
pub(super) struct Run {
    command: Command,
    shown: String,
    input: Option<String>,
}

impl Run {
    fn new(program: impl AsRef<OsStr>, shown: &str) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Self { command, shown: shown.to_owned(), input: None }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, arg.as_ref().display());
        self.command.arg(arg);
        self
    }

    pub(super) fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// What it reads, which is not shown.
    pub(super) fn input(mut self, text: String) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = Some(text);
        self
    }

    /// What it finds in its environment; of that only the name is shown.
    pub(super) fn secret(mut self, key: &str, value: String) -> Self {
        self.command.env(key, value);
        self.shown = format!("{key}=… {}", self.shown);
        self
    }

    /// Starts it, with what it says for us to read.
    pub(super) fn spawn_piped(&mut self) -> Result<Child> {
        self.command.stdout(Stdio::piped()).spawn().with_context(|| self.missing())
    }

    fn missing(&self) -> String {
        let name = self.shown.split(' ').next().unwrap_or_default();
        let place = match name {
            "kind" => "? See https://kind.sigs.k8s.io/docs/user/quick-start#installation",
            "kubectl" => "? See https://kubernetes.io/docs/tasks/tools",
            _ => "?",
        };
        format!("{name} cannot be started; is it installed{place}")
    }
}

/// Another command of ours.
pub(super) fn own() -> Result<Run> {
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    Ok(Run::new(own, "cargo stampede"))
}

/// A program of the machine's.
pub(super) fn program(name: &str) -> Run {
    Run::new(name, name)
}

/// Runs a step, with its output as it comes.
pub(super) async fn run(step: &str, mut run: Run, mend: &str) -> Result<()> {
    progress::say(format_args!("==> {step}"));
    progress::say(format_args!("    {}", run.shown));
    let mut child = run.command.spawn().with_context(|| run.missing())?;
    if let (Some(text), Some(mut stdin)) = (run.input.take(), child.stdin.take()) {
        // Who does not read it ends with an error of its own.
        drop(stdin.write_all(text.as_bytes()).await);
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(());
    }
    bail!("{} failed ({status}); {mend}", run.shown)
}

/// What a command says.
pub(super) async fn answer(mut run: Run, mend: &str) -> Result<String> {
    let child = run.spawn_piped()?;
    // Its standard error is ours: what it says is seen.
    let output = child.wait_with_output().await?;
    ensure!(output.status.success(), "{} failed ({}); {mend}", run.shown, output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_runs_without_what_is_secret() {
        let apply = program("kubectl").args(["apply", "-f", "-"]).secret("TOKEN", "abc".to_owned());
        let apply = apply.input("password".to_owned());
        assert_eq!(apply.shown, "TOKEN=… kubectl apply -f -");
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_the_place_where_it_is() {
        let missing = Run::new("/nowhere/kind", "kind get clusters");
        let error = answer(missing, "").await.unwrap_err().to_string();
        assert!(
            error.contains("kind cannot be started") && error.contains("https://kind.sigs.k8s.io"),
            "{error}"
        );
    }
}
