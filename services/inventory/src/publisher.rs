//! Publishes the state of blocks: each at most ten times a second, as it is when it is read; and again from time to time.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use stampede_bus::{ApiError, BucketError, Bus, Message, PublishError};
use stampede_contracts::event::BlockState;
use stampede_contracts::topology::{EVT_INVENTORY, LAYOUT};
use stampede_contracts::{BlockId, Event, ShowId};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};
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
const BATCH: usize = 256;
/// Lookups in the stream that are in flight.
const LOOKUPS_MAX: usize = 32;
const LAYOUTS: i64 = 16;
/// Blocks whose last message is remembered. The blocks of past shows would never be forgotten.
const LAST_MAX: usize = 100_000;

/// Why publishing stopped for a moment.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// The database.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The stream.
    #[error("a message was not stored")]
    Publish(#[from] PublishError),
    /// The bucket.
    #[error("the bucket was not written")]
    Bucket(#[from] BucketError),
    /// What there is in JetStream.
    #[error("JetStream cannot be asked")]
    Api(#[from] ApiError),
    /// A fault in a program.
    #[error("a message has no form in JSON")]
    Json(#[from] serde_json::Error),
}

/// Publishes what is marked, for as long as it is polled. Blocks and layouts do not wait for each other: stream and bucket
/// can be away one without the other.
pub async fn publish(inventory: &Inventory, bus: &Bus) {
    let blocks = Blocks::new(inventory, bus);
    let layouts = Layouts { inventory, bus, behind: None, probe_at: Instant::now(), round: Round::default() };
    tokio::join!(blocks.run(), layouts.run());
}

fn ticks() -> Interval {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn rest_after_failure(result: Result<(), Stopped>) {
    if let Err(error) = result {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "publishing failed; it is tried again after a pause"
        );
        sleep(PAUSE).await;
    }
}

/// A round over all shows that are not over, one at a time: what they look like is published again from time to time, so
/// that no copy is wrong indefinitely, whatever message was lost.
#[derive(Default)]
struct Round {
    left: Vec<ShowId>,
    next_at: Option<Instant>,
}

impl Round {
    async fn next(&mut self, inventory: &Inventory) -> Result<Option<ShowId>, StoreError> {
        let now = Instant::now();
        // What has just been published for the first time need not be published again.
        let next_at = *self.next_at.get_or_insert(now + inventory.rules().state_again_every);
        if self.left.is_empty() && next_at <= now {
            self.left = inventory.store().shows_to_come(inventory.now()).await?;
            self.next_at = Some(now + inventory.rules().state_again_every);
        }
        Ok(self.left.pop())
    }
}

/// The last message about a block.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    /// 0: there is none.
    sequence: u64,
    version: i64,
}

/// Publishes blocks. The state of a block never goes backwards in its stream, whichever replica publishes: a message
/// names the one that it follows, and the stream refuses it when there is another. So a publisher that was frozen between
/// reading and sending, while another took over, replaces nothing newer when it continues.
pub struct Blocks<'a> {
    inventory: &'a Inventory,
    bus: &'a Bus,
    /// Of blocks that this process has looked at or published.
    last: HashMap<BlockId, Last>,
    compare_at: Instant,
    round: Round,
}

impl<'a> Blocks<'a> {
    /// Looks up each block in the stream before it publishes it for the first time.
    pub fn new(inventory: &'a Inventory, bus: &'a Bus) -> Self {
        Self { inventory, bus, last: HashMap::new(), compare_at: Instant::now(), round: Round::default() }
    }

    async fn run(mut self) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            rest_after_failure(self.publish_what_is_due().await).await;
        }
    }

    async fn publish_what_is_due(&mut self) -> Result<(), Stopped> {
        let mut result = Ok(());
        if self.compare_at <= Instant::now() {
            self.compare_at = Instant::now() + GENERATION_PERIOD;
            result = self.compare_generations().await;
        }
        if self.last.len() > LAST_MAX {
            self.last.clear();
        }
        result = result.and(self.publish_marked().await);
        if let Some(show) = self.round.next(self.inventory).await? {
            let blocks = self.inventory.store().blocks_of(show, self.inventory.now()).await?;
            for some in blocks.chunks(BATCH) {
                result = result.and(self.publish(some).await);
            }
        }
        result
    }

    /// Publishes every marked block once. One that cannot be published does not hold back those behind it.
    async fn publish_marked(&mut self) -> Result<(), Stopped> {
        let (mut after, mut result) = (None, Ok(()));
        loop {
            let blocks = self.inventory.store().dirty_blocks(after, BATCH, self.inventory.now()).await?;
            let Some(last) = blocks.last() else { return result };
            after = Some(last.block_id);
            result = result.and(self.publish(&blocks).await);
        }
    }

    /// Publishes blocks as they were read, except where the stream has something newer.
    ///
    /// # Errors
    /// When one of them was not stored; the others were. That something newer is there is no error.
    pub async fn publish(&mut self, blocks: &[BlockState]) -> Result<(), Stopped> {
        let (outdated, result) = self.publish_once(blocks.iter().collect()).await?;
        // What another publisher stored since the last lookup may be older than these.
        let (_, again) = self.publish_once(outdated).await?;
        Ok(result.and(again)?)
    }

    /// Returns the blocks that were refused because another message was the last about them.
    async fn publish_once<'b>(
        &mut self,
        blocks: Vec<&'b BlockState>,
    ) -> Result<(Vec<&'b BlockState>, Result<(), PublishError>), Stopped> {
        let (mut stored, mut outdated, mut result) = (Vec::new(), Vec::new(), Ok(()));
        if blocks.is_empty() {
            return Ok((outdated, result));
        }
        self.look_up(&blocks).await?;
        let (mut current, mut states) = (Vec::new(), Vec::new());
        for block in blocks {
            let last = self.last.get(&block.block_id).copied().unwrap_or_default();
            if block.version >= last.version {
                states.push((message(block)?, last.sequence));
                current.push(block);
            }
        }
        for (block, published) in current.into_iter().zip(self.bus.publish_states(&states).await) {
            let id = block.block_id;
            match published {
                Ok(sequence) => {
                    self.last.insert(id, Last { sequence, version: block.version });
                    stored.push((id, block.version));
                    continue;
                }
                Err(PublishError::Outdated) => outdated.push(block),
                Err(error) => result = result.and(Err(error)),
            }
            self.last.remove(&id);
        }
        self.inventory.store().blocks_published(&stored).await?;
        self.inventory.metrics().published("block", stored.len());
        Ok((outdated, result))
    }

    /// Looks up the last messages about blocks where they are not remembered.
    async fn look_up(&mut self, blocks: &[&BlockState]) -> Result<(), Stopped> {
        let bus = self.bus;
        let unknown = blocks.iter().filter(|block| !self.last.contains_key(&block.block_id));
        let lookups: Vec<_> = unknown.map(|block| last_of(bus, block)).collect();
        let found: Vec<_> = stream::iter(lookups).buffer_unordered(LOOKUPS_MAX).try_collect().await?;
        self.last.extend(found);
        Ok(())
    }

    /// Whether the stream is still the one that was filled from here; if not, everything is marked again. A crash in
    /// between leaves the old generation in the database, and so it begins again.
    async fn compare_generations(&mut self) -> Result<(), Stopped> {
        let store = self.inventory.store();
        let Some(generation) = self.bus.generation(EVT_INVENTORY).await? else { return Ok(()) };
        let known = store.generation(EVT_INVENTORY).await?;
        if known.as_ref() != Some(&generation) {
            tracing::info!(generation, known, "the stream is new: it is filled again");
            self.last.clear();
            let mut after = None;
            loop {
                after = store.forget_blocks(after, BATCH).await?;
                if after.is_none() {
                    break;
                }
            }
            store.forget_layouts().await?;
            store.note_generation(EVT_INVENTORY, &generation).await?;
        }
        Ok(())
    }
}

