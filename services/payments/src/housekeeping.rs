//! What has to be done now and then.

use std::time::Duration;

use stampede_bus::BoxError;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::store::Store;

/// How often open operations are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// How often old webhooks are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How long a webhook is remembered: much longer than one is believed.
const REMEMBER: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps house until `shutdown`.
///
/// # Errors
/// None: while the database is away nothing is done.
pub(crate) async fn run(store: Store, metrics: Metrics, shutdown: CancellationToken) -> Result<(), BoxError> {
    let mut ticks = interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut forget_at = Instant::now();
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.count_open().await {
            Ok(counts) => metrics.open(&counts),
            Err(error) => tracing::debug!(%error, "open operations are not counted"),
        }
        if forget_at <= Instant::now() {
            forget_at = Instant::now() + FORGET_EVERY;
            if let Err(error) = store.forget_webhooks(REMEMBER).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "old webhooks stay");
            }
        }
    }
    Ok(())
}
