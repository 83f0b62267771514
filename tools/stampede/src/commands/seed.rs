//! `seed`: the three shows that `up` makes, at any gateway.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use stampede_contracts::Timestamp;

use crate::cli::Place;
use crate::secrets::current;
use crate::seed::Api;
use crate::{http, progress};

/// Options of `seed`.
#[derive(Args, Debug)]
pub(crate) struct Seed {
    #[command(flatten)]
    place: Place,
    /// The gateway; without it, the one that `up` started.
    #[arg(long, value_parser = http::base_url)]
    url: Option<String>,
    /// Operator's token. Without it, the one of the running `up`, which is not shown to a gateway that was named.
    #[arg(long, env = "OPERATOR_TOKEN", hide_env_values = true, value_parser = current)]
    operator_token: Option<String>,
}

impl Seed {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let (gateway, ours) = self.place.gateway(self.url.as_deref())?;
        let token = self
            .operator_token
            .filter(|token| !token.is_empty())
            .or(ours)
            .context("OPERATOR_TOKEN is not set: only an operator makes shows")?;
        let began = Instant::now();
        let seeded = Api::new(http::client(), gateway, token).seed(Timestamp::now()).await?;
        progress::done("shows", format_args!("{} new, all for sale", seeded.made), began);
        Ok(ExitCode::SUCCESS)
    }
}