struct Layouts<'a> {
    inventory: &'a Inventory,
    bus: &'a Bus,
    /// The last of those that were tried in this round over all that are marked.
    behind: Option<ShowId>,
    probe_at: Instant,
    round: Round,
}

impl Layouts<'_> {
    async fn run(mut self) {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            rest_after_failure(self.publish_what_is_due().await).await;
        }
    }

    async fn publish_what_is_due(&mut self) -> Result<(), Stopped> {
        let mut result = Ok(());
        if self.probe_at <= Instant::now() {
            self.probe_at = Instant::now() + PROBE_PERIOD;
            result = self.probe_bucket().await;
        }
        result = result.and(self.publish_marked().await);
        if let Some(show) = self.round.next(self.inventory).await? {
            result = result.and(self.publish(show).await);
        }
        result
    }

    /// Publishes the layouts of shows whose blocks are all in the stream: who reads the layout can wait for them.
    async fn publish_marked(&mut self) -> Result<(), Stopped> {
        let mut result = Ok(());
        let shows = self.inventory.store().unpublished_layouts(self.behind, LAYOUTS).await?;
        self.behind = shows.last().copied();
        for show in shows {
            // One that cannot be published, perhaps because it is too large, does not hold back the others.
            result = result.and(self.publish(show).await);
        }
        result
    }

    async fn publish(&self, show: ShowId) -> Result<(), Stopped> {
        let store = self.inventory.store();
        let Some(show) = store.show(show).await? else { return Ok(()) };
        let layout = show.layout();
        let value = serde_json::to_vec(&layout)?;
        let put = self.bus.kv_put(LAYOUT, &show.id.to_string(), value.into()).await;
        self.bus.publish(&message(&layout)?).await?;
        put?;
        store.layout_published(show.id).await?;
        self.inventory.metrics().published("layout", 1);
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
}

async fn last_of(bus: &Bus, block: &BlockState) -> Result<(BlockId, Last), ApiError> {
    let stored = bus.last_message(EVT_INVENTORY, &block.subject()).await?;
    let last = stored.map_or(Last::default(), |(sequence, payload)| {
        // What cannot be read is replaced.
        let version = serde_json::from_slice(&payload).map_or(0, |last: BlockState| last.version);
        Last { sequence, version }
    });
    Ok((block.block_id, last))
}

fn message<E: Event>(event: &E) -> Result<Message, serde_json::Error> {
    Message::new(event, Uuid::now_v7().to_string())
}
