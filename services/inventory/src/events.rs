//! Shows as catalog publishes them. They carry their whole state and a version, so the version is what an inbox would
//! be: one that comes twice or late changes nothing.

use std::time::Duration;

use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Verdict};
use stampede_contracts::event::ShowPublished;
use stampede_contracts::topology::EVT_CATALOG;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;

pub(crate) const CONSUMER: &str = "inventory-shows";
/// Shows in one batch. A large one is a few hundred inserts, and all have to be done before they are delivered again.
const BATCH: usize = 8;
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lays out shows until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn follow_shows(
    inventory: Inventory,
    bus: Bus,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let settings = ConsumerSettings { batch: BATCH, ..ConsumerSettings::default() };
    let handle = move |batch: Vec<Delivery>| {
        let inventory = inventory.clone();
        async move {
            let mut verdicts = Vec::with_capacity(batch.len());
            for delivery in batch {
                verdicts.push(take(&inventory, &delivery).await);
            }
            Ok(verdicts)
        }
    };
    Consumer::new(bus, EVT_CATALOG, CONSUMER, settings).run(shutdown, handle).await
}

async fn take(inventory: &Inventory, delivery: &Delivery) -> Verdict {
    let show: ShowPublished = match delivery.decode() {
        Ok(show) => show,
        Err(error) => return Verdict::Dead(error.to_string()),
    };
    match inventory.store().take_show(&show).await {
        Ok(changed) => {
            inventory.shows().forget(show.show_id);
            tracing::info!(show = %show.show_id, version = show.version, changed, "took a show");
            Verdict::Done
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(show = %show.show_id, version = show.version, error, "a show could not be taken");
            Verdict::Again(RETRY_AFTER)
        }
    }
}
