//! A batch in flight to one destination: what may be sent together, and the result.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use stampede_bus::Message;

use crate::partition::Partition;

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) message: Message,
}

/// A row without its message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub(crate) partition: Partition,
    pub(crate) id: i64,
    pub(crate) aggregate: i64,
    /// How old the row was when it was read.
    pub(crate) age: Duration,
}

/// Rows in the order of their ids, sent in waves.
///
/// What is sent together can be stored in another order, or the first of two be lost and the second not. So a wave has
/// at most one message of each aggregate, and the next one waits until it is acknowledged. Most aggregates have one or
/// two messages in a batch, so there are few waves and each is wide.
#[derive(Debug)]
pub(crate) struct Batch<E> {
    waiting: Vec<Row>,
    outcome: Outcome<E>,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Outcome<E> {
    /// Rows that a stream has.
    pub(crate) stored: Vec<Place>,
    /// Partitions in which a message was not stored, with the first reason. Nothing more of them was sent.
    pub(crate) stopped: BTreeMap<Partition, E>,
}

/// Messages that may be sent together.
#[derive(Debug)]
pub(crate) struct Wave {
    pub(crate) messages: Vec<Message>,
    places: Vec<Place>,
}

impl<E> Batch<E> {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        Self { waiting: rows, outcome: Outcome { stored: Vec::new(), stopped: BTreeMap::new() } }
    }

    /// The first waiting message of every aggregate; none when nothing waits.
    pub(crate) fn next_wave(&mut self) -> Option<Wave> {
        let mut aggregates = HashSet::new();
        let (first, later): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|row| aggregates.insert(row.place.aggregate));
        self.waiting = later;
        let (messages, places): (Vec<_>, Vec<_>) =
            first.into_iter().map(|row| (row.message, row.place)).unzip();
        if places.is_empty() { None } else { Some(Wave { messages, places }) }
    }

    /// Takes the results of a wave, in the order of its messages.
    pub(crate) fn settle(&mut self, wave: Wave, results: Vec<Result<(), E>>) {
        let Outcome { stored, stopped } = &mut self.outcome;
        for (place, result) in wave.places.into_iter().zip(results) {
            match result {
                Ok(()) => stored.push(place),
                Err(error) => {
                    stopped.entry(place.partition).or_insert(error);
                }
            }
        }
        self.waiting.retain(|row| !stopped.contains_key(&row.place.partition));
    }

    pub(crate) fn into_outcome(self) -> Outcome<E> {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn row(id: i64, aggregate: i64) -> Row {
        let message = Message {
            subject: "evt".into(),
            ce_id: id.to_string(),
            ce_source: "test".into(),
            ce_type: "test".into(),
            ce_time: "2027-01-31T20:00:00Z".parse().unwrap(),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            msg_id: id.to_string(),
            payload: Vec::new(),
        };
        let partition = Partition::try_from(aggregate % 4).unwrap();
        Row { place: Place { partition, id, aggregate, age: Duration::ZERO }, message }
    }

    fn ids(wave: &Wave) -> Vec<i64> {
        wave.places.iter().map(|place| place.id).collect()
    }

    #[test]
    fn a_wave_has_one_message_of_each_aggregate() {
        let mut batch = Batch::<()>::new(vec![row(1, 7), row(2, 7), row(3, 8), row(4, 7)]);
        let mut waves = Vec::new();
        while let Some(wave) = batch.next_wave() {
            waves.push(ids(&wave));
            let results = vec![Ok(()); wave.messages.len()];
            batch.settle(wave, results);
        }
        assert_eq!(waves, [vec![1, 3], vec![2], vec![4]]);
    }

    #[test]
    fn a_failure_stops_its_partition_only() {
        let mut batch = Batch::new(vec![row(1, 1), row(2, 2), row(3, 5), row(4, 1), row(5, 2), row(6, 5)]);
        let wave = batch.next_wave().unwrap();
        batch.settle(wave, vec![Err("full"), Ok(()), Ok(())]);
        assert_eq!(ids(&batch.next_wave().unwrap()), [5], "aggregate 5 is in the partition of aggregate 1");
    }

    proptest! {
        /// Whatever fails: within an aggregate, what is stored is a prefix of what there was, sent in its order.
        #[test]
        fn no_message_overtakes_another_of_its_aggregate(
            aggregates in prop::collection::vec(0_i64..6, 0..40),
            results in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let rows: Vec<Row> = (0..).zip(&aggregates).map(|(id, aggregate)| row(id, *aggregate)).collect();
            let mut batch = Batch::new(rows.clone());
            let mut results = results.into_iter();
            let mut sent = Vec::new();
            while let Some(wave) = batch.next_wave() {
                prop_assert_eq!(wave.messages.len(), wave.places.len());
                for (message, place) in wave.messages.iter().zip(&wave.places) {
                    prop_assert_eq!(&message.ce_id, &place.id.to_string());
                    sent.push(*place);
                }
                let outcome = wave.places.iter().map(|_| match results.next() {
                    Some(result) if result.index(8) == 0 => Err("lost"),
                    _ => Ok(()),
                }).collect();
                batch.settle(wave, outcome);
            }
            let outcome = batch.into_outcome();
            for aggregate in 0..6 {
                let of = |places: &[Place]| places.iter().filter(|p| p.aggregate == aggregate).map(|p| p.id).collect::<Vec<_>>();
                let all = of(&rows.iter().map(|row| row.place).collect::<Vec<_>>());
                let (sent, stored) = (of(&sent), of(&outcome.stored));
                prop_assert!(all.starts_with(&sent) && all.starts_with(&stored));
                prop_assert!(sent.len() <= stored.len() + 1, "nothing is sent behind a failure");
                let stopped = outcome.stopped.contains_key(&Partition::try_from(aggregate % 4).unwrap());
                prop_assert!(stopped || stored == all, "without a failure in its partition everything is stored");
            }
        }
    }
}
