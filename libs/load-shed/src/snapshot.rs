//! How things are.

use std::time::Duration;

use crate::shed::Counts;
use crate::{CLASSES, Priority, Reason};

/// What metrics and an operator's page show. The numbers are read one after the other while calls come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls at a time that are admitted now.
    pub limit: u32,
    /// Calls that are admitted and not yet over.
    pub in_flight: u32,
    /// Latency without a queue, as far as known.
    pub baseline: Option<Duration>,
    /// Who waits, by class, the most urgent first.
    pub queued: [usize; CLASSES],
    /// Calls admitted so far.
    pub admitted: u64,
    /// Admitted calls that ended as [`Sample::Overload`](crate::Sample::Overload).
    pub overloads: u64,
    /// Admitted calls that ended as [`Sample::Ignore`](crate::Sample::Ignore), the dropped ones among them.
    pub ignored: u64,
    pub(crate) shed: Counts,
}

impl Snapshot {
    /// Requests of this class that were shed so far for this reason.
    pub fn shed(&self, class: Priority, reason: Reason) -> u64 {
        self.shed.get(class, reason)
    }

    /// Requests that were shed so far.
    pub fn shed_total(&self) -> u64 {
        self.shed.total()
    }
}
