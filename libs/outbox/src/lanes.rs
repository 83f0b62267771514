//! The state of a relay's lanes: which back off because a message was not stored, and which destinations have a window in
//! flight.
//!
//! A lane is a partition's messages to one destination. One that is refused backs off alone: a stream that is full or
//! missing holds back nothing that goes elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::partition::Partition;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where messages go: the first two words of their subject, such as `cmd.payments`.
pub(crate) type Destination = Arc<str>;

/// The time is a parameter, so that tests need not wait.
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
    /// A message was not stored: the lane backs off, for twice as long as the last time in a row.
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

    /// Lanes that back off.
    pub(crate) fn backing_off(&self, now: Instant) -> impl Iterator<Item = (&str, Partition)> {
        let paused = self.pauses.iter().filter(move |(_, pause)| pause.until > now);
        paused.map(|((destination, partition), _)| (&**destination, *partition))
    }

    /// When to read again because a pause ends. One that has ended counts until its lane is read, which is not while its
    /// destination has a window in flight.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        let waiting = self.pauses.iter().filter(|((to, _), _)| !self.in_flight.contains_key(to));
        waiting.map(|(_, pause)| pause.until).min()
    }

    /// Lanes were read at `now`. One whose pause had ended, and that has no rows, is empty: its pause is forgotten.
    pub(crate) fn read(&mut self, now: Instant, has_rows: impl Fn(&Destination, Partition) -> bool) {
        self.pauses.retain(|(to, partition), pause| {
            pause.until > now || self.in_flight.contains_key(to) || has_rows(to, *partition)
        });
    }

    /// A window is published from now on, and nothing else of its destination is read.
    pub(crate) fn started(&mut self, destination: &Destination, is_full: bool) {
        self.in_flight.insert(Arc::clone(destination), is_full);
    }

    /// Something was written, perhaps to a destination that is not read just now.
    pub(crate) fn written(&mut self) {
        self.in_flight.values_mut().for_each(|may_be_more| *may_be_more = true);
    }

    /// A window was published. Returns whether there may be more for its destination.
    pub(crate) fn finished(&mut self, destination: &Destination) -> bool {
        self.in_flight.remove(destination).unwrap_or_default()
    }

    /// Destinations with a window in flight.
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
    fn pauses_double_up_to_five_seconds_and_end_with_a_success() {
        let (mut lanes, mut now) = (Lanes::default(), Instant::now());
        let mail = destination("cmd.notify");
        let mut pauses = Vec::new();
        for _ in 0..8 {
            lanes.failed(&mail, 3, now);
            let end = lanes.next_end().unwrap();
            assert_eq!(lanes.backing_off(now).collect::<Vec<_>>(), [("cmd.notify", 3)]);
            assert_eq!(lanes.backing_off(end).count(), 0);
            pauses.push((end - now).as_millis());
            now = end;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);

        lanes.succeeded(&mail, 3);
        lanes.failed(&mail, 3, now);
        assert_eq!(lanes.next_end(), Some(now + PAUSE_MIN));
    }

    #[test]
    fn a_pause_that_ends_while_a_window_is_in_flight_is_not_missed_and_an_empty_lane_has_none() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let mail = destination("cmd.notify");
        lanes.failed(&mail, 3, now);
        lanes.started(&mail, false);
        assert_eq!(lanes.next_end(), None, "it is not read now");
        let end = now + PAUSE_MIN;
        lanes.read(end, |_, _| false);
        assert!(!lanes.finished(&mail));
        assert_eq!(lanes.next_end(), Some(end), "it has not been read since");
        lanes.read(end, |to, partition| **to == *"cmd.notify" && partition == 3);
        assert_eq!(lanes.next_end(), Some(end), "it has rows");
        lanes.read(end, |_, _| false);
        assert_eq!(lanes.next_end(), None);
    }

    #[test]
    fn what_is_written_while_a_window_is_published_is_read_after_it() {
        let mut lanes = Lanes::default();
        let (mail, money) = (destination("cmd.notify"), destination("cmd.payments"));
        lanes.started(&mail, false);
        assert_eq!(lanes.in_flight().collect::<Vec<_>>(), ["cmd.notify"]);
        assert!(!lanes.finished(&mail), "a writer nudges the relay, so nothing has to be read to find out");
        lanes.started(&mail, false);
        lanes.started(&money, true);
        assert!(lanes.finished(&money), "the window was full");
        lanes.written();
        assert!(lanes.finished(&mail));
        assert_eq!(lanes.in_flight().count(), 0);
    }
}
