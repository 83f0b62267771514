//! The words of the pattern.

use std::time::Duration;

/// What a call says about the health of the replica it went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The replica is well.
    Success,
    /// The replica is not: it did not answer, or said that it could not.
    Failure,
    /// The call says nothing about the replica: the request was wrong, or its sender left. It is not counted.
    Neutral,
}

/// What became of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// It gets no calls for this long, unless a call has no other replica to go to.
    Ejected(Duration),
    /// It gets calls again, and none of its failures is held against it.
    Returned,
}

/// A replica was ejected or has returned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change<K> {
    /// Which one.
    pub replica: K,
    /// What became of it.
    pub event: Event,
    /// How many changes this replica has seen since it is one of the set, this one included.
    pub generation: u64,
}

/// What an operator's page shows of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<K> {
    /// Which one.
    pub replica: K,
    /// Calls that are on their way to it.
    pub in_flight: u32,
    /// Its failures in a row.
    pub failures: u32,
    /// The time until it returns; `None` unless it is ejected.
    pub returns_in: Option<Duration>,
    /// How often it was ejected since it is one of the set.
    pub ejections: u64,
}
