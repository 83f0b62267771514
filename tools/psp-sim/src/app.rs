//! The simulator put together: one provider behind three doors, and what tells the merchant.

use std::time::Duration;

use axum::Router;
use sqlx::migrate::Migrator;
use stampede_deadline::InvalidLimits;
use stampede_postgres::PgPool;
use stampede_service::{HttpLimits, Identity, stack};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::http;
use crate::knobs::Panel;
use crate::provider::{Provider, Terms};
use crate::store::Store;
use crate::webhooks::{Error, Sender};

/// Who this is.
pub const IDENTITY: Identity = Identity {
    service: "psp-sim",
    version: env!("CARGO_PKG_VERSION"),
    blueprint: include_str!("../blueprint.toml"),
};
/// The schema.
pub static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Longer than the silence after which the provider breaks a connection on purpose.
const CALL_MAX: Duration = Duration::from_secs(60);
const BODY_MAX_BYTES: usize = 8 * 1024;

/// Everything that is to be served and run.
#[derive(Debug)]
pub struct App {
    /// For the merchant.
    pub api: Router,
    /// For operators; belongs on the admin listener.
    pub knobs: Router,
    /// Tells the merchant, if it wants to be told.
    pub sender: Option<Sender>,
    /// The provider itself.
    pub provider: Provider,
}

/// The simulator could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The sender of webhooks.
    #[error("webhooks cannot be sent")]
    Webhooks(#[from] Error),
    /// The constants of this file.
    #[error("the limits of a call are not valid")]
    Limits(#[from] InvalidLimits),
}

/// Puts the simulator together; `tasks` owns what is in flight.
///
/// # Errors
/// [`BuildError`].
pub fn build(pool: PgPool, config: &Config, tasks: TaskTracker) -> Result<App, BuildError> {
    let (store, panel) = (Store::new(pool), Panel::default());
    let terms = Terms { max_in_flight: config.max_in_flight, has_webhooks: config.webhooks.is_some() };
    let sender = match &config.webhooks {
        Some(target) => Some(Sender::try_new(store.clone(), panel.clone(), target.clone())?),
        None => None,
    };
    let provider = Provider::new(store, panel.clone(), terms, tasks);
    let api = stack(http::api(provider.clone(), &config.api_key), limits()?);
    Ok(App { api, knobs: http::knobs(panel), sender, provider })
}

/// The public side; `tokens_url` is how buyers reach `POST /tokens`.
///
/// # Errors
/// [`BuildError::Limits`].
pub fn tokens(tokens_url: String) -> Result<Router, BuildError> {
    // Outermost: a preflight asks with a method that no route has, and problems are for the page to read too.
    Ok(stack(http::tokens(tokens_url), limits()?).layer(http::cors()))
}

fn limits() -> Result<HttpLimits, InvalidLimits> {
    // Strangers: their traces are linked and not joined.
    HttpLimits::public().body_max_bytes(BODY_MAX_BYTES).deadline(CALL_MAX, CALL_MAX)
}
