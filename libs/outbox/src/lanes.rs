//! What the relay knows of its lanes: which rest because a message was not stored, and which destinations it is
//! publishing to just now.
//!
//! A lane is a partition's messages to one destination. One that is refused rests alone: a stream that is full, or gone,
//! holds back nothing that goes elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::partition::Partition;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where messages go: the first two words of their subject, such as `cmd.payments`.
pub(crate) type Destination = Arc<str>;

/// Told the time, so that it can be tested without waiting.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pauses: HashMap<(Destination, Partition), Pause>,
    /// Windows that were read and are being published, and whether there may be more behind each.
    in_flight: HashMap<Destination, bool>,
}

#[derive(Debug)]
struct Pause {
    failures: u32,
    until: Instant,
}

impl Lanes {
    /// A message was not stored: rest, for twice as long as the last time in a row.
    pub(crate) fn failed(&mut self, destination: &Destination, partition: Partition, now: Instant) {
        let lane = (Arc::clone(destination), partition);
        let pause = self.pauses.entry(lane).or_insert(Pause { failures: 0, until: now });
        pause.until = now + PAUSE_MIN.saturating_mul(2_u32.saturating_pow(pause.failures)).min(PAUSE_MAX);
        pause.failures = pause.failures.saturating_add(1);
    }

    /// A message was stored.
    pub(crate) fn succeeded(&mut self, destination: &Destination, partition: Partition) {
        self.pauses.remove(&(Arc::clone(destination), partition));
    }

    /// Lanes that rest.
    pub(crate) fn resting(&self, now: Instant) -> impl Iterator<Item = (&str, Partition)> {
        let resting = self.pauses.iter().filter(move |(_, pause)| pause.until > now);
        resting.map(|((destination, partition), _)| (&**destination, *partition))
    }

    /// When the next rest ends, if one goes on.
    pub(crate) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.pauses.values().map(|pause| pause.until).filter(|until| *until > now).min()
    }

    /// A window is published from now on, and nothing else of its destination is read.
    pub(crate) fn took_off(&mut self, destination: &Destination, is_full: bool) {
        self.in_flight.insert(Arc::clone(destination), is_full);
    }

    /// Something was written, perhaps to a destination that is not read just now.
    pub(crate) fn written(&mut self) {
        self.in_flight.values_mut().for_each(|may_be_more| *may_be_more = true);
    }

    /// A window was published. Says whether there may be more for its destination.
    pub(crate) fn landed(&mut self, destination: &Destination) -> bool {
        self.in_flight.remove(destination).unwrap_or_default()
    }

    /// Destinations that are published to.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &str> {
        self.in_flight.keys().map(|destination| &**destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(name: &str) -> Destination {
        name.into()
    }

    #[test]
    fn rests_double_up_to_five_seconds_and_end_with_a_success() {
        let (mut lanes, mut now) = (Lanes::default(), Instant::now());
        let mail = destination("cmd.notify");
        let mut rests = Vec::new();
        for _ in 0..8 {
            lanes.failed(&mail, 3, now);
            let end = lanes.next_end(now).unwrap();
            assert_eq!(lanes.resting(now).collect::<Vec<_>>(), [("cmd.notify", 3)]);
            assert_eq!(lanes.resting(end).count(), 0);
            rests.push((end - now).as_millis());
            now = end;
        }
        assert_eq!(rests, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(lanes.next_end(now), None);

        lanes.succeeded(&mail, 3);
        lanes.failed(&mail, 3, now);
        assert_eq!(lanes.next_end(now), Some(now + PAUSE_MIN));
    }

    #[test]
    fn what_is_written_while_a_window_is_published_is_read_after_it() {
        let mut lanes = Lanes::default();
        let (mail, money) = (destination("cmd.notify"), destination("cmd.payments"));
        lanes.took_off(&mail, false);
        assert_eq!(lanes.in_flight().collect::<Vec<_>>(), ["cmd.notify"]);
        assert!(!lanes.landed(&mail), "whoever writes leaves a nudge, so nothing has to be read to find out");
        lanes.took_off(&mail, false);
        lanes.took_off(&money, true);
        assert!(lanes.landed(&money), "the window was full");
        lanes.written();
        assert!(lanes.landed(&mail));
        assert_eq!(lanes.in_flight().count(), 0);
    }
}
