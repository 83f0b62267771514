//! A platform in any cluster, as its operator reaches it: kubectl forwards ports, and reads what is secret.

use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::Url;

use super::forward::Forward;
use super::kubectl_in;
use super::run::{Run, answer, run};
use crate::infra::postgres::VERIFIER;

const NOT_REACHED: &str = "is that a context of kubectl's, is the platform in its namespace `stampede`, and may you read \
                           Secrets and forward ports there?";

/// A cluster, by the name of its context in kubectl's configuration.
#[derive(Debug)]
pub(crate) struct Cluster<'a>(pub(crate) &'a str);

impl Cluster<'_> {
    /// A port of this machine that leads to NATS, and the operator's password there.
    pub(crate) async fn nats(&self) -> Result<(Forward, String)> {
        let password = self.secret("provision", "NATS_PASSWORD").await?;
        Ok((self.forward("nats", 4222).await?, password))
    }

    /// A port of this machine that leads to Postgres, and a URL with it for the role that reads every database.
    pub(crate) async fn postgres(&self) -> Result<(Forward, String)> {
        let password = self.secret("postgres-verifier", "password").await?;
        let forward = self.forward("postgres", 5432).await?;
        let url = format!("postgres://{VERIFIER}@127.0.0.1:{}/postgres?sslmode=prefer", forward.port);
        let mut url: Url = url.parse().context("the URL of the databases")?;
        let _always_has_a_host = url.set_password(Some(&password));
        Ok((forward, url.into()))
    }

    /// Runs `reconcile` in a pod of payments, which has all it needs and may call the provider.
    pub(crate) async fn reconcile(&self) -> Result<ExitCode> {
        let exec = self.kubectl().args(["exec", "statefulset/payments", "--container=payments", "--"]);
        let mend = "the report above says where the books differ; without one, the pod of payments could not be reached";
        run("compare the books, in a pod of payments", exec.args(["/app", "reconcile"]), mend).await?;
        Ok(ExitCode::SUCCESS)
    }

    async fn forward(&self, service: &str, port: u16) -> Result<Forward> {
        Forward::to(self.kubectl(), service, port).await.context(NOT_REACHED)
    }

    async fn secret(&self, name: &str, key: &str) -> Result<String> {
        let get = self.kubectl().args(["get", "secret", name, &format!("--output=jsonpath={{.data.{key}}}")]);
        let encoded = answer(get, NOT_REACHED).await?;
        let decoded = BASE64_STANDARD.decode(encoded.trim()).ok().filter(|bytes| !bytes.is_empty());
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        text.with_context(|| format!("the Secret {name} has no {key}"))
    }

    fn kubectl(&self) -> Run {
        kubectl_in(self.0)
    }
}
