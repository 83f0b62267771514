//! Ends holds whose time is over, and does the housekeeping.

use std::collections::BTreeMap;
use std::time::Duration;

use stampede_contracts::BlockId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::store::StoreError;

/// The longest wait before it looks again. Holds that are placed meanwhile end later than that anyway.
const POLL: Duration = Duration::from_millis(250);
/// Before it goes on after a failure, or when a block could not be locked.
const PAUSE: Duration = Duration::from_millis(250);
/// Holds looked at in one round.
const ROUND: i64 = 500;
/// How long an inconsistent block is skipped, so that the others have their turn.
const SKIPPED_FOR: Duration = Duration::from_secs(60);
/// Blocks that are skipped, at most. More are no single fault.
const SKIPPED_MAX: usize = 1_000;
/// Between two counts of all seats.
const COUNT_PERIOD: Duration = Duration::from_secs(10);
/// How long a key is remembered. A pass is shorter.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);
/// Between two looks for old rows, and between two statements that delete them.
const PURGE_PERIOD: Duration = Duration::from_secs(60);
const PURGE_PAUSE: Duration = Duration::from_millis(200);
/// Rows that one statement deletes.
const PURGE_ROWS: i64 = 1_000;

/// Sweeps for as long as it is polled.
pub async fn sweep(inventory: &Inventory) {
    tokio::join!(expire(inventory), count(inventory), purge(inventory));
}

async fn expire(inventory: &Inventory) {
    let mut skipped = BTreeMap::new();
    loop {
        let pause = match expire_round(inventory, &mut skipped).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "sweeping failed; it is tried again after a pause"
                );
                PAUSE
            }
        };
        sleep(pause).await;
    }
}

/// Ends what is due, and says how long there is nothing to do.
async fn expire_round(
    inventory: &Inventory,
    skipped: &mut BTreeMap<BlockId, Instant>,
) -> Result<Duration, StoreError> {
    let store = inventory.store();
    skipped.retain(|_, until| *until > Instant::now());
    let without: Vec<i64> = skipped.keys().map(BlockId::number).collect();
    let due = store.due(inventory.now(), ROUND, &without).await?;
    let mut pause = Duration::ZERO;
    for block in &due {
        match store.expire(block, inventory.now()).await {
            Ok(ended) => inventory.metrics().expired(ended),
            // It is retried; the other blocks need not wait for it.
            Err(error) if error.is_transient() => pause = PAUSE,
            Err(error) if error.is_outage() || skipped.len() >= SKIPPED_MAX => return Err(error),
            Err(error) => {
                let (block, error) = (block.block, &error as &dyn std::error::Error);
                tracing::error!(%block, error, retry_in = ?SKIPPED_FOR, "the holds of a block cannot be ended");
                skipped.insert(block, Instant::now() + SKIPPED_FOR);
            }
        }
    }
    if due.is_empty() {
        let next = store.next_due(&without).await?;
        pause = next.map_or(POLL, |next| next.since(inventory.now()).min(POLL));
    }
    Ok(pause)
}

async fn count(inventory: &Inventory) {
    /// Forgets the count when this replica sweeps no more, so that no two replicas show it.
    struct Counting<'a>(&'a Metrics);
    impl Drop for Counting<'_> {
        fn drop(&mut self) {
            self.0.totals(None);
        }
    }

    let counting = Counting(inventory.metrics());
    let mut ticks = interval(COUNT_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match inventory.store().totals(inventory.now()).await {
            Ok(counts) => counting.0.totals(Some(counts)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the seats could not be counted");
            }
        }
    }
}

async fn purge(inventory: &Inventory) {
    loop {
        let pause = match purge_round(inventory).await {
            Ok(0) => PURGE_PERIOD,
            Ok(_) => PURGE_PAUSE,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "old rows could not be deleted");
                PURGE_PERIOD
            }
        };
        sleep(pause).await;
    }
}

/// Deletes some old rows of each kind, and says how many.
async fn purge_round(inventory: &Inventory) -> Result<u64, StoreError> {
    let (store, now) = (inventory.store(), inventory.now());
    let keys = store.purge(now, KEEP, PURGE_ROWS).await?;
    Ok(keys + store.forget_history(now, inventory.rules().history, PURGE_ROWS).await?)
}
