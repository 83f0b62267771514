//! Shows as catalog publishes them. They carry their whole state and a version, so the version is what an inbox would
//! be: one that comes twice or late changes nothing.

use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Failure, Verdict};
use stampede_contracts::event::ShowPublished;
use stampede_contracts::topology::EVT_CATALOG;
use stampede_service::failure;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;

pub(crate) const CONSUMER: &str = "inventory-shows";
/// Shows in one batch. A large one is a few hundred inserts, and all have to be done before they are delivered again.
const BATCH: usize = 8;

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
                verdicts.push(take(&inventory, &delivery).await?);
            }
            Ok(verdicts)
        }
    };
    Consumer::new(bus, EVT_CATALOG, CONSUMER, settings).run(shutdown, handle).await
}

async fn take(inventory: &Inventory, delivery: &Delivery) -> Result<Verdict, Failure> {
    let show: ShowPublished = match delivery.decode() {
        Ok(show) => show,
        Err(error) => return Ok(Verdict::Dead(error.to_string())),
    };
    let changed = inventory.store().take_show(&show).await.map_err(failure)?;
    inventory.shows().forget(show.show_id);
    tracing::info!(show = %show.show_id, version = show.version, changed, "took a show");
    Ok(Verdict::Done)
}
