//! Tells others how the blocks are: at most ten times a second a block, as it is when it is read.

use std::time::Duration;

use stampede_bus::{ApiError, BucketError, Bus, Message, PublishError};
use stampede_contracts::event::BlockState;
use stampede_contracts::topology::{EVT_INVENTORY, LAYOUT};
use stampede_contracts::{BlockId, Event, ShowId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::inventory::Inventory;
use crate::store::StoreError;

/// Between two looks for changed blocks, and so between two messages of one block.
const PERIOD: Duration = Duration::from_millis(100);
/// Between two looks at the generation of the stream.
const GENERATION_PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at the bucket, each of which reads a layout.
const PROBE_PERIOD: Duration = Duration::from_secs(5);
/// Before it goes on after a failure.
const PAUSE: Duration = Duration::from_millis(500);
/// Blocks read, published and marked at once. With a thousand letters each they stay far below a megabyte.
const BATCH: i64 = 256;
const LAYOUTS: i64 = 16;

/// Why publishing stopped for a moment.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("a message was not stored")]
    Publish(#[from] PublishError),
    #[error("the bucket was not written")]
    Bucket(#[from] BucketError),
    #[error("the generation cannot be asked")]
    Generation(#[from] ApiError),
    #[error("a message has no form in JSON")]
    Json(#[from] serde_json::Error),
}

/// Publishes what is marked, for as long as it is polled.
pub async fn publish(inventory: &Inventory, bus: &Bus) {
    let publisher = Publisher { inventory, bus };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut compare_at = Instant::now();
    let mut probe_at = Instant::now();
    loop {
        ticks.tick().await;
        let result = async {
            if compare_at <= Instant::now() {
                publisher.compare_generations().await?;
                compare_at = Instant::now() + GENERATION_PERIOD;
            }
            if probe_at <= Instant::now() {
                publisher.probe_bucket().await?;
                probe_at = Instant::now() + PROBE_PERIOD;
            }
            publisher.blocks().await?;
            publisher.layouts().await
        };
        if let Err(error) = result.await {
            tracing::warn!(error = &error as &dyn std::error::Error, "publishing rests");
            sleep(PAUSE).await;
        }
    }
}

struct Publisher<'a> {
    inventory: &'a Inventory,
    bus: &'a Bus,
}

impl Publisher<'_> {
    /// Publishes every marked block once.
    async fn blocks(&self) -> Result<(), Stopped> {
        let mut after = None;
        loop {
            let blocks = self.inventory.store().dirty_blocks(after, BATCH, self.inventory.now()).await?;
            let Some(last) = blocks.last() else { return Ok(()) };
            after = Some(last.block_id);
            self.publish(&blocks).await?;
        }
    }

    async fn publish(&self, blocks: &[BlockState]) -> Result<(), Stopped> {
        let messages = blocks.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let results = self.bus.publish_all(&messages).await;
        let stored = blocks.iter().zip(&results).filter(|(_, result)| result.is_ok());
        let stored: Vec<(BlockId, i64)> = stored.map(|(block, _)| (block.block_id, block.version)).collect();
        self.inventory.store().blocks_published(&stored).await?;
        self.inventory.metrics().published("block", stored.len());
        results.into_iter().collect::<Result<(), _>>().map_err(Stopped::from)
    }

    /// Publishes the layouts of shows whose blocks are all in the stream: who reads the layout can wait for them.
    async fn layouts(&self) -> Result<(), Stopped> {
        let mut result = Ok(());
        for show in self.inventory.store().unpublished_layouts(LAYOUTS).await? {
            // One that cannot be published, perhaps because it is too large, does not hold back the others.
            result = result.and(self.layout(show).await);
        }
        result
    }

    async fn layout(&self, show: ShowId) -> Result<(), Stopped> {
        let store = self.inventory.store();
        let Some(show) = store.show(show).await? else { return Ok(()) };
        let layout = show.layout();
        let value = serde_json::to_vec(&layout)?;
        self.bus.kv_put(LAYOUT, &show.id.to_string(), value.into()).await?;
        self.bus.publish(&message(&layout)?).await?;
        store.layout_published(show.id).await?;
        self.inventory.metrics().published("layout", 1);
        Ok(())
    }

    /// Whether the stream is still the one that was filled from here; if not, everything is marked again. A crash in
    /// between leaves the old generation in the database, and so it begins again.
    async fn compare_generations(&self) -> Result<(), Stopped> {
        let store = self.inventory.store();
        let Some(generation) = self.bus.generation(EVT_INVENTORY).await? else { return Ok(()) };
        let known = store.generation(EVT_INVENTORY).await?;
        if known.as_ref() != Some(&generation) {
            tracing::info!(generation, known, "the stream is new: it is filled again");
            self.forget_blocks().await?;
            store.forget_layouts().await?;
            store.note_generation(EVT_INVENTORY, &generation).await?;
        }
        Ok(())
    }

    /// A bucket has no generation. One that lacks what was put there is a new one.
    async fn probe_bucket(&self) -> Result<(), Stopped> {
        let store = self.inventory.store();
        let Some(show) = store.published_layout().await? else { return Ok(()) };
        if self.bus.kv_get(LAYOUT, &show.to_string()).await?.is_none() {
            tracing::info!("the bucket of layouts is new: it is filled again");
            store.forget_layouts().await?;
        }
        Ok(())
    }

    async fn forget_blocks(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            after = self.inventory.store().forget_blocks(after, BATCH).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

fn message<E: Event>(event: &E) -> Result<Message, serde_json::Error> {
    Message::new(event, Uuid::now_v7().to_string())
}
