//! How long a partition rests after a message of it was not stored.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::partition::Partition;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Partitions that rest. Told the time, so that it can be tested without waiting.
#[derive(Debug, Default)]
pub(crate) struct Pauses(HashMap<Partition, Pause>);

#[derive(Debug)]
struct Pause {
    failures: u32,
    until: Instant,
}

impl Pauses {
    /// A message was not stored: rest, for twice as long as the last time in a row.
    pub(crate) fn failed(&mut self, partition: Partition, now: Instant) {
        let pause = self.0.entry(partition).or_insert(Pause { failures: 0, until: now });
        pause.until = now + PAUSE_MIN.saturating_mul(2_u32.saturating_pow(pause.failures)).min(PAUSE_MAX);
        pause.failures = pause.failures.saturating_add(1);
    }

    /// A message was stored.
    pub(crate) fn succeeded(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    pub(crate) fn rests(&self, partition: Partition, now: Instant) -> bool {
        self.0.get(&partition).is_some_and(|pause| pause.until > now)
    }

    /// When the next rest ends, if one goes on.
    pub(crate) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|pause| pause.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_five_seconds_and_end_with_a_success() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        let mut rests = Vec::new();
        for _ in 0..8 {
            pauses.failed(3, now);
            let end = pauses.next_end(now).unwrap();
            assert!(pauses.rests(3, now) && !pauses.rests(3, end) && !pauses.rests(4, now));
            rests.push((end - now).as_millis());
            now = end;
        }
        assert_eq!(rests, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pauses.next_end(now), None);

        pauses.succeeded(3);
        pauses.failed(3, now);
        assert_eq!(pauses.next_end(now), Some(now + PAUSE_MIN));
    }
}
