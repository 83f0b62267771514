//! `bench`: what the patterns cost, one by one beside their peers, and all together in the running platform.

mod purchases;
mod resilience;

use std::process::ExitCode;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The layers around a call, beside tower, tower-resilience, failsafe and governor.
    Resilience(resilience::Resilience),
    /// CPU time a purchase in the running platform, with the layers around all calls and without, in pairs.
    ///
    /// Start the platform from release builds first, and leave the machine alone meanwhile.
    Purchases(purchases::Purchases),
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Resilience(resilience) => resilience.run().await,
            Self::Purchases(purchases) => purchases.run().await,
        }
    }
}
