//! Changing orders: read them, change them in memory, and write what is different unless somebody else was faster.
//!
//! Optimistic concurrency control (Kung and Robinson, 1981) on a version in each order's row: two who change an order at
//! once come to the same row lock, and the second finds another version. Whoever has just written an order can go on
//! without reading it again, and no lock is held while somebody thinks.

use stampede_contracts::Timestamp;
use tokio::time::Instant;

use crate::domain::{Order, Step};

/// An order as the database had it when it was read or written.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The order.
    pub order: Order,
    pub(super) version: i64,
    clock: Timestamp,
    at: Instant,
}

impl Snapshot {
    /// An order in a version, and the database's clock, which has just been read.
    pub(super) fn new(order: Order, version: i64, clock: Timestamp) -> Self {
        Self { order, version, clock, at: Instant::now() }
    }

    /// The database's clock, carried on by this process's: one clock for all replicas.
    pub fn now(&self) -> Timestamp {
        self.clock + self.at.elapsed()
    }
}

/// An order as it is to be.
#[derive(Debug)]
pub struct Draft {
    /// As it was read.
    pub before: Snapshot,
    /// As it is to be.
    pub order: Order,
    /// When it changes, by the database's clock.
    pub now: Timestamp,
    /// The events that had this effect, for the inbox.
    pub events: Vec<String>,
}

impl From<Snapshot> for Draft {
    fn from(before: Snapshot) -> Self {
        Self { order: before.order.clone(), now: before.now(), before, events: Vec::new() }
    }
}

impl Draft {
    /// The order after it was written.
    pub fn into_written(self) -> Snapshot {
        Snapshot { order: self.order, version: self.before.version + 1, ..self.before }
    }

    /// Steps that are new or changed.
    pub(super) fn changed_steps(&self) -> impl Iterator<Item = &Step> {
        self.order.steps.iter().filter(|step| self.before.order.step_by_id(step.id) != Some(step))
    }
}
