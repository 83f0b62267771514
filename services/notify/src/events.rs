//! Commands from the work queue: taken into the table, then acknowledged.

use std::sync::Arc;
use std::time::Duration;

use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Failure, Verdict};
use stampede_contracts::topology::CMD_NOTIFY;
use stampede_service::failure;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::{Store, Taken};

/// A mail may be a moment later, and under load many commands are then one transaction.
const GATHER: Duration = Duration::from_millis(50);

/// Takes commands until `shutdown`, and wakes the worker.
///
/// # Errors
/// None while it runs.
pub async fn take(
    bus: Bus,
    store: Store,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let settings = ConsumerSettings { batch: 64, gather: GATHER, ..ConsumerSettings::default() };
    Consumer::new(bus, CMD_NOTIFY, "notify", settings)
        .run(shutdown, move |deliveries| {
            let (store, wake) = (store.clone(), Arc::clone(&wake));
            async move {
                let verdicts = take_batch(&store, &deliveries).await?;
                wake.notify_one();
                Ok(verdicts)
            }
        })
        .await
}

async fn take_batch(store: &Store, deliveries: &[Delivery]) -> Result<Vec<Verdict>, Failure> {
    let mut taken = Vec::with_capacity(deliveries.len());
    let mut verdicts = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match delivery.decode() {
            Ok(command) => {
                let (message, replay_of) = (delivery.message.clone(), delivery.replay_of);
                taken.push(Taken { command, message, replay_of });
                verdicts.push(Verdict::Done);
            }
            Err(error) => verdicts.push(Verdict::Dead(error.to_string())),
        }
    }
    for order in store.take(&taken).await.map_err(failure)? {
        tracing::info!(%order, "a mail that was given up is tried again, because a person sent its command again");
    }
    Ok(verdicts)
}
